package requestforge

// What the pipeline uses of the fetchers, for their own tests.

var (
	Transient = transient
	Ambiguous = ambiguous
)

func Validate(t *Token) error { return t.validate() }

// Checker is what NewPipeline asks of a fetcher.
type Checker interface {
	check() error
	parents() []string
}

func Check(c Checker) error      { return c.check() }
func Parents(c Checker) []string { return c.parents() }

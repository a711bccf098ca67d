package requestforge

import (
	"maps"
	"slices"
)

// What the pipeline uses of the fetchers, for their own tests.

var (
	Transient = transient
	Ambiguous = ambiguous
)

func Validate(t *Token) error { return t.validate() }

// Checker is what NewPipeline asks of a fetcher.
type Checker interface {
	Validate() error
	parents(known func(string) bool) []string
}

func Check(c Checker) error      { return c.Validate() }
func Parents(c Checker) []string { return c.parents(func(string) bool { return false }) }

// StorageKeys returns the keys of p's steps, in the order of the graph.
func StorageKeys(p *Pipeline) []string { return keysOf(p.graph.steps) }

// SubjectKey is what the storage keys of a subject end with.
func SubjectKey(id string) string { return keyOf(id).suffix() }

// SubjectName is what stands for a subject in memory.
func SubjectName(id string) string { return nameOf(id) }

// StoredKeys are the keys that m holds.
func StoredKeys(m *MemoryStorage) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.entries))
}

// OwnKeys are the keys in the storage that p has for itself.
func OwnKeys(p *Pipeline) []string { return StoredKeys(p.subjects.own) }

// Remembered is how many dropped subjects p remembers the trouble of.
func Remembered(p *Pipeline) int {
	p.subjects.mu.Lock()
	defer p.subjects.mu.Unlock()
	return len(p.subjects.past)
}

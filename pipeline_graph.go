// A login as a program describes it, and the graph that it becomes: checked,
// sorted, linked, and never changed again. What a process knows of the steps'
// tokens is pipeline_ledger.go's.

package requestforge

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// Step is one call of a login.
type Step struct {
	// Name identifies the step in DependsOn, in errors, in logs and, with
	// PipelineConfig.KeyPrefix, in the storage. Required, unique.
	Name string

	// DependsOn names the steps whose tokens this one's fetch uses. They
	// arrive in Input.Parents.
	DependsOn []string

	// TTL bounds a token's life from the moment it was fetched. The
	// earlier of TTL and the token's own Expiry wins. Zero means no bound.
	TTL time.Duration

	// Fetcher gets a token from scratch. Required.
	Fetcher Fetcher

	// Refresh, if set, gets the next token while the previous one holds a
	// refresh token, which it finds in Input.Previous. If the auth server
	// answers with any 4xx but 408 and 429, or it stays open whether it
	// was reached, Fetcher is asked instead.
	// It needs a Storage that is a Locker, because a refresh token that is
	// used twice can cost the login.
	Refresh Fetcher

	// OnError is told each error of a fetch of this step, after the tries
	// within it are used up. It is part of the fetch: everyone who waits
	// for the token waits for it, too. A panic in it is ignored.
	OnError func(ctx context.Context, err error)

	// OnRotate is told a token whose refresh token is not the one before,
	// after it was saved and before anybody gets it, so that an
	// application can keep the refresh token itself. It runs like OnError.
	OnRotate func(ctx context.Context, tok *Token)
}

// PipelineConfig describes a Pipeline. The zero value of each field but Steps
// is a sensible choice.
type PipelineConfig struct {
	// Steps are the calls of the login, in any order. Exactly one of them,
	// the leaf, is nobody's parent: its token goes on requests.
	Steps []Step

	// Storage keeps the tokens. Nil means a MemoryStorage of its own.
	Storage Storage

	// KeyPrefix separates the pipelines that share a Storage: the key of a
	// step is KeyPrefix, a colon and the step's name. "" means
	// "requestforge". Two pipelines with one prefix share their tokens.
	KeyPrefix string

	// RefreshFrom names the step that a refusal of an accepted token takes
	// the blame to: it and all that was made from it are fetched again.
	// "" means the leaf alone.
	RefreshFrom string

	// FetchTimeout bounds one fetch of one step with all its tries,
	// whoever asked for it; a fetcher that is deaf to its context is left
	// behind. Zero means 30 s; negative means no bound, so a silent auth
	// server can hold every waiter until its own context ends.
	FetchTimeout time.Duration

	// FetchRetries is how often one fetch is tried again after a network
	// error, 408, 429, 5xx or an HTML page. Any other answer is final: a
	// wrong password is sent once. Zero means 2; negative means never.
	FetchRetries int

	// StorageTimeout bounds each call of Storage. Zero means 250 ms.
	StorageTimeout time.Duration

	// CoolDown is how long the first failure of a step is remembered:
	// until then everyone who asks gets it at once. It doubles with each
	// failure in a row up to MaxCoolDown, where permanent failures are
	// from the start. A Retry-After can make it longer, up to 5 min.
	// Zero means 1 s, and 30 s.
	CoolDown, MaxCoolDown time.Duration

	// RefreshAhead is the most by which a leaf token is renewed in the
	// background before it expires; never more than half its life. Zero
	// means 5 min; negative means never.
	RefreshAhead time.Duration

	// Logger is told of fetches, invalidations, failures and storage
	// outages. No secret is ever in a record. Nil means no logging.
	Logger *slog.Logger
}

// withDefaults returns c with the default of each field that is unset, and
// reports the mistakes in the others to bad.
func (c PipelineConfig) withDefaults(bad func(string, ...any)) PipelineConfig {
	c.Steps = slices.Clone(c.Steps)
	c.KeyPrefix = cmp.Or(c.KeyPrefix, "requestforge")
	c.FetchRetries = cmp.Or(c.FetchRetries, 2)
	for _, d := range []struct {
		name     string
		value    *time.Duration
		unset    time.Duration
		negative bool // a negative value has a meaning
	}{
		{"FetchTimeout", &c.FetchTimeout, 30 * time.Second, true},
		{"StorageTimeout", &c.StorageTimeout, 250 * time.Millisecond, false},
		{"CoolDown", &c.CoolDown, time.Second, false},
		{"MaxCoolDown", &c.MaxCoolDown, max(30*time.Second, c.CoolDown), false},
		{"RefreshAhead", &c.RefreshAhead, 5 * time.Minute, true},
	} {
		*d.value = cmp.Or(*d.value, d.unset)
		if *d.value < 0 && !d.negative {
			bad("PipelineConfig.%s is negative (%v); use 0 for the default of %v", d.name, *d.value, d.unset)
		}
	}
	if c.MaxCoolDown < c.CoolDown {
		bad("PipelineConfig.MaxCoolDown (%v) is below CoolDown (%v)", c.MaxCoolDown, c.CoolDown)
	}
	return c
}

// graph is the steps of a pipeline and how they depend on each other.
// Immutable.
type graph struct {
	steps []*step // in topological order, parents first
	leaf  *step   // nobody's parent: its token goes on requests
	from  *step   // where the blame for a refused leaf begins
}

// step is a Step in its graph. Immutable, but for what is derived once.
type step struct {
	Step
	index     int     // in graph.steps
	key       string  // in the storage
	parents   []*step // as DependsOn has them
	ancestors []*step // each once, in topological order
	// levels are the ancestors by their distance, the step itself first.
	levels [][]*step

	printOnce sync.Once
	print     string // see fingerprint
}

// newGraph links the steps of cfg and reports what is wrong with them to bad.
// It returns nil if they make no graph.
func newGraph(cfg *PipelineConfig, bad func(string, ...any)) *graph {
	if len(cfg.Steps) == 0 {
		bad("PipelineConfig.Steps is empty; a pipeline needs at least one step")
		return nil
	}
	all, byName := namedSteps(cfg, bad)
	isParent := linkParents(all, byName, bad)
	g := &graph{from: byName[cfg.RefreshFrom]}
	if g.from == nil && cfg.RefreshFrom != "" {
		bad("PipelineConfig.RefreshFrom names %q, which is no step of this pipeline", cfg.RefreshFrom)
	}
	if !g.sort(all, bad) {
		return nil
	}
	var leaves []string
	for i, s := range g.steps {
		s.index = i
		s.linkAncestors()
		if !isParent[s] {
			leaves = append(leaves, fmt.Sprintf("%q", s.Name))
			g.leaf = s
		}
	}
	if len(leaves) > 1 && len(byName) == len(all) { // else the names are to blame
		bad("steps %s are nobody's parents; a pipeline has one such step, whose token goes on requests", strings.Join(leaves, " and "))
	}
	if g.from == nil {
		g.from = g.leaf
	}
	return g
}

// namedSteps makes a step of each Step, and checks each by itself.
func namedSteps(cfg *PipelineConfig, bad func(string, ...any)) (all []*step, byName map[string]*step) {
	byName = make(map[string]*step, len(cfg.Steps))
	for i, c := range cfg.Steps {
		c.DependsOn = slices.Clone(c.DependsOn)
		s := &step{Step: c, key: storageKey(cfg.KeyPrefix, c.Name)}
		all = append(all, s)
		switch {
		case c.Name == "":
			bad("Steps[%d] has no Name", i)
		case byName[c.Name] != nil:
			bad("two steps are named %q; names are unique", c.Name)
		default:
			byName[c.Name] = s
		}
		c.check(cfg.Storage, bad)
	}
	return all, byName
}

// check reports the mistakes of a step that show without its neighbours.
func (c *Step) check(storage Storage, bad func(string, ...any)) {
	if c.TTL < 0 {
		bad("step %q: TTL is negative (%v); use 0 for no bound", c.Name, c.TTL)
	}
	if c.Fetcher == nil || mistake.IsNil(c.Fetcher) {
		bad("step %q has no Fetcher", c.Name)
	} else {
		c.checkFetcher("Fetcher", c.Fetcher, bad)
	}
	if c.Refresh == nil {
		return
	}
	if mistake.IsNil(c.Refresh) {
		bad("step %q: Refresh is a nil %T", c.Name, c.Refresh)
	} else {
		c.checkFetcher("Refresh", c.Refresh, bad)
	}
	if _, locks := unwrap.Find[Locker](storage); !locks {
		bad("step %q has a Refresh, which needs a Storage that is a Locker, so that no two processes spend one refresh token; %T isn't", c.Name, storage)
	}
}

// checkFetcher asks a fetcher for its mistakes, and a fetcher of this package
// for the steps whose tokens it wants.
func (c *Step) checkFetcher(field string, f Fetcher, bad func(string, ...any)) {
	if f, ok := f.(interface{ check() error }); ok {
		if err := f.check(); err != nil {
			bad("step %q: %s: %w", c.Name, field, err)
		}
	}
	if f, ok := f.(interface{ Validate() error }); ok {
		if err := f.Validate(); err != nil {
			bad("step %q: %s: %w", c.Name, field, redact.Inner(err))
		}
	}
	if f, ok := f.(interface{ parents() []string }); ok {
		for _, name := range f.parents() {
			if !slices.Contains(c.DependsOn, name) {
				bad("step %q: %s.HeaderFrom wants the token of %q, which is not in DependsOn", c.Name, field, name)
			}
		}
	}
}

// linkParents resolves DependsOn, and returns the steps that are parents.
func linkParents(all []*step, byName map[string]*step, bad func(string, ...any)) map[*step]bool {
	isParent := make(map[*step]bool, len(all))
	for _, s := range all {
		for i, name := range s.DependsOn {
			parent := byName[name]
			switch {
			case parent == nil:
				bad("step %q depends on %q, which is no step of this pipeline", s.Name, name)
			case slices.Contains(s.DependsOn[:i], name):
				bad("step %q depends on %q twice", s.Name, name)
			default:
				s.parents = append(s.parents, parent)
				isParent[parent] = true
			}
		}
	}
	return isParent
}

// sort fills g.steps with all in topological order. It reports a cycle and
// then returns false.
func (g *graph) sort(all []*step, bad func(string, ...any)) bool {
	const visiting, done = 1, 2
	mark := make(map[*step]int, len(all))
	var path []string
	var visit func(s *step) bool
	visit = func(s *step) bool {
		path = append(path, fmt.Sprintf("%q", s.Name))
		switch mark[s] {
		case visiting:
			first := slices.Index(path, path[len(path)-1])
			bad("steps depend on each other in a cycle: %s", strings.Join(path[first:], " -> "))
			return false
		case done:
			path = path[:len(path)-1]
			return true
		}
		mark[s] = visiting
		for _, parent := range s.parents {
			if !visit(parent) {
				return false
			}
		}
		mark[s] = done
		path = path[:len(path)-1]
		g.steps = append(g.steps, s)
		return true
	}
	for _, s := range all {
		if !visit(s) {
			return false
		}
	}
	return true
}

// linkAncestors derives the ancestors of a step, whose indexes are known by now,
// and their levels.
func (s *step) linkAncestors() {
	s.levels = [][]*step{{s}}
	seen := map[*step]bool{s: true}
	for level := s.levels[0]; len(level) > 0; {
		var next []*step
		for _, l := range level {
			for _, parent := range l.parents {
				if !seen[parent] {
					seen[parent] = true
					next = append(next, parent)
					s.ancestors = append(s.ancestors, parent)
				}
			}
		}
		if level = next; len(level) > 0 {
			s.levels = append(s.levels, level)
		}
	}
	slices.SortFunc(s.ancestors, func(a, b *step) int { return a.index - b.index })
}

// storageKey is the key of a step. The name is escaped so that the last colon
// always ends the prefix.
func storageKey(prefix, name string) string {
	return prefix + ":" + url.QueryEscape(name)
}

// step returns the step of a name, or nil.
func (g *graph) step(name string) *step {
	i := slices.IndexFunc(g.steps, func(s *step) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return g.steps[i]
}

// blamed returns the step that the refusal of a token of s blames first.
func (g *graph) blamed(s *step) *step {
	if s == g.leaf {
		return g.from
	}
	return s
}

// keys are those of all steps in the storage.
func (g *graph) keys() []string {
	keys := make([]string, len(g.steps))
	for i, s := range g.steps {
		keys[i] = s.key
	}
	return keys
}

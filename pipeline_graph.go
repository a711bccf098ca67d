// The graph of a configuration: checked, sorted and linked. What happens on it
// is pipeline.go's.

package requestforge

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// graph builds p's steps from its config and reports what is wrong to bad.
func (p *Pipeline) graph(bad func(string, ...any)) {
	cfg := &p.cfg
	if len(cfg.Steps) == 0 {
		bad("PipelineConfig.Steps is empty; a pipeline needs at least one step")
		return
	}
	_, locks := cfg.Storage.(Locker)
	byName := make(map[string]*step, len(cfg.Steps))
	all := make([]*step, len(cfg.Steps))
	for i, c := range cfg.Steps {
		c.DependsOn = slices.Clone(c.DependsOn)
		s := &step{Step: c, key: storageKey(cfg.KeyPrefix, c.Name)}
		all[i] = s
		if c.Name == "" {
			bad("Steps[%d] has no Name", i)
		} else if byName[c.Name] != nil {
			bad("two steps are named %q; names are unique", c.Name)
		} else {
			byName[c.Name] = s
		}
		if c.TTL < 0 {
			bad("step %q: TTL is negative (%v); use 0 for no bound", c.Name, c.TTL)
		}
		if c.Fetcher == nil || isNilPointer(c.Fetcher) {
			bad("step %q has no Fetcher", c.Name)
		} else {
			checkFetcher(c, "Fetcher", c.Fetcher, bad)
		}
		if c.Refresh != nil {
			if isNilPointer(c.Refresh) {
				bad("step %q: Refresh is a nil %T", c.Name, c.Refresh)
			} else {
				checkFetcher(c, "Refresh", c.Refresh, bad)
			}
			if !locks {
				bad("step %q has a Refresh, which needs a Storage that is a Locker, so that no two processes spend one refresh token; %T isn't", c.Name, cfg.Storage)
			}
		}
	}
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
	p.from = byName[cfg.RefreshFrom]
	if p.from == nil && cfg.RefreshFrom != "" {
		bad("PipelineConfig.RefreshFrom names %q, which is no step of this pipeline", cfg.RefreshFrom)
	}
	if !p.sort(all, bad) {
		return
	}
	var leaves []string
	for _, s := range p.steps {
		if !isParent[s] {
			leaves = append(leaves, fmt.Sprintf("%q", s.Name))
			p.leaf = s
		}
	}
	if len(leaves) > 1 && len(byName) == len(all) { // else the names are to blame
		bad("steps %s are nobody's parents; a pipeline has one such step, whose token goes on requests", strings.Join(leaves, " and "))
	}
	for i, s := range p.steps {
		s.index = i
		s.link()
	}
	if p.from == nil {
		p.from = p.leaf
	}
}

// sort fills p.steps with all in topological order. It reports a cycle and
// then returns false.
func (p *Pipeline) sort(all []*step, bad func(string, ...any)) bool {
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
		p.steps = append(p.steps, s)
		return true
	}
	for _, s := range all {
		if !visit(s) {
			return false
		}
	}
	return true
}

// link derives what a step needs from its parents, which are linked already.
func (s *step) link() {
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
	s.keys = []string{s.key}
	for _, a := range s.ancestors {
		s.keys = append(s.keys, a.key)
	}
}

// storageKey is the key of a step. The name is escaped so that the last colon
// always ends the prefix.
func storageKey(prefix, name string) string {
	return prefix + ":" + url.QueryEscape(name)
}

// checkFetcher asks a fetcher for its mistakes, and one of ours for the steps
// whose tokens it wants.
func checkFetcher(c Step, field string, f Fetcher, bad func(string, ...any)) {
	if f, ok := f.(interface{ check() error }); ok {
		if err := f.check(); err != nil {
			bad("step %q: %s: %w", c.Name, field, err)
		}
	}
	if f, ok := f.(interface{ Validate() error }); ok {
		if err := f.Validate(); err != nil {
			bad("step %q: %s: %w", c.Name, field, err)
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

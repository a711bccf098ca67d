// The graph of a login: checked, sorted, linked, and never changed again.
// pipeline_config.go has the description, and pipeline_ledger.go the knowledge about
// tokens.

package requestforge

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// graph is the steps of a pipeline and their dependencies. Immutable.
type graph struct {
	steps  []*step // steps with a fetch: the shared steps, then the steps of each subject, both in topological order
	shared int     // number of shared steps
	given  []*step // steps whose tokens arrive with the request
	leaf   *step   // the step of Token; nil: noLeaf says why
	noLeaf error
	from   *step // the first step to blame for its tokens' descendants; nil: no such step

	cookies bool // tokens may have cookies of their own

	coolDown, maxCoolDown time.Duration // as in PipelineConfig
}

// step is a Step in its graph. Immutable, except for fields derived once.
type step struct {
	Step
	index      int     // in graph.steps; -1: a given step
	place      int     // among the steps of its ledger
	perSubject bool    // the tokens are each subject's own
	key        string  // in the storage, without a subject
	parent     bool    // another step depends on the step
	parents    []*step // as DependsOn has them
	ancestors  []*step // each once, in the order of graph.steps; without given steps
	givens     []*step // the given ancestors
	// levels are the ancestors, without given steps, by their distance, beginning with the
	// step.
	levels [][]*step

	// answering is the step that answers challenges to a token of the step: the nearest
	// step with AnswersChallenges, among the step and its ancestors, with tokens of the
	// same subject. nil: no such step.
	answering *step

	tended []*step // ancestors with an IdleLimit that Refresh can renew

	timeout  time.Duration // of a fetch; not above 0: no bound
	identity string        // see Identifier; "": unknown
	cookies  bool          // a descendant needs the step's cookies
	print    print         // see fingerprint

	secrets, refreshSecrets *secrets // the changing secrets of Fetcher and of Refresh
}

// newGraph links the steps of cfg and reports mistakes to bad. It returns nil if the steps
// make no graph.
func newGraph(cfg *PipelineConfig, bad func(string, ...any)) *graph {
	if len(cfg.Steps) == 0 {
		bad("PipelineConfig.Steps is empty; a pipeline needs at least one step")
		return nil
	}
	all, byName := namedSteps(cfg, bad)
	checkIdentity(cfg, all, bad)
	linkParents(all, byName, bad)
	g := &graph{from: byName[cfg.RefreshFrom], leaf: byName[cfg.Leaf], coolDown: cfg.CoolDown, maxCoolDown: cfg.MaxCoolDown}
	switch {
	case cfg.RefreshFrom == "":
	case g.from == nil:
		bad("PipelineConfig.RefreshFrom names %q, which is no step of this pipeline", cfg.RefreshFrom)
	case g.from.Given != nil:
		bad("PipelineConfig.RefreshFrom names %q, whose token is given: there is no other one to fetch", cfg.RefreshFrom)
	}
	if g.leaf == nil && cfg.Leaf != "" {
		bad("PipelineConfig.Leaf names %q, which is no step of this pipeline", cfg.Leaf)
	}
	if !g.sort(all, bad) {
		return nil
	}
	g.divide()
	checkSubject(cfg, g, bad)
	checkJars(g, bad)
	for i, s := range g.steps {
		s.index, s.place = i, i
		if s.perSubject {
			s.place -= g.shared
		}
	}
	for _, s := range g.steps {
		s.linkAncestors()
	}
	g.linkCookies(bad)
	for _, s := range slices.Concat(g.given, g.steps) {
		s.key = storageKey(cmp.Or(cfg.KeyPrefix, "requestforge"), s.Name, s.identity, s.cookies || s.keepsCookies(), keysOf(s.parents))
	}
	if g.leaf == nil {
		g.findLeaf()
	}
	return g
}

// divide puts the shared steps first, then the steps of each subject, and sets given steps
// apart. No shared step depends on another kind, so the order stays topological.
func (g *graph) divide() {
	var shared, own []*step
	for _, s := range g.steps {
		s.perSubject = s.PerSubject || s.Given != nil || slices.ContainsFunc(s.parents, func(p *step) bool { return p.perSubject })
		switch {
		case s.Given != nil:
			s.index = -1
			g.given = append(g.given, s)
		case s.perSubject:
			own = append(own, s)
		default:
			shared = append(shared, s)
		}
	}
	g.steps, g.shared = append(shared, own...), len(shared)
}

// linkCookies marks the steps whose cookies a later step needs.
func (g *graph) linkCookies(bad func(string, ...any)) {
	for _, s := range g.steps {
		if !s.keepsCookies() {
			continue
		}
		g.cookies = true
		for _, a := range s.ancestors {
			if !a.cookies && (hasJar(a.Fetcher) || hasJar(a.Refresh)) {
				bad("step %q: Client.Jar keeps the cookies that step %q, which has Cookies, needs; leave the Jar out", a.Name, s.Name)
			}
			a.cookies = true
		}
	}
}

// findLeaf sets the leaf to the only step without dependents, or sets noLeaf.
func (g *graph) findLeaf() {
	var names []string
	for _, s := range g.steps {
		if !s.parent {
			names = append(names, strconv.Quote(s.Name))
			g.leaf = s
		}
	}
	if len(names) > 1 {
		g.leaf = nil
		g.noLeaf = mistake.Final(fmt.Errorf("requestforge: the pipeline has %d steps that are nobody's parents, %s: name the one to use in PipelineConfig.Leaf, or take Pipeline.Source of one", len(names), strings.Join(names, " and ")))
	}
}

// namedSteps makes a step of each Step, and checks each by itself.
func namedSteps(cfg *PipelineConfig, bad func(string, ...any)) (all []*step, byName map[string]*step) {
	byName = make(map[string]*step, len(cfg.Steps))
	for i, c := range cfg.Steps {
		c.DependsOn = slices.Clone(c.DependsOn)
		s := &step{Step: c, timeout: cmp.Or(c.Timeout, cfg.FetchTimeout), identity: identityOf(c.Identity, c.Fetcher)}
		s.secrets, s.refreshSecrets = secretsOf(c.Fetcher), secretsOf(c.Refresh)
		all = append(all, s)
		switch {
		case c.Name == "":
			bad("Steps[%d] has no Name", i)
		case byName[c.Name] != nil:
			bad("two steps are named %q; names are unique", c.Name)
		default:
			byName[c.Name] = s
		}
		c.check(cfg, bad)
	}
	return all, byName
}

// check reports the mistakes of a step that don't involve its neighbours.
func (c *Step) check(cfg *PipelineConfig, bad func(string, ...any)) {
	if c.TTL < 0 {
		bad("step %q: TTL is negative (%v); use 0 for no bound", c.Name, c.TTL)
	}
	if c.ExpireEarly < 0 {
		bad("step %q: ExpireEarly is negative (%v); use 0 for the time that the auth server says", c.Name, c.ExpireEarly)
	}
	if c.IdleLimit < 0 {
		bad("step %q: IdleLimit is negative (%v); use 0 for no limit", c.Name, c.IdleLimit)
	}
	if c.Given != nil {
		c.checkGiven(bad)
		return
	}
	if c.Fetcher == nil || mistake.IsNil(c.Fetcher) {
		bad("step %q has no Fetcher", c.Name)
	} else {
		c.checkFetcher("Fetcher", c.Fetcher, cfg.Steps, bad)
	}
	if c.Refresh == nil {
		return
	}
	if mistake.IsNil(c.Refresh) {
		bad("step %q: Refresh is a nil %T", c.Name, c.Refresh)
	} else {
		c.checkFetcher("Refresh", c.Refresh, cfg.Steps, bad)
	}
	if _, locks := unwrap.Find[Locker](cfg.Storage); !locks {
		bad("step %q has a Refresh, which needs a Storage that is a Locker, so that no two processes spend one refresh token; %T isn't", c.Name, cfg.Storage)
	}
}

// checkFetcher reports the mistakes of a fetcher and of all wrapped fetchers; fetchers of
// this package also check the steps whose tokens they use. A mistake reported by two links
// of a chain, as with embedding, is reported once.
func (c *Step) checkFetcher(field string, f Fetcher, steps []Step, bad func(string, ...any)) {
	said := ""
	for f := range unwrap.All[interface{ Validate() error }](f) {
		err := f.Validate()
		if err == nil || strings.Contains(said, err.Error()) {
			continue
		}
		said += err.Error() + "\n"
		bad("step %q: %s: %w", c.Name, field, redact.Inner(err))
	}
	parent := func(step string) bool { return slices.Contains(c.DependsOn, step) }
	known := func(step string) bool { // a name that no parent has may be another step's
		return parent(step) || slices.ContainsFunc(steps, func(s Step) bool { return s.Name == step })
	}
	var wanted []string
	for f := range unwrap.All[interface {
		parents(known func(step string) bool) []string
	}](f) {
		wanted = append(wanted, f.parents(known)...)
	}
	slices.Sort(wanted)
	for _, name := range slices.Compact(wanted) {
		if !parent(name) {
			bad("step %q: %s.HeaderFrom wants the token of %q, which is not in DependsOn", c.Name, field, name)
		}
	}
}

// checkIdentity reports missing fields of steps and pipeline that a shared storage needs.
func checkIdentity(cfg *PipelineConfig, steps []*step, bad func(string, ...any)) {
	if !inManyProcesses(cfg.Storage) {
		return
	}
	if cfg.KeyPrefix == "" {
		bad("PipelineConfig.KeyPrefix is empty, but others may use the Storage (%T), too; set a prefix of this program's own", cfg.Storage)
	}
	for _, s := range steps {
		if s.identity == "" && s.Fetcher != nil && s.Given == nil {
			bad("step %q can't say who it logs in as, which tokens in a Storage (%T) need; set Step.Identity to the client, user, scope and audience, without a secret", s.Name, cfg.Storage)
		}
	}
}

// fingerprint is the print of the step's configuration, with changing secrets as they
// were when they were read.
func (s *step) fingerprint(ctx context.Context, secrets sum) (string, error) {
	return s.print.of(ctx, secrets, fmt.Appendf(nil, "%q %q %v %v %q\n", s.Name, s.DependsOn, s.TTL, s.ExpireEarly, s.identity), s.Fetcher, s.Refresh)
}

// linkParents resolves DependsOn, and marks the parents.
func linkParents(all []*step, byName map[string]*step, bad func(string, ...any)) {
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
				parent.parent = true
			}
		}
	}
}

// sort fills g.steps with all steps in topological order. After reporting a cycle, sort
// returns false.
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

// linkAncestors derives the ancestors of a step, whose indexes are known by now, and their
// levels.
func (s *step) linkAncestors() {
	s.levels = [][]*step{{s}}
	seen := map[*step]bool{s: true}
	for level := s.levels[0]; len(level) > 0; {
		var next []*step
		for _, l := range level {
			for _, parent := range l.parents {
				switch {
				case seen[parent]:
				case parent.Given != nil:
					s.givens = append(s.givens, parent)
				default:
					next = append(next, parent)
					s.ancestors = append(s.ancestors, parent)
				}
				seen[parent] = true
			}
		}
		if level = next; len(level) > 0 {
			s.levels = append(s.levels, level)
		}
	}
	for _, l := range slices.Concat(s.levels...) {
		if l.AnswersChallenges && l.perSubject == s.perSubject {
			s.answering = l
			break
		}
	}
	slices.SortFunc(s.ancestors, func(a, b *step) int { return a.index - b.index })
	for _, a := range s.ancestors {
		if a.IdleLimit > 0 && a.Refresh != nil {
			s.tended = append(s.tended, a)
		}
	}
}

// keepsCookies reports whether a fetcher of the step makes the cookies of the login the
// token's.
func (s *step) keepsCookies() bool { return keepsCookies(s.Fetcher) || keepsCookies(s.Refresh) }

// keepsCookies reports whether a fetcher, or a wrapped fetcher, keeps the login's cookies
// with the token.
func keepsCookies(f Fetcher) bool {
	c, ok := unwrap.Find[interface{ keepsCookies() bool }](f)
	return ok && c.keepsCookies()
}

// hasJar reports whether a fetcher, or a wrapped fetcher, keeps cookies elsewhere.
func hasJar(f Fetcher) bool {
	c, ok := unwrap.Find[interface{ hasJar() bool }](f)
	return ok && c.hasJar()
}

// patience is how long a peer may take to fetch a token of s, an ancestor of each level
// included; 0: there is no bound.
func (s *step) patience() time.Duration {
	var sum time.Duration
	for _, level := range s.levels {
		longest := level[0].timeout
		for _, l := range level {
			if l.timeout <= 0 {
				return 0
			}
			longest = max(longest, l.timeout)
		}
		if sum += longest; sum < 0 { // beyond 292 years
			return 0
		}
	}
	return sum + s.timeout
}

// step returns the step of a name, or nil.
func (g *graph) step(name string) *step {
	for _, steps := range [][]*step{g.steps, g.given} {
		if i := slices.IndexFunc(steps, func(s *step) bool { return s.Name == name }); i >= 0 {
			return steps[i]
		}
	}
	return nil
}

// blamed returns the first step to blame for the refusal of a token of s.
func (g *graph) blamed(s *step) *step {
	if slices.Contains(s.ancestors, g.from) {
		return g.from
	}
	return s
}

// keysOf returns the keys of steps in the storage.
func keysOf(steps []*step) []string {
	keys := make([]string, len(steps))
	for i, s := range steps {
		keys[i] = s.key
	}
	return keys
}

// checkGiven reports fields of a step that have no meaning with Given.
func (c *Step) checkGiven(bad func(string, ...any)) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"Fetcher", c.Fetcher != nil}, {"Refresh", c.Refresh != nil}, {"DependsOn", len(c.DependsOn) > 0}, {"Identity", c.Identity != ""},
		{"TTL", c.TTL != 0}, {"ExpireEarly", c.ExpireEarly != 0}, {"Timeout", c.Timeout != 0}, {"Revoke", c.Revoke != nil}, {"IdleLimit", c.IdleLimit != 0}, {"OnError", c.OnError != nil}, {"OnRotate", c.OnRotate != nil},
		{"AnswersChallenges", c.AnswersChallenges},
	} {
		if f.set {
			bad("step %q has both Given and %s; a given token arrives with the request, and is neither fetched nor renewed", c.Name, f.name)
		}
	}
}

// checkJars reports jars shared by all subjects.
func checkJars(g *graph, bad func(string, ...any)) {
	for _, s := range g.steps[g.shared:] {
		if hasJar(s.Fetcher) || hasJar(s.Refresh) {
			bad("step %q: Client.Jar keeps the cookies of all subjects together, so that an auth server may take one for another; leave the Jar out, and set Cookies if the login needs them", s.Name)
		}
	}
}

// checkSubject reports fields for subjects in a pipeline without subjects, and vice versa.
func checkSubject(cfg *PipelineConfig, g *graph, bad func(string, ...any)) {
	switch own := len(g.given) + len(g.steps) - g.shared; {
	case cfg.Subject == nil && own > 0:
		for _, s := range slices.Concat(g.given, g.steps) {
			if s.Given != nil || s.PerSubject {
				bad("step %q has a token for each subject, but PipelineConfig.Subject is not set; it says whose token a context wants", s.Name)
			}
		}
	case cfg.Subject != nil && own == 0:
		bad("PipelineConfig.Subject is set, but all steps are shared; set PerSubject of those whose tokens are a subject's own, or Given")
	case len(g.steps) == 0:
		bad("every token is given; a pipeline needs a step that fetches one")
	}
	if cfg.MaxSubjects < 0 {
		bad("PipelineConfig.MaxSubjects is negative (%d); use 0 for the default of %d", cfg.MaxSubjects, defaultSubjects)
	}
	if cfg.Subject == nil {
		for _, f := range []struct {
			name string
			set  bool
		}{{"MaxSubjects", cfg.MaxSubjects > 0}, {"Carry", cfg.Carry != nil}, {"SubjectLabel", cfg.SubjectLabel != nil}} {
			if f.set {
				bad("PipelineConfig.%s is set without Subject, and has no meaning then", f.name)
			}
		}
	}
}

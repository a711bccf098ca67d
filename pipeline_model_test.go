// The pipeline against a model of its one idea, written from the words in
// Pipeline's doc comment: stamps, lineage, low-water marks. Two pipelines, as
// if in two processes, share a storage in which everything goes wrong.

package requestforge_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	rf "github.com/requestforge/requestforge"
)

// modelParents is the graph: two paths meet in root.
var modelParents = map[string][]string{"root": nil, "a": {"root"}, "b": {"root"}, "leaf": {"a", "b"}}

var modelLives = map[string]time.Duration{"root": 100 * time.Second, "a": 3 * time.Minute, "b": 5 * time.Minute, "leaf": 10 * time.Minute}

var modelSteps = slices.Sorted(maps.Keys(modelParents))

// modelToken is a token as a process knows it.
type modelToken struct {
	step    string
	stamp   uint64
	lineage map[string]uint64 // stamps of its ancestors
	expiry  time.Time
	with    marks // known for certain when the token became known
}

// marks are stamps by step.
type marks map[string]uint64

// and returns the higher ones of m and others.
func (m marks) and(others ...marks) marks {
	all := maps.Clone(m)
	for _, o := range others {
		for s, stamp := range o {
			all[s] = max(all[s], stamp)
		}
	}
	return all
}

// model is what one process knows by the rules, from what it did and from
// what its storage told it.
//
// A process has two goroutines and timers, and several of them may run at one
// instant of the bubble. What the storage tells one of them the model knows
// before the pipeline does, and another one may be handed a token in between. So
// a token is held only to what its process knew for certain: what was known
// before this instant, what came with the token, and what the goroutine itself
// did before it asked.
type model struct {
	w    *world
	name string

	// All guarded by w.mu.
	marks   marks                   // all that is known
	top     marks                   // the highest stamp or mark ever heard of
	instant time.Time               // of the last change of marks and top
	before  marks                   // marks before that instant
	topThen marks                   // top before that instant
	newerAt time.Time               // when newer was set last
	changes int                     // calls that may change what is live: begun
	ended   int                     // and ended
	tokens  map[string][]modelToken // by access token; one that was saved with its answer lost can have two stamps
	good    map[*rf.Token]bool      // that a server has accepted
	last    *rf.Token               // handed out last
	newer   bool                    // a leaf above last was heard of
	fail    map[string]func() bool  // faults of the storage, by operation
}

// world is what the processes share, and the first thing that went wrong.
type world struct {
	mu      sync.Mutex
	n       map[string]int      // tokens made, by step
	made    map[string][]string // by access token: those it was made from
	fetches int
	steps   int
	wrong   string
	history []string // in order
}

func (w *world) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%8.3f  ", time.Since(epoch2000).Seconds())+fmt.Sprintf(format, args...))
}

// epoch2000 is when time begins in a bubble.
var epoch2000 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *world) fault(format string, args ...any) {
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
		w.note("WRONG: %s", w.wrong)
	}
}

// settle makes what changed at an earlier instant certain.
func (m *model) settle() {
	if now := time.Now(); !now.Equal(m.instant) {
		m.instant, m.before, m.topThen = now, maps.Clone(m.marks), maps.Clone(m.top)
	}
}

func (m *model) hear(step string, stamp uint64) {
	m.settle()
	m.top[step] = max(m.top[step], stamp)
}

func (m *model) mark(step string, stamp uint64) {
	m.hear(step, stamp)
	m.marks[step] = max(m.marks[step], stamp)
}

// learn notes a token that came with marks.
func (m *model) learn(access string, t modelToken, with marks) {
	m.hear(t.step, t.stamp)
	t.with = m.before.and(with)
	for s, stamp := range t.lineage {
		m.hear(s, stamp)
	}
	m.tokens[access] = append(m.tokens[access], t)
	if t.step == "leaf" && (m.last == nil || access != m.last.AccessToken) {
		m.newer, m.newerAt = true, time.Now()
	}
}

// live is the rule: every stamp in the lineage is above its mark.
func (m marks) live(t modelToken) bool {
	if t.stamp <= m[t.step] {
		return false
	}
	for s, stamp := range t.lineage {
		if stamp <= m[s] {
			return false
		}
	}
	return true
}

// change runs a call that may change what is live, and reports whether no other
// one of the process ran beside it.
func (m *model) change(call func()) (alone bool) {
	m.w.mu.Lock()
	m.changes++
	begun, ended := m.changes, m.ended
	m.w.mu.Unlock()
	call()
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.ended++
	return begun == ended+1 && m.changes == begun
}

// lineage is the other rule: that of all parents, the lowest where paths meet.
// Of a parent with two stamps pick says which.
func (m *model) lineage(parents []string, pick func(a, b uint64) uint64) map[string]uint64 {
	lowest := map[string]uint64{}
	note := func(s string, stamp uint64) {
		if old, ok := lowest[s]; !ok || stamp < old {
			lowest[s] = stamp
		}
	}
	for _, p := range parents {
		known := m.tokens[p]
		stamps := map[string]uint64{}
		for i, t := range known {
			all := maps.Clone(t.lineage)
			if all == nil {
				all = map[string]uint64{}
			}
			all[t.step] = t.stamp
			for s, stamp := range all {
				if i > 0 {
					stamp = pick(stamps[s], stamp)
				}
				stamps[s] = stamp
			}
		}
		for s, stamp := range stamps {
			note(s, stamp)
		}
	}
	return lowest
}

const modelPrefix = "requestforge:"

func stepOf(key string) string { return strings.TrimPrefix(key, modelPrefix) }

func keysOf(steps ...string) []string {
	keys := make([]string, len(steps))
	for i, s := range steps {
		keys[i] = modelPrefix + s
	}
	return keys
}

// watched is the storage as one process sees it: it may fail, and tells the
// model what the process gets to know.
type watched struct {
	*rf.MemoryStorage
	m *model
}

func (s *watched) failing(op string) error {
	if f := s.m.fail[op]; f != nil && f() {
		s.m.w.note("%s: %s fails", s.m.name, op)
		return errDisk
	}
	return nil
}

func (s *watched) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	s.m.w.mu.Lock()
	defer s.m.w.mu.Unlock()
	if err := s.failing("Load"); err != nil {
		return nil, err
	}
	entries, err := s.MemoryStorage.Load(ctx, keys...)
	if err != nil {
		return nil, err
	}
	with := marks{}
	for i, e := range entries {
		with[stepOf(keys[i])] = e.Mark
		s.m.mark(stepOf(keys[i]), e.Mark)
	}
	for i, e := range entries {
		if r := e.Record; r != nil {
			t := modelToken{step: stepOf(keys[i]), stamp: r.Stamp, expiry: r.Token.Expiry, lineage: map[string]uint64{}}
			for key, stamp := range r.Lineage {
				t.lineage[stepOf(key)] = stamp
			}
			if !slices.ContainsFunc(s.m.tokens[r.Token.AccessToken], func(k modelToken) bool { return k.stamp == t.stamp }) {
				s.m.learn(r.Token.AccessToken, t, with)
			}
		}
	}
	return entries, nil
}

func (s *watched) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	m, step, access := s.m, stepOf(key), r.Token.AccessToken
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	lo := m.lineage(m.w.made[access], func(a, b uint64) uint64 { return min(a, b) })
	hi := m.lineage(m.w.made[access], func(a, b uint64) uint64 { return max(a, b) })
	t := modelToken{step: step, expiry: r.Token.Expiry, lineage: map[string]uint64{}}
	for key, stamp := range r.Lineage {
		s := stepOf(key)
		if stamp < lo[s] || stamp > hi[s] {
			m.w.fault("%s: %s has the lineage %v, want %v to %v", m.name, access, r.Lineage, lo, hi)
		}
		t.lineage[s] = stamp
	}
	if len(t.lineage) != len(hi) {
		m.w.fault("%s: %s has the lineage %v, want %v", m.name, access, r.Lineage, hi)
	}
	m.settle()
	if r.Stamp < m.topThen[step] || r.Stamp > m.top[step] {
		m.w.fault("%s: %s is saved with the floor %d, but %d is known", m.name, access, r.Stamp, m.top[step])
	}

	var e rf.Entry
	err := s.failing("Save")
	if err == nil {
		e, err = s.MemoryStorage.Save(ctx, key, r, seen)
		if err == nil {
			err = s.failing("its answer")
		}
	}
	m.w.note("%s: save %s floor %d seen %d: %v", m.name, access, r.Stamp, seen, err)
	with := marks{step: e.Mark}
	switch {
	case err != nil:
		with = nil                // the answer was lost
		t.stamp = m.top[step] + 1 // its own, and never told
	case e.Record == nil:
		return e, nil
	case e.Record.Token.AccessToken != access:
		m.mark(step, e.Mark)
		t = modelToken{step: step, stamp: e.Record.Stamp, expiry: e.Record.Token.Expiry, lineage: map[string]uint64{}}
		for key, stamp := range e.Record.Lineage {
			t.lineage[stepOf(key)] = stamp
		}
		access = e.Record.Token.AccessToken
	default:
		m.mark(step, e.Mark)
		if t.stamp = e.Record.Stamp; t.stamp <= r.Stamp {
			m.w.fault("%s: %s got the stamp %d, not above %d", m.name, access, t.stamp, r.Stamp)
		}
	}
	m.learn(access, t, with)
	return e, err
}

func (s *watched) Revoke(ctx context.Context, key string, stamp uint64) error {
	s.m.w.mu.Lock()
	defer s.m.w.mu.Unlock()
	s.m.mark(stepOf(key), stamp) // whatever the storage says
	if err := s.failing("Revoke"); err != nil {
		return err
	}
	s.m.w.note("%s: revoke %s %d", s.m.name, stepOf(key), stamp)
	return s.MemoryStorage.Revoke(ctx, key, stamp)
}

func (s *watched) Delete(ctx context.Context, keys ...string) error {
	s.m.w.mu.Lock()
	defer s.m.w.mu.Unlock()
	if err := s.failing("Delete"); err != nil {
		return err
	}
	return s.MemoryStorage.Delete(ctx, keys...)
}

func (s *watched) TryLock(ctx context.Context, key string) (rf.Lease, bool, error) {
	s.m.w.mu.Lock()
	defer s.m.w.mu.Unlock()
	if err := s.failing("TryLock"); err != nil {
		return nil, false, err
	}
	return s.MemoryStorage.TryLock(ctx, key)
}

func (w *world) fetcher(step string) rf.Fetcher {
	return rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		time.Sleep(300 * time.Millisecond)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fetches++
		w.n[step]++
		name := fmt.Sprintf("%s-%d", step, w.n[step])
		for _, p := range modelParents[step] {
			w.made[name] = append(w.made[name], in.Parents[p].AccessToken)
		}
		w.note("fetched %s from %v", name, w.made[name])
		return &rf.Token{AccessToken: name, Expiry: time.Now().Add(modelLives[step])}, nil
	})
}

// modelOp is something that one of the goroutines of a process does.
type modelOp struct {
	What  string
	Wait  time.Duration // before it
	Which int           // a step, a token or a fault
}

var modelOps = rapid.Custom(func(t *rapid.T) modelOp {
	return modelOp{
		What: rapid.SampledFrom([]string{
			"token", "token", "token", "token", "token", "refuse", "refuse", "refuse by value",
			"step", "step", "all", "refresh", "forget", "loss", "break", "break", "mend", "mend",
		}).Draw(t, "what"),
		Wait:  time.Duration(rapid.SampledFrom([]int{0, 50, 150, 350, 700, 1500, 20_000, 45_000, 130_000, 650_000}).Draw(t, "wait")) * time.Millisecond,
		Which: rapid.IntRange(0, 99).Draw(t, "which"),
	}
})

// process is one pipeline under test and its model.
type process struct {
	*model
	p *rf.Pipeline
}

// token asks for a token and holds the answer to the rules, and to the marks that
// the goroutine has made itself before.
func (p *process) token(ctx context.Context, ask func(context.Context) (*rf.Token, error), own marks) {
	m, w := p.model, p.w
	w.mu.Lock()
	var due *rf.Token // that has to come, and at once
	isDue := func(t modelToken) bool {
		return m.marks.live(t) && time.Now().Before(t.expiry.Add(-10*time.Second))
	}
	if m.last != nil && !m.newer && m.changes == m.ended && slices.ContainsFunc(m.tokens[m.last.AccessToken], isDue) {
		due = m.last
	}
	begun, changes := time.Now(), m.changes
	w.mu.Unlock()
	tok, err := ask(ctx)

	w.mu.Lock()
	defer w.mu.Unlock()
	m.settle()
	// What another goroutine did or heard at the instant of the call may have
	// come first.
	if due != nil && (m.changes != changes || m.newerAt.Equal(begun) || !slices.ContainsFunc(m.tokens[due.AccessToken], m.marks.live)) {
		due = nil
	}
	if err != nil {
		w.note("%s: %v", p.name, err)
		if text := err.Error(); !strings.Contains(text, "forgotten") && !strings.Contains(text, "revoked by the time it arrived") {
			w.fault("%s: %v", p.name, err)
		}
		return
	}
	w.note("%s: token %s", p.name, tok.AccessToken)
	known := m.tokens[tok.AccessToken]
	if !slices.ContainsFunc(known, func(t modelToken) bool { return m.before.and(own, t.with).live(t) }) {
		w.fault("%s: was handed %s, %v, dead by the marks %v", p.name, tok.AccessToken, known, m.before.and(own))
	}
	if !time.Now().Before(tok.Expiry) {
		w.fault("%s: was handed %s, expired", p.name, tok.AccessToken)
	}
	if due != nil && (due.AccessToken != tok.AccessToken || time.Since(begun) != 0) {
		w.fault("%s: %s was live, but after %v came %s", p.name, due.AccessToken, time.Since(begun), tok.AccessToken)
	}
	if len(known) > 0 {
		same := m.last != nil && tok.AccessToken == m.last.AccessToken
		if known[len(known)-1].stamp >= m.top["leaf"] {
			m.newer = false
		} else {
			m.newer = m.newer || !same
		}
	}
	m.last = tok
}

func (p *process) do(ctx context.Context, op modelOp, storage *rf.MemoryStorage) {
	m, w := p.model, p.w
	w.mu.Lock()
	w.steps++
	w.note("%s: %s %d", p.name, op.What, op.Which)
	last := m.last
	w.mu.Unlock()
	accepted := func(ctx context.Context) (*rf.Token, error) { // by a server, so that a refusal means that it was revoked
		tok, err := p.p.Token(ctx)
		if err == nil {
			req, _ := http.NewRequest("GET", host, nil)
			(&rf.AuthTransport{Source: sourceFunc(func(context.Context) (*rf.Token, error) { return tok, nil }), Origins: []string{host},
				Base: api(func(string) bool { return true })}).RoundTrip(req)
			w.mu.Lock()
			m.good[tok] = true
			w.mu.Unlock()
		}
		return tok, err
	}
	// dead makes what was certainly known of steps before the call dead.
	dead := func(call func(), steps ...string) (own marks) {
		w.mu.Lock()
		m.settle()
		tops := maps.Clone(m.topThen)
		w.mu.Unlock()
		m.change(call)
		w.mu.Lock()
		defer w.mu.Unlock()
		own = marks{}
		for _, s := range steps {
			own[s] = tops[s]
			m.mark(s, tops[s])
		}
		return own
	}
	switch op.What {
	case "token":
		p.token(ctx, accepted, nil)
	case "refuse":
		time.Sleep(30 * time.Second) // the bucket is another test's
		if last == nil {
			return
		}
		w.mu.Lock()
		var refused []modelToken
		if m.good[last] { // else its ancestors die
			refused = slices.Clone(m.tokens[last.AccessToken])
			refused = slices.DeleteFunc(refused, func(t modelToken) bool { return !m.marks.live(t) }) // that costs nothing more
		}
		w.mu.Unlock()
		alone := m.change(func() { p.p.Invalidate(ctx, last) })
		own := marks{}
		w.mu.Lock()
		for _, t := range refused {
			if alone { // else the token may have been dead by then
				own["leaf"] = max(own["leaf"], t.stamp)
				m.mark("leaf", t.stamp)
			}
		}
		w.mu.Unlock()
		p.token(ctx, accepted, own)
	case "refuse by value": // any token of any step and process
		time.Sleep(30 * time.Second)
		w.mu.Lock()
		names := slices.Sorted(maps.Keys(w.made))
		w.mu.Unlock()
		if len(names) == 0 {
			return
		}
		m.change(func() { p.p.Invalidate(ctx, &rf.Token{AccessToken: names[op.Which%len(names)]}) })
	case "step":
		s := modelSteps[op.Which%len(modelSteps)]
		own := dead(func() { p.p.InvalidateStep(ctx, s) }, s)
		p.token(ctx, accepted, own)
	case "all":
		dead(func() { p.p.InvalidateAll(ctx) }, modelSteps...)
	case "refresh":
		w.mu.Lock()
		m.newer, m.newerAt = true, time.Now() // what is live may be replaced
		w.mu.Unlock()
		p.token(ctx, p.p.Refresh, nil)
	case "forget":
		dead(func() { p.p.Forget(ctx) }, modelSteps...)
	case "loss":
		keys := keysOf(modelSteps...)
		if op.Which%2 == 0 {
			keys = keys[op.Which/2%len(keys):][:1]
		}
		storage.Delete(ctx, keys...)
	case "break", "mend":
		ops := []string{"Load", "Save", "its answer", "Revoke", "Delete", "TryLock"}
		n := 0
		w.mu.Lock()
		defer w.mu.Unlock()
		if op.What == "mend" {
			clear(m.fail)
			return
		}
		m.fail[ops[op.Which%len(ops)]] = func() bool { n++; return op.Which%3 == 0 || n%2 == 0 }
	}
}

// run lets goroutines, the odd ones of one process and the even ones of
// another, do what they are given, and returns what was wrong first.
func (w *world) run(t *testing.T, scripts [][]modelOp) {
	storage := rf.NewMemoryStorage()
	var processes []*process
	for _, name := range []string{"A", "B"} {
		m := &model{w: w, name: name, marks: marks{}, top: marks{}, tokens: map[string][]modelToken{}, good: map[*rf.Token]bool{}, fail: map[string]func() bool{}}
		var steps []rf.Step
		for _, s := range modelSteps {
			steps = append(steps, rf.Step{Name: s, DependsOn: modelParents[s], Fetcher: w.fetcher(s)})
		}
		p, err := rf.NewPipeline(rf.PipelineConfig{Steps: steps, Storage: &watched{storage, m}, RefreshAhead: -1})
		if err != nil {
			t.Fatal(err)
		}
		processes = append(processes, &process{m, p})
	}
	var wg sync.WaitGroup
	for i, ops := range scripts {
		wg.Go(func() {
			// No two things at one instant, or it isn't clear what came first.
			phase := []time.Duration{101, 1_009, 10_007, 50_021}[i]
			for _, op := range ops {
				time.Sleep(op.Wait + phase)
				processes[i%2].do(t.Context(), op, storage)
			}
		})
	}
	wg.Wait()
}

// What a Pipeline hands out is live by the marks that its process knows, what
// is live is not fetched again, stamps rise, and a lineage is that of all
// ancestors: whatever happens in whatever order, in two processes at once.
func TestPipelineAgreesWithItsModel(t *testing.T) {
	steps, fetches := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		var scripts [][]modelOp
		for range 4 {
			scripts = append(scripts, rapid.SliceOfN(modelOps, 5, 30).Draw(rt, "script"))
		}
		w := &world{n: map[string]int{}, made: map[string][]string{}}
		synctest.Test(t, func(t *testing.T) { w.run(t, scripts) })
		steps, fetches = steps+w.steps, fetches+w.fetches
		if w.wrong != "" {
			rt.Fatalf("%s\n%s", w.wrong, strings.Join(w.history, "\n"))
		}
	})
	t.Logf("%d steps, %d fetches", steps, fetches)
}

// The processes of the model (pipeline_model_test.go), and what they do.

package requestforge_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	rf "github.com/requestforge/requestforge"
)

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
			"replace", "answer", "answer", "steal", "squat",
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

func newProcess(t *testing.T, w *world, name, identity string, storage *lossy) *process {
	m := newModel(w, name, identity)
	var steps []rf.Step
	for _, s := range modelSteps {
		step := rf.Step{Name: s, DependsOn: modelParents[s], Fetcher: m.fetcher(s)}
		if s == w.differs {
			step.Identity = identity
		}
		if slices.Contains(modelRefreshed, s) {
			step.Refresh = step.Fetcher
		}
		steps = append(steps, step)
	}
	p, err := rf.NewPipeline(rf.PipelineConfig{Steps: steps, Storage: &watched{storage, m}, RefreshAhead: -1})
	if err != nil {
		t.Fatal(err)
	}
	return &process{m, p}
}

// modelIdentities are those of a step that differs: from before it said who it logs
// in as, and from after.
var modelIdentities = []string{"", "[y]"}

// replace closes a process and returns one of the other identity, with what the
// storage has for that: its token, without a fetch, if that is live there.
func (p *process) replace(t *testing.T, storage *lossy) *process {
	w := p.w
	p.p.Close()
	n := newProcess(t, w, p.name, modelIdentities[1-slices.Index(modelIdentities, p.identity)], storage)
	w.mu.Lock()
	there := n.stored(storage)
	begun := time.Now()
	w.mu.Unlock()
	n.token(t.Context(), n.p.Token, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	if there == "" || n.last != nil && n.last.AccessToken == there && time.Since(begun) == 0 {
		return n
	}
	w.fault("%s, now with %q: %s was live in the storage, but after %v came %v", n.name, n.identity, there, time.Since(begun), n.last)
	return n
}

// stored returns the leaf's access token in the storage if it is live there, else "".
func (m *model) stored(storage *lossy) string {
	var leaf *rf.Record
	there := marks{}
	for key, whose := range m.w.keys {
		s := stepOf(key)
		if whose != m.w.whose(s, m.identity) {
			continue
		}
		entries, _ := storage.Load(context.Background(), key)
		there[s] = max(entries[0].Mark, entries[0].Gone)
		if s == "leaf" {
			leaf = entries[0].Record
		}
	}
	if leaf == nil || leaf.Stamp <= there["leaf"] || !time.Now().Before(leaf.Token.Expiry.Add(-10*time.Second)) {
		return ""
	}
	for key, stamp := range leaf.Lineage {
		if stamp <= there[stepOf(key)] {
			return ""
		}
	}
	return leaf.Token.AccessToken
}

// token asks for a token and holds the answer to the rules, and to the marks that
// the goroutine has made itself before.
func (p *process) token(ctx context.Context, ask func(context.Context) (*rf.Token, error), own marks) {
	m, w := p.model, p.w
	w.mu.Lock()
	var due *rf.Token // that has to come, and at once
	isDue := func(t modelToken) bool {
		return m.marks.and(m.may).live(t) && time.Now().Before(t.expiry.Add(-10*time.Second))
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
	if due != nil && (m.changes != changes || m.newerAt.Equal(begun) || !slices.ContainsFunc(m.tokens[due.AccessToken], m.marks.and(m.may).live)) {
		due = nil
	}
	if err != nil {
		w.note("%s: %v", p.name, err)
		text := err.Error()
		if !errors.Is(err, errBadDay) && !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(text, "forgotten") && !strings.Contains(text, "revoked by the time it arrived") {
			w.fault("%s: %v", p.name, err)
		}
		return
	}
	w.note("%s: token %s", p.name, tok.AccessToken)
	m.mine(tok.AccessToken, "leaf", "was handed")
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

// refuse holds the first refusal after an acceptance to the rule that the leaf
// alone is blamed.
func (p *process) refuse(ctx context.Context, tok *rf.Token) (alone bool) {
	m, w := p.model, p.w
	w.mu.Lock()
	first, loads := m.calm, m.loads
	m.calm = false
	w.mu.Unlock()
	before := p.p.State(ctx)
	alone = m.change(func() { p.p.Invalidate(ctx, tok) })
	after := p.p.State(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range before.Steps {
		if s.Name != "leaf" && first && alone && loads == m.loads && s.Status == rf.StatusLive && after.Steps[i].Status == rf.StatusDead && time.Now().Before(s.Expiry.Add(-10*time.Second)) {
			w.fault("%s: the first refusal, of %s, killed the token of %s", p.name, tok.AccessToken, s.Name)
		}
	}
	return alone
}

func (p *process) do(ctx context.Context, op modelOp, storage *lossy) {
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
			m.calm = m.calm || !m.good[tok]
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
		alone := p.refuse(ctx, last)
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
		p.refuse(ctx, &rf.Token{AccessToken: names[op.Which%len(names)]})
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
		w.mu.Lock()
		m.settle()
		for _, s := range modelSteps {
			m.owes[s], m.tried[s] = true, false
			m.over[s] = time.Now()
		}
		m.last = nil // dead, whatever stamp the process has made up for it
		w.mu.Unlock()
		dead(func() { p.p.Forget(ctx) }, modelSteps...)
	case "loss":
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.keeps {
			return
		}
		keys := slices.Sorted(maps.Keys(w.keys))
		if op.Which%2 == 0 && len(keys) > 0 {
			keys = keys[op.Which/2%len(keys):][:1]
		}
		storage.lose(keys...)
		for _, key := range keys {
			w.lost[key] = true
		}
	case "answer": // of the auth server, to refreshes
		w.mu.Lock()
		defer w.mu.Unlock()
		answers := []string{"refused", "gateway", "gateway", "busy", "timeout"}
		w.answers = slices.Repeat(answers[op.Which%len(answers):][:1], 1+op.Which%3)
	case "steal":
		w.mu.Lock()
		defer w.mu.Unlock()
		w.steals++
	case "squat": // somebody else holds a lock
		w.mu.Lock()
		defer w.mu.Unlock()
		keys := slices.Sorted(maps.Keys(w.keys))
		if len(keys) == 0 || w.leases[keys[op.Which%len(keys)]] != nil {
			return
		}
		l := &modelLease{w: w, key: keys[op.Which%len(keys)]}
		w.leases[l.key] = l
		time.AfterFunc([]time.Duration{3 * time.Second, 100 * time.Second}[op.Which%2], func() { l.Unlock(context.Background()) })
	case "break", "mend":
		// A storage is down, or fails, loses answers or is late with one kind of call, or
		// with several: faults add up until they are mended.
		ops := [][]string{
			{"Load", "Save", "Revoke", "Delete", "TryLock"}, {"Load", "Save", "Revoke", "Delete", "TryLock"}, {"TryLock"},
			{"Load"}, {"Save"}, {"Revoke"}, {"Delete"}, {"its answer"}, {"late Save"}, {"late Revoke"}, {"late Delete"}, {"late TryLock"},
		}
		n := 0
		w.mu.Lock()
		defer w.mu.Unlock()
		if op.What == "mend" {
			clear(m.fail)
			return
		}
		for _, name := range ops[op.Which%len(ops)] {
			m.fail[name] = func() bool { n++; return op.Which%3 == 0 || len(ops[op.Which%len(ops)]) == 1 && n%2 == 0 }
		}
	}
}

// run lets goroutines, the odd ones of one process and the even ones of
// another, do what they are given, and returns what was wrong first.
func (w *world) run(t *testing.T, scripts [][]modelOp) {
	storage := newLossy()
	processes := []*process{newProcess(t, w, "A", modelIdentities[0], storage), newProcess(t, w, "B", modelIdentities[0], storage)}
	var wg sync.WaitGroup
	for i, ops := range scripts {
		wg.Go(func() {
			// No two things at one instant, or it isn't clear what came first.
			phase := []time.Duration{101, 1_009, 10_007, 50_021}[i]
			for _, op := range ops {
				time.Sleep(op.Wait + phase)
				w.mu.Lock()
				p := processes[i%2]
				w.mu.Unlock()
				if op.What != "replace" {
					p.do(t.Context(), op, storage)
					continue
				}
				n := p.replace(t, storage)
				w.mu.Lock()
				processes[i%2] = n
				w.mu.Unlock()
			}
		})
	}
	wg.Wait()
	time.Sleep(5 * time.Minute) // for what is late, and fetches that nobody waits for
}

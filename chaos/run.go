// A run: everything is put up, the plan is carried out while the callers
// call, everything is taken down, and the ledgers go to the oracle.

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/goleak"

	"github.com/requestforge/requestforge/chaos/oracle"
)

// callers is how many goroutines send requests.
const callers = 64

// run carries out a plan and returns what was seen.
func run(p *plan) (*oracle.Run, error) {
	before := goleak.IgnoreCurrent()
	led := &ledger{begin: time.Now()}
	led.run.Rules = oracle.Rules{
		Steps: stepNames, RetryMax: retryMax, AuthReplays: authReplays,
		BucketSize: 3, BucketEvery: 10 * time.Second,
		Memory: maxCoolDown, Grace: 10 * time.Second, Slack: 500 * time.Millisecond,
	}
	w := &world{plan: p, led: led}
	stuck, err := w.run()
	if err != nil {
		return nil, err
	}
	if !stuck { // else the leak is known
		led.run.Leaked = leaked(before)
	}
	// A caller that is stuck goes on writing into what it has: the oracle
	// reads with the ledgers closed.
	led.mu.Lock()
	return &led.run, nil
}

// leaked returns what goroutines there are that there weren't before; "": none,
// after five seconds at most.
func leaked(before goleak.Option) string {
	var err error
	for range 10 {
		if err = goleak.Find(before); err == nil {
			return ""
		}
	}
	return err.Error()
}

// world is all that takes part in a run.
type world struct {
	plan    *plan
	led     *ledger
	auth    *authServer
	servers []*server // the foreign one is the last
	store   *badStorage
	client  *client
}

func (w *world) run() (stuck bool, err error) {
	w.auth = newAuthServer(w.led, w.plan.authClock)
	defer w.auth.close()
	var origins []string
	for i := range servers + 1 {
		s := &server{led: w.led, plan: w.plan, auth: w.auth, foreign: i == servers}
		if !s.foreign {
			s.clock = w.plan.apiClocks[i]
		}
		s.start()
		defer s.srv.Close()
		w.servers = append(w.servers, s)
		origins = append(origins, s.srv.URL)
	}
	foreign := origins[servers]
	origins = origins[:servers]
	w.led.run.Origins = origins
	store := newBadStorage(w.led)
	w.store = store
	if w.client, err = newClient(w.led, w.auth, store, origins); err != nil {
		return false, err
	}
	defer w.client.http.CloseIdleConnections()

	over := make(chan struct{})
	var acts sync.WaitGroup
	acts.Go(func() { w.perform(over) })
	stuck = w.call(&load{w.led, w.plan, w.client, origins, foreign})
	close(over)
	acts.Wait()

	spared := w.client.tokens.Stats().RefusalsIgnored
	killed := w.auth.sim.Stats().FamiliesKilled
	w.led.note(func(run *oracle.Run, now time.Duration) {
		run.Took, run.Spared, run.FamiliesKilled = now, spared, killed
		// A token is renewed after half its life at the earliest.
		run.Renewals = int(now/(appTTL/2)) + int(now/(userTTL/2))
	})
	return stuck, w.client.tokens.Close()
}

// call lets the callers send all requests, evenly over the time of the plan.
// It reports whether one of them didn't come back.
func (w *world) call(l *load) (stuck bool) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				id := int(next.Add(1))
				if id > w.plan.requests {
					return
				}
				due := w.led.begin.Add(time.Duration(float64(w.plan.last) * float64(id-1) / float64(w.plan.requests)))
				time.Sleep(time.Until(due))
				l.send(id)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	check := time.NewTicker(time.Second)
	defer check.Stop()
	for {
		select {
		case <-done:
			return false
		case <-check.C:
			if w.led.stuck() {
				return true
			}
		}
	}
}

// perform carries out the plan's events, until over is closed.
func (w *world) perform(over <-chan struct{}) {
	var undo sync.WaitGroup // what ends later
	defer undo.Wait()
	for _, e := range w.plan.events {
		if !until(w.led.begin.Add(e.at), over) {
			return
		}
		end := w.act(e)
		if end != nil {
			undo.Go(func() {
				until(time.Now().Add(e.lasts), over)
				end()
			})
		}
	}
}

// until waits for a moment; false: it was over before.
func until(t time.Time, over <-chan struct{}) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-over:
		return false
	}
}

// act begins an event and returns what ends it; nil: nothing.
func (w *world) act(e event) (end func()) {
	switch e.kind {
	case revoke:
		w.led.note(func(run *oracle.Run, now time.Duration) {
			run.Revocations = append(run.Revocations, oracle.Revocation{At: now, Step: e.step})
		})
		w.auth.sim.Revoke(e.step)
	case auth:
		w.auth.sim.Fail(e.step, e.fault)
		return func() { w.auth.sim.Fail(e.step) }
	case refuse:
		set := w.servers[:servers]
		if e.server >= 0 {
			set = w.servers[e.server : e.server+1]
		}
		for _, s := range set {
			s.refusing.Store(true)
		}
		from := w.led.now()
		return func() {
			for _, s := range set {
				s.refusing.Store(false)
			}
			w.led.note(func(run *oracle.Run, now time.Duration) {
				run.Refusals = append(run.Refusals, oracle.Window{From: from, To: now})
			})
		}
	case storage:
		w.store.mood.Store(e.what)
		return func() { w.store.mood.Store("well") }
	}
	return nil
}

// counts prints a map in the order of its keys.
func counts[K cmp.Ordered](m map[K]int, format string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf(format, k, m[k]))
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// report is a verdict in calm lines.
func report(p *plan, run *oracle.Run, v *oracle.Verdict) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("seed       %d", p.seed)
	line("plan       %s", p.summary())
	line("requests   %d in %.1f s by %d callers: %d sends by the stack, %d more by net/http itself", len(run.Requests), run.Took.Seconds(), callers, v.Sends, v.Resends)
	line("statuses   %s", counts(v.Statuses, "%d: %d"))
	line("errors     %s", counts(v.Failures, "%s: %d"))
	line("401s that reached a caller, by reason: %s", counts(v.Apart, "%s: %d"))
	line("fetches    %d of at most %d, and %d that a fault spoilt; new tokens of step %s: %d of at most %d", v.Fetches, v.MostFetches, v.Spoilt, stepNames[2], v.Tokens, v.MostTokens)
	line("allowed    %s; one new token for each of them", v.Allowance)
	line("delivered  %d POSTs were sent again after a 401, a 429 or a 503 with Retry-After", v.Duplicate)
	line("latency    worst %.3f s; the longest beyond a context %.3f s", v.Slowest.Seconds(), max(0, v.Overtime).Seconds())
	if len(v.Violations) == 0 {
		line("verdict    all invariants held")
		return b.String()
	}
	const shown = 5
	rules := make(map[string]int)
	for _, x := range v.Violations {
		rules[x.Rule]++
	}
	line("verdict    %d violations: %s", len(v.Violations), counts(rules, "%s: %d"))
	seen := make(map[string]int)
	for _, x := range v.Violations {
		if seen[x.Rule]++; seen[x.Rule] > shown {
			continue
		}
		line("\n%s\n  request %d: %s", x.Rule, x.ID, x.Text)
		for _, text := range v.History(x.ID) {
			line("    %s", text)
		}
	}
	return b.String()
}

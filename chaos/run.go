// A run: everything is put up, the plan is carried out while the callers
// call, everything is taken down, and the ledgers go to the oracle.

package main

import (
	"cmp"
	"context"
	"errors"
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
		RenewEvery:  []time.Duration{appTTL / 2, userTTL / 2}, // after half a token's life
		RetryBudget: retryBudget,
		Memory:      maxCoolDown, Grace: 10 * time.Second, Slack: 500 * time.Millisecond,
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
	origins []string
	client  atomic.Pointer[client]
	clients []*client // all that there have been; of perform alone until it ends
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
	w.origins = origins
	if err := w.start(identities[0], false); err != nil {
		return false, err
	}

	over := make(chan struct{})
	var acts sync.WaitGroup
	acts.Go(func() { w.perform(over) })
	stuck = w.call(&load{w.led, w.plan, w.client.Load, origins, foreign})
	close(over)
	acts.Wait()

	spared := make([]uint64, len(w.clients))
	for i, c := range w.clients {
		spared[i] = c.tokens.Stats().RefusalsIgnored
		c.http.CloseIdleConnections()
		err = errors.Join(err, c.tokens.Close())
	}
	killed := w.auth.sim.Stats().FamiliesKilled
	w.led.note(func(run *oracle.Run, now time.Duration) {
		run.Took, run.FamiliesKilled = now, killed
		for i, n := range spared {
			run.Processes[i].Spared = n
		}
	})
	return stuck, err
}

// start lets a client take the place of the one before, whose requests end.
func (w *world) start(who string, rotated bool) error {
	number := len(w.clients)
	w.led.note(func(run *oracle.Run, now time.Duration) {
		if number > 0 {
			run.Processes[number-1].Ended = now
		}
		run.Processes = append(run.Processes, &oracle.Process{Identity: who, Rotated: rotated, Began: now})
	})
	c, err := newClient(w.led, w.auth, w.store, w.origins, who, number)
	if err == nil {
		w.clients = append(w.clients, c)
		w.client.Store(c)
	}
	return err
}

// logOut forgets the client's tokens, in its own process or in another one.
func (w *world) logOut(where string) {
	c := w.client.Load()
	tokens, process := c.tokens, c.number
	if where == elsewhere {
		process = noProcess
		other, err := newPipeline(w.auth.steps(process, w.auth.srv.URL, w.auth.client.Transport), w.store, c.who, nil)
		if err != nil {
			panic(err) // the client's own was right
		}
		defer other.Close()
		tokens = other
	}
	from := w.led.now()
	err := tokens.Forget(context.Background())
	w.led.note(func(run *oracle.Run, now time.Duration) {
		run.Logouts = append(run.Logouts, oracle.Logout{Window: oracle.Window{From: from, To: now}, Identity: c.who, Process: process, Told: err == nil})
	})
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
	case down:
		for _, s := range w.servers[:servers] {
			s.down.Store(true)
		}
		return func() {
			for _, s := range w.servers[:servers] {
				s.down.Store(false)
			}
		}
	case logout:
		w.logOut(e.what)
	case restart:
		if err := w.start(e.what, false); err != nil {
			panic(err) // the first one was right
		}
	case rotate:
		w.auth.rotate()
		if err := w.start(w.client.Load().who, true); err != nil {
			panic(err) // the first one was right
		}
	case storage:
		from := w.led.now()
		w.store.mood.Store(e.what)
		return func() {
			w.store.mood.Store("well")
			w.led.note(func(run *oracle.Run, now time.Duration) {
				run.Troubles = append(run.Troubles, oracle.Window{From: from, To: now})
			})
		}
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
	line("retries    %d; %d waits of at least %v for another send, during %d of them a connection was held", v.Retries, v.Waits, oracle.LongWait, v.Held)
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
		if x.Also != 0 {
			line("  request %d", x.Also)
			for _, text := range v.History(x.Also) {
				line("    %s", text)
			}
		}
	}
	return b.String()
}

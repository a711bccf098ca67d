// What goes wrong, and when: all of it derived from the seed. run.go makes it
// happen.

package main

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

// The steps of the login, the first one first.
var stepNames = []string{"device", "app", "user"}

// plan is all that a seed decides. The same seed, duration and number of
// requests make the same plan.
type plan struct {
	seed     uint64
	last     time.Duration // how long the run takes at least
	requests int

	authClock time.Duration            // how far the auth server's clock is off
	apiClocks [servers]time.Duration   // and those of the resource servers
	events    []event                  // by time
	rates     [len(apiFaults)]faultAge // what meets single requests
}

// event is one act of the plan.
type event struct {
	at     time.Duration
	kind   eventKind
	step   string         // revoke, auth
	fault  authtest.Fault // auth
	what   string         // in words: the fault, the storage's trouble, where a logout is, who the client is after a restart
	server int            // refuse; -1: all
	lasts  time.Duration  // auth, refuse, down, storage
}

type eventKind string

const (
	revoke  eventKind = "revoke"
	auth    eventKind = "auth server"
	refuse  eventKind = "API refuses everything"
	down    eventKind = "API is down"
	storage eventKind = "storage"
	logout  eventKind = "logout"
	restart eventKind = "restart"
	rotate  eventKind = "restart with another secret"
)

func (e event) String() string {
	text := fmt.Sprintf("%8.3fs %s", e.at.Seconds(), e.kind)
	switch e.kind {
	case revoke:
		return text + " " + e.step
	case auth:
		return text + ": " + e.what + " at " + e.step
	case rotate:
		return text
	case logout, restart:
		return text + " " + e.what
	case refuse:
		where := "everywhere"
		if e.server >= 0 {
			where = fmt.Sprintf("at server %d", e.server)
		}
		return fmt.Sprintf("%s %s for %v", text, where, e.lasts)
	}
	return fmt.Sprintf("%s %s for %v", text, e.what, e.lasts)
}

// apiFault is what a resource server does to a single request.
type apiFault int

const (
	noFault      apiFault = iota
	resetUnread           // the connection is reset before anything is looked at
	cutUpload             // it is reset in the middle of the request's body
	lostAnswer            // the work is done, and the connection reset before the answer
	cutAnswer             // it is reset in the middle of the answer's body
	failPlainly           // 500
	unavailable           // 503
	comeBack              // 503 with Retry-After
	tooMany               // 429 with Retry-After
	comeBackDate          // 503 with a Retry-After date, by the server's clock
)

// apiFaults are their names.
var apiFaults = [...]string{"none", "reset before reading", "reset in the request's body", "answer lost", "reset in the answer's body",
	"500", "503", "503 with Retry-After", "429 with Retry-After", "503 with a Retry-After date"}

// faultAge is how many of 1,000 requests a fault meets.
type faultAge int

// newPlan makes the plan of a seed.
func newPlan(seed uint64, last time.Duration, requests int) *plan {
	p := &plan{
		seed: seed, last: last, requests: requests,
		rates: [...]faultAge{noFault: 0, resetUnread: 4, cutUpload: 8, lostAnswer: 5, cutAnswer: 5,
			failPlainly: 5, unavailable: 4, comeBack: 5, tooMany: 5, comeBackDate: 2},
	}
	r := rand.New(rand.NewPCG(seed, 0))
	const off = 5 * time.Minute
	p.authClock = pick(r, -off, off)
	for i := range p.apiClocks {
		p.apiClocks[i] = pick(r, -off, 0, off)
	}
	p.refusals(r)
	p.rotations(r)
	p.authFaults(r)
	p.revocations(r)
	for at := 2 * time.Second; at < last-time.Second; at += between(r, 10*time.Second, 15*time.Second) {
		if !p.calm(at) {
			p.add(event{at: at, kind: storage, what: pick(r, "fails", "hangs"), lasts: 500 * time.Millisecond})
		}
	}
	p.changes(r)
	p.outages()
	slices.SortStableFunc(p.events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return p
}

func (p *plan) add(e event) { p.events = append(p.events, e) }

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

// refusals lets the API refuse every token for a while: all servers near the
// end of the run, and in a long one a single server earlier.
func (p *plan) refusals(r *rand.Rand) {
	if p.last >= 40*time.Second {
		p.add(event{at: p.last/3 + between(r, 0, time.Second), kind: refuse, server: r.IntN(servers), lasts: 1500 * time.Millisecond})
	}
	p.add(event{at: max(p.last*3/4, p.last-3500*time.Millisecond) + between(r, 0, time.Second/4), kind: refuse, server: -1, lasts: 1500 * time.Millisecond})
}

// rotations restarts the client with another secret, after a while in which nothing
// happens: what the new process does then is its own doing.
func (p *plan) rotations(r *rand.Rand) {
	p.add(event{at: min(p.last*6/10, 9*time.Second) + between(r, 0, time.Second/4), kind: rotate})
	if p.last >= 40*time.Second { // where revocations wait anyway
		p.add(event{at: p.events[0].at + 9*time.Second + between(r, 0, time.Second/4), kind: rotate})
	}
}

// calm reports whether a restart with another secret is near.
func (p *plan) calm(at time.Duration) bool {
	return slices.ContainsFunc(p.events, func(e event) bool {
		return e.kind == rotate && at >= e.at-calmBefore && at <= e.at+calmAfter
	})
}

// The time around a restart with another secret in which nothing else happens. What
// came before has to be dealt with by then.
const calmBefore, calmAfter = 4500 * time.Millisecond, 1200 * time.Millisecond

// quiet reports whether revocations had better wait: an API that refuses
// everything leaves the pipeline without a means to tell a revocation from
// that, for ten seconds. After the last refusals there is no such rest, so
// that this is seen, too.
func (p *plan) quiet(at time.Duration) bool {
	if p.calm(at) {
		return true
	}
	for _, e := range p.events {
		if e.kind == refuse && e.server >= 0 && at >= e.at && at < e.at+11*time.Second {
			return true
		}
		if e.kind == refuse && e.server < 0 && at >= e.at && at < e.at+e.lasts {
			return true
		}
	}
	return false
}

// authFaults makes trouble at the auth server, each time with a revocation,
// so that somebody meets it.
func (p *plan) authFaults(r *rand.Rand) {
	kinds := []struct {
		what  string
		fault authtest.Fault
	}{
		{"500", authtest.Fault{Status: 500}},
		{"429", authtest.Fault{Status: 429, RetryAfter: time.Second}},
		{"hangs", authtest.Fault{Hang: true}},
		{"HTML", authtest.Fault{Status: 200, HTML: true}},
		{"HTML 502", authtest.Fault{Status: 502, HTML: true}},
		{"late", authtest.Fault{Delay: 400 * time.Millisecond}},
		{"drips", authtest.Fault{Drip: 4 * time.Millisecond}},
		{"reset in the answer", authtest.Fault{Reset: true}},
		{"answer lost", authtest.Fault{Drop: true}},
	}
	order := r.Perm(len(kinds))
	n := 0
	for at := between(r, time.Second, 2*time.Second); at < p.last-time.Second; at += between(r, 4*time.Second, 5*time.Second) {
		if p.quiet(at) {
			continue
		}
		k := kinds[order[n%len(order)]]
		n++
		step := pick(r, stepNames...)
		k.fault.Times = pick(r, 1, 1, 1, 2, 2, 4) // a fetch has three tries
		p.add(event{at: at, kind: auth, step: step, fault: k.fault, what: fmt.Sprintf("%s x %d", k.what, k.fault.Times), lasts: 2 * time.Second})
		p.add(event{at: at + time.Millisecond, kind: revoke, step: step})
	}
}

// changes logs out, in the client's process or in another one, and restarts the client
// as somebody else, and as whom it was before.
func (p *plan) changes(r *rand.Rand) {
	who := 0
	for at := 1500 * time.Millisecond; at < p.last-time.Second; at += between(r, 1500*time.Millisecond, 4*time.Second) {
		if p.quiet(at) {
			continue
		}
		if r.IntN(2) == 0 {
			p.add(event{at: at, kind: logout, what: pick(r, here, elsewhere)})
		} else {
			who++
			p.add(event{at: at, kind: restart, what: identities[who%len(identities)]})
		}
	}
}

// outages lets all of the API's servers answer 503: half of the requests that meet that
// would be sent again, were there no budget. Tokens have nothing to do with it.
func (p *plan) outages() {
	p.add(event{at: p.last / 4, kind: down, lasts: 700 * time.Millisecond})
	if p.last >= 40*time.Second {
		p.add(event{at: p.last * 3 / 5, kind: down, lasts: 700 * time.Millisecond})
	}
}

// Where a logout is.
const (
	here      = "here"
	elsewhere = "elsewhere"
)

// identities are who the client is, one after the other.
var identities = []string{"ann", "bob"}

// revocations revokes tokens of random steps, and now and then at once those
// that have just taken their place.
func (p *plan) revocations(r *rand.Rand) {
	for at := 500 * time.Millisecond; at < p.last; at += between(r, 400*time.Millisecond, 1600*time.Millisecond) {
		if p.quiet(at) {
			continue
		}
		p.add(event{at: at, kind: revoke, step: pick(r, stepNames...)})
		if r.IntN(6) == 0 {
			p.add(event{at: at + between(r, 20*time.Millisecond, 90*time.Millisecond), kind: revoke, step: pick(r, stepNames...)})
		}
	}
}

// coin returns a source of chance for one send of one request, whatever the
// order in which they come.
func (p *plan) coin(id, hop, send int) *rand.Rand {
	return rand.New(rand.NewPCG(p.seed, uint64(id)<<16|uint64(hop)<<8|uint64(send)))
}

// fault returns what meets a send.
func (p *plan) fault(r *rand.Rand) apiFault {
	n := faultAge(r.IntN(1000))
	for f, rate := range p.rates {
		if n < rate {
			return apiFault(f)
		}
		n -= rate
	}
	return noFault
}

// count returns how many events there are of a kind.
func (p *plan) count(kind eventKind) int {
	n := 0
	for _, e := range p.events {
		if e.kind == kind {
			n++
		}
	}
	return n
}

func (p *plan) summary() string {
	return fmt.Sprintf("%d revocations, %d logouts, %d restarts as somebody else, %d with another secret, %d bouts of trouble at the auth server, %d of an API that refuses everything, %d of one that is down, %d of the storage; the auth server's clock is off by %v",
		p.count(revoke), p.count(logout), p.count(restart), p.count(rotate), p.count(auth), p.count(refuse), p.count(down), p.count(storage), p.authClock)
}

// print writes the whole plan.
func (p *plan) print(w io.Writer) {
	fmt.Fprintf(w, "seed %d, %d requests in %v\n", p.seed, p.requests, p.last)
	fmt.Fprintf(w, "clocks: auth server %v, resource servers %v\n", p.authClock, p.apiClocks)
	var rates []string
	for f, rate := range p.rates {
		if rate > 0 {
			rates = append(rates, fmt.Sprintf("%s %d", apiFaults[f], rate))
		}
	}
	fmt.Fprintf(w, "of 1,000 sends: %s\n", strings.Join(rates, ", "))
	for _, e := range p.events {
		fmt.Fprintln(w, e)
	}
}

// Looks at the storage that nobody asks for: now and then, and after a push. What is found
// is taken over by pipeline_shared.go.

package requestforge

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
	"weak"
)

// recheckEvery is the most that another process's revocation takes to be seen
// here without a push; the last third is jitter.
const recheckEvery = 30 * time.Second

// sweepKeys is how many keys one look at subjects loads at once.
const sweepKeys = 500

// sweeper looks for a pipeline.
//
// The invariant: while there is a reason to look (see due), a look begins within
// recheckEvery. Subjects of a storage that pushes are looked at by themselves only if a
// logout of theirs is still to be stored: a push says when there is more. One timer does
// for all subjects.
type sweeper struct {
	shared   *shared   // of the shared steps
	subjects *subjects // nil: there are none

	pushing atomic.Bool // the storage pushes
	running atomic.Bool // a look is to come
}

// recheck begins to look now and then, off the path of requests, if there is a reason in
// a ledger.
func (sw *sweeper) recheck(l *ledger) {
	if sw.shared.store.shared && sw.due(l) {
		sw.begin()
	}
}

// begin lets looks begin. The timer doesn't keep a dropped pipeline alive, and stops then.
func (sw *sweeper) begin() {
	if !sw.running.CompareAndSwap(false, true) {
		return
	}
	held := weak.Make(sw)
	var look func()
	look = func() {
		sw := held.Value()
		if sw == nil {
			return
		}
		if !sw.sweep(context.Background()) {
			sw.running.Store(false)
			if sw.anyDue() { // a token may have come meanwhile
				sw.begin()
			}
			return
		}
		time.AfterFunc(recheckWait(), look)
	}
	time.AfterFunc(recheckWait(), look)
}

func recheckWait() time.Duration {
	return recheckEvery - rand.N(recheckEvery/3) - time.Second // for the look itself
}

// due reports whether there is a reason to look for the sake of a ledger: a logout or a
// mark isn't in the storage yet; or, where no push would tell of a peer's logout, a token
// is live or a step cools down.
func (sw *sweeper) due(l *ledger) bool {
	now, pushed := time.Now(), l.up != nil && sw.pushing.Load()
	for _, f := range l.facts(now) {
		if f.due || !pushed && (f.failure != nil || f.live) {
			return true
		}
	}
	return false
}

// anyDue reports whether there is a reason to look.
func (sw *sweeper) anyDue() bool {
	return sw.due(sw.shared.ledger) || slices.ContainsFunc(sw.subjects.all(), func(s *subject) bool { return sw.due(&s.ledger) })
}

// sweep looks where there is a reason to, and reports whether there was one anywhere.
func (sw *sweeper) sweep(ctx context.Context) bool {
	due := slices.DeleteFunc(sw.subjects.all(), func(s *subject) bool { return !sw.due(&s.ledger) })
	if len(due) == 0 && !sw.due(sw.shared.ledger) {
		return false
	}
	_ = sw.reload(ctx, due) // store counts errors, and the next look comes
	return true
}

// maxFailed is how many loads in a row may fail before a look gives up: the storage is
// down then, and not an entry bad.
const maxFailed = 16

// reload takes over what the storage knows of the shared steps, and of those of subjects.
// An entry that can't be loaded costs nobody else the look.
// It returns those of which it couldn't be loaded.
func (sw *sweeper) reload(ctx context.Context, of []*subject) pushed {
	l := look{sw: sw}
	if steps := sw.shared.ledger.own(); len(steps) > 0 {
		l.at(ctx, []*ask{sw.shared.ask(steps)})
	}
	for part := range slices.Chunk(of, max(1, sweepKeys/max(1, len(sw.shared.graph.steps)-sw.shared.graph.shared))) {
		var asks []*ask
		for _, s := range part {
			sh := sw.shared.below(&s.ledger, sw.shared.events)
			asks = append(asks, sh.ask(sh.ledger.own()))
		}
		l.at(ctx, asks)
	}
	return l.bad
}

// look is one look at the storage.
type look struct {
	sw     *sweeper
	failed int    // loads, in a row
	bad    pushed // whose load has failed
}

// at loads what is asked for in one call, or after an error half of it in each of two,
// and takes that over.
func (l *look) at(ctx context.Context, asks []*ask) {
	if len(asks) == 0 {
		return
	}
	if l.failed >= maxFailed {
		l.miss(asks)
		return
	}
	before := make([][]facts, len(asks))
	for i, a := range asks {
		before[i] = a.sh.ledger.facts(time.Now())
	}
	if err := l.sw.shared.store.loadFor(ctx, asks); err != nil {
		l.failed++
		if half := len(asks) / 2; half > 0 {
			l.at(ctx, asks[:half])
			l.at(ctx, asks[half:])
		} else {
			l.miss(asks)
		}
		return
	}
	l.failed = 0
	for i, a := range asks {
		if _, err := a.take(ctx); err != nil {
			continue // a logout, meanwhile
		}
		for j, s := range a.steps {
			if f := before[i][j]; f.live && !a.sh.ledger.live(f.token) {
				a.sh.events.log(ctx, slog.LevelInfo, "token invalidated by another process", s, slog.Uint64("stamp", f.token.stamp()))
			}
		}
	}
}

// miss notes that nothing could be loaded for asks.
func (l *look) miss(asks []*ask) {
	for _, a := range asks {
		if a.sh.up == nil {
			l.bad.shared = true
			continue
		}
		if l.bad.some == nil {
			l.bad.some = make(map[subjectKey]bool)
		}
		l.bad.some[a.sh.ledger.whose] = true
	}
}

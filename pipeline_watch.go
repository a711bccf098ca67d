// The pushes of a storage. pipeline_shared.go takes over the findings, and looks by itself
// now and then.

package requestforge

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/redact"
)

// pushGap lies between two looks begun by pushes.
const pushGap = 250 * time.Millisecond

// A watcher makes looks of pushes.
//
// The invariant: after each push a look begins, at once or pushGap after the end of the
// look before, and all pushes of the meantime share the look. A look is repeated for the
// steps whose load has failed. Without a push or a failure there is no goroutine and no
// timer, and neither keeps a dropped pipeline alive.
type watcher struct {
	sweeper weak.Pointer[sweeper]
	stop    func()        // ends the pushes
	ended   chan struct{} // closed once all of end is done

	mu      sync.Mutex
	due     bool          // a look; guarded by mu
	subject pushed        // the subjects to be looked at; guarded by mu
	pause   time.Duration // before a failed look is repeated; guarded by mu
	failed  error         // the storage's last error, not logged yet; guarded by mu
	timer   *time.Timer   // begins the next look; nil: no look is due, or a look runs; guarded by mu
	at      time.Time     // when timer does; guarded by mu
	free    time.Time     // the next look begins no earlier; guarded by mu
	looking chan struct{} // closed at the end of the running look; nil: no look runs; guarded by mu
	closed  bool          // guarded by mu
}

// maxPushed is how many subjects are looked at one by one. After more pushes, all subjects are.
const maxPushed = 1000

// pushed are the subjects that pushes were about since the last look.
type pushed struct {
	shared bool // the shared steps; looked at anyway
	all    bool
	some   map[subjectKey]bool // nil: no subject
}

// note adds the subject of a key, "" for all subjects, if the key is of any.
func (p *pushed) note(key string) {
	k, ok := keyIn(key)
	switch {
	case key == "":
		p.all = true
	case ok && !p.all:
		if p.some == nil {
			p.some = make(map[subjectKey]bool)
		}
		p.some[k] = true
		p.all = len(p.some) > maxPushed
	}
}

// add adds the subjects of q.
func (p *pushed) add(q pushed) {
	if p.some == nil {
		p.some = q.some
	} else {
		maps.Copy(p.some, q.some)
	}
	p.all = p.all || q.all || len(p.some) > maxPushed
}

// of returns the subjects in memory.
func (p *pushed) of(ss *subjects) []*subject {
	switch {
	case p.all:
		return ss.all()
	case p.some == nil:
		return nil
	}
	return slices.DeleteFunc(ss.all(), func(s *subject) bool { return !p.some[s.ledger.whose] })
}

// watch begins to listen to a storage that pushes.
func (sw *sweeper) watch(from Watcher) *watcher {
	w := &watcher{sweeper: weak.Make(sw), stop: func() {}, ended: make(chan struct{})}
	keys := keysOf(sw.shared.graph.steps)
	ctx, cancel := context.WithTimeout(context.Background(), sw.shared.store.patience())
	defer cancel()
	stop, err := flight.Bounded(ctx, nil, func(context.Context) (func(), error) { return from.Watch(keys, w.note), nil },
		func(stop func(), err error) {
			if err == nil && stop != nil {
				stop()
			}
		})
	switch {
	case err != nil:
		w.note("", err)
	case stop != nil:
		w.stop = stop
	}
	return w
}

// note hears of a push, or of an error that keeps the storage from pushing. It returns at
// once, however long a logger or the storage takes.
func (w *watcher) note(key string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	now := time.Now()
	at := now
	switch {
	case err != nil:
		w.failed = err
		w.listens(false)
	case key == "" && !w.due: // all pipelines of the storage hear of the event now
		at = at.Add(rand.N(pushGap))
		fallthrough
	default:
		w.due = true
		w.subject.note(key)
		if key == "" {
			w.listens(true)
		}
	}
	w.begin(now, at)
}

// listens notes whether the storage pushes. While it doesn't, subjects are looked at now
// and then.
func (w *watcher) listens(does bool) {
	if sw := w.sweeper.Value(); sw != nil && sw.pushing.Swap(does) && !does {
		go func() {
			if sw.shared.store.shared && sw.anyDue() {
				sw.begin()
			}
		}()
	}
}

// begin has a look begin at a time, or as soon afterwards as pushGap permits. The caller
// holds w.mu.
func (w *watcher) begin(now, at time.Time) {
	if at.Before(w.free) {
		at = w.free
	}
	if w.closed || w.looking != nil || w.timer != nil && !at.Before(w.at) {
		return
	}
	if w.timer != nil && !w.timer.Stop() {
		return // the look begins right now
	}
	w.at = at
	w.timer = time.AfterFunc(at.Sub(now), w.look)
}

// look takes over the state of the storage.
func (w *watcher) look() {
	w.mu.Lock()
	w.timer = nil
	if w.closed {
		w.mu.Unlock()
		return
	}
	due, subject, failed, done := w.due, w.subject, w.failed, make(chan struct{})
	w.due, w.subject, w.failed, w.looking = false, pushed{}, nil, done
	w.mu.Unlock()
	defer func() {
		close(done)
		w.mu.Lock()
		defer w.mu.Unlock()
		now := time.Now()
		if w.looking = nil; w.free.Before(now.Add(pushGap)) {
			w.free = now.Add(pushGap)
		}
		if w.due || w.failed != nil {
			w.begin(now, now)
		}
	}()
	sw := w.sweeper.Value()
	if sw == nil {
		return
	}
	ctx := context.Background()
	if failed != nil {
		sw.shared.store.errors.Add(1)
		sw.shared.events.log(ctx, slog.LevelWarn, "no pushes from the storage; looking now and then", nil, slog.Any("error", redact.Words(failed)))
	}
	if due {
		w.again(sw.reload(ctx, subject.of(sw.subjects)))
	}
}

// lookAgain is when a look that has failed is repeated, and then twice as late each time,
// up to recheckEvery.
const lookAgain = time.Second

// again has a look repeated for the subjects whose load has failed.
func (w *watcher) again(failed pushed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !failed.shared && failed.some == nil {
		w.pause = 0
		return
	}
	w.pause = min(max(lookAgain, 2*w.pause), recheckEvery-time.Second)
	time.AfterFunc(w.pause, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.due = true
		w.subject.add(failed)
		now := time.Now()
		w.begin(now, now)
	})
}

// end stops listening, and returns a channel that is closed when all has ended.
func (w *watcher) end() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return w.ended
	}
	w.closed = true
	w.listens(false)
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	looking := w.looking
	go func() {
		defer close(w.ended)
		// Without a bound: Bounded is here to turn a panic into an error.
		_, _ = flight.Bounded(context.Background(), nil, func(context.Context) (struct{}, error) { w.stop(); return struct{}{}, nil }, nil)
		if looking != nil {
			<-looking
		}
	}()
	return w.ended
}

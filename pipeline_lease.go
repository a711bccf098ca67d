// The parts of a flight that concern other processes: the lock of the step, and the save of
// the fetched token.

package requestforge

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

// A rotated refresh token is saved by at most saveTries tries, with a savePause
// between two of them.
const (
	saveTries = 3
	savePause = 50 * time.Millisecond
)

// lock keeps other processes from fetching, if the storage can lock. It returns a usable
// token if a peer saves one meanwhile. If the storage fails, the flight goes on without a
// lease.
func (f *fetch) lock(ctx context.Context) (*held, error) {
	fs := f.flights
	if fs.shared.store.locker == nil {
		return nil, f.peerFailure(ctx)
	}
	// A peer needs the time of one fetch of this step and of each ancestor before.
	var patience <-chan time.Time
	if t := f.step.patience(); t > 0 {
		timer := time.NewTimer(t)
		defer timer.Stop()
		patience = timer.C
	}
	pause := 20 * time.Millisecond
	for {
		lease, err := fs.shared.store.tryLock(ctx, f.flights.shared.key(f.step))
		if ctx.Err() != nil {
			f.lease = lease
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, nil
		}
		if lease != nil {
			f.lease = lease
			if h := f.look(ctx); h != nil { // a token of the lock's last holder
				return h, nil
			}
			return nil, f.peerFailure(ctx)
		}
		fs.counters.steps[f.step.index].lockWaits.Add(1)
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-patience:
			fs.events.log(ctx, slog.LevelWarn, "a peer holds the lock of the step for too long; going on without", f.step)
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		pause = min(2*pause, 250*time.Millisecond)
		if h := f.look(ctx); h != nil {
			return h, nil
		}
		if err := f.peerFailure(ctx); err != nil {
			return nil, err
		}
	}
}

// peerFailure returns a failure that another process has left for the step, and that the
// callers don't insist on ignoring.
func (f *fetch) peerFailure(ctx context.Context) error {
	if f.now {
		return nil
	}
	if err := f.flights.shared.peerFailure(ctx, f.step, f.flights.deaf(f.step).fetchers); err != nil {
		f.fromPeer = true
		return err
	}
	return nil
}

// unlock gives the lease back, if the flight has one.
func (f *fetch) unlock(ctx context.Context) {
	if lease := f.lease; lease != nil {
		f.lease = nil
		f.flights.shared.store.unlock(ctx, lease)
	}
}

// leased reports whether no other process can fetch this step now.
func (f *fetch) leased() bool { return f.lease.held() }

// save puts the new token into the storage, and into this process. It returns the token, or
// the token of a faster process.
func (f *fetch) save(ctx context.Context, tok *Token, parents []*held) (*held, error) {
	fs := f.flights
	from := make([]stamps, len(parents))
	for i, p := range parents {
		from[i] = p.stamps
	}
	h := fs.records.hold(f.step, *tok, time.Now(), lineage(len(fs.graph.steps), from...))
	h.until = nanoseconds(until(parents))
	h.askFor(f.asked)
	got, err := f.land(ctx, h)
	if got == h {
		f.landed(ctx, h)
	} else {
		f.lost(ctx, h, got)
	}
	return got, err
}

// landed has revoked what the token h, just saved, has replaced: not if a refresh token
// made h, which then belongs to the same session.
func (f *fetch) landed(ctx context.Context, h *held) {
	r, before := f.flights.revoker, f.before
	if f.step.Revoke == nil || r.grace <= 0 || f.refreshed || h.unsaved || before == nil || before == h {
		return
	}
	r.later(ctx, f.flights, f.flights.ledger.ends(before, time.Now()))
}

// lost has h revoked, a fetched token of no use: a logout came between, or another process
// was faster with the token other; nil: no process was. If a refresh token made h, other may
// be of the same session.
func (f *fetch) lost(ctx context.Context, h, other *held) {
	if f.step.Revoke == nil || other != nil && f.refreshed {
		return
	}
	f.flights.revoker.now(ctx, f.flights, ending{h, true})
}

// land is save for a token that is ready to be handed out.
func (f *fetch) land(ctx context.Context, h *held) (*held, error) {
	s, fs, now := f.step, f.flights, time.Now()
	entry, rotated, err := f.put(ctx, h)
	if err == errForgot {
		return nil, err
	}
	if err == nil && entry.Record == nil {
		// A logout by a peer came between.
		fs.ledger.meet(s, entry)
		return nil, errForgot
	}
	if err == nil && !sameToken(entry.Record, h) {
		// A peer was faster. All processes go on with the peer's token, if
		// that can be read.
		theirs, reason := f.adopt(entry, now)
		if reason == nil || reason == errForgot {
			return theirs, reason
		}
		fs.shared.ignored(ctx, s, reason)
		err = reason
	}
	if err != nil {
		fs.ledger.stampUnsaved(h)
	} else {
		fs.ledger.stampSaved(h, f.epoch, entry)
	}
	if s.OnRotate != nil && rotated && fs.ledger.now() == f.epoch {
		fs.hooks.call(ctx, s, fs.deaf(s).hooks, f.begun, "OnRotate", func(ctx context.Context) { s.OnRotate(ctx, h.tok) })
	}
	if !fs.ledger.keep(h, f.epoch) {
		f.undo(ctx, h, err == nil)
		return nil, errForgot
	}
	fs.shared.news(fs.ledger)
	return h, nil
}

// undo makes h dead here and, if stored, in the storage. The deletion is part of the
// flight, and hits no other record than the record of h.
func (f *fetch) undo(ctx context.Context, h *held, stored bool) {
	fs := f.flights
	fs.ledger.drop(h)
	if !stored {
		return
	}
	// An error is the storage's, and counted there.
	if e, err := fs.shared.store.delete(ctx, f.flights.shared.key(f.step), h.stamp()); err == nil {
		fs.ledger.buried(f.step, e)
	}
}

// revokeRefused invalidates the refused parents after newer parents have worked.
func (f *fetch) revokeRefused(ctx context.Context) {
	refused := f.refused.revoke
	f.refused = refusedParents{since: f.refused.since} // newer parents have worked
	for _, b := range refused {
		if fs := f.flights.of(b.step); fs.ledger.revoke(b.step, b.stamp) {
			// An error is the storage's, and counted there.
			_ = fs.shared.revoke(ctx, b)
		}
	}
}

// put saves h, and reports whether the refresh token of h is new. If the storage has
// another record, and a logout of this process is still due there, the logout comes
// first. An expired record is replaced.
func (f *fetch) put(ctx context.Context, h *held) (entry Entry, rotated bool, err error) {
	s, fs := f.step, f.flights
	for try := 0; ; try++ {
		begun, ok := fs.ledger.beginSave(s, f.epoch)
		if !ok {
			return entry, rotated, errForgot
		}
		f.before = begun.previous
		rotated = h.tok.RefreshToken != "" && (begun.previous == nil || begun.previous.tok.RefreshToken != h.tok.RefreshToken)
		entry, err = f.store(ctx, h, begun, rotated)
		if err != nil || try > 0 || sameToken(entry.Record, h) {
			return entry, rotated, err
		}
		if !fs.ledger.owes(s) {
			if !f.outdated(entry, time.Now()) {
				return entry, rotated, err
			}
			fs.shared.hear(ctx, s, entry, false)
			fs.ledger.meet(s, entry)
			continue
		}
		fs.shared.hear(ctx, s, entry, false)
		if fs.ledger.now() != f.epoch {
			return entry, rotated, errForgot // a logout by a peer, since the flight began
		}
		buried, failed := fs.shared.bury(ctx, s, entry.Version())
		if failed != nil {
			return entry, rotated, err
		}
		fs.ledger.saw(s, buried.Version())
	}
}

// outdated reports whether a Save has met a record that is expired, or whose refresh token
// was spent for the new token: the Load before has shown an older record, or no record. A record from after a logout unknown to this process belongs
// to another session.
func (f *fetch) outdated(entry Entry, now time.Time) bool {
	gone, _ := f.flights.ledger.tombstone(f.step)
	if entry.Record == nil || entry.Gone > gone {
		return false
	}
	h, err := f.flights.records.read(f.step, entry.Record, now)
	return err == nil && (!h.fresh(now) || f.flights.ledger.spentRefresh(h))
}

// store saves h. A new refresh token gets more than one try while no other process can
// fetch the step: the storage still holds the spent refresh token, and the next process
// would send the spent token once more. A try that only seemed to fail does no harm: the
// next try gets the record saved by the first.
func (f *fetch) store(ctx context.Context, h *held, begun saving, rotated bool) (Entry, error) {
	s, store := f.step, f.flights.shared.store
	r := f.flights.records.write(h)
	r.Stamp = begun.floor
	tries := 1
	if rotated && f.leased() {
		tries = saveTries
	}
	for n := 1; ; n++ {
		entry, err := store.save(ctx, f.flights.shared.key(s), r, begun.stored)
		if err == nil || n == tries {
			return entry, err
		}
		time.Sleep(savePause)
	}
}

var errOwed = errors.New("it may be from before a logout that the storage doesn't know of yet")

// adopt takes the token saved by another process meanwhile.
func (f *fetch) adopt(entry Entry, now time.Time) (*held, error) {
	fs := f.flights
	fs.ledger.meet(f.step, entry)
	if fs.ledger.owes(f.step) {
		return nil, errOwed
	}
	h, err := fs.records.read(f.step, entry.Record, now)
	if err != nil {
		return nil, err
	}
	if !fs.ledger.keep(h, f.epoch) {
		return nil, errForgot
	}
	fs.shared.news(fs.ledger)
	return h, nil
}

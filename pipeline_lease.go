// The parts of a flight that concern other processes: the lock of the step, and the
// save of the fetched token.

package requestforge

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"
)

// A rotated refresh token is saved by at most saveTries tries, with a savePause
// between two of them.
const (
	saveTries = 3
	savePause = 50 * time.Millisecond
)

// lock keeps other processes from fetching, if the storage can lock. It returns a
// token if a peer brings a usable one meanwhile. If the storage fails, the flight
// goes on without a lease.
func (f *fetch) lock(ctx context.Context) (*held, error) {
	fs := f.flights
	if fs.shared.store.locker == nil {
		return nil, f.peerFailure(ctx)
	}
	// A peer takes one fetch of this step, and of each ancestor before.
	var patience <-chan time.Time
	fetches := time.Duration(1 + len(f.step.levels))
	if t := fs.fetchTimeout; t > 0 && t <= math.MaxInt64/fetches {
		timer := time.NewTimer(t * fetches)
		defer timer.Stop()
		patience = timer.C
	}
	pause := 20 * time.Millisecond
	for {
		lease, got, err := fs.shared.store.tryLock(ctx, f.step.key)
		if err != nil {
			return nil, nil
		}
		if got {
			f.lease = lease
			if h := f.look(ctx); h != nil { // the token of the peer that had the lock before
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

// peerFailure returns a failure that another process has left for the step.
func (f *fetch) peerFailure(ctx context.Context) error {
	if err := f.flights.shared.peerFailure(ctx, f.step); err != nil {
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

// leased reports whether no other process can be at this step now.
func (f *fetch) leased() bool {
	if f.lease == nil {
		return false
	}
	select {
	case <-f.lease.Done():
		return false
	default:
		return true
	}
}

// save puts the new token into the storage, and into this process.
func (f *fetch) save(ctx context.Context, tok *Token, parents []*held) (*held, error) {
	s, fs, now := f.step, f.flights, time.Now()
	from := make([]stamps, len(parents))
	for i, p := range parents {
		from[i] = p.stamps
	}
	h := fs.records.hold(s, *tok, now, lineage(len(fs.graph.steps), from...))
	begun, ok := fs.ledger.beginSave(s, f.epoch)
	if !ok {
		return nil, errForgot
	}
	rotated := tok.RefreshToken != "" && (begun.previous == nil || begun.previous.tok.RefreshToken != tok.RefreshToken)
	entry, err := f.store(ctx, h, begun, rotated)
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
		fs.ledger.stampSaved(h, entry.Mark, entry.Record.Stamp)
	}
	if s.OnRotate != nil && rotated {
		hook(func() { s.OnRotate(ctx, h.tok) })
	}
	if !fs.ledger.keep(h, f.epoch) {
		// The token is dead here even if the storage fails to delete the
		// record. The deletion is part of the flight, so that it can't hit
		// the record of the next flight.
		fs.ledger.drop(h)
		// An error is the storage's, and counted there.
		_ = fs.shared.store.delete(ctx, s.key)
		return nil, errForgot
	}
	fs.shared.recheck()
	return h, nil
}

// store saves h. A new refresh token is saved by more than one try while no other
// process can be at the step: the storage still holds the refresh token that is
// spent, and the next process would send that once more. A try that only seemed to
// fail does no harm: the next try gets the record that the first one saved.
func (f *fetch) store(ctx context.Context, h *held, begun saving, rotated bool) (Entry, error) {
	s, store := f.step, f.flights.shared.store
	r := f.flights.records.write(h)
	r.Stamp = begun.floor
	tries := 1
	if rotated && f.leased() {
		tries = saveTries
	}
	for n := 1; ; n++ {
		entry, err := store.save(ctx, s.key, r, begun.stored)
		if err == nil && entry.Record == nil {
			// The record to be replaced is gone from the storage, and
			// nothing was saved.
			entry, err = store.save(ctx, s.key, r, 0)
		}
		if err == nil && entry.Record == nil {
			err = errors.New("not saved")
		}
		if err == nil || n == tries {
			return entry, err
		}
		time.Sleep(savePause)
	}
}

// adopt takes the token that another process has saved meanwhile.
func (f *fetch) adopt(entry Entry, now time.Time) (*held, error) {
	fs := f.flights
	fs.ledger.revoke(f.step, entry.Mark)
	h, err := fs.records.read(f.step, entry.Record, now)
	if err != nil {
		return nil, err
	}
	fs.ledger.saw(f.step, h.stamp())
	if !fs.ledger.keep(h, f.epoch) {
		return nil, errForgot
	}
	fs.shared.recheck()
	return h, nil
}

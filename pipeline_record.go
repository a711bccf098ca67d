// From a record to a token and back: what a step's flight does with the
// storage, and its lock. The storage's own bounds are pipeline_store.go's.

package requestforge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"
)

const (
	// maxSkew is taken off a token's life for the time that a request
	// needs and for clocks that differ; never more than a tenth of it.
	maxSkew = 10 * time.Second

	// minKeep is how long a leaf's record without a refresh token outlives
	// its expiry: long enough for its mark to outlive every copy of it.
	minKeep = time.Hour

	// A rotated refresh token is saved by so many tries, with a pause before
	// each but the first.
	saveTries = 3
	savePause = 50 * time.Millisecond
)

// look loads the step and its ancestors and returns what will do.
func (f *fetch) look(ctx context.Context) *held {
	if h := f.current(f.step, f.want); h != nil {
		return h
	}
	entries, err := f.pull(ctx, append([]*step{f.step}, f.step.ancestors...), nil)
	if err != nil {
		return nil
	}
	// Only a step's own flight says what was seen of it: what others
	// load may be older than what this one has saved.
	f.mu.Lock()
	f.steps[f.step.index].seen = 0
	if r := entries[0].Record; r != nil {
		f.steps[f.step.index].seen = r.Stamp
	}
	f.mu.Unlock()
	h := f.current(f.step, f.want)
	if h != nil {
		f.stats[f.step.index].loads.Add(1)
		f.log(ctx, slog.LevelDebug, "token loaded", f.step, slog.Uint64("stamp", h.stamp))
	}
	return h
}

// pull loads steps and takes over what the storage holds of them, unless
// everything is forgotten meanwhile. A mark that the storage has lost is
// written back. A step whose key is in deleted was deleted by a process: if
// there is nothing of it, that was a logout, and its tokens die here, too.
func (st *state) pull(ctx context.Context, steps []*step, deleted map[string]bool) ([]Entry, error) {
	keys := make([]string, len(steps))
	tops := make([]uint64, len(steps))
	st.mu.Lock()
	epoch := st.epoch
	for i, s := range steps {
		keys[i], tops[i] = s.key, st.steps[s.index].top
	}
	st.mu.Unlock()
	entries, err := st.p.store.load(ctx, keys...)
	if err != nil {
		return nil, err
	}

	type lost struct {
		key  string
		mark uint64
	}
	var losses []lost
	garbage := map[*step]error{}
	now := time.Now()
	st.mu.Lock()
	if st.epoch != epoch {
		st.mu.Unlock()
		return nil, errForgot
	}
	for i, s := range steps {
		e, ss := entries[i], &st.steps[s.index]
		if deleted[s.key] && e.Record == nil && e.Mark == 0 {
			st.raise(s, tops[i])
			continue // there is nothing left for a mark to kill
		}
		if e.Mark <= maxStamp {
			st.raise(s, e.Mark)
		}
		if e.Mark < ss.mark {
			losses = append(losses, lost{s.key, ss.mark})
		}
		if e.Record == nil {
			continue
		}
		if c := ss.cur; c != nil && !c.unsaved && c.stamp == e.Record.Stamp &&
			e.Record.Token != nil && c.tok.AccessToken == e.Record.Token.AccessToken {
			continue // the same; ours knows whether it was accepted
		}
		h, err := st.fromRecord(s, e.Record, now)
		if err != nil {
			garbage[s] = err
			continue
		}
		st.put(s, h)
	}
	st.mu.Unlock()
	for s, err := range garbage {
		st.counts.badRecords.Add(1)
		st.log(ctx, slog.LevelWarn, "stored record ignored", s, slog.Any("reason", err))
	}
	for _, l := range losses {
		st.p.store.revoke(ctx, l.key, l.mark)
	}
	return entries, nil
}

// fromRecord makes a token of a record, or says why it is none of s's.
func (st *state) fromRecord(s *step, r *Record, now time.Time) (*held, error) {
	if r.Key != s.key {
		return nil, errors.New("it was saved under another key")
	}
	if r.Stamp == 0 || r.Stamp > maxStamp {
		return nil, errors.New("its stamp is out of range")
	}
	if err := r.Token.validate(); err != nil {
		return nil, err
	}
	if len(r.Lineage) != len(s.ancestors) {
		return nil, errors.New("it was made by another graph of steps")
	}
	lineage := make([]uint64, len(s.ancestors))
	for i, a := range s.ancestors {
		stamp, ok := r.Lineage[a.key]
		if !ok {
			return nil, errors.New("it was made by another graph of steps")
		}
		lineage[i] = stamp
	}
	tok := *r.Token
	issued := r.Issued
	if issued.After(now) && !tok.Expiry.IsZero() {
		// Written by a clock ahead of ours, which put the expiry as
		// far ahead.
		tok.Expiry = tok.Expiry.Add(now.Sub(issued))
		issued = now
	}
	h := st.hold(s, tok, issued, lineage)
	h.stamp = r.Stamp
	h.tok.prov.accepted.Store(true) // by whoever saved it, or so we assume
	return h, nil
}

// hold makes tok ready to be handed out.
func (st *state) hold(s *step, tok Token, issued time.Time, lineage []uint64) *held {
	tok.prov = newProvenance(&tok)
	h := &held{tok: &tok, issued: issued, lineage: lineage}
	tok.prov.state, tok.prov.step, tok.prov.held = st, s, h
	// Beyond these years Unix nanoseconds overflow, or are 0. The first is
	// never for our ends, the second long ago.
	if tok.Expiry.IsZero() || tok.Expiry.Year() > 2200 {
		return h
	}
	if tok.Expiry.Year() < 1971 {
		h.soft, h.hard = 1, 1
		return h
	}
	life := tok.Expiry.Sub(issued)
	h.hard = tok.Expiry.Add(-min(maxSkew, life/10)).UnixNano()
	if cap := st.p.cfg.RefreshAhead; cap > 0 && life > 0 {
		window := min(life/2, cap)
		window -= rand.N(window/4 + 1) // so that replicas don't all come at once
		h.soft = min(h.hard, tok.Expiry.Add(-window).UnixNano())
	}
	return h
}

// lock keeps other processes from fetching, if the storage can. It returns a
// token if a peer brings one meanwhile. If the storage is of no help, the
// flight goes on without a lease.
func (f *fetch) lock(ctx context.Context) (*held, error) {
	locker, ok := f.p.cfg.Storage.(Locker)
	if !ok {
		return nil, f.told(ctx)
	}
	// A peer takes one fetch of this step, and of each ancestor before.
	var patience <-chan time.Time
	fetches := time.Duration(1 + len(f.step.levels))
	if t := f.p.cfg.FetchTimeout; t > 0 && t <= math.MaxInt64/fetches {
		timer := time.NewTimer(t * fetches)
		defer timer.Stop()
		patience = timer.C
	}
	pause := 20 * time.Millisecond
	for {
		lease, got, err := f.p.store.tryLock(ctx, locker, f.step.key)
		if err != nil {
			return nil, nil
		}
		if got {
			f.lease = lease
			if h := f.look(ctx); h != nil { // what the peer before us brought
				return h, nil
			}
			return nil, f.told(ctx)
		}
		f.stats[f.step.index].lockWaits.Add(1)
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-patience:
			f.log(ctx, slog.LevelWarn, "a peer holds the lock of the step for too long; going on without", f.step)
			return nil, nil
		}
		pause = min(2*pause, 250*time.Millisecond)
		if h := f.look(ctx); h != nil {
			return h, nil
		}
		if err := f.told(ctx); err != nil {
			return nil, err
		}
	}
}

// unlock gives the lease back, if there is one.
func (f *fetch) unlock(ctx context.Context) {
	if lease := f.lease; lease != nil {
		f.lease = nil
		f.p.store.unlock(ctx, lease)
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
	s, now := f.step, time.Now()
	h := f.hold(s, *tok, now, f.lineage(parents))
	r := Record{Key: s.key, Token: h.tok, Issued: now.Round(0), Lineage: make(map[string]uint64, len(s.ancestors))}
	for i, a := range s.ancestors {
		r.Lineage[a.key] = h.lineage[i]
	}
	if tok.RefreshToken == "" && s == f.p.leaf {
		// A parent's mark goes with its record, and has to outlive
		// whatever was made from it: that stays until replaced.
		r.Keep = max(minKeep, tok.Expiry.Sub(now))
	}
	f.mu.Lock()
	if f.born != f.epoch {
		f.mu.Unlock()
		return nil, errForgot
	}
	ss := &f.steps[s.index]
	r.Stamp = max(ss.top, ss.mark)
	seen, prev := ss.seen, ss.cur
	f.mu.Unlock()

	rotated := tok.RefreshToken != "" && (prev == nil || prev.tok.RefreshToken != tok.RefreshToken)
	tries := 1
	if rotated && f.leased() {
		// What the storage holds is a refresh token that is spent, and the
		// next process would send it once more. A call that only seemed to
		// have failed does no harm: the second one gets what it saved.
		tries = saveTries
	}
	var entry Entry
	var err error
	for n := range tries {
		if n > 0 {
			time.Sleep(savePause)
		}
		entry, err = f.p.store.save(ctx, s.key, r, seen)
		if err == nil && entry.Record == nil {
			// What was seen is gone from the storage, ours isn't there yet.
			entry, err = f.p.store.save(ctx, s.key, r, 0)
		}
		if err == nil && entry.Record == nil {
			err = errors.New("not saved")
		}
		if err == nil {
			break
		}
	}
	if err == nil && !sameToken(entry.Record, h) {
		// Somebody was faster; theirs is everyone's, if it is of use.
		theirs, none := f.adopt(entry, now)
		if none == nil || none == errForgot {
			return theirs, none
		}
		f.counts.badRecords.Add(1)
		f.log(ctx, slog.LevelWarn, "stored record ignored", s, slog.Any("reason", none))
		err = none
	}
	f.mu.Lock()
	if err != nil {
		// For this process only. It can cost one fetch more, when the
		// storage comes back with another token of that stamp; it
		// can't revive a dead one.
		h.stamp, h.unsaved = max(ss.top, ss.mark)+1, true
	} else {
		f.raise(s, entry.Mark)
		h.stamp, ss.seen = entry.Record.Stamp, entry.Record.Stamp
	}
	f.mu.Unlock()
	if s.OnRotate != nil && rotated {
		hook(func() { s.OnRotate(ctx, h.tok) })
	}
	if !f.keep(h) {
		// It is dead here even if the storage fails to delete it. Within
		// the flight, so that it can't hit what the next one saves.
		f.mu.Lock()
		f.raise(s, h.stamp)
		ss.spent = max(ss.spent, h.stamp)
		f.mu.Unlock()
		f.p.store.delete(ctx, s.key)
		return nil, errForgot
	}
	return h, nil
}

// keep makes h the step's token here, unless everything was forgotten.
func (f *fetch) keep(h *held) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.born != f.epoch {
		return false
	}
	f.put(f.step, h)
	f.worked(f.step)
	return true
}

// adopt takes the token that another process has saved meanwhile.
func (f *fetch) adopt(entry Entry, now time.Time) (*held, error) {
	s := f.step
	f.mu.Lock()
	f.raise(s, entry.Mark)
	h, err := f.fromRecord(s, entry.Record, now)
	if err == nil {
		f.steps[s.index].seen = h.stamp
	}
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if !f.keep(h) {
		return nil, errForgot
	}
	return h, nil
}

func sameToken(r *Record, h *held) bool {
	return r.Token.AccessToken == h.tok.AccessToken && r.Token.RefreshToken == h.tok.RefreshToken && r.Issued.Equal(h.issued)
}

// lineage is that of a token made from parents: the lowest stamp where
// several paths meet.
func (f *fetch) lineage(parents []*held) []uint64 {
	lowest := make(map[*step]uint64, len(f.step.ancestors))
	note := func(s *step, stamp uint64) {
		if old, ok := lowest[s]; !ok || stamp < old {
			lowest[s] = stamp
		}
	}
	for i, p := range f.step.parents {
		note(p, parents[i].stamp)
		for j, a := range p.ancestors {
			note(a, parents[i].lineage[j])
		}
	}
	stamps := make([]uint64, len(f.step.ancestors))
	for i, a := range f.step.ancestors {
		stamps[i] = lowest[a]
	}
	return stamps
}

// canonicalExtra gives extra the form that it has after a storage, so that a
// token is the same wherever it comes from: JSON's values, numbers exact.
func canonicalExtra(extra map[string]any) (map[string]any, error) {
	if len(extra) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(extra)
	if err != nil {
		return nil, fmt.Errorf("the token's Extra can't be written as JSON: %T", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var same map[string]any
	if err := dec.Decode(&same); err != nil {
		return nil, fmt.Errorf("the token's Extra can't be read back from JSON: %T", err)
	}
	return same, nil
}

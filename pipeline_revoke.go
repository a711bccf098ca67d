// Revocation, at the auth server, of tokens no longer needed: tokens of a logout
// (pipeline_logout.go), tokens replaced by a flight, and tokens fetched in vain.

package requestforge

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/requestforge/requestforge/internal/flight"
)

// maxReplaced bounds the tokens that wait for the end of their grace. More are left to
// end by themselves.
const maxReplaced = 10_000

// revokeTime bounds a revocation of a step whose fetch has no bound.
const revokeTime = 30 * time.Second

// revoker revokes tokens.
//
// The invariant: a token is revoked once, and never while a step of the same owner, or a
// shared step, has a token with the same text. No request waits for a revocation.
type revoker struct {
	grace    time.Duration // PipelineConfig.RevokeReplaced; 0: replaced tokens stay
	asker    *asker
	counters *counters

	mu      sync.Mutex
	waiting map[*replaced]struct{} // for the end of their grace; guarded by mu
	closed  bool                   // guarded by mu
}

// party is the owner of revoked tokens: all, or a subject.
type party interface {
	// needs reports whether a step has a token with the text of h, or its refresh token:
	// the same session.
	needs(h *held) bool
	// parentOf returns the token of a step that a revocation may need.
	parentOf(ctx context.Context, p *step) (*Token, error)
	// farewell returns the input of Step.Revoke for h.
	farewell(ctx context.Context, h *held, parent func(context.Context, *step) (*Token, error)) (Input, error)
	// hanging counts the functions of a step left behind, without the fetchers.
	hanging(s *step) *flight.Limit
	// self returns the party's ledger and event log.
	self() (*ledger, eventLog)
	// stay keeps the party in memory until the result is called.
	stay() (leave func())
}

// replaced is a token that waits for the end of its grace.
type replaced struct {
	ending
	party party
	leave func() // see party.stay
	timer *time.Timer
}

// later revokes h, which a newer token has replaced, after the grace.
func (r *revoker) later(ctx context.Context, of party, h ending) {
	w := &replaced{ending: h, party: of, leave: of.stay()}
	ctx = flight.Detach(ctx)
	if !r.wait(w, func() {
		if r.take(w) {
			defer w.leave()
			_ = r.revoke(ctx, of, h, of.parentOf) // counted, and logged
		}
	}) {
		r.counters.steps[h.step.index].revokeFailures.Add(1)
		w.leave()
	}
}

// wait begins the grace of w, with do at the end, unless too many tokens wait.
func (r *revoker) wait(w *replaced, do func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.waiting) >= maxReplaced {
		return false
	}
	if r.waiting == nil {
		r.waiting = make(map[*replaced]struct{})
	}
	r.waiting[w] = struct{}{}
	w.timer = time.AfterFunc(r.grace, do)
	return true
}

// take reports whether w still waits, which it does no more.
func (r *revoker) take(w *replaced) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.waiting[w]
	delete(r.waiting, w)
	return ok
}

// takeOf returns the tokens of a ledger that wait, which they do no more.
func (r *revoker) takeOf(l *ledger) (all []ending) {
	for _, w := range r.stop(false, func(own *ledger) bool { return own == l }) {
		all = append(all, w.ending)
	}
	return all
}

// close forgets the waiting tokens.
func (r *revoker) close() { r.stop(true, func(*ledger) bool { return true }) }

// stop returns the waiting tokens of some ledgers, which wait no more; for good, no token
// waits later, either.
func (r *revoker) stop(forGood bool, of func(*ledger) bool) (all []*replaced) {
	r.mu.Lock()
	r.closed = r.closed || forGood
	for w := range r.waiting {
		if own, _ := w.party.self(); of(own) {
			w.timer.Stop()
			delete(r.waiting, w)
			all = append(all, w)
		}
	}
	r.mu.Unlock()
	for _, w := range all {
		w.leave()
	}
	return all
}

// now revokes h in the background: a token that was fetched for nothing.
func (r *revoker) now(ctx context.Context, of party, h ending) {
	ctx = flight.Detach(ctx)
	go func() { _ = r.revoke(ctx, of, h, of.parentOf) }() // counted, and logged
}

// revoke has the auth server end h. parent returns the token of a step that the revocation
// may need.
func (r *revoker) revoke(ctx context.Context, of party, h ending, parent func(context.Context, *step) (*Token, error)) error {
	s := h.step
	if of.needs(h.held) {
		return nil
	}
	l, events := of.self()
	mark := &fetchMark{ledger: l, step: s}
	mark.epoch.Store(int64(l.now()))
	defer mark.over.Store(true)
	ctx = context.WithValue(withSendCount(ctx, nil), fetchKey{}, mark)
	in, err := of.farewell(ctx, h.held, parent)
	if err == nil {
		err = r.ask(ctx, of, s, in)
	}
	counters := &r.counters.steps[s.index]
	if err != nil && !h.over(err) {
		counters.revokeFailures.Add(1)
		events.log(ctx, slog.LevelWarn, "revocation failed", s, slog.Any("error", err))
		return err
	}
	counters.revocations.Add(1)
	events.log(ctx, slog.LevelInfo, "token revoked at the auth server", s)
	return nil
}

// over reports whether err means that the auth server has ended the token before, as this
// process knew. A refresh token may have outlived the token, and a refusal of the client
// says nothing of either token (RFC 6749 §5.2).
func (h *ending) over(err error) bool {
	auth, ok := err.(*AuthError)
	if !ok || h.live || h.tok.RefreshToken != "" || auth.StatusCode/100 != 4 || transient(auth) {
		return false
	}
	switch auth.Code {
	case "invalid_client", "unauthorized_client", "invalid_request":
		return false
	}
	return true
}

// ask calls Step.Revoke until it has worked, or there is no try or time left.
func (r *revoker) ask(ctx context.Context, of party, s *step, in Input) error {
	bound := s.timeout
	if bound <= 0 {
		bound = revokeTime
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bound, &fetchTimeout{after: bound, own: s.Timeout != 0})
	defer cancel()
	waits := backoff.NewExponentialBackOff(backoff.WithInitialInterval(200*time.Millisecond), backoff.WithMaxInterval(maxTryWait), backoff.WithMaxElapsedTime(0))
	for try := 0; ; try++ {
		slot, err := r.asker.enter(ctx, s)
		if err != nil {
			return inStep(s, err)
		}
		_, err = flight.Bounded(ctx, of.hanging(s), func(ctx context.Context) (struct{}, error) {
			return struct{}{}, s.Revoke(withoutSends(ctx), in)
		}, nil)
		slot.Free()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = context.Cause(ctx) // which says more
		}
		failed := inStep(s, err)
		_, events := of.self()
		failed.Subject = events.about
		if ctx.Err() != nil || try >= r.asker.retries || !transient(failed) || !pause(ctx, waits.NextBackOff(), failed) {
			return failed
		}
	}
}

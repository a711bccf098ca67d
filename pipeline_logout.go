// A logout at the auth server: which tokens are taken away, in which order, and what a
// revocation gets. pipeline_revoke.go runs the revocations.

package requestforge

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

// Logout is Forget plus the end of the sessions at the auth server, by Step.Revoke. Tokens
// made from a step's token are revoked before that token. Tokens that still wait for
// PipelineConfig.RevokeReplaced are revoked, too. A step without Revoke is only forgotten.
//
// Of many processes with one Storage, one or all may call Logout. All processes forget, and
// each token is revoked once, by the process that took the token out of the Storage (or a
// second time, if the Storage is no Locker, or another process held the lock for long). A
// token from a fetch under way is revoked, too, by the fetching process.
//
// When ctx ends, Logout continues to forget, but ends the revocations. Each revocation
// takes Step.Timeout at most. An error joins the errors of Forget and of revocations; this
// process has forgotten in any case. If a revocation needs a parent's token that has
// expired, Logout fetches the parent's token, and ends that token again.
//
// With PipelineConfig.Subject, Logout logs ctx's subject out. The shared steps stay, and a
// revocation finds their tokens in Input.Parents.
func (p *Pipeline) Logout(ctx context.Context) error {
	fs, leave, err := p.flights, func() {}, error(nil)
	if p.subjects != nil {
		if fs, leave, err = p.flightsOf(ctx); err != nil {
			return err
		}
	}
	defer leave()
	var errs []error
	// Tokens fetched for the revocations are taken away, too. They belong to ancestors
	// only, so the loop ends.
	for more := true; more; {
		more = false
		taken, err := fs.takeAway(ctx)
		errs = append(errs, err)
		parent := func(ctx context.Context, p *step) (*Token, error) {
			for _, h := range slices.Backward(taken) {
				if h.step == p && h.live && h.fresh(time.Now()) {
					return h.tok, nil
				}
			}
			more = more || fs.ledger.owns(p.index)
			return fs.parentOf(ctx, p)
		}
		for _, h := range slices.Backward(taken) { // children before parents
			if h.step.Revoke != nil {
				errs = append(errs, fs.revoker.revoke(ctx, fs, h, parent))
			}
		}
	}
	return errors.Join(errs...)
}

// takeAway is Forget. It returns the tokens that this process has taken away from all
// processes, parents first.
//
// The invariant: between the look at the storage and its change no other process takes the
// same tokens away, unless the storage can't lock. So a token found by the look is this
// process's to end, whatever becomes of the record afterwards.
func (fs *flights) takeAway(ctx context.Context) ([]ending, error) {
	ctx = context.WithoutCancel(ctx)
	defer fs.lockAll(ctx)()
	_, _ = fs.shared.pull(ctx, fs.ledger.own()...) // after an error, the knowledge of this process must suffice
	taken := append(fs.revoker.takeOf(fs.ledger), fs.ledger.forget(time.Now())...)
	fs.events.log(ctx, slog.LevelInfo, "everything forgotten", nil)
	removed, err := fs.shared.forget(ctx)
	for i, e := range removed {
		if e.Record == nil {
			continue
		}
		s := fs.ledger.own()[i]
		h, unread := fs.records.read(s, e.Record, time.Now())
		if unread != nil {
			fs.shared.ignored(ctx, s, unread)
			continue
		}
		if !slices.ContainsFunc(taken, func(t ending) bool { return t.step == s && t.same(h) }) { // saved since the look
			taken = append(taken, ending{h, h.fresh(time.Now()) && h.stamp() > e.Mark})
		}
	}
	slices.SortStableFunc(taken, func(a, b ending) int { return a.step.index - b.step.index })
	return taken, err
}

// lockAll locks the steps with a Revoke, so that exactly one of several processes that log
// out takes the tokens away, and returns a function that unlocks the steps. It doesn't wait
// for a lock that another process holds for long.
func (fs *flights) lockAll(ctx context.Context) (unlock func()) {
	var leases []*lease
	ctx, stop := context.WithTimeout(ctx, logoutPatience)
	defer stop()
	for _, s := range fs.ledger.own() {
		if s.Revoke == nil || fs.shared.store.locker == nil || fs.flight(s).Busy() { // a flight has the lock, or waits for the lock
			continue
		}
		for {
			lease, err := fs.shared.store.tryLock(ctx, fs.shared.key(s))
			if lease != nil {
				leases = append(leases, lease)
			}
			if lease != nil || err != nil || ctx.Err() != nil {
				break
			}
			select {
			case <-time.After(logoutPatience / 50):
			case <-ctx.Done():
			}
		}
	}
	return func() {
		for _, l := range leases {
			fs.shared.store.unlock(context.WithoutCancel(ctx), l)
		}
	}
}

// logoutPatience is how long a logout waits for the locks of its steps.
const logoutPatience = time.Second

// The part of flights for a revoker; see party.

func (fs *flights) needs(h *held) bool {
	for ; fs != nil; fs = fs.up {
		if fs.ledger.has(h) {
			return true
		}
	}
	return false
}

func (fs *flights) parentOf(ctx context.Context, p *step) (*Token, error) {
	h, err := fs.of(p).join(ctx, p, demand{})
	if err != nil {
		return nil, err
	}
	return h.tok, nil
}

func (fs *flights) farewell(ctx context.Context, h *held, parent func(context.Context, *step) (*Token, error)) (in Input, err error) {
	in = Input{Parents: make(map[string]*Token), Subject: fs.subject, Previous: h.tok}
	for _, p := range h.step.parents {
		if p.Given != nil { // a logout may have no given token
			if tok, err := given(ctx, p, fs.deaf(h.step).givens); err == nil {
				in.Parents[p.Name] = tok
			}
			continue
		}
		if in.Parents[p.Name], err = parent(ctx, p); err != nil {
			return in, err
		}
	}
	return in, nil
}

func (fs *flights) hanging(s *step) *flight.Limit { return fs.deaf(s).hooks }

func (fs *flights) self() (*ledger, eventLog) { return fs.ledger, fs.events }

func (fs *flights) stay() (leave func()) {
	if fs.own == nil || !fs.subjects.pin(fs.own) {
		return func() {}
	}
	return func() { fs.subjects.leave(fs.own) }
}

// How the auth server is asked for the token of one step, and what its refusals
// mean. Who asks, and when, is pipeline_fetch.go's; what one HTTP exchange is,
// fetcher.go's.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/requestforge/requestforge/internal/flight"
)

// maxTryWait bounds the wait between two tries of one fetch; an auth server that
// asks for more is asked again by a later flight.
const maxTryWait = 5 * time.Second

// blameEvery is how often the parents of a step are blamed in vain.
const blameEvery = 5 * time.Minute

// suspect is a parent token that the auth server refused.
type suspect struct {
	step  *step
	stamp uint64
}

// obtain asks the auth server: with the previous refresh token if there is
// one that may be spent, else from scratch.
func (f *fetch) obtain(ctx context.Context) (*Token, []*held, error) {
	s := f.step
	if prev := f.refreshable(); prev != nil {
		tok, parents, err := f.call(ctx, s.Refresh, prev)
		if err == nil {
			f.stats[s.index].refreshes.Add(1)
			return tok, parents, nil
		}
		if !f.dismisses(err) {
			return nil, nil, err
		}
		f.mu.Lock()
		ss := &f.steps[s.index]
		ss.spent = max(ss.spent, prev.stamp)
		f.mu.Unlock()
		f.log(ctx, slog.LevelInfo, "refresh token of no use; logging in from scratch", s, slog.Any("error", err))
	}
	return f.call(ctx, s.Fetcher, nil)
}

// refreshable returns the newest token if its refresh token may be spent.
func (f *fetch) refreshable() *held {
	if f.step.Refresh == nil || !f.leased() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ss := &f.steps[f.step.index]
	if ss.cur == nil || ss.cur.tok.RefreshToken == "" || ss.cur.stamp <= ss.spent {
		return nil
	}
	return ss.cur
}

// dismisses reports whether after err the refresh token must not be sent
// again: it was refused, or it may have been spent without our seeing the
// answer.
func (f *fetch) dismisses(err error) bool {
	var auth *AuthError
	if f.failing != nil || !errors.As(err, &auth) {
		return false
	}
	if code := auth.StatusCode; code >= 400 && code < 500 && code != 408 && code != 429 {
		return true
	}
	return auth.Permanent || ambiguous(err)
}

// call runs one fetcher with the parents' tokens. If the auth server refuses
// it, the parents it carried are replaced and it is run once more.
func (f *fetch) call(ctx context.Context, fetcher Fetcher, prev *held) (*Token, []*held, error) {
	for {
		parents, err := f.parents(ctx)
		if err != nil {
			return nil, nil, err
		}
		in := Input{Parents: make(map[string]*Token, len(parents))}
		for i, p := range f.step.parents {
			in.Parents[p.Name] = parents[i].tok
		}
		if prev != nil {
			in.Previous = prev.tok
		}
		tok, err := f.tries(ctx, fetcher, in)
		if err == nil {
			f.trust(parents)
			return tok, parents, nil
		}
		if !f.blame(ctx, parents, err) {
			return nil, nil, err
		}
	}
}

// parents returns a live token of each parent; those that have to be fetched
// are, at the same time.
func (f *fetch) parents(ctx context.Context) ([]*held, error) {
	got := make([]*held, len(f.step.parents))
	errs := make([]error, len(got))
	var wg sync.WaitGroup
	for i, p := range f.step.parents {
		if got[i] = f.current(p, f.want); got[i] != nil {
			continue
		}
		wg.Go(func() { got[i], errs[i] = f.join(ctx, p, f.want) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			f.failing = f.step.parents[i]
			return nil, err
		}
	}
	return got, nil
}

// blame reports whether err means that the auth server refused a parent's
// token, and makes the flight want newer ones. Those refused are condemned
// when the step has worked with others (see condemn), not before: a token
// that is still good must not die of an auth server's bad day.
func (f *fetch) blame(ctx context.Context, parents []*held, err error) bool {
	var auth *AuthError
	if len(parents) == 0 || !errors.As(err, &auth) {
		return false
	}
	bare := (auth.StatusCode == http.StatusUnauthorized || auth.StatusCode == http.StatusForbidden) && !auth.Permanent
	if !bare && !auth.ParentRefused {
		return false
	}
	f.mu.Lock()
	ss := &f.steps[f.step.index]
	if f.blamed {
		ss.futile = time.Now()
		f.mu.Unlock()
		return false
	}
	// If newer parents changed nothing a while ago, only a parent that has
	// worked since is under suspicion: else a wrong password would be
	// sent twice in each flight. Only for a while, because a parent that
	// was revoked before it ever worked would be the end of the step
	// until it expires. And an auth server that says what was wrong
	// (RFC 6750 §3.1) means the parent.
	futile := time.Since(ss.futile) < blameEvery && auth.Code != "invalid_token" && !slices.ContainsFunc(parents, func(h *held) bool { return h.tok.prov.accepted.Load() })
	f.mu.Unlock()
	if futile {
		return false
	}
	f.blamed = true
	for i, p := range f.step.parents {
		f.suspects = append(f.suspects, suspect{p, parents[i].stamp})
		f.want = f.above(f.want, p, parents[i].stamp)
	}
	f.log(ctx, slog.LevelInfo, "refused by the auth server; replacing the tokens it carried", f.step, slog.Int("status", auth.StatusCode))
	return true
}

// condemn invalidates the refused parents, now that newer ones have worked.
func (f *fetch) condemn(ctx context.Context) {
	for _, sus := range f.suspects {
		f.mu.Lock()
		raised := f.raise(sus.step, sus.stamp)
		f.mu.Unlock()
		if raised {
			f.counts.invalidations.Add(1)
			f.log(ctx, slog.LevelInfo, "token invalidated", sus.step, slog.Uint64("stamp", sus.stamp))
			f.p.store.revoke(ctx, sus.step.key, sus.stamp)
		}
	}
	f.suspects = nil
}

// trust notes that the auth server has taken the parents' tokens.
func (f *fetch) trust(parents []*held) {
	for _, h := range parents {
		h.tok.prov.accepted.Store(true)
	}
	f.mu.Lock()
	f.steps[f.step.index].futile = time.Time{}
	f.mu.Unlock()
}

// tries runs fetcher until it brings a token, its error is final, or the
// tries or the time are used up.
func (f *fetch) tries(ctx context.Context, fetcher Fetcher, in Input) (*Token, error) {
	if t := f.p.cfg.FetchTimeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, &fetchTimeout{t})
		defer cancel()
	}
	waits := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(200*time.Millisecond),
		backoff.WithMaxInterval(maxTryWait),
		backoff.WithMaxElapsedTime(0),
	)
	for try := 0; ; try++ {
		tok, err := f.try(ctx, fetcher, in, try)
		if err == nil {
			return tok, nil
		}
		if ctx.Err() != nil || try >= f.p.cfg.FetchRetries || !transient(err) {
			return nil, err
		}
		if in.Previous != nil && (ambiguous(err) || !f.leased()) {
			return nil, err
		}
		wait := waits.NextBackOff()
		var auth *AuthError
		if errors.As(err, &auth) {
			wait = max(wait, auth.RetryAfter)
		}
		if end, ok := ctx.Deadline(); wait > maxTryWait || ok && time.Until(end) <= wait {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// fetchTimeout is the cause of a fetch that took too long.
type fetchTimeout struct{ after time.Duration }

func (e *fetchTimeout) Error() string {
	return fmt.Sprintf("no token within FetchTimeout (%v)", e.after)
}

func (e *fetchTimeout) Timeout() bool { return true }

func (e *fetchTimeout) Temporary() bool { return true }

func (e *fetchTimeout) Is(target error) bool {
	return target == context.DeadlineExceeded
}

// try runs fetcher once and checks what it brings.
func (f *fetch) try(ctx context.Context, fetcher Fetcher, in Input, n int) (*Token, error) {
	s, begun := f.step, time.Now()
	f.stats[s.index].fetches.Add(1)
	tok, err := flight.Bounded(ctx, func(ctx context.Context) (*Token, error) {
		return fetcher.Fetch(ctx, in)
	}, nil)
	if err == nil {
		tok, err = f.mint(tok, in)
	}
	attrs := []slog.Attr{slog.Int("try", n+1), slog.Duration("took", time.Since(begun))}
	if err != nil {
		err = f.name(err)
		var p *flight.PanicError
		if errors.As(err, &p) {
			attrs = append(attrs, slog.String("stack", string(p.Stack)))
		}
		f.log(ctx, slog.LevelWarn, "fetch failed", s, append(attrs, slog.Any("error", err))...)
		return nil, err
	}
	if !tok.Expiry.IsZero() {
		attrs = append(attrs, slog.Time("expiry", tok.Expiry))
	}
	f.log(ctx, slog.LevelInfo, "token fetched", s, attrs...)
	return tok, nil
}

// name makes err an *AuthError of this step.
func (f *fetch) name(err error) *AuthError {
	named := &AuthError{Step: f.step.Name, Err: err}
	var auth *AuthError
	if errors.As(err, &auth) {
		named.Permanent, named.RetryAfter = auth.Permanent, auth.RetryAfter
		if auth.Step == "" { // else another pipeline's: not this step's answer
			named.StatusCode, named.Code, named.ParentRefused = auth.StatusCode, auth.Code, auth.ParentRefused
			if err == error(auth) {
				named.Err = auth.Err
			}
		}
	}
	return named
}

// mint checks a fetcher's token and gives it its expiry.
func (f *fetch) mint(raw *Token, in Input) (*Token, error) {
	if err := raw.validate(); err != nil {
		return nil, err
	}
	tok := *raw // the fetcher may hand out one token many times
	tok.prov = nil
	if ttl := f.step.TTL; ttl > 0 {
		if end := time.Now().Add(ttl); tok.Expiry.IsZero() || end.Before(tok.Expiry) {
			tok.Expiry = end
		}
	}
	tok.Expiry = tok.Expiry.Round(0) // wall clock only, as in a record
	if !tok.Expiry.IsZero() && !tok.Expiry.After(time.Now()) {
		return nil, errors.New("the fetched token is expired already")
	}
	if tok.RefreshToken == "" && in.Previous != nil {
		tok.RefreshToken = in.Previous.RefreshToken // RFC 6749 §6: the old one stays
	}
	var err error
	if tok.Extra, err = canonicalExtra(tok.Extra); err != nil {
		return nil, err
	}
	return &tok, nil
}

// hook calls an application's function; a panic or a Goexit in it is none of
// our callers' business.
func hook(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		f()
	}()
	<-done
}

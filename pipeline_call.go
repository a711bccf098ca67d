// How the auth server is asked for the token of one step, and what its refusals
// mean. pipeline_fetch.go decides when to ask; fetcher.go makes one HTTP exchange.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/requestforge/requestforge/internal/flight"
)

// maxTryWait bounds the wait between two tries of one fetch; an auth server that
// asks for more is asked again by a later flight.
const maxTryWait = 5 * time.Second

// asker asks auth servers.
type asker struct {
	timeout  time.Duration // PipelineConfig.FetchTimeout
	retries  int           // PipelineConfig.FetchRetries
	events   eventLog
	counters *counters
}

// ask runs fetcher until there is a token, a final error, or no try or time left.
// A try with a refresh token is repeated only while leased says that no other
// process can be at the step.
func (a *asker) ask(ctx context.Context, s *step, fetcher Fetcher, in Input, leased func() bool) (*Token, error) {
	if t := a.timeout; t > 0 {
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
		tok, err := a.try(ctx, s, fetcher, in, try)
		if err == nil {
			return tok, nil
		}
		if ctx.Err() != nil || try >= a.retries || !transient(err) {
			return nil, err
		}
		if in.Previous != nil && (ambiguous(err) || !leased()) {
			return nil, err
		}
		if !pause(ctx, waits.NextBackOff(), err) {
			return nil, err
		}
	}
}

// pause waits before another try after err, for wait or for what the server asks
// if that is longer. It returns false if there must be no other try.
func pause(ctx context.Context, wait time.Duration, err error) bool {
	if auth, ok := errors.AsType[*AuthError](err); ok {
		wait = max(wait, auth.RetryAfter)
	}
	if end, ok := ctx.Deadline(); wait > maxTryWait || ok && time.Until(end) <= wait {
		return false
	}
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
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

// try runs fetcher once and checks the token.
func (a *asker) try(ctx context.Context, s *step, fetcher Fetcher, in Input, n int) (*Token, error) {
	begun := time.Now()
	a.counters.steps[s.index].fetches.Add(1)
	tok, err := flight.Bounded(ctx, func(ctx context.Context) (*Token, error) {
		return fetcher.Fetch(ctx, in)
	}, nil)
	if err == nil {
		tok, err = mint(s, tok, in)
	}
	attrs := []slog.Attr{slog.Int("try", n+1), slog.Duration("took", time.Since(begun))}
	if err != nil {
		err = inStep(s, err)
		if p, ok := errors.AsType[*flight.PanicError](err); ok {
			attrs = append(attrs, slog.String("stack", string(p.Stack)))
		}
		a.events.log(ctx, slog.LevelWarn, "fetch failed", s, append(attrs, slog.Any("error", err))...)
		return nil, err
	}
	if !tok.Expiry.IsZero() {
		attrs = append(attrs, slog.Time("expiry", tok.Expiry))
	}
	a.events.log(ctx, slog.LevelInfo, "token fetched", s, attrs...)
	return tok, nil
}

// inStep makes err an *AuthError of s.
func inStep(s *step, err error) *AuthError {
	named := &AuthError{Step: s.Name, Err: err}
	if auth, ok := errors.AsType[*AuthError](err); ok {
		named.Permanent, named.RetryAfter = auth.Permanent, auth.RetryAfter
		// The error of another pipeline isn't this step's answer: a client
		// had no token to send the fetch with.
		if named.Unsent = true; auth.Step == "" {
			named.StatusCode, named.Code, named.ParentRefused, named.Unsent = auth.StatusCode, auth.Code, auth.ParentRefused, auth.Unsent
			if err == error(auth) {
				named.Err = auth.Err
			}
		}
	}
	return named
}

// mint checks a fetcher's token and sets the expiry.
func mint(s *step, raw *Token, in Input) (*Token, error) {
	if err := raw.validate(); err != nil {
		return nil, err
	}
	tok := *raw // the fetcher may hand out one token many times
	tok.prov = nil
	if ttl := s.TTL; ttl > 0 {
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

// endsRefreshToken reports whether after err the refresh token must not be sent
// again: the server refused the token, or may have taken it and lost the answer.
func endsRefreshToken(err error) bool {
	auth, ok := errors.AsType[*AuthError](err)
	if !ok {
		return false
	}
	if code := auth.StatusCode; code >= 400 && code < 500 && code != 408 && code != 429 {
		return true
	}
	return auth.Permanent || ambiguous(err)
}

// refusesParent reports whether err means that the auth server refused a parent's
// token. With the code invalid_token (RFC 6750 §3.1) the refusal is certain.
func refusesParent(err error) (refused, certain bool) {
	auth, ok := errors.AsType[*AuthError](err)
	if !ok {
		return false, false
	}
	status := auth.StatusCode
	bare := (status == http.StatusUnauthorized || status == http.StatusForbidden) && !auth.Permanent
	return bare || auth.ParentRefused, auth.Code == "invalid_token"
}

// hook calls a function of the application. A panic or a Goexit in the function
// doesn't reach the callers who wait for the token.
func hook(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		f()
	}()
	<-done
}

// How the auth server is asked for the token of a step, and what its refusals mean.
// pipeline_fetch.go decides when to ask; fetcher.go makes one HTTP exchange.

package requestforge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/requestforge/requestforge/internal/deadconn"
	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/retryafter"
	"github.com/requestforge/requestforge/internal/slot"
)

// maxTryWait bounds the wait between two tries of one fetch. If an auth server asks for a
// longer wait, a later flight asks again.
const maxTryWait = 5 * time.Second

// asker asks auth servers.
type asker struct {
	retries  int        // PipelineConfig.FetchRetries
	answers  bool       // PipelineConfig.KeepAnswers
	slots    *slot.Pool // PipelineConfig.MaxFetches; nil: no bound
	events   eventLog
	counters *counters

	// A try without an answer may mean a dead connection. The next try of the step leaves
	// the connection, however late that try comes. For a minute all steps, which may share
	// the connection, leave it too.
	dead    []atomic.Bool // by step.index
	suspect atomic.Pointer[time.Time]
}

// suspicion is how long the connections from before are left by all steps.
const suspicion = time.Minute

// stuck returns an error if maxHanging fetchers were left behind and still run, else nil.
// The error is no failure of the auth server: nothing was sent. It causes no cool-down, so
// a fetch is possible as soon as a fetcher returns.
func stuck(s *step, hanging *flight.Limit) error {
	if !hanging.Full() {
		return nil
	}
	return &AuthError{Step: s.Name, Unsent: true, Err: errStuck}
}

var errNoSlot = errors.New("MaxFetches requests to auth servers were under way for all of FetchTimeout; nothing was sent")

// enter waits for a slot and stores the slot in ctx's mark. A fetcher that waits for
// another step's token gives the slot back meanwhile.
func (a *asker) enter(ctx context.Context, s *step) (*slot.Slot, error) {
	got := a.slots.Take(ctx, s.timeout)
	if ctx.Err() != nil {
		got.Free()
		return nil, context.Cause(ctx)
	}
	if got == nil {
		return nil, &AuthError{Step: s.Name, Unsent: true, Err: errNoSlot}
	}
	if m, _ := ctx.Value(fetchKey{}).(*fetchMark); m != nil {
		m.slot.Store(got)
	}
	return got, nil
}

var errStuck = fmt.Errorf("%d fetchers of earlier fetches still run, long after FetchTimeout; a Fetcher must return when its context ends", maxHanging)

var errParentEnded = errors.New("the token of a parent ended before the request could be sent")

// ask runs fetcher until there is a token, a final error, or no try or time left. Each try
// holds a slot; the time for a fetch begins with the first slot. ask also returns the
// changing secrets of the last try: if the auth server refuses and the secrets have changed
// since, one more try follows at once, with the new secrets. may is called before each try,
// and an error of may ends the fetch: neither a logout nor a refresh token that belongs to
// another process by now must wait for an answer.
func (a *asker) ask(ctx context.Context, s *step, fetcher Fetcher, in Input, hanging *flight.Limit, may func() error) (tok *Token, read reading, err error) {
	held, err := a.enter(ctx, s)
	if err != nil {
		return nil, read, err
	}
	defer func() { held.Free() }()
	if t := s.timeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, &fetchTimeout{after: t, own: s.Timeout != 0})
		defer cancel()
	}
	waits := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(200*time.Millisecond),
		backoff.WithMaxInterval(maxTryWait),
		backoff.WithMaxElapsedTime(0),
	)
	var last error
	renewed := false
	for try := 0; ; try++ {
		if err := may(); err != nil {
			if last == nil || errors.Is(err, errForgot) {
				last = err
			}
			return nil, read, last
		}
		tok, read, err = a.try(ctx, s, fetcher, in, hanging, try)
		held.Free()
		if err == nil {
			return tok, read, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, read, err
		case !renewed && in.refused(err) && a.renewed(ctx, s, read, hanging):
			renewed = true
			try-- // the refusal was another secret's
		case try >= a.retries, !transient(err), in.ambiguous(err), !pause(ctx, waits.NextBackOff(), err):
			return nil, read, err
		}
		last = err
		if held, err = a.enter(ctx, s); err != nil {
			return nil, read, last
		}
	}
}

// refused reports whether an auth server may have refused the secret: by the status, or by
// a code about the client or the credentials shown. A refusal of the refresh token isn't
// about the secret. Neither is the refusal of a person, who must not be asked twice.
func (in *Input) refused(err error) bool {
	auth, ok := errors.AsType[*AuthError](err)
	if !ok || transient(err) || in.Previous != nil && fateOf(err) == spent {
		return false
	}
	switch auth.Code {
	case "", "invalid_client", "unauthorized_client", "invalid_grant", "invalid_request", "invalid_token":
		return auth.StatusCode >= 400 || auth.StatusCode > 0 && auth.Permanent
	}
	return false
}

// ambiguous reports whether err leaves the fate of the sent refresh token open. The next
// fetch then looks for a newer token before asking.
func (in *Input) ambiguous(err error) bool { return in.Previous != nil && ambiguous(err) }

// renewed reports whether a secret has changed since the refused try.
func (a *asker) renewed(ctx context.Context, s *step, refused reading, hanging *flight.Limit) bool {
	if refused.of == nil || !refused.of.bounded(ctx, hanging).renewedSince(refused) {
		return false
	}
	a.events.log(ctx, slog.LevelInfo, "refused, but the secret has changed since; asking with the new one", s)
	return true
}

// pause waits before another try after err: for wait, or for the server's Retry-After if
// longer. A Retry-After is spread if there is time. pause returns false if there must be no
// other try.
func pause(ctx context.Context, wait time.Duration, err error) bool {
	asked := time.Duration(0)
	if auth, ok := errors.AsType[*AuthError](err); ok {
		asked = auth.RetryAfter
	}
	longest := time.Duration(math.MaxInt64)
	if end, ok := ctx.Deadline(); ok {
		longest = time.Until(end) - 1
	}
	if wait, asked = max(wait, asked), min(retryafter.Spread(asked), longest); wait > maxTryWait || wait > longest {
		return false
	}
	select {
	case <-time.After(max(wait, asked)):
		return true
	case <-ctx.Done():
		return false
	}
}

// fetchTimeout is the cause of a fetch, or of a try, that took too long.
type fetchTimeout struct {
	after time.Duration
	try   bool
	own   bool // the step's
}

func (e *fetchTimeout) Error() string {
	if e.try {
		return fmt.Sprintf("no answer within %v, three quarters of the time that was left; the connection may be dead", e.after.Round(time.Millisecond))
	}
	field := "FetchTimeout"
	if e.own {
		field = "Step.Timeout"
	}
	return fmt.Sprintf("no token within %s (%v)", field, e.after)
}

func (e *fetchTimeout) Timeout() bool { return true }

func (e *fetchTimeout) Temporary() bool { return true }

func (e *fetchTimeout) Is(target error) bool {
	return target == context.DeadlineExceeded
}

// try runs fetcher once and checks the token. After a try without an answer in time, the
// next try leaves the old connections, even in another fetch. If the fetch may have another
// try, try gives up early on a request without an answer. A refresh has all of the time,
// since a fetch never sends a refresh token twice.
func (a *asker) try(ctx context.Context, s *step, fetcher Fetcher, in Input, hanging *flight.Limit, n int) (*Token, reading, error) {
	begun, events := time.Now(), a.events.of(in.Subject)
	a.counters.steps[s.index].fetches.Add(1)
	trying, stop := ctx, func() {}
	if n < a.retries && in.Previous == nil {
		trying, stop = deadconn.Bound(ctx, func(after time.Duration) error { return &fetchTimeout{after: after, try: true} })
	}
	defer stop()
	at := a.suspect.Load()
	if a.dead[s.index].Swap(false) || at != nil && begun.Sub(*at) < suspicion {
		trying = deadconn.Leave(trying)
	}
	trying = keepAnswers(trying, a.answers, in)
	secrets := s.secrets
	if in.Previous != nil {
		secrets = s.refreshSecrets
	}
	var read atomic.Pointer[reading] // a fetcher left behind may still store a reading
	tok, err := flight.Bounded(trying, hanging, func(ctx context.Context) (*Token, error) {
		ctx, r := secrets.read(withoutSends(ctx))
		read.Store(&r)
		return fetcher.Fetch(ctx, in)
	}, nil)
	used := cmp.Or(read.Load(), &reading{of: secrets, bad: true}) // nil: there was no time to read them
	if cause := context.Cause(trying); errors.Is(err, context.Canceled) && ctx.Err() == nil && cause != nil {
		err = cause // the fetcher may have reworded the cause
	}
	if err == nil {
		tok, err = mint(s, tok, in)
	}
	attrs := []slog.Attr{slog.Int("try", n+1), slog.Duration("took", time.Since(begun))}
	if err != nil {
		failed := inStep(s, err)
		if err = failed; failed.Timeout() {
			now := time.Now()
			a.dead[s.index].Store(true)
			a.suspect.Store(&now)
		}
		if p, ok := errors.AsType[*flight.PanicError](err); ok {
			attrs = append(attrs, slog.String("stack", string(p.Stack)))
		}
		events.log(ctx, slog.LevelWarn, "fetch failed", s, append(attrs, slog.Any("error", err))...)
		return nil, *used, err
	}
	if !tok.Expiry.IsZero() {
		attrs = append(attrs, slog.Time("expiry", tok.Expiry))
	}
	events.log(ctx, slog.LevelInfo, "token fetched", s, attrs...)
	return tok, *used, nil
}

// inStep makes err an *AuthError of s.
func inStep(s *step, err error) *AuthError {
	named := &AuthError{Step: s.Name, Err: err}
	if errors.Is(err, errAfterRedirect) {
		named.Err = redact.CauseAt(err, noURL) // the URL is a server's words
	}
	if auth, ok := errors.AsType[*AuthError](err); ok {
		named.Permanent, named.RetryAfter = auth.Permanent, auth.RetryAfter
		// The error of another pipeline isn't an answer to this step: a client had no token
		// for sending the fetch.
		if named.Unsent = true; auth.Step == "" {
			named.StatusCode, named.Code, named.Unsent, named.page, named.read = auth.StatusCode, auth.Code, auth.Unsent, auth.page, auth.read
			named.Temporary, named.ParentRefused, named.RefreshRefused = auth.Temporary, auth.ParentRefused, auth.RefreshRefused
			named.own, named.answer = auth.own, auth.answer
			if err == error(auth) {
				named.Err = auth.Err
			}
		}
	}
	return named
}

// mint checks a fetcher's token and sets the expiry. The error of an invalid token tells
// what became of the refresh token.
func mint(s *step, raw *Token, in Input) (*Token, error) {
	tok, err := minted(s, raw, in, time.Now())
	if err == nil || in.Previous == nil {
		return tok, err
	}
	// The auth server has taken the refresh token and answered, so sending the token again
	// can't help. If the answer brought another refresh token, the old token is spent.
	return nil, &AuthError{RefreshRefused: in.rotates(raw), Err: err, read: true}
}

func minted(s *step, raw *Token, in Input, now time.Time) (*Token, error) {
	if err := raw.validate(); err != nil {
		return nil, err
	}
	tok := *raw // the fetcher may return one token many times
	tok.prov = nil
	tok.jar = in.jarFor(raw)
	tok.Expiry = s.end(raw, in, now).Round(0) // wall clock only, as in a record
	if !tok.Expiry.IsZero() && !tok.Expiry.After(now) {
		return nil, errors.New("the fetched token is expired already")
	}
	var err error
	if tok.Extra, err = canonicalExtra(tok.Extra); err != nil {
		return nil, err
	}
	if before := in.Previous; before != nil {
		tok.RefreshToken = cmp.Or(tok.RefreshToken, before.RefreshToken) // RFC 6749 §6: without a new refresh token the old token stays
		tok.Extra = completed(tok.Extra, before.Extra)
	}
	return &tok, nil
}

// end is when a token of s ends: at the earliest of the server's expiry, the step's TTL,
// and the end of a parent's token that is passed on. A server may name the expiry only
// once; if the same token comes again without an expiry, the earlier answer holds. After
// that time the server's word counts anew, so that no token is refused for ever.
func (s *step) end(raw *Token, in Input, now time.Time) time.Time {
	end, silent := earlier(s.expiry(raw.Expiry, now), in.until), raw.Expiry.IsZero()
	for _, p := range in.Parents {
		if p.hands(raw) {
			end, silent = earlier(end, p.Expiry), false
		}
	}
	if known := in.knownEnd(raw.AccessToken); silent && known.After(now) {
		end = earlier(end, known)
	}
	return end
}

// ended reports whether the TTL of s set the end of h.
func (s *step) ended(h *held) bool {
	if s.TTL <= 0 || h.tok.Expiry.IsZero() {
		return false
	}
	// A token is stored a moment after its end was computed.
	return s.expiry(time.Time{}, h.issued).Sub(h.tok.Expiry) < time.Second
}

// expiry is when a token of s ends if the server says said; zero is never.
func (s *step) expiry(said, now time.Time) time.Time {
	if s.TTL > 0 {
		said = earlier(said, now.Add(s.TTL))
	}
	if life := said.Sub(now); !said.IsZero() && life > 0 {
		said = said.Add(-min(s.ExpireEarly, life/2))
	}
	return said
}

// earlier returns the earlier of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// refusesParent reports whether err means that the auth server refused a parent's token.
// With the code invalid_token (RFC 6750 §3.1) the refusal is certain. A refused refresh
// token isn't sent again, even if a parent's token was refused as well.
func refusesParent(err error, refresh bool) (refused, certain bool) {
	auth, ok := errors.AsType[*AuthError](err)
	certain = ok && auth.Code == "invalid_token"
	if !ok || refresh && (auth.RefreshRefused || !certain && condemns(auth)) {
		return false, false
	}
	status := auth.StatusCode
	bare := (status == http.StatusUnauthorized || status == http.StatusForbidden) && !auth.Permanent && !auth.Temporary && !auth.RefreshRefused && !auth.own
	return bare || auth.ParentRefused, certain
}

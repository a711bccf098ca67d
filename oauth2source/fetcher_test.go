package oauth2source_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func static(tok *oauth2.Token) oauth2.TokenSource { return oauth2.StaticTokenSource(tok) }

func TestFetcherBringsTheSourcesToken(t *testing.T) {
	expiry := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	src := static((&oauth2.Token{
		AccessToken:  "access",
		TokenType:    "DPoP",
		RefreshToken: "refresh",
		Expiry:       expiry,
		ExpiresIn:    60,
	}).WithExtra(map[string]any{"id_token": "id", "scope": "read"}))
	from := func(context.Context, requestforge.Input) (oauth2.TokenSource, error) { return src, nil }

	for _, tt := range []struct {
		name    string
		fetcher requestforge.Fetcher
		refresh string
	}{
		{"Fetcher", oauth2source.Fetcher(src, "id_token", "none"), ""}, // the source spends it itself
		{"FetcherFrom", oauth2source.FetcherFrom(from, "id_token", "none"), "refresh"},
	} {
		tok, err := tt.fetcher.Fetch(t.Context(), requestforge.Input{})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if tok.AccessToken != "access" || tok.TokenType != "DPoP" || !tok.Expiry.Equal(expiry) || tok.RefreshToken != tt.refresh {
			t.Errorf("%s: got %q, %q, %v, %q", tt.name, tok.AccessToken, tok.TokenType, tok.Expiry, tok.RefreshToken)
		}
		if len(tok.Extra) != 1 || tok.Extra["id_token"] != "id" {
			t.Errorf("%s: got other extra fields than id_token", tt.name)
		}
	}
}

func TestFetcherTakesExpiresInWhereThereIsNoExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seconds, want := range map[int64]time.Duration{
			60:        time.Minute,
			1<<63 - 1: (1<<63 - 1) / time.Second * time.Second,
		} {
			tok, err := oauth2source.Fetcher(static(&oauth2.Token{AccessToken: "access", ExpiresIn: seconds})).Fetch(t.Context(), requestforge.Input{})
			if err != nil || time.Until(tok.Expiry) != want {
				t.Errorf("%d s: got %v, %v; want %v from now", seconds, tok, err, want)
			}
		}
		tok, err := oauth2source.Fetcher(static(&oauth2.Token{AccessToken: "access"})).Fetch(t.Context(), requestforge.Input{})
		if err != nil || !tok.Expiry.IsZero() {
			t.Errorf("neither: got %v, %v; want no expiry", tok, err)
		}
	})
}

func TestFetcherFromPassesContextAndInputOn(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "value")
	in := requestforge.Input{Previous: &requestforge.Token{RefreshToken: "refresh"}}
	f := oauth2source.FetcherFrom(func(ctx context.Context, in requestforge.Input) (oauth2.TokenSource, error) {
		return static(&oauth2.Token{AccessToken: ctx.Value(key{}).(string) + " " + in.Previous.RefreshToken}), nil
	})
	if tok, err := f.Fetch(ctx, in); err != nil || tok.AccessToken != "value refresh" {
		t.Errorf("got %v, %v", tok, err)
	}
}

func TestFetcherMistakesAreErrors(t *testing.T) {
	for name, f := range map[string]requestforge.Fetcher{
		"nil source":   oauth2source.Fetcher(nil),
		"nil token":    oauth2source.Fetcher(static(nil)),
		"nil function": oauth2source.FetcherFrom(nil),
		"function that returns nil": oauth2source.FetcherFrom(func(context.Context, requestforge.Input) (oauth2.TokenSource, error) {
			return nil, nil
		}),
		"function that fails": oauth2source.FetcherFrom(func(context.Context, requestforge.Input) (oauth2.TokenSource, error) {
			return static(&oauth2.Token{AccessToken: "access"}), errors.New("no")
		}),
	} {
		if tok, err := f.Fetch(t.Context(), requestforge.Input{}); tok != nil || err == nil {
			t.Errorf("%s: got %v, %v", name, tok, err)
		}
	}
}

const secret = "hunter2"

// fetchFrom asks for a token with the client credentials grant, whose secret
// is hunter2.
func fetchFrom(ctx context.Context, tokenURL string) error {
	_, err := oauth2source.FetcherFrom(func(ctx context.Context, _ requestforge.Input) (oauth2.TokenSource, error) {
		conf := clientcredentials.Config{
			ClientID:     "client",
			ClientSecret: secret,
			TokenURL:     tokenURL,
			AuthStyle:    oauth2.AuthStyleInParams,
		}
		return conf.TokenSource(ctx), nil
	}).Fetch(ctx, requestforge.Input{})
	return err
}

func TestRefusalsBecomeAuthErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		status     int
		retryAfter string
		body       string
		want       requestforge.AuthError
	}{
		"wrong secret":         {401, "", `{"error":"invalid_client","error_description":"not hunter2"}`, requestforge.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true}},
		"spent refresh token":  {400, "", `{"error":"invalid_grant","error_uri":"https://hunter2"}`, requestforge.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}},
		"error with status OK": {200, "", `{"error":"access_denied"}`, requestforge.AuthError{StatusCode: 200, Code: "access_denied", Permanent: true}},
		"polled too soon":      {400, "", `{"error":"slow_down"}`, requestforge.AuthError{StatusCode: 400, Code: "slow_down"}},
		"a code of its own":    {400, "", `{"error":"hunter2 is wrong"}`, requestforge.AuthError{StatusCode: 400}},
		"too many requests":    {429, "7", `{"you sent":"hunter2"}`, requestforge.AuthError{StatusCode: 429, RetryAfter: 7 * time.Second}},
		"a page":               {503, "", `<html>hunter2</html>`, requestforge.AuthError{StatusCode: 503}},
		"nothing":              {403, "", ``, requestforge.AuthError{StatusCode: 403}},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if tt.retryAfter != "" {
					w.Header().Set("Retry-After", tt.retryAfter)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			defer server.Close()
			err := fetchFrom(t.Context(), server.URL)
			got, ok := errors.AsType[*requestforge.AuthError](err)
			if !ok {
				t.Fatalf("got %v, want an *AuthError", err)
			}
			if got.StatusCode != tt.want.StatusCode || got.Code != tt.want.Code || got.Permanent != tt.want.Permanent || got.RetryAfter != tt.want.RetryAfter {
				t.Errorf("got status %d, code %q, permanent %v, retry after %v; want %d, %q, %v, %v",
					got.StatusCode, got.Code, got.Permanent, got.RetryAfter,
					tt.want.StatusCode, tt.want.Code, tt.want.Permanent, tt.want.RetryAfter)
			}
			if _, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
				t.Error("the RetrieveError, with the body and the request, is still in the chain")
			}
			noSecret(t, err)
		})
	}
}

func TestRefusalOfACustomSource(t *testing.T) {
	refusal := &oauth2.RetrieveError{ErrorCode: "invalid_grant", Body: []byte(secret)}
	err := fetchError(t, fmt.Errorf("sdk: %w", refusal))
	if got, ok := errors.AsType[*requestforge.AuthError](err); !ok || got.Code != "invalid_grant" || got.StatusCode != 0 {
		t.Errorf("got %v, want invalid_grant without a status", err)
	}
	noSecret(t, err)
}

func TestErrorsKeepTheirChainButNoSecret(t *testing.T) {
	refused := errors.New("connection refused")
	inner := &url.Error{Op: "Post", URL: "https://user:hunter2@example.com/token?client_secret=hunter2", Err: refused}
	for name, err := range map[string]error{
		"as http.Client returns it": inner,
		"wrapped by an SDK":         fmt.Errorf("sdk: %w", inner),
		"quoted by an SDK":          fmt.Errorf("POST %s: %w", inner.URL, inner),
		"a URL no one can read":     &url.Error{Op: "parse", URL: "https://%zz:hunter2@", Err: refused},
		"text from the wire":        &url.Error{Op: "Post", URL: "https://example.com", Err: fmt.Errorf("malformed HTTP response %q: %w", secret+`" `+secret, refused)},
		"a body in a field":         bodyError{Body: `"hunter2"`, err: refused},
		"a body, quoted":            fmt.Errorf(`status 400: {"secret": "hunter2"}: %w`, refused),
	} {
		t.Run(name, func(t *testing.T) {
			got := fetchError(t, err)
			if !errors.Is(got, refused) {
				t.Errorf("%v doesn't lead to its cause any more", got)
			}
			if err == error(inner) && !strings.Contains(got.Error(), "example.com/token") {
				t.Errorf("%v doesn't say which server", got)
			}
			noSecret(t, got)
		})
	}
}

func TestHarmlessErrorsStayAsTheyAre(t *testing.T) {
	for _, want := range []error{
		errors.New("oauth2: token expired and refresh token is not set"),
		errors.New(`requestforge: step "app": 503 Service Unavailable`),
	} {
		if got := fetchError(t, want); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestFetcherFromEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	}))
	defer server.Close()
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if err := fetchFrom(ctx, server.URL); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// bodyError is an error of an SDK that keeps the body in an exported field.
type bodyError struct {
	Body string
	err  error
}

func (e bodyError) Error() string { return "sdk: " + e.Body }
func (e bodyError) Unwrap() error { return e.err }

type failing struct{ err error }

func (f failing) Token() (*oauth2.Token, error) { return nil, f.err }

// fetchError returns what a Fetcher makes of its source's error, which must
// be what FetcherFrom makes of its function's.
func fetchError(t *testing.T, err error) error {
	t.Helper()
	_, got := oauth2source.Fetcher(failing{err}).Fetch(t.Context(), requestforge.Input{})
	_, from := oauth2source.FetcherFrom(func(context.Context, requestforge.Input) (oauth2.TokenSource, error) {
		return nil, err
	}).Fetch(t.Context(), requestforge.Input{})
	if got == nil || from == nil || got.Error() != from.Error() {
		t.Fatalf("Fetcher: %v; FetcherFrom: %v", got, from)
	}
	return got
}

// noSecret prints err in every way, and whatever it leads to.
func noSecret(t *testing.T, err error) {
	t.Helper()
	if ue, ok := errors.AsType[*url.Error](err); ok && ue != err {
		noSecret(t, ue)
	}
	for ; err != nil; err = errors.Unwrap(err) {
		var out bytes.Buffer
		fmt.Fprintf(&out, "%v %+v %#v %q\n", err, err, err, err)
		json.NewEncoder(&out).Encode(err)
		slog.New(slog.NewJSONHandler(&out, nil)).Error("failed", "error", err)
		if strings.Contains(out.String(), secret) {
			t.Errorf("%T shows the secret: %s", err, out.String())
		}
	}
}

// A program that calls NewAuthError without the package has as little to fear.
func TestNewAuthErrorShowsNothingOfARetrieveError(t *testing.T) {
	refusal := &oauth2.RetrieveError{Response: &http.Response{Status: secret}, Body: []byte(secret), ErrorDescription: secret}
	for _, err := range []error{refusal, fmt.Errorf("sdk: %w", refusal), errors.Join(errors.New("sdk"), refusal), &url.Error{Op: "Post", URL: "https://h", Err: refusal}} {
		got := requestforge.NewAuthError(nil, nil, err)
		if !strings.Contains(got.Error(), "the auth server refused the request") {
			t.Errorf("got %v", got)
		}
		noSecret(t, got)
	}
}

// Each error begins with the names of the two packages, and no text repeats
// them.
func TestErrorsNameThePackageOnce(t *testing.T) {
	const prefix = "requestforge: oauth2source: "
	in := requestforge.Input{}
	_, jwt := new(oauth2source.JWT).Assert(t.Context(), in)
	_, step := oauth2source.FromStep("app").Assert(t.Context(), in)
	_, source := oauth2source.TokenSource(t.Context(), nil).Token()
	_, fetcher := oauth2source.Fetcher(nil).Fetch(t.Context(), in)
	_, from := oauth2source.FetcherFrom(nil).Fetch(t.Context(), in)
	for _, err := range []error{jwt, step, source, fetcher, from, new(oauth2source.Grant).Validate()} {
		if err == nil || !strings.HasPrefix(err.Error(), prefix) || strings.Count(err.Error(), "requestforge: ") != 1 {
			t.Errorf("got %v, want it to begin with %q", err, prefix)
		}
	}

	grant := oauth2source.ClientCredentials(oauth2source.Config{})
	_, built := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{Name: "app", Fetcher: grant}}})
	_, fetched := grant.Fetch(t.Context(), in)
	cfg := oauth2source.Config{TokenURL: "https://auth.example.com", ClientAuth: &requestforge.ClientAuth{ID: "app"}}
	_, unsigned := oauth2source.JWTBearer(cfg, oauth2source.FromStep("user")).Fetch(t.Context(), in)
	for err, want := range map[error]string{
		built:    `requestforge: step "app": Fetcher: oauth2source: ClientCredentials: Config.TokenURL is missing`,
		fetched:  "requestforge: oauth2source: ClientCredentials: Config.TokenURL is missing",
		unsigned: `requestforge: oauth2source: assertion: there is no token of step "user"`,
	} {
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(err.Error(), "requestforge: ") != 1 {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

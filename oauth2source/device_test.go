package oauth2source_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
)

// bubble is an auth server without a listener, for synctest.
type bubble struct {
	begun time.Time
	mu    sync.Mutex
	codes int
	forms []url.Values
	auth  string // the latest Authorization
	polls []time.Duration
	// answers are those to polls for a token, in turn: an error code, or a
	// number and what goes wrong. After them there is the token.
	answers []string
	code    string // the device authorization response, %d for the number
	token   string
}

func newBubble(*testing.T) *bubble {
	return &bubble{
		begun: time.Now(),
		code: `{"device_code":"device-%d","user_code":"WDJB-%d","verification_uri":"https://auth.test/device",
			"verification_uri_complete":"https://auth.test/device?c=1","expires_in":900,"interval":7}`,
		token: `{"access_token":"token","token_type":"Bearer","expires_in":3600}`,
	}
}

func (b *bubble) url(path string) string { return "https://auth.test" + path }

func (b *bubble) client() *http.Client { return &http.Client{Transport: roundTrip(b.roundTrip)} }

func (b *bubble) last() url.Values { return b.forms[len(b.forms)-1] }

func (b *bubble) roundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body.Close()
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forms = append(b.forms, form)
	b.auth = r.Header.Get("Authorization")
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	answer := ""
	if r.URL.Path == "/device" {
		b.codes++
		io.WriteString(w, strings.ReplaceAll(b.code, "%d", fmt.Sprint(b.codes)))
		return w.Result(), nil
	}
	b.polls = append(b.polls, time.Since(b.begun))
	if len(b.answers) > 0 {
		answer, b.answers = b.answers[0], b.answers[1:]
	}
	switch answer {
	case "":
		io.WriteString(w, b.token)
	case "reset":
		return nil, io.ErrUnexpectedEOF
	case "certificate":
		return nil, &tls.CertificateVerificationError{Err: errors.New("of another name")}
	case "hang":
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	case "page":
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html>")
	case "500":
		w.WriteHeader(500)
	case "429":
		w.Header().Set("Retry-After", "40")
		w.WriteHeader(429)
	case "302":
		w.Header().Set("Location", "https://elsewhere.test/")
		w.WriteHeader(302)
	case "nonsense":
		io.WriteString(w, "{")
	default:
		w.WriteHeader(400)
		fmt.Fprintf(w, `{"error":%q}`, answer)
	}
	return w.Result(), nil
}

func (b *bubble) config() oauth2source.Config {
	return oauth2source.Config{TokenURL: b.url("/token"), ClientAuth: &requestforge.ClientAuth{ID: "tv"}, Client: b.client(), Scopes: []string{"read"}}
}

// device is the grant at b; the codes shown end up in shown.
func (b *bubble) device(shown *[]*oauth2.DeviceAuthResponse) *oauth2source.Grant {
	return oauth2source.DeviceCode(b.config(), b.url("/device"), func(_ context.Context, code *oauth2.DeviceAuthResponse) error {
		*shown = append(*shown, code)
		return nil
	})
}

func seconds(n ...int) []time.Duration {
	out := make([]time.Duration, len(n))
	for i, n := range n {
		out[i] = time.Duration(n) * time.Second
	}
	return out
}

func TestDeviceCodePollsUntilItIsApproved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newBubble(t)
		server.answers = []string{"authorization_pending", "authorization_pending"}
		var shown []*oauth2.DeviceAuthResponse
		tok, err := server.device(&shown).Fetch(t.Context(), requestforge.Input{})
		if err != nil || tok.AccessToken != "token" {
			t.Fatalf("got %v, %v", tok, err)
		}
		want := []*oauth2.DeviceAuthResponse{{
			UserCode: "WDJB-1", VerificationURI: "https://auth.test/device", VerificationURIComplete: "https://auth.test/device?c=1",
			Expiry: server.begun.Add(15 * time.Minute).UTC(), Interval: 7,
		}}
		if len(shown) == 1 {
			shown[0].Expiry = shown[0].Expiry.Round(0)
			want[0].Expiry = want[0].Expiry.Round(0)
		}
		if !reflect.DeepEqual(shown, want) {
			t.Errorf("shown: got %+v, want %+v", shown, want)
		}
		if !slices.Equal(server.polls, seconds(7, 14, 21)) {
			t.Errorf("polled at %v", server.polls)
		}
		poll := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {"device-1"}, "client_id": {"tv"}}
		if forms := []url.Values{{"client_id": {"tv"}, "scope": {"read"}}, poll, poll, poll}; !reflect.DeepEqual(server.forms, forms) {
			t.Errorf("forms:\n got %v\nwant %v", server.forms, forms)
		}
	})
}

func TestDeviceCodeAuthenticatesItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			change func(*oauth2source.Config)
			auth   string
			form   url.Values
		}{
			"in the header": {func(c *oauth2source.Config) { c.ClientAuth = &requestforge.ClientAuth{ID: "tv", Secret: "p ss"} }, "Basic dHY6cCtzcw==", nil},
			"in the form": {func(c *oauth2source.Config) {
				c.ClientAuth = &requestforge.ClientAuth{ID: "tv", Secret: "p ss", InBody: true}
			}, "",
				url.Values{"client_id": {"tv"}, "client_secret": {"p ss"}}},
			"by assertion": {func(c *oauth2source.Config) {
				c.ClientAssertion = oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) { return "signed", nil })
			}, "", url.Values{"client_id": {"tv"}, "client_assertion": {"signed"}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}},
			"with parameters": {func(c *oauth2source.Config) { c.Params = url.Values{"resource": {"https://r"}} }, "",
				url.Values{"client_id": {"tv"}, "resource": {"https://r"}}},
		} {
			server := newBubble(t)
			cfg := server.config()
			tt.change(&cfg)
			var first, second url.Values
			var auths []string
			_, err := oauth2source.DeviceCode(cfg, server.url("/device"), func(context.Context, *oauth2.DeviceAuthResponse) error {
				first, auths = server.last(), append(auths, server.auth)
				return nil
			}).Fetch(t.Context(), requestforge.Input{})
			if err != nil {
				t.Fatal(err)
			}
			second, auths = server.last(), append(auths, server.auth)
			if auths[0] != tt.auth || auths[1] != tt.auth {
				t.Errorf("%s: Authorization %q, want %q both times", name, auths, tt.auth)
			}
			for param, want := range tt.form {
				if !slices.Equal(first[param], want) || !slices.Equal(second[param], want) {
					t.Errorf("%s: %s is %q and %q, want %q", name, param, first[param], second[param], want)
				}
			}
		}
	})
}

func TestDeviceCodeWaitsBetweenPolls(t *testing.T) {
	for name, tt := range map[string]struct {
		code    [2]string // replaced in the response
		answers []string
		polls   []time.Duration
	}{
		"five seconds longer at each slow_down, for good": {answers: []string{"slow_down", "authorization_pending", "slow_down"}, polls: seconds(7, 19, 31, 48)},
		"twice as long after a failure":                   {answers: []string{"reset", "authorization_pending", "500", "page"}, polls: seconds(7, 21, 35, 63, 119)},
		"a minute at most after failures":                 {answers: []string{"reset", "reset", "reset", "reset", "reset"}, polls: seconds(7, 21, 49, 105, 165, 225)},
		"half a minute for an answer":                     {answers: []string{"hang", "authorization_pending"}, polls: seconds(7, 51, 65)},
		"as long as Retry-After, once":                    {answers: []string{"429", "authorization_pending"}, polls: seconds(7, 47, 61)},
		"five seconds if the server doesn't say":          {code: [2]string{`,"interval":7`, ``}, polls: seconds(5)},
		"five seconds if it says 0":                       {code: [2]string{`:7`, `:0`}, polls: seconds(5)},
		"five seconds if it says less":                    {code: [2]string{`:7`, `:-7`}, polls: seconds(5)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newBubble(t)
				server.code = strings.Replace(server.code, tt.code[0], tt.code[1], 1)
				server.answers = tt.answers
				var shown []*oauth2.DeviceAuthResponse
				if _, err := server.device(&shown).Fetch(t.Context(), requestforge.Input{}); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(server.polls, tt.polls) || len(shown) != 1 {
					t.Errorf("polled at %v, want %v; %d codes shown", server.polls, tt.polls, len(shown))
				}
			})
		})
	}
}

func TestDeviceCodeThatComesToNothing(t *testing.T) {
	pending := func(n int) []string { return slices.Repeat([]string{"authorization_pending"}, n) }
	for name, tt := range map[string]struct {
		code    [2]string
		answers []string
		after   time.Duration
		want    requestforge.AuthError
		says    string
	}{
		"denied":                  {answers: append(pending(2), "access_denied"), after: 21 * time.Second, want: requestforge.AuthError{StatusCode: 400, Code: "access_denied", Permanent: true}},
		"expired by the server":   {answers: []string{"expired_token"}, after: 7 * time.Second, want: requestforge.AuthError{StatusCode: 400, Code: "expired_token", Permanent: true}},
		"expired by the clock":    {answers: pending(1000), after: 15 * time.Minute, want: requestforge.AuthError{Code: "expired_token", Permanent: true}, says: "nobody approved the login within 15m0s"},
		"expired during a poll":   {answers: slices.Repeat([]string{"hang"}, 100), after: 15 * time.Minute, want: requestforge.AuthError{Code: "expired_token", Permanent: true}, says: "nobody approved"},
		"a server without expiry": {code: [2]string{`"expires_in":900,`, ``}, answers: pending(1000), after: 30 * time.Minute, want: requestforge.AuthError{Code: "expired_token", Permanent: true}},
		"another client's code":   {answers: []string{"invalid_grant"}, after: 7 * time.Second, want: requestforge.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}},
		"nonsense":                {answers: []string{"nonsense"}, after: 7 * time.Second, want: requestforge.AuthError{StatusCode: 200}},
		"a redirect to elsewhere": {answers: []string{"302"}, after: 7 * time.Second, want: requestforge.AuthError{StatusCode: 302}, says: "redirect to another origin not followed"},
		"a certificate":           {answers: []string{"certificate"}, after: 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newBubble(t)
				server.code = strings.Replace(server.code, tt.code[0], tt.code[1], 1)
				server.answers = tt.answers
				var shown []*oauth2.DeviceAuthResponse
				_, err := server.device(&shown).Fetch(t.Context(), requestforge.Input{})
				got, ok := err.(*requestforge.AuthError)
				if !ok || got.StatusCode != tt.want.StatusCode || got.Code != tt.want.Code || got.Permanent != tt.want.Permanent || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, want status %d, code %q, permanent %v, %q", err, tt.want.StatusCode, tt.want.Code, tt.want.Permanent, tt.says)
				}
				if after := time.Since(server.begun); after != tt.after || len(shown) != 1 {
					t.Errorf("after %v and %d codes, want %v and one", after, len(shown), tt.after)
				}
			})
		})
	}
}

func TestDeviceCodeShowsNothingThatCantBeShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, code := range map[string][2]string{
			"no device code":        {`"device_code":"device-%d",`, ``},
			"no user code":          {`"user_code":"WDJB-%d",`, ``},
			"no URL":                {`"verification_uri":"https://auth.test/device",`, ``},
			"a terminal's sequence": {`WDJB`, `\u001b[2J`},
			"one in the URL":        {`?c=1`, `?\u001b[2J`},
			"a file":                {`https://auth.test/device"`, `file:///bin/sh"`},
			"an option":             {`https://auth.test/device?c=1`, `--help`},
			"expired already":       {`900`, `-1`},
			"no JSON":               {`{`, ``},
			"another type":          {`900`, `"hunter2"`},
			"a page":                {`{`, `<html>`},
		} {
			server := newBubble(t)
			server.code = strings.Replace(server.code, code[0], code[1], 1)
			var shown []*oauth2.DeviceAuthResponse
			_, err := server.device(&shown).Fetch(t.Context(), requestforge.Input{})
			if auth, ok := err.(*requestforge.AuthError); !ok || auth.StatusCode != 200 || len(shown) > 0 || len(server.polls) > 0 {
				t.Errorf("%s: got %v; %d codes shown, %d polls", name, err, len(shown), len(server.polls))
			}
			noSecret(t, err)
		}
	})
}

func TestDeviceCodeIsRefusedBeforeAnythingIsShown(t *testing.T) {
	e := newEndpoint(t, func(int, url.Values) (int, string) {
		return 401, `{"error":"invalid_client","error_description":"hunter2"}`
	})
	cfg := oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "tv", Secret: secret}}
	_, err := oauth2source.DeviceCode(cfg, e.URL, func(context.Context, *oauth2.DeviceAuthResponse) error {
		t.Error("a code was shown")
		return nil
	}).Fetch(t.Context(), requestforge.Input{})
	if auth, ok := err.(*requestforge.AuthError); !ok || auth.StatusCode != 401 || auth.Code != "invalid_client" || !auth.Permanent {
		t.Errorf("got %v, want invalid_client", err)
	}
	noSecret(t, err)
}

func TestDeviceCodePromptsContextEndsWithTheLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newBubble(t)
		broken := errors.New("no terminal")
		var during context.Context
		var result error
		grant := oauth2source.DeviceCode(server.config(), server.url("/device"), func(ctx context.Context, _ *oauth2.DeviceAuthResponse) error {
			during = ctx
			return result
		})
		if _, err := grant.Fetch(t.Context(), requestforge.Input{}); err != nil || during.Err() == nil {
			t.Errorf("%v; the context of the prompt lives on: %v", err, during.Err() == nil)
		}
		result = broken
		if _, err := grant.Fetch(t.Context(), requestforge.Input{}); !errors.Is(err, broken) || len(server.polls) != 1 {
			t.Errorf("got %v after %d polls, want the prompt's error and no poll", err, len(server.polls))
		}
	})
}

func TestDeviceCodeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("the program ends")
		for _, answer := range []string{"authorization_pending", "hang"} {
			server := newBubble(t)
			server.answers = slices.Repeat([]string{answer}, 100)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Minute, func() { cancel(gone) })
			var shown []*oauth2.DeviceAuthResponse
			_, err := server.device(&shown).Fetch(ctx, requestforge.Input{})
			if after := time.Since(server.begun); !errors.Is(err, gone) || after != time.Minute {
				t.Errorf("%s: got %v after %v, want the context's cause after a minute", answer, err, after)
			}
		}
	})
}

// The sum of what the documentation says of DeviceCode in a pipeline.
func TestDeviceCodeAsAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newBubble(t)
		server.token = `{"access_token":"token","refresh_token":"refresh","expires_in":3600}`
		server.answers = append(slices.Repeat([]string{"authorization_pending"}, 40), "reset") // five minutes
		var shown []*oauth2.DeviceAuthResponse
		p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
			FetchTimeout: 15 * time.Minute,
			Steps: []requestforge.Step{{
				Name:    "user",
				Fetcher: server.device(&shown),
				Refresh: oauth2source.Refresh(server.config()),
			}},
		})
		if err != nil {
			t.Fatal(err)
		}

		// Whoever can't wait leaves; the login goes on, and serves the next.
		impatient, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := p.Token(impatient); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the caller's own timeout", err)
		}
		if tok, err := p.Token(t.Context()); err != nil || tok.AccessToken != "token" {
			t.Fatalf("got %v, %v", tok, err)
		}
		if took := time.Since(server.begun); took < 4*time.Minute || len(shown) != 1 {
			t.Errorf("the login took %v and showed %d codes, want minutes and one", took, len(shown))
		}

		// The person isn't asked again as long as there is a refresh token.
		for range 5 {
			time.Sleep(time.Hour)
			if _, err := p.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if len(shown) != 1 {
			t.Errorf("%d codes shown, want one: there was a refresh token", len(shown))
		}

		// A denial is one, for as long as the step cools down.
		server.answers = []string{"invalid_grant", "access_denied"}
		time.Sleep(2 * time.Hour)
		for range 2 {
			if _, err := p.Token(t.Context()); err == nil || !strings.Contains(err.Error(), `step "user": access_denied`) {
				t.Errorf("got %v, want a denial", err)
			}
		}
		if len(shown) != 2 {
			t.Errorf("%d codes shown, want a second one and no third", len(shown))
		}
		time.Sleep(time.Minute)
		if _, err := p.Token(t.Context()); err != nil || len(shown) != 3 {
			t.Errorf("%v after %d codes; want a new login", err, len(shown))
		}
	})
}

func TestDeviceCodeNeedsMoreThanTheDefaultFetchTimeout(t *testing.T) {
	for name, tt := range map[string]struct {
		timeout time.Duration
		ok      bool
	}{
		"default":  {0, false},
		"less":     {5 * time.Second, false},
		"a minute": {time.Minute, true},
		"no bound": {-1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newBubble(t)
				var shown []*oauth2.DeviceAuthResponse
				p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
					Steps: []requestforge.Step{{Name: "user", Timeout: tt.timeout, Fetcher: server.device(&shown)}},
				})
				if err != nil {
					t.Fatal(err)
				}
				_, err = p.Token(t.Context())
				if tt.ok {
					if err != nil || len(shown) != 1 {
						t.Errorf("got %v, %d codes shown; want a login", err, len(shown))
					}
				} else if err == nil || !strings.Contains(err.Error(), "set Step.Timeout") || len(shown) > 0 || server.codes > 0 {
					t.Errorf("got %v, %d codes asked for; want none, and to be told what to set", err, server.codes)
				}
			})
		})
	}
}

// encoding/json says the number that it can't take, without quotes.
func TestDeviceCodeErrorHoldsNoNumberOfTheServers(t *testing.T) {
	const pin = "867530912345"
	e := newEndpoint(t, func(int, url.Values) (int, string) {
		return 200, `{"device_code":"d","user_code":"u","verification_uri":"https://x.example/","interval":` + pin + `.5}`
	})
	g := oauth2source.DeviceCode(oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "tv"}}, e.URL+"/device",
		func(context.Context, *oauth2.DeviceAuthResponse) error { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if _, err := g.Fetch(ctx, requestforge.Input{}); err == nil || strings.Contains(err.Error(), pin) || !strings.Contains(err.Error(), "json: ") {
		t.Errorf("got %v, want the reason without the number", err)
	}
}

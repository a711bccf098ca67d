package requestforge_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// A login of two calls: an application token first, and with it a user token,
// which the API takes. Both are fetched when a request needs them, and not
// before.
func Example() {
	srv := authtest.NewServer(twoSteps) // an auth server and an API, on this machine
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{
			{Name: "app", Fetcher: &requestforge.HTTPFetcher{
				URL:        srv.URL + "/v1/app/token",
				Form:       url.Values{"grant_type": {"client_credentials"}},
				ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: "made-up"},
			}},
			{Name: "user", DependsOn: []string{"app"}, Fetcher: &requestforge.HTTPFetcher{
				URL:        srv.URL + "/v1/user/token",
				HeaderFrom: map[string]string{"X-App-Token": "app"},
				JSON:       map[string]any{"username": "ann", "password": "made-up"},
			}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: srv.URL + "/api",
		Source:  tokens,
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}

	resp, err := client.Get("/user/profile")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

// Three calls, the first of which has its token in a header of the response.
// Each token goes into a header of the next call.
func Example_threeSteps() {
	srv := authtest.NewServer(threeSteps)
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "device",
			TTL:  30 * 24 * time.Hour, // a token from a header doesn't say
			Fetcher: &requestforge.HTTPFetcher{
				URL:         srv.URL + "/v1/device/register",
				Header:      http.Header{"X-Device-Id": {"unique-device-id"}, "X-Device-Type": {"mobile"}},
				TokenHeader: "X-Device-Token",
				TokenType:   "Device",
			},
		}, {
			Name:      "app",
			DependsOn: []string{"device"},
			TTL:       time.Hour,
			Fetcher: &requestforge.HTTPFetcher{
				URL:        srv.URL + "/v1/app/token",
				HeaderFrom: map[string]string{"X-Device-Token": "device"},
				ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: "made-up", InBody: true},
			},
		}, {
			Name:      "user",
			DependsOn: []string{"app"},
			TTL:       15 * time.Minute,
			Fetcher: &requestforge.HTTPFetcher{
				URL:        srv.URL + "/v1/user/token",
				HeaderFrom: map[string]string{"X-App-Token": "app"},
				JSON:       map[string]any{"username": "ann", "password": "made-up"},
			},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}

	if _, err := tokens.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	for _, e := range srv.Log() {
		fmt.Println(e.Path, e.Outcome, e.Token)
	}
	// Output:
	// /v1/device/register granted device-1
	// /v1/app/token granted app-1
	// /v1/user/token granted user-1
}

// A session, which buys an API key, which buys an access token. The first two
// come in headers and have types of their own.
func Example_sessionKeyAccess() {
	srv := authtest.NewServer(sessionSteps)
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{
			{Name: "session", TTL: 24 * time.Hour, Fetcher: &requestforge.HTTPFetcher{
				URL:         srv.URL + "/v1/login",
				JSON:        map[string]any{"username": "ann", "password": "made-up"},
				TokenHeader: "X-Session-Token", TokenType: "Session",
			}},
			{Name: "key", DependsOn: []string{"session"}, TTL: 12 * time.Hour, Fetcher: &requestforge.HTTPFetcher{
				URL:         srv.URL + "/v1/apikey/generate",
				HeaderFrom:  map[string]string{"Authorization": "session"}, // Session …
				TokenHeader: "X-API-Key", TokenType: "ApiKey",
			}},
			{Name: "access", DependsOn: []string{"key"}, TTL: 30 * time.Minute, Fetcher: &requestforge.HTTPFetcher{
				URL:        srv.URL + "/v1/token",
				HeaderFrom: map[string]string{"X-API-Key": "key"}, // without its type
				JSON:       map[string]any{"grant_type": "api_key"},
			}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: srv.URL, Source: tokens})
	if err != nil {
		log.Fatal(err)
	}

	resp, err := (&http.Client{Transport: transport}).Get("/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

// A pipeline holds the tokens, so one that is made for each request logs in
// for each request. Make it once, with its client, and share both.
func Example_incorrect() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()

	get := func(path string) {
		tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()}) // wrong: belongs in main
		if err != nil {
			log.Fatal(err)
		}
		transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: srv.URL, Source: tokens})
		if err != nil {
			log.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Get(path)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
	}
	get("/users")
	get("/orders")
	get("/invoices")

	fmt.Println(srv.Stats().API.OK, "requests,", srv.Stats().Steps["user"].Fetches.OK, "logins")
	// Output: 3 requests, 3 logins
}

// The usual stack, with everything that a program in production wants of it.
func ExampleNewTransport() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL:       srv.URL + "/v1",
		Source:        tokens,
		AuthRetry:     requestforge.SimpleAuthRetry(1, 500*time.Millisecond),
		ExcludedPaths: []string{"/health"},
		Retry:         requestforge.ExponentialBackoff(3, time.Second, time.Minute),
		Logger:        slog.New(slog.DiscardHandler), // slog.Default()
		LogHeaders:    true,
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}

	for _, path := range []string{"/health", "/user/profile"} {
		resp, err := client.Get(path)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(path, resp.Status, "logins:", srv.Stats().Steps["user"].Fetches.OK)
	}
	// Output:
	// /health 200 OK logins: 0
	// /user/profile 200 OK logins: 1
}

// Whatever is wrong is reported at once, field by field.
func ExampleNewTransport_mistakes() {
	_, err := requestforge.NewTransport(requestforge.Config{
		BaseURL:       "api.example.com/v1",
		ExcludedPaths: []string{"health"},
		Retry:         requestforge.RetryPolicy{RetryMax: -1},
	})
	fmt.Println(err)
	// Output:
	// requestforge: Config.BaseURL "api.example.com/v1": it is relative; begin it with https:// and a host
	// requestforge: Config.ExcludedPaths: "health": must begin with /
	// requestforge: Config.Retry.RetryMax is -1: use 0 for no retries
}

// The graph of the steps is checked before anything is sent, and the error
// names the steps.
func ExampleNewPipeline() {
	var login requestforge.Fetcher = &requestforge.HTTPFetcher{URL: "https://auth.example.com/token"}
	for _, steps := range [][]requestforge.Step{
		{{Name: "app", DependsOn: []string{"user"}, Fetcher: login}, {Name: "user", DependsOn: []string{"app"}, Fetcher: login}},
		{{Name: "user", DependsOn: []string{"ap"}, Fetcher: login}},
		{{Name: "app", Fetcher: login}, {Name: "user", DependsOn: []string{"app"}, Fetcher: login}, {Name: "app", Fetcher: login}},
	} {
		_, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
		fmt.Println(err)
	}
	// Output:
	// requestforge: steps depend on each other in a cycle: "app" -> "user" -> "app"
	// requestforge: step "user" depends on "ap", which is no step of this pipeline
	// requestforge: two steps are named "app"; names are unique
}

// Without the rest of the stack: an API key that never changes, in a header of
// its own name.
func ExampleAuthTransport() {
	srv := whoami()
	defer srv.Close()

	client := &http.Client{Transport: &requestforge.AuthTransport{
		Source:  requestforge.StaticToken(&requestforge.Token{AccessToken: "k-123"}),
		Attach:  []requestforge.Place{{Header: "X-API-Key"}},
		Origins: []string{srv.URL},
	}}
	resp, err := client.Get(srv.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(os.Stdout, resp.Body)
	// Output: X-Api-Key: k-123
}

// Some SDKs insist on a key and put it on each request. Their client can be
// ours all the same: ReplaceCaller puts the token in the place of that key.
func ExampleAuthTransport_sdk() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	sdk := &ticketSDK{Key: "unused", BaseURL: srv.URL, HTTPClient: &http.Client{
		Transport: &requestforge.AuthTransport{
			Source:     tokens,
			Origins:    []string{srv.URL},
			OnConflict: requestforge.ReplaceCaller,
		},
	}}
	fmt.Println(sdk.Close(42))
	// Output: ticket 42 is closed
}

// An API that wants a session in a cookie, the session's CSRF token in a header and
// a key of the program's own in the query; and a signature over each request.
func ExamplePlace() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.Header.Get("Cookie"))
		fmt.Fprintln(w, r.Header.Get("X-CSRF-Token"), r.Header.Get("X-Signature")[:8])
		fmt.Fprintln(w, r.URL)
	}))
	defer srv.Close()

	client := &http.Client{Transport: &requestforge.AuthTransport{
		Source: requestforge.StaticToken(&requestforge.Token{
			AccessToken: "s-1",
			Extra:       map[string]any{"csrf": "c-1", "key": "shared"}, // what the login answered beside it
		}),
		Origins: []string{srv.URL},
		Attach: []requestforge.Place{
			{Cookie: "session"},
			{Header: "X-CSRF-Token", Value: "csrf"},
			{Query: "api_key", Text: "k-123"},
		},
		Prepare: func(out *http.Request, tok *requestforge.Token) error {
			mac := hmac.New(sha256.New, []byte(tok.Value("key")))
			fmt.Fprintln(mac, out.Method, out.URL.RequestURI())
			out.Header.Set("X-Signature", hex.EncodeToString(mac.Sum(nil)))
			return nil
		},
	}}
	resp, err := client.Get(srv.URL + "/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(os.Stdout, resp.Body)
	// Output:
	// session=s-1
	// c-1 d17edf08
	// /orders?api_key=k-123
}

// The type of a token goes before it, in the Authorization header only.
func ExampleStaticToken() {
	srv := whoami()
	defer srv.Close()

	client := &http.Client{Transport: &requestforge.AuthTransport{
		Source:  requestforge.StaticToken(&requestforge.Token{AccessToken: "t-123", TokenType: "Device"}),
		Origins: []string{srv.URL},
	}}
	resp, err := client.Get(srv.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(os.Stdout, resp.Body)
	// Output: Authorization: Device t-123
}

// Explain says why a request would, or would not, carry the token.
func ExampleTransport_Explain() {
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL:       "https://api.example.com/v1",
		Source:        requestforge.StaticToken(&requestforge.Token{AccessToken: "t-123"}),
		ExcludedPaths: []string{"/health", "/public/*", "/docs/**"},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, path := range []string{
		"/users", "/health", "/public/logo.png", "/public/img/logo.png", "/docs/api/users", "/docs/%2e%2e/users",
		"https://elsewhere.example.com/",
	} {
		req, err := http.NewRequest("GET", path, nil)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%-31s %s\n", path, transport.Explain(req).Reason)
	}
	// Output:
	// /users                          the request carries the token
	// /health                         the path is excluded
	// /public/logo.png                the path is excluded
	// /public/img/logo.png            the request carries the token
	// /docs/api/users                 the path is excluded
	// /docs/%2e%2e/users              the request carries the token
	// https://elsewhere.example.com/  the origin is not among Origins
}

// A record for each request, with headers: values of harmless ones, names of
// the rest. The token isn't there at all.
func ExampleLoggingTransport() {
	sim := authtest.NewSimulator(twoSteps) // a Server without a listener
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: sim.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: &requestforge.LoggingTransport{
		Logger:  slog.New(logWithoutTimes(os.Stdout)),
		Headers: true,
		Base: &requestforge.AuthTransport{
			Source:  tokens,
			Origins: []string{"https://api.example.com"},
			Base:    sim.Transport(),
		},
	}}
	req, err := http.NewRequest("GET", "https://api.example.com/users?session=abc", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Cookie", "session=abc")
	resp, err := client.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	// Output:
	// level=INFO msg=request attempts=1 replayed=0 auth=sent method=GET url="https://api.example.com/users?session=REDACTED" status=200 request_header="map[Accept:[application/json] Cookie:[REDACTED]]" response_header="map[Cache-Control:[no-store] Content-Type:[application/json]]"
}

// A request that may be repeated is sent again after a failure: here twice,
// with waits that double.
func ExampleExponentialBackoff() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	srv.FailAPI(authtest.Fault{Times: 2, Status: http.StatusBadGateway})
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: srv.URL,
		Source:  tokens,
		Retry:   requestforge.ExponentialBackoff(3, 10*time.Millisecond, time.Second),
	})
	if err != nil {
		log.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Get("/users")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, "after", srv.Stats().API.Attempted, "sends")
	// Output: 200 OK after 3 sends
}

// A retry layer alone, in front of any other transport.
func ExampleRetryTransport() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	srv.FailAPI(authtest.Fault{Status: http.StatusInternalServerError})

	client := &http.Client{Transport: &requestforge.RetryTransport{
		Policy: requestforge.ExponentialBackoff(2, time.Millisecond, time.Second),
	}}
	resp, err := client.Get(srv.URL)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status, "after", srv.Stats().API.Attempted, "GETs") // the last answer, no error instead

	resp, err = client.PostForm(srv.URL, url.Values{"pay": {"100"}})
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status, "after", srv.Stats().API.Attempted-3, "POST")
	// Output:
	// 500 Internal Server Error after 3 GETs
	// 500 Internal Server Error after 1 POST
}

// A revoked token costs its caller nothing: the request is sent once more with
// a new one.
func ExampleSimpleAuthRetry() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: &requestforge.AuthTransport{
		Source:  tokens,
		Origins: []string{srv.URL},
		Retry:   requestforge.SimpleAuthRetry(1, 10*time.Millisecond),
	}}
	for range 2 {
		resp, err := client.Get(srv.URL + "/orders")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
		srv.Revoke("user")
	}
	fmt.Println(tokens.Stats().Steps["user"].Fetches, "user tokens,", tokens.Stats().Steps["app"].Fetches, "app token")
	// Output:
	// 200 OK
	// 200 OK
	// 2 user tokens, 1 app token
}

// What was made from a token goes with it, and what it was made from stays.
func ExamplePipeline_InvalidateStep() {
	srv := authtest.NewServer(threeSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	fetch := func() {
		if _, err := tokens.Token(ctx); err != nil {
			log.Fatal(err)
		}
		s := tokens.Stats().Steps
		fmt.Println("device", s["device"].Fetches, "app", s["app"].Fetches, "user", s["user"].Fetches)
	}
	fetch()
	for _, step := range []string{"user", "app", "device"} {
		if err := tokens.InvalidateStep(ctx, step); err != nil {
			log.Fatal(err)
		}
		fetch()
	}
	// Output:
	// device 1 app 1 user 1
	// device 1 app 1 user 2
	// device 1 app 2 user 3
	// device 2 app 3 user 4
}

// InvalidateAll leaves no token that is good: the next call fetches every
// step.
func ExamplePipeline_InvalidateAll() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	tokens.Token(ctx)
	if err := tokens.InvalidateAll(ctx); err != nil {
		log.Fatal(err)
	}
	tokens.Token(ctx)
	fmt.Println("app", tokens.Stats().Steps["app"].Fetches, "user", tokens.Stats().Steps["user"].Fetches)
	// Output: app 2 user 2
}

// Refresh fetches every step anew. Until that has worked the old tokens stay,
// so a failure costs nothing.
func ExamplePipeline_Refresh() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	first, err := tokens.Token(ctx)
	if err != nil {
		log.Fatal(err)
	}
	second, err := tokens.Refresh(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("another token:", second.AccessToken != first.AccessToken)

	srv.Down(true)
	_, err = tokens.Refresh(ctx)
	fmt.Println("fails:", err != nil)
	tok, _ := tokens.Token(ctx)
	fmt.Println("the token is still there:", tok == second)
	// Output:
	// another token: true
	// fails: true
	// the token is still there: true
}

// Forget is a logout: nothing stays, neither here nor in the storage.
func ExamplePipeline_Forget() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	tokens.Token(ctx)
	fmt.Println(tokens.State(ctx).Steps[1].Status)
	if err := tokens.Forget(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(tokens.State(ctx).Steps[1].Status)
	// Output:
	// live
	// none
}

// Where an API refuses user tokens because their application token was
// revoked, RefreshFrom saves the detour: a refusal takes both.
// What each step is at, without a fetch: for a status page, or a log.
func ExamplePipeline_State() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	show := func() {
		steps := tokens.State(ctx).Steps
		fmt.Printf("%s %s, %s %s\n", steps[0].Name, steps[0].Status, steps[1].Name, steps[1].Status)
	}
	show()
	tokens.Token(ctx)
	show()
	tokens.InvalidateStep(ctx, "user")
	show()
	srv.Down(true)
	tokens.Token(ctx)
	show()
	// Output:
	// app none, user none
	// app live, user live
	// app live, user dead
	// app live, user cooling
}

func ExamplePipelineConfig_refreshFrom() {
	srv := authtest.NewServer(threeSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps:       srv.Steps(),
		RefreshFrom: "app",
	})
	if err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: &requestforge.AuthTransport{Source: tokens, Origins: []string{srv.URL}}}
	for range 2 {
		resp, err := client.Get(srv.URL + "/orders")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		s := tokens.Stats().Steps
		fmt.Println("device", s["device"].Fetches, "app", s["app"].Fetches, "user", s["user"].Fetches)
		srv.Revoke("user")
	}
	// Output:
	// device 1 app 1 user 1
	// device 1 app 2 user 2
}

// The earlier of TTL and what the server says wins: its tokens live for two
// hours.
func ExampleStep_ttl() {
	srv := authtest.NewServer(authtest.Config{Steps: []authtest.Step{{Name: "app", TTL: 2 * time.Hour}}})
	defer srv.Close()

	for _, ttl := range []time.Duration{0, time.Hour, 24 * time.Hour} {
		tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
			Steps: []requestforge.Step{{
				Name:    "app",
				TTL:     ttl,
				Fetcher: &requestforge.HTTPFetcher{URL: srv.URL + "/app"},
			}},
		})
		if err != nil {
			log.Fatal(err)
		}
		tok, err := tokens.Token(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("TTL", ttl, "lives for", time.Until(tok.Expiry).Round(time.Hour))
	}
	// Output:
	// TTL 0s lives for 2h0m0s
	// TTL 1h0m0s lives for 1h0m0s
	// TTL 24h0m0s lives for 2h0m0s
}

// OnError hears of each failed fetch of its step, whoever asked for the token.
func ExampleStep_onError() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	srv.Fail("app", authtest.Fault{Status: http.StatusBadRequest})

	steps := srv.Steps()
	steps[0].OnError = func(ctx context.Context, err error) {
		if auth, ok := errors.AsType[*requestforge.AuthError](err); ok {
			fmt.Printf("alert: step %q failed with status %d\n", auth.Step, auth.StatusCode)
		}
	}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
	if err != nil {
		log.Fatal(err)
	}
	tokens.Token(context.Background())
	// Output:
	// alert: step "app" failed with status 400
}

// The error of an http.Client says which step failed, and whether a new try
// can help.
func ExampleAuthError() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	steps := srv.Steps()
	steps[1].Fetcher.(*requestforge.HTTPFetcher).JSON = map[string]any{"username": "ann", "password": "a typo"}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
	if err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: &requestforge.AuthTransport{Source: tokens, Origins: []string{srv.URL}}}
	_, err = client.Get(srv.URL + "/user/profile")
	if auth, ok := errors.AsType[*requestforge.AuthError](err); ok {
		fmt.Println("step:", auth.Step)
		fmt.Println("answer:", auth.StatusCode, auth.Code)
		fmt.Println("permanent:", auth.Permanent)
	}
	// Output:
	// step: user
	// answer: 400 invalid_grant
	// permanent: true
}

// The earlier token goes in a header, and the body has data that depends on
// it.
func ExampleHTTPFetcher_bodyFrom() {
	srv := authtest.NewServer(mixedSteps)
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "device",
			TTL:  30 * 24 * time.Hour,
			Fetcher: &requestforge.HTTPFetcher{
				URL:         srv.URL + "/device/register",
				Header:      http.Header{"X-Device-Id": {"device-123"}},
				TokenHeader: "X-Device-Token",
			},
		}, {
			Name:      "access",
			DependsOn: []string{"device"},
			TTL:       30 * time.Minute,
			Fetcher: &requestforge.HTTPFetcher{
				URL:        srv.URL + "/token",
				HeaderFrom: map[string]string{"X-Device-Token": "device"},
				BodyFrom: func(in requestforge.Input) (any, error) {
					return map[string]any{
						"username":         "ann",
						"password":         "made-up",
						"device_validated": in.Parents["device"] != nil,
					}, nil
				},
			},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}

	tok, err := tokens.Token(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tok.Type())
	// Output: Bearer
}

// A signed request for a token. GetBody has the body as it will go out.
func ExampleHTTPFetcher_prepare() {
	srv := signedAuth()
	defer srv.Close()
	key := []byte("made-up")

	fetcher := &requestforge.HTTPFetcher{
		URL:            srv.URL + "/auth/token",
		JSON:           map[string]any{"grant_type": "signed"},
		TokenField:     "token",
		ExpiresInField: "ttl",
		TokenType:      "Signed",
		Prepare: func(req *http.Request, in requestforge.Input) error {
			body, err := req.GetBody()
			if err != nil {
				return err
			}
			timestamp := strconv.FormatInt(time.Now().Unix(), 10)
			mac := hmac.New(sha256.New, key)
			mac.Write([]byte(timestamp))
			if _, err := io.Copy(mac, body); err != nil {
				return err
			}
			req.Header.Set("X-Timestamp", timestamp)
			req.Header.Set("X-Signature", hex.EncodeToString(mac.Sum(nil)))
			return nil
		},
	}
	tok, err := fetcher.Fetch(context.Background(), requestforge.Input{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tok.Type(), time.Until(tok.Expiry).Round(time.Hour))
	// Output: Signed 1h0m0s
}

// A way to get a token that no other fetcher has.
func ExampleFetcherFunc() {
	srv := signedAuth()
	defer srv.Close()
	key := []byte("made-up")

	signed := requestforge.FetcherFunc(func(ctx context.Context, _ requestforge.Input) (*requestforge.Token, error) {
		const body = `{"grant_type":"signed"}`
		timestamp := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, key)
		io.WriteString(mac, timestamp+body)
		signature := hex.EncodeToString(mac.Sum(nil))

		req, err := http.NewRequestWithContext(ctx, "POST", srv.URL+"/auth/token", bytes.NewBufferString(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Timestamp", timestamp)
		req.Header.Set("X-Signature", signature)
		resp, err := requestforge.LoginClient(srv.URL).Do(req)
		if err != nil {
			return nil, requestforge.NewAuthError(resp, nil, err)
		}
		defer resp.Body.Close()
		reply, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, requestforge.NewAuthError(resp, reply, err)
		}
		var answer struct {
			Token string
			TTL   int
		}
		if err := json.Unmarshal(reply, &answer); err != nil {
			return nil, requestforge.NewAuthError(resp, reply, err)
		}
		return &requestforge.Token{
			AccessToken: answer.Token,
			TokenType:   "Signed",
			Expiry:      time.Now().Add(time.Duration(answer.TTL) * time.Second),
			Extra:       map[string]any{"signature": signature},
		}, nil
	})

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "signed", TTL: time.Hour, Fetcher: signed}},
	})
	if err != nil {
		log.Fatal(err)
	}
	tok, err := tokens.Token(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tok.Type())
	// Output: Signed
}

// A login of two requests: the page begins a session, which is a cookie, and the
// form is taken only with the session.
func ExampleLoginClient() {
	srv := sessionLogin()
	defer srv.Close()

	login := requestforge.FetcherFunc(func(ctx context.Context, _ requestforge.Input) (*requestforge.Token, error) {
		client := requestforge.LoginClient(srv.URL) // with a cookie jar for this login
		var token string
		for _, method := range []string{"GET", "POST"} {
			req, err := http.NewRequestWithContext(ctx, method, srv.URL+"/login", nil)
			if err != nil {
				return nil, err
			}
			resp, err := client.Do(req)
			if err != nil {
				return nil, requestforge.NewAuthError(resp, nil, err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return nil, requestforge.NewAuthError(resp, nil, nil)
			}
			token = resp.Header.Get("X-Token")
		}
		return &requestforge.Token{AccessToken: token}, nil
	})

	tok, err := login.Fetch(context.Background(), requestforge.Input{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tok.AccessToken)

	_, err = requestforge.LoginClient(srv.URL).Get("https://elsewhere.example.com/")
	fmt.Println(err)
	// Output:
	// made-up
	// Get "https://elsewhere.example.com/": requestforge: LoginClient: https://elsewhere.example.com: not sent: the origin is none of those that the client was made for
}

func sessionLogin() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "made-up"})
			return
		}
		if _, err := r.Cookie("session"); err != nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("X-Token", "made-up")
	}))
}

// The error of a fetcher of your own says what that of an HTTPFetcher would say:
// the pipeline tries again, waits, or gives up in the same way.
func ExampleNewAuthError() {
	resp := &http.Response{StatusCode: http.StatusBadRequest}
	body := []byte(`{"error": "invalid_grant", "error_description": "wrong password: made-up"}`)
	refused := requestforge.NewAuthError(resp, body, nil)
	fmt.Println(refused)
	fmt.Println("permanent:", refused.Permanent)

	resp = &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"30"}}}
	busy := requestforge.NewAuthError(resp, nil, nil)
	fmt.Println(busy)
	fmt.Println("permanent:", busy.Permanent)
	// Output:
	// requestforge: invalid_grant: 400 Bad Request
	// permanent: true
	// requestforge: 503 Service Unavailable; next try in 30s
	// permanent: false
}

// Pipelines that share a storage and a key prefix share their tokens. Those of
// several processes do the same through a storage outside of them.
func ExampleStorage() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()

	storage := requestforge.NewMemoryStorage()
	for _, prefix := range []string{"myapp", "myapp", "another"} {
		tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
			Steps:     srv.Steps(),
			Storage:   storage,
			KeyPrefix: prefix,
		})
		if err != nil {
			log.Fatal(err)
		}
		if _, err := tokens.Token(context.Background()); err != nil {
			log.Fatal(err)
		}
		fmt.Println(prefix, srv.Stats().Steps["user"].Fetches.OK)
	}
	// Output:
	// myapp 1
	// myapp 1
	// another 2
}

// A token shows what it is, never its values.
func ExampleToken() {
	fmt.Println(&requestforge.Token{AccessToken: "s3cret", RefreshToken: "s3cret", Expiry: time.Unix(2000000000, 0).UTC()})
	// Output:
	// Token(Bearer, expires 2033-05-18T03:33:20Z, can be refreshed)
}

// What the examples log in to.

var twoSteps = authtest.Config{Steps: []authtest.Step{{
	Name: "app", Path: "/v1/app/token",
	ClientID: "shop", ClientSecret: "made-up",
	Form: map[string]string{"grant_type": "client_credentials"},
	TTL:  time.Hour,
}, {
	Name: "user", Path: "/v1/user/token",
	Parents: map[string]string{"app": "X-App-Token"},
	JSON:    map[string]any{"username": "ann", "password": "made-up"},
	TTL:     30 * time.Minute,
}}, API: authtest.API{Open: []string{"/v1/health"}}}

var threeSteps = authtest.Config{Steps: []authtest.Step{{
	Name: "device", Path: "/v1/device/register",
	TokenHeader: "X-Device-Token", TokenType: "Device",
	TTL: 30 * 24 * time.Hour,
}, {
	Name: "app", Path: "/v1/app/token",
	Parents:  map[string]string{"device": "X-Device-Token"},
	ClientID: "shop", ClientSecret: "made-up", ClientAuth: authtest.BodyClientAuth,
	TTL: time.Hour,
}, {
	Name: "user", Path: "/v1/user/token",
	Parents: map[string]string{"app": "X-App-Token"},
	JSON:    map[string]any{"username": "ann", "password": "made-up"},
	TTL:     15 * time.Minute,
}}}

var sessionSteps = authtest.Config{Steps: []authtest.Step{{
	Name: "session", Path: "/v1/login",
	JSON:        map[string]any{"username": "ann", "password": "made-up"},
	TokenHeader: "X-Session-Token", TokenType: "Session",
	TTL: 24 * time.Hour,
}, {
	Name: "key", Path: "/v1/apikey/generate",
	Parents:     map[string]string{"session": "Authorization"},
	TokenHeader: "X-API-Key", TokenType: "ApiKey",
	TTL: 12 * time.Hour,
}, {
	Name: "access", Path: "/v1/token",
	Parents: map[string]string{"key": "X-API-Key"},
	JSON:    map[string]any{"grant_type": "api_key"},
	TTL:     30 * time.Minute,
}}}

var mixedSteps = authtest.Config{Steps: []authtest.Step{{
	Name: "device", Path: "/device/register",
	TokenHeader: "X-Device-Token",
	TTL:         30 * 24 * time.Hour,
}, {
	Name: "access", Path: "/token",
	Parents: map[string]string{"device": "X-Device-Token"},
	JSON:    map[string]any{"username": "ann", "password": "made-up", "device_validated": true},
	TTL:     30 * time.Minute,
}}}

// signedAuth starts an auth server that wants timestamp and body signed.
func signedAuth() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mac := hmac.New(sha256.New, []byte("made-up"))
		io.WriteString(mac, r.Header.Get("X-Timestamp"))
		io.Copy(mac, r.Body)
		signature, err := hex.DecodeString(r.Header.Get("X-Signature"))
		if err != nil || !hmac.Equal(signature, mac.Sum(nil)) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"token": "signed-1", "ttl": 3600}`)
	}))
}

// whoami starts an API that answers with the credentials it was sent.
func whoami() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Authorization", "X-Api-Key"} {
			if v := r.Header.Get(name); v != "" {
				fmt.Fprintf(w, "%s: %s\n", name, v)
			}
		}
	}))
}

// ticketSDK is somebody else's client of a ticket system.
type ticketSDK struct {
	Key, BaseURL string
	HTTPClient   *http.Client
}

func (s *ticketSDK) Close(ticket int) string {
	req, err := http.NewRequest("DELETE", fmt.Sprintf("%s/tickets/%d", s.BaseURL, ticket), nil)
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+s.Key)
	resp, err := s.HTTPClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.Status
	}
	return fmt.Sprintf("ticket %d is closed", ticket)
}

// logWithoutTimes leaves out what differs from run to run.
func logWithoutTimes(w io.Writer) slog.Handler {
	return slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "duration" {
			return slog.Attr{}
		}
		if h, ok := a.Value.Any().(http.Header); ok {
			h = h.Clone()
			h.Del("Date")
			return slog.Any(a.Key, h)
		}
		return a
	}})
}

package requestforge_test

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/requestforge/requestforge"
)

// A refresh is a copy of the login with some fields changed. What its answer leaves out,
// the tenant here, stays in the token's Extra.
func ExampleHTTPFetcher_refresh() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refresh" {
			fmt.Fprint(w, `{"data": {"token": "second"}, "expires_in": 3600}`)
			return
		}
		fmt.Fprint(w, `{"data": {"token": "first", "tenant": "acme", "renew": "r"}, "expires_in": 1}`)
	}))
	defer srv.Close()

	login := requestforge.HTTPFetcher{
		URL:          srv.URL + "/login",
		JSON:         map[string]string{"user": "ann", "password": "made-up"},
		TokenField:   "data.token",
		RefreshField: "data.renew",
	}
	refresh := login
	refresh.URL, refresh.JSON = srv.URL+"/refresh", nil
	refresh.BodyFrom = func(in requestforge.Input) (any, error) {
		return map[string]string{"renew": in.Previous.RefreshToken}, nil
	}

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Storage: requestforge.NewMemoryStorage(), // a Refresh needs one that can lock
		Steps:   []requestforge.Step{{Name: "user", Fetcher: &login, Refresh: &refresh}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()

	for _, get := range []func(context.Context) (*requestforge.Token, error){tokens.Token, tokens.Refresh} {
		tok, err := get(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(tok.AccessToken, tok.Value("data.tenant"))
	}
	// Output:
	// first acme
	// second acme
}

// The first call says where the second one goes, and its session is XML. A refusal comes
// with a 200.
func ExampleHTTPFetcher_read() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			fmt.Fprint(w, `{"links": {"sessions": "/v2/sessions"}}`)
			return
		}
		fmt.Fprint(w, `<login ok="true"><session>made-up</session></login>`)
	}))
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{
		{Name: "discovery", Fetcher: &requestforge.HTTPFetcher{URL: srv.URL, Method: http.MethodGet, TokenField: "links.sessions"}},
		{Name: "session", DependsOn: []string{"discovery"}, Fetcher: &requestforge.HTTPFetcher{
			URL: srv.URL, // whose origin the path is read from
			URLFrom: func(in requestforge.Input) (string, error) {
				return in.Parents["discovery"].AccessToken, nil
			},
			BodyFrom: func(requestforge.Input) (any, error) {
				return xml.Marshal(struct {
					XMLName        xml.Name `xml:"login"`
					User, Password string
				}{User: "ann", Password: "made-up"})
			},
			Header: http.Header{"Content-Type": {"text/xml"}},
			Read: func(_ requestforge.Input, _ *http.Response, body []byte) (*requestforge.Token, error) {
				var answer struct {
					OK      bool   `xml:"ok,attr"`
					Session string `xml:"session"`
				}
				if err := xml.Unmarshal(body, &answer); err != nil {
					return nil, err
				}
				if !answer.OK {
					return nil, &requestforge.AuthError{Permanent: true}
				}
				return &requestforge.Token{AccessToken: answer.Session}, nil
			},
		}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()

	tok, err := tokens.Token(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tok.AccessToken)
	// Output: made-up
}

// A server that answers everything with 200 says in the body what it refuses.
func ExampleHTTPFetcher_classify() {
	fetcher := &requestforge.HTTPFetcher{
		URL:        "https://auth.example.com/user/token",
		HeaderFrom: map[string]string{"X-App-Token": "app"},
		Classify: func(resp *http.Response, body []byte) *requestforge.AuthError {
			var answer struct{ Error string }
			_ = json.Unmarshal(body, &answer) // what can't be read is an error as usual
			switch answer.Error {
			case "app_token_revoked":
				return &requestforge.AuthError{ParentRefused: true} // another app token, and once more
			case "not_ready":
				return &requestforge.AuthError{Temporary: true} // once more, a little later
			case "wrong_password":
				return &requestforge.AuthError{Permanent: true}
			}
			return nil
		},
	}
	fmt.Println(fetcher)
	// Output: HTTPFetcher(POST https://auth.example.com/user/token, token in field "access_token")
}

// An API wants a stronger login for some of its paths (RFC 9470). The login asks for what the
// API wants, but for nothing else that the API may come up with.
func ExampleHTTPFetcher_challenge() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/login":
			fmt.Println("login with", r.FormValue("acr_values"))
			fmt.Fprintf(w, `{"access_token": "token-%s", "expires_in": 3600}`, r.FormValue("acr_values"))
		case r.URL.Path == "/payments" && r.Header.Get("Authorization") != "Bearer token-mfa":
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_user_authentication", acr_values="mfa"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name:              "user",
		AnswersChallenges: true,
		Fetcher: &requestforge.HTTPFetcher{
			URL: srv.URL + "/login",
			BodyFrom: func(in requestforge.Input) (any, error) {
				acr := "pwd"
				if in.Challenge["acr_values"] == "mfa" {
					acr = "mfa"
				}
				return url.Values{"user": {"ann"}, "password": {"made-up"}, "acr_values": {acr}}, nil
			},
		},
	}}})
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: srv.URL, Source: tokens})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport}
	for _, path := range []string{"/profile", "/payments", "/profile"} {
		resp, err := client.Get(path)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(path, resp.Status)
	}
	// Output:
	// login with pwd
	// /profile 200 OK
	// login with mfa
	// /payments 200 OK
	// /profile 200 OK
}

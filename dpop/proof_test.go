package dpop_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/dpop"
)

// The examples of RFC 9449: §5 and §7.1, the thumbprint in §6.1, the ath of §7.1.
const (
	exampleJKT   = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	exampleToken = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
	exampleATH   = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"

	exampleJWK   = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
	exampleLogin = exampleJWK + ".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
	exampleAPI   = exampleJWK + ".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)

// What the tests take for a proof takes those of the RFC, and one of ours for the same
// request says the same.
func TestProofsAreThoseOfTheRFC(t *testing.T) {
	key := dpop.NewKey()
	for _, c := range []struct {
		example, method, url, token string
		want                        proof
	}{
		{exampleLogin, "POST", "https://server.example.com/token", "",
			proof{exampleJKT, "-BwC3ESc6acc2lTc", "POST", "https://server.example.com/token", 1562262616, "", ""}},
		{exampleAPI, "GET", "https://resource.example.org/protectedresource", exampleToken,
			proof{exampleJKT, "e1j3V_bKic8-LAEB", "GET", "https://resource.example.org/protectedresource", 1562262618, exampleATH, ""}},
	} {
		got, err := verify(c.example)
		if err != nil || got != c.want {
			t.Errorf("the RFC's: %+v, %v; want %+v", got, err, c.want)
		}
		if _, err := verify(c.example[:len(c.example)-4] + "AAAA"); err == nil {
			t.Error("a signature that was changed is taken")
		}

		before := time.Now().Unix()
		ours := prove(t, key, c.method, c.url, c.token)
		if ours.jkt != key.Thumbprint() || len(ours.ID) < 20 || ours.Issued < before || ours.Issued > time.Now().Unix() {
			t.Errorf("ours: %+v", ours)
		}
		ours.jkt, ours.ID, ours.Issued = c.want.jkt, c.want.ID, c.want.Issued
		if ours != c.want {
			t.Errorf("ours: %+v; want %+v", ours, c.want)
		}
	}
}

// prove returns the proof that key makes for a request, with a token or without.
func prove(t *testing.T, key *dpop.Key, method, url, token string, change ...func(*http.Request)) proof {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(req)
	}
	header := ""
	if token != "" {
		req.Header.Set("Authorization", "DPoP "+token)
		if err := key.Prepare(req, nil); err != nil {
			t.Fatal(err)
		}
		header = req.Header.Get("DPoP")
	} else {
		client := dpop.Client(key, roundTrip(func(out *http.Request) (*http.Response, error) {
			header = out.Header.Get("DPoP")
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: out}, nil
		}))
		if _, err := client.Do(req); err != nil {
			t.Fatal(err)
		}
	}
	p, err := verify(header)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// The URL of a proof is the one that the server has of the request line and Host (RFC 9110
// §7.1), without query and fragment, normalized (RFC 9449 §4.3).
func TestProofNamesTheURLThatTheServerSees(t *testing.T) {
	key := dpop.NewKey()
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	opaque := func(o string) func(*http.Request) { return func(r *http.Request) { r.URL.Opaque = o } }
	for _, c := range []struct {
		url, want string
		change    []func(*http.Request)
	}{
		{"https://api.example.com/a/b?c=d#e", "https://api.example.com/a/b", nil},
		{"https://api.example.com", "https://api.example.com/", nil},
		{"https://api.example.com?", "https://api.example.com/", nil},
		{"https://api.example.com/a/", "https://api.example.com/a/", nil},
		{"https://api.example.com/a%2Fb/%C3%A9;x=1", "https://api.example.com/a%2Fb/%C3%A9;x=1", nil},
		{"https://api.example.com/é", "https://api.example.com/%C3%A9", nil},
		{"https://api.example.com/a%3Fb?c", "https://api.example.com/a%3Fb", nil},
		{"HTTPS://API.Example.COM:443/A", "https://api.example.com/A", nil},
		{"https://api.example.com:80/", "https://api.example.com:80/", nil},
		{"http://localhost:80/", "http://localhost/", nil},
		{"http://localhost:443/", "http://localhost:443/", nil},
		{"https://api.example.com:/", "https://api.example.com/", nil},
		{"https://[2001:DB8::1]:443/", "https://[2001:db8::1]/", nil},
		{"https://[2001:db8::443]/", "https://[2001:db8::443]/", nil},
		{"https://BÜCHER.example:8443/", "https://xn--bcher-kva.example:8443/", nil},
		{"https://user:pass@api.example.com/", "https://api.example.com/", nil},
		{"https://10.0.0.1/x", "https://api.example.com/x", []func(*http.Request){host("api.example.com")}},
		{"https://api.example.com/x", "https://api.example.com/y%2fz", []func(*http.Request){opaque("/y%2fz?q")}},
	} {
		if got := prove(t, key, "GET", c.url, "t", c.change...).URL; got != c.want {
			t.Errorf("%s: %s, want %s", c.url, got, c.want)
		}
	}
	if got := prove(t, key, "GET", "https://api.example.com/", "t", func(r *http.Request) { r.Method = "" }).Method; got != "GET" {
		t.Errorf("htm %q without a method", got)
	}
}

// Whatever has the request sent, a nonce, a 503 or a refused token: each send has a proof of
// its own, and the server sees none twice.
func TestEachSendHasAProofOfItsOwn(t *testing.T) {
	s, key := newSim(t), dpop.NewKey()
	client, pipeline := s.client(t, key, func(cfg *requestforge.Config) {
		cfg.Retry = requestforge.RetryPolicy{RetryMax: 2, RetryWaitMin: time.Millisecond, RetryWaitMax: time.Millisecond}
	})
	s.set(func() { s.tokenNonce, s.apiNonce, s.unready = "t-1", "n-1", 1 })
	if got := status(t, client, "/api/x"); got != 200 {
		t.Fatal(got)
	}
	s.set(func() { clear(s.bound) }) // all tokens are revoked, and their refresh tokens
	req, err := http.NewRequest("PUT", "/api/y", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	// two for the first login, three for /api/x; /api/y, a refresh, a login, /api/y.
	proofs := s.seen()
	ids := map[string]bool{}
	for _, p := range proofs {
		ids[p.ID] = true
	}
	if len(proofs) != 9 || len(ids) != 9 || s.strict != nil {
		t.Errorf("%d proofs, %d of them different, %v: %+v", len(proofs), len(ids), s.strict, proofs)
	}
	if got := pipeline.Stats().Steps["user"].Fetches; got != 3 || s.logins != 2 || s.refreshes != 0 {
		t.Errorf("%d fetches, %d logins, %d refreshes", got, s.logins, s.refreshes)
	}
}

// A nonce that the server changes costs one send, no token and no fetch. One that comes with
// a good answer costs nothing.
func TestNonceCostsASendAndNoToken(t *testing.T) {
	s, key := newSim(t), dpop.NewKey()
	client, pipeline := s.client(t, key)
	for i := range 300 {
		if i%100 == 0 {
			s.set(func() { s.apiNonce = "n-" + string(rune('a'+i/100)) })
		}
		if got := status(t, client, "/api/x"); got != 200 {
			t.Fatalf("request %d: %d", i, got)
		}
	}
	if s.nonces != 3 || s.refused != 0 || len(s.seen()) != 1+300+3 {
		t.Errorf("%d refusals for a nonce, %d of tokens, %d proofs", s.nonces, s.refused, len(s.seen()))
	}

	s.set(func() { s.announce, s.nonces = true, 0 })
	for _, next := range []string{"m-1", "m-2", "m-3"} {
		s.set(func() { s.apiNonce = next })
		for range 2 {
			if got := status(t, client, "/api/x"); got != 200 {
				t.Fatal(got)
			}
		}
	}
	if s.nonces != 3 {
		t.Errorf("%d refusals", s.nonces)
	}
	if stats := pipeline.Stats(); stats.Invalidations != 0 || stats.Steps["user"].Fetches != 1 || s.logins != 1 {
		t.Errorf("%+v", stats)
	}
}

// A server that is content with no nonce gets two sends a request, and nothing is fetched. One
// that changes its nonce during an outage, or during a login, is content with the next.
func TestNonceThatDoesNotHelpCostsASendAndNoToken(t *testing.T) {
	s, key := newSim(t), dpop.NewKey()
	client, pipeline := s.client(t, key, func(cfg *requestforge.Config) {
		cfg.Retry = requestforge.RetryPolicy{RetryMax: 3, RetryWaitMin: time.Millisecond, RetryWaitMax: time.Millisecond}
	})
	s.set(func() { s.apiNonce, s.restless = "n", 1000 })
	for range 3 {
		if got := status(t, client, "/api"); got != 401 {
			t.Error(got)
		}
	}
	if s.nonces != 6 || s.logins != 1 || s.refreshes != 0 || pipeline.Stats().Invalidations != 0 {
		t.Errorf("%d refusals for a nonce, %d logins, %d refreshes", s.nonces, s.logins, s.refreshes)
	}

	s.set(func() { s.restless, s.unready, s.nonces = 0, 2, 0 })
	s.outage = func() { s.apiNonce += "x" }
	if got := status(t, client, "/api"); got != 200 || s.nonces != 3 {
		t.Errorf("%d after %d refusals for a nonce", got, s.nonces)
	}
	s.set(func() { clear(s.bound); s.apiNonce, s.nonces = "m", 0 })
	s.atLogin = func() { s.apiNonce = "m-2" }
	if got := status(t, client, "/api"); got != 200 || s.nonces != 2 || s.logins != 2 {
		t.Errorf("%d after %d refusals for a nonce, and %d logins", got, s.nonces, s.logins)
	}
}

func TestNonceOfAGoodAnswerIsRemembered(t *testing.T) {
	key := dpop.NewKey()
	req, err := http.NewRequest("GET", "https://api.example.com/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status int
		header http.Header
		again  bool
		want   string
	}{
		{200, http.Header{"Dpop-Nonce": {"n-1"}}, false, "n-1"},
		{200, nil, false, "n-1"},
		{401, http.Header{"Dpop-Nonce": {"n-2"}, "Www-Authenticate": {`Bearer`, `DPoP error="use_dpop_nonce"`}}, true, "n-2"},
		{401, http.Header{"Www-Authenticate": {`DPoP error="use_dpop_nonce"`}}, false, "n-2"}, // none is there
		{401, http.Header{"Dpop-Nonce": {"n-3"}, "Www-Authenticate": {`DPoP error="invalid_token"`}}, false, "n-3"},
		{403, http.Header{"Dpop-Nonce": {"n-4"}, "Www-Authenticate": {`DPoP error="use_dpop_nonce"`}}, false, "n-4"},
		{200, http.Header{"Dpop-Nonce": {"n-5", "n-6"}}, false, "n-4"},
		{200, http.Header{"Dpop-Nonce": {""}}, false, "n-4"},
		{200, http.Header{"Dpop-Nonce": {"n 7"}}, false, "n-4"},
		{200, http.Header{"Dpop-Nonce": {`n"7`}}, false, "n-4"},
		{200, http.Header{"Dpop-Nonce": {"né"}}, false, "n-4"},
		{200, http.Header{"Dpop-Nonce": {strings.Repeat("n", 4097)}}, false, "n-4"},
		{200, http.Header{"Dpop-Nonce": {strings.Repeat("n", 4096)}}, false, strings.Repeat("n", 4096)},
	} {
		again := key.Learn(&http.Response{StatusCode: c.status, Header: c.header, Request: req}, nil)
		if got := prove(t, key, "GET", "https://API.example.com:443/y", "t").Nonce; again != c.again || got != c.want {
			t.Errorf("%d %v: again %v, nonce %q", c.status, c.header, again, got)
		}
	}
}

// Nonces are the server's own: no other origin gets one, and the auth server's are not the
// API's, even at one origin.
func TestNoncesOfServersAreApart(t *testing.T) {
	a, b, key := newSim(t), newSim(t), dpop.NewKey()
	a.set(func() { a.tokenNonce, a.apiNonce = "a-token", "a-api" })
	b.set(func() { b.tokenNonce, b.apiNonce = "b-token", "b-api" })
	of := func(s *sim) *http.Client { client, _ := s.client(t, key); return client }
	first, second := of(a), of(b)
	for range 10 {
		if x, y := status(t, first, "/api"), status(t, second, "/api"); x != 200 || y != 200 {
			t.Fatal(x, y)
		}
	}
	for _, s := range []*sim{a, b} {
		if s.nonces != 2 || s.refused != 0 || s.strict != nil {
			t.Errorf("%d refusals for a nonce, want one by the auth server and one by the API; %d of tokens, %v", s.nonces, s.refused, s.strict)
		}
		for _, p := range s.seen() {
			if p.Nonce != "" && p.Nonce != s.tokenNonce && p.Nonce != s.apiNonce || p.Nonce == s.tokenNonce && p.Hash != "" || p.Nonce == s.apiNonce && p.Hash == "" {
				t.Errorf("%+v", p)
			}
		}
	}
}

// Where the login says where the token is good, the nonces are that server's.
func TestNonceOfAServerThatTheLoginNames(t *testing.T) {
	s, key := newSim(t), dpop.NewKey()
	s.set(func() { s.apiNonce = "n-1" })
	client, _ := s.client(t, key, func(cfg *requestforge.Config) {
		cfg.BaseURL, cfg.Origins = "https://login.example.com/v1", []string{s.URL}
		cfg.BaseURLFrom = func(*requestforge.Token) (string, error) { return s.URL + "/api", nil }
	})
	for range 3 {
		if got := status(t, client, "/x"); got != 200 {
			t.Fatal(got)
		}
	}
	if s.nonces != 1 || s.strict != nil {
		t.Errorf("%d refusals for a nonce, %v", s.nonces, s.strict)
	}
}

// A redirect within the origin has a proof of its own. Another origin gets neither token nor
// proof, nor does the caller.
func TestRedirectHasAProofOfItsOwnOrNone(t *testing.T) {
	s, other, key := newSim(t), newSim(t), dpop.NewKey()
	client, _ := s.client(t, key)
	resp, err := client.Get("/moved?to=/api/there")
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	proofs := s.seen()
	if got := []string{proofs[1].URL, proofs[2].URL}; len(proofs) != 3 || got[0] != s.URL+"/moved" || got[1] != s.URL+"/api/there" || s.strict != nil {
		t.Errorf("%v, %v", got, s.strict)
	}
	for req := resp.Request; ; req = req.Response.Request {
		if req.Header.Get("DPoP") != "" || req.Header.Get("Authorization") != "" {
			t.Errorf("the caller sees %v", req.Header)
		}
		if req.Response == nil {
			break
		}
	}

	resp, err = client.Get("/moved?to=" + url.QueryEscape(other.URL+"/api"))
	if err != nil || resp.StatusCode != 401 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	if len(other.seen()) != 0 || other.strict != nil {
		t.Errorf("the other origin got %v", other.seen())
	}
}

// A token without its key is worth nothing, with another key or as a Bearer token.
func TestStolenTokenIsRefused(t *testing.T) {
	s, key := newSim(t), dpop.NewKey()
	_, pipeline := s.client(t, key)
	tok, err := pipeline.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	thief := dpop.NewKey()
	for name, layer := range map[string]*requestforge.AuthTransport{
		"its key":     {Prepare: key.Prepare, Learn: key.Learn},
		"another key": {Prepare: thief.Prepare, Learn: thief.Learn},
		"no key":      {},
		"as Bearer":   {Attach: []requestforge.Place{{Header: "Authorization", Scheme: "Bearer"}}},
	} {
		layer.Source, layer.Origins = requestforge.StaticToken(tok), []string{s.URL}
		want := 401
		if name == "its key" {
			want = 200
		}
		if got := status(t, &http.Client{Transport: layer}, s.URL+"/api"); got != want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// Many goroutines share one key while the nonce changes: whoever is refused sends once more,
// and nobody sees a refusal.
func TestKeyIsSharedByManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		nonce, sends, ids := "n-0", 0, map[string]bool{}
		key := dpop.NewKey()
		layer := &requestforge.AuthTransport{
			Source:  requestforge.StaticToken(&requestforge.Token{AccessToken: "t", TokenType: "DPoP"}),
			Origins: []string{"https://api.example.com"},
			Prepare: key.Prepare, Learn: key.Learn,
			Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				p, err := verify(req.Header.Get("DPoP"))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				sends++
				ids[p.ID] = true
				resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}
				if p.Nonce != nonce {
					resp.StatusCode = 401
					resp.Header.Set("DPoP-Nonce", nonce)
					resp.Header.Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
				}
				return resp, nil
			}),
		}
		client := &http.Client{Transport: layer}
		for round := range 5 {
			mu.Lock()
			nonce, sends = "n-"+string(rune('1'+round)), 0
			mu.Unlock()
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if resp, err := client.Get("https://api.example.com/x"); err != nil || resp.StatusCode != 200 {
						t.Error(resp, err)
					}
				})
			}
			wg.Wait()
			if sends < 51 || sends > 100 {
				t.Errorf("%d sends for 50 requests and one new nonce", sends)
			}
		}
		if len(ids) < 255 {
			t.Errorf("%d proofs are different", len(ids))
		}
	})
}

// A user has a key of their own: the tokens of one are of no use with another's.
func TestEachSubjectHasAKey(t *testing.T) {
	s := newSim(t)
	s.set(func() { s.tokenNonce, s.apiNonce = "t-1", "n-1" })
	type user struct{}
	keys := map[string]*dpop.Key{"ann": dpop.NewKey(), "bob": dpop.NewKey()}
	byUser := dpop.Keys(func(ctx context.Context) (*dpop.Key, error) {
		name, _ := ctx.Value(user{}).(string)
		return keys[name], nil
	})
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Subject: func(ctx context.Context) (string, error) {
			name, _ := ctx.Value(user{}).(string)
			return name, nil
		},
		Steps: []requestforge.Step{{Name: "user", PerSubject: true, Fetcher: &requestforge.HTTPFetcher{
			URL: s.URL + "/token", Client: byUser.Client(nil),
			BodyFrom: func(in requestforge.Input) (any, error) { return url.Values{"username": {in.Subject}}, nil },
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &requestforge.AuthTransport{
		Source: pipeline, Origins: []string{s.URL}, Prepare: byUser.Prepare, Learn: byUser.Learn,
	}}
	for range 2 {
		for name, key := range keys {
			req, err := http.NewRequestWithContext(context.WithValue(t.Context(), user{}, name), "GET", s.URL+"/api/"+name, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil || resp.StatusCode != 200 {
				t.Fatal(resp, err)
			}
			resp.Body.Close()
			proofs := s.seen()
			if last := proofs[len(proofs)-1]; last.jkt != key.Thumbprint() || last.URL != s.URL+"/api/"+name {
				t.Errorf("%s: %+v", name, last)
			}
		}
	}
	if s.logins != 2 || s.nonces != 4 || s.strict != nil {
		t.Errorf("%d logins, %d refusals for a nonce, %v", s.logins, s.nonces, s.strict)
	}
	// A user without a key, and requests without a user.
	delete(keys, "bob")
	for _, name := range []string{"bob", "eve"} {
		req, err := http.NewRequestWithContext(context.WithValue(t.Context(), user{}, name), "GET", s.URL+"/api/"+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		before := len(s.seen())
		if resp, err := client.Do(req); err == nil || !strings.Contains(err.Error(), "the Key is nil or zero") || len(s.seen()) != before {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
}

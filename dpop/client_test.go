package dpop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/dpop"
)

func TestClientIsAGoodRoundTripper(t *testing.T) {
	key := dpop.NewKey()
	authtest.TestRoundTripper(t, func(next http.RoundTripper) http.RoundTripper { return dpop.Client(key, next).Transport })
}

// A login and each refresh are by one key. At the first send the server's nonce isn't known;
// each new one costs one send.
func TestLoginAndRefreshAreByOneKey(t *testing.T) {
	s, key := newSim(t), dpop.NewKey()
	s.set(func() { s.tokenNonce = "n-1" })
	client, pipeline := s.client(t, key)
	for i := range 4 {
		if got := status(t, client, "/api"); got != 200 {
			t.Fatal(got)
		}
		if i == 2 {
			s.set(func() { s.tokenNonce = "n-2" })
		}
		if _, err := pipeline.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s.logins != 1 || s.refreshes != 4 || s.nonces != 2 || s.strict != nil {
		t.Errorf("%d logins, %d refreshes, %d refusals for a nonce, %v", s.logins, s.refreshes, s.nonces, s.strict)
	}
	for _, p := range s.seen() {
		if p.jkt != key.Thumbprint() {
			t.Errorf("%+v", p)
		}
	}
}

// A refresh token that somebody else has brings nothing without the key.
func TestRefreshTokenIsBoundToTheKey(t *testing.T) {
	s, storage := newSim(t), requestforge.NewMemoryStorage()
	owner, err := s.login(dpop.NewKey(), requestforge.PipelineConfig{Storage: storage, KeyPrefix: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := owner.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Invalidate(t.Context(), tok); err != nil {
		t.Fatal(err)
	}
	thief, err := s.login(dpop.NewKey(), requestforge.PipelineConfig{Storage: storage, KeyPrefix: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := thief.Token(t.Context()); err != nil || s.refreshes != 0 || s.logins != 2 {
		t.Errorf("%v, %d refreshes, %d logins; want a login of its own", err, s.refreshes, s.logins)
	}
}

// What asks for a nonce is answered once. All else goes to the caller as it came.
func TestClientAnswersUseDPoPNonceOnce(t *testing.T) {
	const wanted = `{"error":"use_dpop_nonce","error_description":"nonce wanted"}`
	long := `{"error":"use_dpop_nonce","x":"` + strings.Repeat("x", 1<<20) + `"}`
	challenge := `DPoP error="use_dpop_nonce"`
	for name, c := range map[string]struct {
		status           int
		nonce, challenge string
		body             string
		sends            int
	}{
		"400":                     {400, "n", "", wanted, 2},
		"401":                     {401, "n", "", wanted, 2},
		"401 by its challenge":    {401, "n", challenge, "", 2},
		"400 by its challenge":    {400, "n", challenge, "<html>", 2},
		"no nonce":                {400, "", challenge, wanted, 1},
		"another error":           {400, "n", "", `{"error":"invalid_grant","error_description":"not use_dpop_nonce"}`, 1},
		"no JSON":                 {400, "n", "", "use_dpop_nonce", 1},
		"more than an error has":  {400, "n", "", long, 1},
		"another status":          {403, "n", challenge, wanted, 1},
		"a good answer":           {200, "n", challenge, wanted, 1},
		"an answer without words": {400, "n", "", "", 1},
	} {
		var nonces []string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || string(body) != "form" {
				t.Errorf("%s: %q, %v", name, body, err)
			}
			p, err := verify(r.Header.Get("DPoP"))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			nonces = append(nonces, p.Nonce)
			if c.nonce != "" {
				w.Header().Set("DPoP-Nonce", fmt.Sprint(c.nonce, len(nonces)))
			}
			if c.challenge != "" {
				w.Header().Set("WWW-Authenticate", c.challenge)
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		resp, err := dpop.Client(dpop.NewKey(), nil).Post(srv.URL, "text/plain", strings.NewReader("form"))
		if err != nil {
			t.Fatal(name, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || string(body) != c.body || err != nil || len(nonces) != c.sends {
			t.Errorf("%s: %s, %d bytes, %v, nonces %q", name, resp.Status, len(body), err, nonces)
		}
		if len(nonces) == 2 && (nonces[0] != "" || nonces[1] != "n1") {
			t.Errorf("%s: nonces %q", name, nonces)
		}
		if resp.Request.Header.Get("DPoP") != "" {
			t.Errorf("%s: the caller sees the proof", name)
		}
		srv.Close()
	}
}

// A body that can't be had again is sent once, and the answer is the caller's to read.
func TestClientSendsABodyWithoutGetBodyOnce(t *testing.T) {
	s, key := newSim(t), dpop.NewKey()
	s.set(func() { s.tokenNonce = "n-1" })
	post := func() (int, string) {
		req, err := http.NewRequest("POST", s.URL+"/token", io.MultiReader(strings.NewReader("username=ann")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := dpop.Client(key, nil).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if status, body := post(); status != 400 || body != `{"error":"use_dpop_nonce"}` || s.nonces != 1 {
		t.Errorf("%d %s", status, body)
	}
	if status, body := post(); status != 200 || s.nonces != 1 {
		t.Errorf("with the nonce learned: %d %s", status, body)
	}
}

// A redirect has a proof for where it leads, and a token that goes along has its hash in it.
func TestClientProvesEachHopAndTheTokenThatGoesAlong(t *testing.T) {
	s, key := newSim(t), dpop.NewKey()
	_, pipeline := s.client(t, key)
	tok, err := pipeline.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.apiNonce = "n-1" }) // a nonce for requests with a token
	req, err := http.NewRequest("POST", s.URL+"/moved?to=/api/introspect", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "DPoP "+tok.AccessToken)
	resp, err := dpop.Client(key, nil).Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	proofs := s.seen()[1:]
	if len(proofs) != 3 || proofs[2].URL != s.URL+"/api/introspect" || proofs[2].Hash != ath(tok.AccessToken) || s.nonces != 1 || s.strict != nil {
		t.Errorf("%+v, %v", proofs, s.strict)
	}
}

func TestClientMistakesAreErrorsOfEachRequest(t *testing.T) {
	key := dpop.NewKey()
	var none *http.Transport
	client := dpop.Client(key, none)
	for range 2 {
		closed := &closes{Reader: strings.NewReader("body")}
		req, err := http.NewRequest("POST", "https://auth.example.com/", closed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Do(req); err == nil || !strings.Contains(err.Error(), "requestforge: dpop: Client: base is a nil *http.Transport") || closed.n != 1 {
			t.Error(err, closed.n)
		}
	}
	client.CloseIdleConnections() // doesn't panic
	for _, url := range []string{"/token", "mailto:ann@example.com"} {
		closed := &closes{Reader: strings.NewReader("body")}
		req, err := http.NewRequest("POST", url, closed)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := dpop.Client(key, nil).Transport.RoundTrip(req)
		if err == nil || !strings.Contains(err.Error(), "absolute URL") || resp != nil || closed.n != 1 {
			t.Error(err, closed.n)
		}
	}
	refused := errors.New("the user has gone")
	keys := dpop.Keys(func(context.Context) (*dpop.Key, error) { return nil, refused })
	if _, err := keys.Client(nil).Get("https://auth.example.com/"); !errors.Is(err, refused) {
		t.Error(err)
	}
	if err := keys.Prepare(httptest.NewRequest("GET", "/", nil), nil); !errors.Is(err, refused) {
		t.Error(err)
	}
}

type closes struct {
	io.Reader
	n int
}

func (c *closes) Close() error { c.n++; return nil }

// A nil base is http.DefaultTransport at each request.
func TestClientLooksTheDefaultTransportUp(t *testing.T) {
	client := dpop.Client(dpop.NewKey(), nil)
	before := http.DefaultTransport
	defer func() { http.DefaultTransport = before }()
	sent := 0
	http.DefaultTransport = roundTrip(func(req *http.Request) (*http.Response, error) {
		sent++
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(nil)), Request: req}, nil
	})
	if _, err := client.Get("https://auth.example.com/"); err != nil || sent != 1 {
		t.Error(err, sent)
	}
}

// An answer that breaks off is what it was to whoever reads it, and sent for once.
func TestClientPassesAnAnswerOnThatBreaksOff(t *testing.T) {
	broken, sent := errors.New("connection lost"), 0
	client := dpop.Client(dpop.NewKey(), roundTrip(func(req *http.Request) (*http.Response, error) {
		sent++
		body := &breaks{Reader: strings.NewReader(`{"error":"use_dpop_`), errs: []error{broken, errors.New("closed")}}
		return &http.Response{StatusCode: 400, Header: http.Header{"Dpop-Nonce": {"n"}}, Body: body, Request: req}, nil
	}))
	resp, err := client.Get("https://auth.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != broken || string(body) != `{"error":"use_dpop_` || sent != 1 {
		t.Errorf("%q, %v, %d sends", body, err, sent)
	}
}

// breaks is a body that ends with errors.
type breaks struct {
	io.Reader
	errs []error
}

func (b *breaks) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err, b.errs = b.errs[0], b.errs[1:]
	}
	return n, err
}

func (*breaks) Close() error { return nil }

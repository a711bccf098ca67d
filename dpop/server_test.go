package dpop_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/dpop"
)

// proof is what a server reads in the header DPoP.
type proof struct {
	jkt    string // of the key that has signed
	ID     string `json:"jti"`
	Method string `json:"htm"`
	URL    string `json:"htu"`
	Issued int64  `json:"iat"`
	Hash   string `json:"ath"`
	Nonce  string `json:"nonce"`
}

// verify reads a proof as RFC 9449 §4.3 has it, without what the request must be.
func verify(text string) (p proof, err error) {
	signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return p, err
	}
	header := signed.Signatures[0].Protected
	if typ := header.ExtraHeaders["typ"]; typ != "dpop+jwt" {
		return p, fmt.Errorf("typ is %v", typ)
	}
	if header.JSONWebKey == nil || !header.JSONWebKey.IsPublic() {
		return p, errors.New("no public jwk")
	}
	payload, err := signed.Verify(header.JSONWebKey)
	if err != nil {
		return p, err
	}
	sum, err := header.JSONWebKey.Thumbprint(crypto.SHA256)
	if err != nil {
		return p, err
	}
	p.jkt = base64.RawURLEncoding.EncodeToString(sum)
	return p, json.Unmarshal(payload, &p)
}

func ath(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sim is an auth server and an API of one origin that take nothing without a good proof.
//
//	POST /token    a token, for any form; a refresh with its own key alone
//	/api/…         200 with a token of its own key, else 401
//	/moved?to=…    307 to there, for such a token
type sim struct {
	*httptest.Server

	mu         sync.Mutex
	tokenNonce string // wanted at /token; "": none
	apiNonce   string // wanted of requests with a token; "": none
	announce   bool   // each answer has the nonce, and not a refusal alone
	strict     error  // the first proof that was wrong for another reason than its nonce
	bound      map[string]string
	ids        map[string]bool
	proofs     []proof
	logins     int
	refreshes  int
	nonces     int // refusals for the nonce
	refused    int // refusals of tokens
	unready    int // that many requests of the API are answered by a 503
	restless   int // that many refusals for a nonce are followed by another nonce

	outage, atLogin func() // called with a 503 and a login, if not nil
}

func newSim(t testing.TB) *sim {
	s := startSim()
	t.Cleanup(s.Close)
	return s
}

func startSim() *sim {
	s := &sim{bound: map[string]string{}, ids: map[string]bool{}}
	s.Server = httptest.NewServer(s)
	return s
}

// set changes what s wants.
func (s *sim) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// seen returns the proofs that came.
func (s *sim) seen() []proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]proof(nil), s.proofs...)
}

func (s *sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, http.MaxBytesReader(w, nopBody(r), 1<<20))
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/token" {
		s.serveToken(w, r)
		return
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "DPoP ")
	if !ok {
		w.Header().Set("WWW-Authenticate", `DPoP algs="ES256"`)
		w.WriteHeader(401)
		return
	}
	p, err := s.check(r, token)
	switch {
	case err != nil:
		s.refused++
		w.Header().Set("WWW-Authenticate", `DPoP error="invalid_dpop_proof", algs="ES256"`)
		w.WriteHeader(401)
	case s.apiNonce != "" && p.Nonce != s.apiNonce:
		s.nonces++
		w.Header().Set("DPoP-Nonce", s.apiNonce)
		w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce", error_description="nonce wanted"`)
		w.WriteHeader(401)
		if s.restless > 0 {
			s.restless--
			s.apiNonce += "n"
		}
	case s.bound[token] != p.jkt:
		s.refused++
		w.Header().Set("WWW-Authenticate", `DPoP error="invalid_token", algs="ES256"`)
		w.WriteHeader(401)
	case s.unready > 0:
		s.unready--
		if s.outage != nil {
			s.outage()
		}
		w.WriteHeader(503)
	case r.URL.Path == "/moved":
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusTemporaryRedirect)
	default:
		if s.announce && s.apiNonce != "" {
			w.Header().Set("DPoP-Nonce", s.apiNonce)
		}
		io.WriteString(w, "hello")
	}
}

func nopBody(r *http.Request) io.ReadCloser {
	if r.URL.Path == "/token" {
		return http.NoBody // for ParseForm
	}
	return r.Body
}

func (s *sim) serveToken(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":%q}`, code)
	}
	p, err := s.check(r, "")
	if err != nil {
		refuse(400, "invalid_dpop_proof")
		return
	}
	if s.tokenNonce != "" && p.Nonce != s.tokenNonce {
		s.nonces++
		w.Header().Set("DPoP-Nonce", s.tokenNonce)
		refuse(400, "use_dpop_nonce")
		return
	}
	if err := r.ParseForm(); err != nil || len(r.PostForm) == 0 {
		refuse(400, "invalid_request")
		return
	}
	if r.PostForm.Get("grant_type") == "refresh_token" {
		if s.bound[r.PostForm.Get("refresh_token")] != p.jkt {
			refuse(400, "invalid_grant")
			return
		}
		s.refreshes++
	} else {
		s.logins++
		if s.atLogin != nil {
			s.atLogin()
		}
	}
	access, refresh := "a-"+rand.Text(), "r-"+rand.Text()
	s.bound[access], s.bound[refresh] = p.jkt, p.jkt
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"refresh_token":%q,"token_type":"DPoP","expires_in":3600}`, access, refresh)
}

// check is RFC 9449 §4.3. The URL must be exactly that of the request.
func (s *sim) check(r *http.Request, token string) (p proof, err error) {
	defer func() {
		if err != nil && s.strict == nil {
			s.strict = err
		}
	}()
	if n := len(r.Header.Values("DPoP")); n != 1 {
		return p, fmt.Errorf("%d proofs", n)
	}
	if p, err = verify(r.Header.Get("DPoP")); err != nil {
		return p, err
	}
	s.proofs = append(s.proofs, p)
	want := ""
	if token != "" {
		want = ath(token)
	}
	switch {
	case p.Method != r.Method:
		return p, fmt.Errorf("htm is %s, and the method %s", p.Method, r.Method)
	case p.URL != "http://"+r.Host+r.URL.EscapedPath():
		return p, fmt.Errorf("htu is %s, and the request for %s%s", p.URL, r.Host, r.URL.EscapedPath())
	case p.Hash != want:
		return p, fmt.Errorf("ath is %q, want %q", p.Hash, want)
	case p.ID == "" || s.ids[p.ID]:
		return p, fmt.Errorf("jti %q was there before", p.ID)
	}
	s.ids[p.ID] = true
	return p, nil
}

// login is a pipeline of one step, whose login and refresh are by key.
func (s *sim) login(key *dpop.Key, cfg requestforge.PipelineConfig) (*requestforge.Pipeline, error) {
	ask := func(form url.Values) *requestforge.HTTPFetcher {
		return &requestforge.HTTPFetcher{URL: s.URL + "/token", Form: form, Client: dpop.Client(key, nil)}
	}
	refresh := ask(nil)
	refresh.BodyFrom = func(in requestforge.Input) (any, error) {
		return url.Values{"grant_type": {"refresh_token"}, "client_id": {"cli"}, "refresh_token": {in.Previous.RefreshToken}}, nil
	}
	cfg.Steps = []requestforge.Step{{
		Name:    "user",
		Fetcher: ask(url.Values{"grant_type": {"password"}, "client_id": {"cli"}, "username": {"ann"}}),
		Refresh: refresh,
	}}
	return requestforge.NewPipeline(cfg)
}

// client returns one whose requests carry the tokens of a login with key.
func (s *sim) client(t testing.TB, key *dpop.Key, change ...func(*requestforge.Config)) (*http.Client, *requestforge.Pipeline) {
	t.Helper()
	pipeline, err := s.login(key, requestforge.PipelineConfig{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := requestforge.Config{BaseURL: s.URL, Source: pipeline, Prepare: key.Prepare, Learn: key.Learn}
	for _, c := range change {
		c(&cfg)
	}
	transport, err := requestforge.NewTransport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: transport}, pipeline
}

// status returns the status of an answer to a GET.
func status(t testing.TB, client *http.Client, url string) int {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

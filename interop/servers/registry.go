// docker-registry, Debian's package of CNCF distribution, as a process, and the
// token server that it trusts. The registry can't revoke a token: it believes
// any that is signed and hasn't expired.

package servers

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func init() {
	starters["docker-registry"] = func(ctx context.Context) (*Server, error) {
		r, err := StartRegistry(ctx, nil)
		if err != nil {
			return nil, err
		}
		return r.Server, nil
	}
}

// Registry is a docker-registry and its token server. TokenURL is the realm that
// its challenges name; it takes the client's id and secret by HTTP Basic. The
// resource is /v2/, which takes a token without any scope.
type Registry struct {
	*Server

	URL     string // the registry's own
	Service string // what the registry is called at the token server

	users *Server
	key   jose.Signer
	life  atomic.Int64 // a time.Duration; see ShortenTokens
}

const (
	// tokenLife is what the token server says in expires_in.
	tokenLife = 5 * time.Minute

	// leeway is for how long the registry takes a token that has expired.
	leeway = time.Minute
)

// StartRegistry is Start("docker-registry") with more to it. If users isn't nil
// the token server takes its user's access tokens as well, as Bearer: it
// introspects them there, each time. The caller closes the Server.
func StartRegistry(ctx context.Context, users *Server) (*Registry, error) {
	program, err := lookPath("docker-registry")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "requestforge-registry-")
	if err != nil {
		return nil, err
	}
	closers := []func() error{func() error { return os.RemoveAll(dir) }}
	shut := func() error {
		var errs []error
		for _, f := range closers {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	r := &Registry{
		Server:  &Server{Name: "docker-registry", ClientID: "ann", ClientSecret: rand.Text(), close: shut},
		Service: "registry.test",
		users:   users,
	}
	err = r.start(ctx, program, dir, func(f func() error) { closers = append(closers, f) })
	if err != nil {
		return nil, errors.Join(err, shut())
	}
	return r, nil
}

var listening = regexp.MustCompile(`msg="listening on (127\.0\.0\.1:\d+)"`)

// start starts the token server and the registry, with its files in dir, and
// passes what ends them to deferred.
func (r *Registry) start(ctx context.Context, program, dir string, deferred func(func() error)) error {
	cert, err := r.newKey()
	if err != nil {
		return err
	}
	bundle := filepath.Join(dir, "cert.pem")
	if err := os.WriteFile(bundle, cert, 0o600); err != nil {
		return err
	}
	stop, err := serve(func(origin string) (http.Handler, error) {
		r.Issuer, r.TokenURL = origin, origin+"/token"
		mux := http.NewServeMux()
		mux.HandleFunc("GET /token", r.token)
		return mux, nil
	})
	if err != nil {
		return err
	}
	deferred(stop)

	config, err := json.Marshal(map[string]any{ // which is YAML, too
		"version": "0.1",
		"log":     map[string]any{"level": "info", "formatter": "text"},
		"storage": map[string]any{"inmemory": map[string]any{}},
		"http":    map[string]any{"addr": "127.0.0.1:0", "secret": rand.Text()},
		"auth": map[string]any{"token": map[string]any{
			"realm": r.TokenURL, "service": r.Service, "issuer": r.Issuer, "rootcertbundle": bundle,
		}},
	})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	// The registry doesn't care for its input, so a shell does.
	cmd := exec.Command("sh", "-c", `
		exec 3<&0
		"$@" 3<&- & pid=$!
		{ cat <&3; kill "$pid"; } >/dev/null 2>&1 &
		exec 3<&-
		wait "$pid"`, "sh", program, "serve", file)
	addr, stop, err := startProcess(ctx, cmd, "", func(line string) (string, bool) {
		if m := listening.FindStringSubmatch(line); m != nil {
			return m[1], true
		}
		return "", false
	})
	if err != nil {
		return err
	}
	deferred(stop)
	r.URL = "http://" + addr
	r.ResourceURL = r.URL + "/v2/"
	return nil
}

// newKey makes the key that signs tokens and returns a certificate for it, by
// which the registry knows it.
func (r *Registry) newKey() (certificate []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: r.Service},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	r.key, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key},
		new(jose.SignerOptions).WithType("JWT").WithHeader("x5c", []string{base64.StdEncoding.EncodeToString(der)}))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// ShortenTokens makes the registry refuse the tokens that are issued from now on
// after life, though they are said to live for 5 min; the registry counts in
// whole seconds. Zero ends that. There is no other way to have the registry
// refuse a token that it took before.
func (r *Registry) ShortenTokens(life time.Duration) { r.life.Store(int64(life)) }

// access is what a token allows, in the registry's own words.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// token is the realm: a GET with service and scope gets a token for as much,
// since nothing here is forbidden to anybody.
func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	subject, err := r.who(req)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if subject == "" {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", r.TokenURL))
		w.WriteHeader(http.StatusUnauthorized)
		w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED"}]}`))
		return
	}
	allowed := []access{}
	for _, scope := range req.URL.Query()["scope"] {
		parts := strings.Split(scope, ":")
		if len(parts) != 3 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		allowed = append(allowed, access{parts[0], parts[1], strings.Split(parts[2], ",")})
	}
	if req.URL.Query().Get("service") != r.Service {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	now := time.Now()
	expiry := now.Add(tokenLife)
	if life := time.Duration(r.life.Load()); life != 0 {
		expiry = now.Add(life - leeway)
	}
	signed, err := jwt.Signed(r.key).Claims(map[string]any{
		"iss": r.Issuer, "aud": r.Service, "sub": subject, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-leeway).Unix(), "exp": expiry.Unix(),
		"access": allowed,
	}).Serialize()
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{
		"token":        signed,
		"access_token": signed, // for clients that read OAuth's name only
		"expires_in":   int(tokenLife.Seconds()),
		"issued_at":    now.UTC().Format(time.RFC3339),
	})
}

// who returns who asks, and "" if that is nobody we know.
func (r *Registry) who(req *http.Request) (string, error) {
	if id, secret, ok := req.BasicAuth(); ok {
		if id == r.ClientID && secret == r.ClientSecret {
			return id, nil
		}
		return "", nil
	}
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if r.users == nil || !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	return introspect(req.Context(), r.users, token)
}

// introspect asks s for the user of an access token (RFC 7662). It is "" if the
// token is dead, or a client's own.
func introspect(ctx context.Context, s *Server, token string) (user string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.IntrospectURL,
		strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(s.ClientID), url.QueryEscape(s.ClientSecret))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the introspection has status %s", resp.Status)
	}
	var answer struct {
		Active  bool   `json:"active"`
		Subject string `json:"sub"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", err
	}
	if !answer.Active || answer.Subject != s.Username {
		return "", nil
	}
	return answer.Subject, nil
}

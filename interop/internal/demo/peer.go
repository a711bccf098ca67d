// A login for the programs that speak something else than HTTP, and what those that
// they log in to ask.

package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// NewLogin starts an auth server with one step, "user", which the caller closes, and
// returns a pipeline that logs in there.
func NewLogin() (*authtest.Server, *requestforge.Pipeline, error) {
	srv := authtest.NewServer(authtest.Config{
		Steps: []authtest.Step{{Name: "user", ClientID: "shop", ClientSecret: "made-up", TTL: time.Hour}},
	})
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		srv.Close()
		return nil, nil, err
	}
	return srv, tokens, nil
}

// Knows is what a server asks that was shown a credential: whether it is a token of srv
// that is good now.
func Knows(ctx context.Context, srv *authtest.Server, token string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/introspect", nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := srv.Client().Do(req)
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusUnauthorized:
		return false, nil
	}
	return false, fmt.Errorf("the auth server says %s", resp.Status)
}

// Compare returns an error unless so many tokens were fetched from srv, and its peer
// has refused so many.
func Compare(srv *authtest.Server, fetched, refused int) error {
	s := srv.Stats()
	if s.Steps["user"].Fetches.OK != fetched || s.API.Refused != refused {
		return fmt.Errorf("%d tokens were fetched and %d refused; that should be %d and %d", s.Steps["user"].Fetches.OK, s.API.Refused, fetched, refused)
	}
	return nil
}

// TLS returns what a server on loopback, and who trusts it, need.
func TLS() (server, client *tls.Config, err error) {
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	defer srv.Close()
	if len(srv.TLS.Certificates) == 0 {
		return nil, nil, errors.New("no certificate")
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(srv.Certificate())
	return &tls.Config{Certificates: srv.TLS.Certificates}, &tls.Config{RootCAs: trusted, ServerName: "127.0.0.1"}, nil
}

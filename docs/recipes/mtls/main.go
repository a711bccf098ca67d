// Tokens that are bound to a client certificate (RFC 8705), which is rotated while the
// program runs. A token is good only on connections made with the token's certificate, so
// the connections to auth server and API change to the new certificate together.
package main

import (
	"crypto/tls"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/requestforge/requestforge"
)

// connections are made with the certificate of their time, for the auth server and the API
// alike.
type connections struct {
	settings *http.Transport
	now      atomic.Pointer[http.Transport]
}

// use makes connections with cert from now on. Requests that are under way end on the old
// ones. Call it when the files of the certificate have changed.
func (c *connections) use(cert *tls.Certificate) {
	next := c.settings.Clone()
	next.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return cert, nil
	}
	if old := c.now.Swap(next); old != nil {
		old.CloseIdleConnections()
	}
}

func (c *connections) RoundTrip(req *http.Request) (*http.Response, error) {
	return c.now.Load().RoundTrip(req)
}

func (c *connections) CloseIdleConnections() { c.now.Load().CloseIdleConnections() }

func newClient(baseURL string, conns *connections) (*http.Client, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "app",
		Fetcher: &requestforge.HTTPFetcher{
			URL:        baseURL + "/token",
			Form:       url.Values{"grant_type": {"client_credentials"}},
			ClientAuth: &requestforge.ClientAuth{ID: "shop", InBody: true}, // the certificate proves it
			Client:     &http.Client{Transport: conns},
		},
	}}})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: baseURL, Source: tokens, Base: conns})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

func main() {
	srv := newServer()
	defer srv.Close()
	conns := &connections{settings: srv.clientSettings()}
	conns.use(srv.newCertificate())
	client, err := newClient(srv.URL, conns)
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		for range 10 {
			resp, err := client.Get("/orders")
			if err != nil {
				log.Fatal(err)
			}
			if resp.Body.Close(); resp.StatusCode != http.StatusOK {
				log.Fatal(resp.Status)
			}
		}
		fmt.Println("10 requests were served")
		conns.use(srv.newCertificate())
	}
	fetched, refused := srv.counts()
	fmt.Println(fetched, "tokens were fetched,", refused, "refused for a certificate that wasn't theirs")
}

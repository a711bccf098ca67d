package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// server is an auth server and an API that know a client by its certificate.
type server struct {
	*httptest.Server
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey

	mu      sync.Mutex
	bound   map[string]string // x5t#S256 (RFC 8705 §3.1), by token
	refused int
}

func newServer() *server {
	s := &server{bound: map[string]string{}}
	s.caKey = newKey()
	s.ca = s.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "made-up CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, s.caKey)
	clients := x509.NewCertPool()
	clients.AddCert(s.ca)
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	s.EnableHTTP2 = true
	s.StartTLS()
	return s
}

// clientSettings are those of a client that trusts the server.
func (s *server) clientSettings() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	return t
}

// newCertificate is another certificate of the client "shop".
func (s *server) newCertificate() *tls.Certificate {
	key := newKey()
	cert := s.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "shop"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, key)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cert := r.TLS.PeerCertificates[0]
	sum := sha256.Sum256(cert.Raw)
	thumbprint := base64.RawURLEncoding.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/token" {
		if r.PostFormValue("client_id") != cert.Subject.CommonName {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error":"invalid_client"}`)
			return
		}
		token := rand.Text()
		s.bound[token] = thumbprint
		json.NewEncoder(w).Encode(map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600})
		return
	}
	if s.bound[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] != thumbprint {
		s.refused++
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// counts returns how many tokens were given out, and how many requests had a token of
// another certificate.
func (s *server) counts() (fetched, refused int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bound), s.refused
}

// sign returns the certificate with the key, good for an hour.
func (s *server) sign(cert *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	cert.SerialNumber = big.NewInt(time.Now().UnixNano())
	cert.NotBefore, cert.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	issuer := s.ca
	if issuer == nil {
		issuer = cert
	}
	raw, err := x509.CreateCertificate(rand.Reader, cert, issuer, &key.PublicKey, s.caKey)
	if err != nil {
		log.Fatal(err)
	}
	signed, err := x509.ParseCertificate(raw)
	if err != nil {
		log.Fatal(err)
	}
	return signed
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	return key
}

package main

import (
	"net/http"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/auth/oauth"
	"github.com/requestforge/requestforge/dpop"
)

// BenchmarkProof makes a DPoP proof (RFC 9449) with a nonce, for a GET with a token and ES256:
// ours by the field that AuthTransport calls, and the one of indigo's OAuth sessions.
//
//	go test -run '^$' -bench Proof .
func BenchmarkProof(b *testing.B) {
	const url, token, nonce = "https://api.example.com/v1/orders", "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU", "eyJ7S_zG.eyJH0-Z.HX4w-7v"
	b.Run("impl=requestforge", func(b *testing.B) {
		key := dpop.NewKey()
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "DPoP "+token)
		key.Learn(&http.Response{StatusCode: http.StatusOK, Header: http.Header{"Dpop-Nonce": {nonce}}, Request: req}, nil)
		b.ReportAllocs()
		for b.Loop() {
			if err := key.Prepare(req, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("impl=indigo", func(b *testing.B) {
		key, err := atcrypto.GeneratePrivateKeyP256()
		if err != nil {
			b.Fatal(err)
		}
		session := &oauth.ClientSession{DPoPPrivateKey: key, Data: &oauth.ClientSessionData{AccessToken: token, DPoPHostNonce: nonce}}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := session.NewHostDPoP("GET", url); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package main

import (
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

const workloadToken = "made-up.workload.token"

// newServer also returns the file that a platform would keep, and what ends both.
func newServer() (srv *authtest.Server, tokenFile string, stop func()) {
	dir, err := os.MkdirTemp("", "recipe")
	if err != nil {
		log.Fatal(err)
	}
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(workloadToken+"\n"), 0o600); err != nil {
		log.Fatal(err)
	}
	srv = authtest.NewServer(authtest.Config{Steps: []authtest.Step{{
		Name: "sts",
		Path: "/v1/token",
		Form: map[string]string{
			"grant_type":         "urn:ietf:params:oauth:grant-type:token-exchange",
			"audience":           "//iam.example.com/pools/made-up",
			"subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
			"subject_token":      workloadToken,
		},
		TTL: time.Hour,
	}, {
		Name:        "account",
		Path:        "/v1/accounts/shop:generateAccessToken",
		Parents:     map[string]string{"sts": "Authorization"},
		JSON:        map[string]any{"scope": []string{"storage"}},
		TokenField:  "accessToken",
		TypeField:   "-",
		ExpiryField: "expireTime",
		Expiry:      authtest.ExpiresAtRFC3339,
		TTL:         time.Hour,
	}}})
	return srv, file, func() {
		srv.Close()
		os.RemoveAll(dir)
	}
}

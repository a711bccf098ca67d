package main

import (
	"net/http"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

var simulated = authtest.Config{
	Steps: []authtest.Step{{
		Name:        "approle",
		Path:        "/v1/auth/approle/login",
		JSON:        map[string]any{"role_id": "made-up-role", "secret_id": "made-up-secret"},
		TokenField:  "auth.client_token",
		TypeField:   "-",
		ExpiryField: "auth.lease_duration",
		TTL:         time.Hour,
		RenewPath:   "/v1/auth/token/renew-self",
		MaxTTL:      4 * time.Hour,
		Refused:     denied,
	}},
	API: authtest.API{
		Prefix:  "/v1/secret/",
		Wants:   []authtest.Place{{Header: "X-Vault-Token"}},
		Refused: denied,
	},
}

var denied = authtest.AnswerHandler(http.StatusForbidden, `{"errors":["permission denied"]}`)

func newServer() *authtest.Server { return authtest.NewServer(simulated) }

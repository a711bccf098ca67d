package main

import (
	"time"

	"github.com/requestforge/requestforge/authtest"
)

func newServer() *authtest.Server {
	return authtest.NewServer(authtest.Config{
		Steps: []authtest.Step{{
			Name: "gate", Path: "/gate/token",
			ClientID: "shop", ClientSecret: "made-up-secret",
			TTL: time.Hour,
		}, {
			Name: "session", TokenField: "signing_key", TypeField: "-",
			JSON:   map[string]any{"user": "ann", "password": "made-up-password"},
			Values: map[string]authtest.Value{"key_id": {Field: "key_id"}},
		}},
		API: authtest.API{
			Wants: []authtest.Place{
				{Step: "session", Header: "X-Key-Id", Value: "key_id"},
				{Step: "gate", Header: "X-Gate-Token"},
			},
			Signature: &authtest.Signature{NonceHeader: "X-Nonce"},
		},
	})
}

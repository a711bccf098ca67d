package main

import (
	"time"

	"github.com/requestforge/requestforge/authtest"
)

// simulated is the login, and the API behind it.
var simulated = authtest.Config{Steps: []authtest.Step{
	{Name: "app", ClientID: "shop", ClientSecret: "made-up", TTL: time.Hour},
	{Name: "user", Parents: map[string]string{"app": "X-App-Token"}, TTL: 15 * time.Minute},
}}

func newServer() *authtest.Server { return authtest.NewServer(simulated) }

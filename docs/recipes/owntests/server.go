package main

import (
	"io"
	"net/http"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

// simulated is the shop as its tests see it.
var simulated = authtest.Config{
	Steps: []authtest.Step{{
		Name: "user", Path: "/login", TokenField: "token",
		JSON: map[string]any{"user": "ann", "password": "made-up"},
		TTL:  15 * time.Minute,
	}},
	API: authtest.API{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "7") })},
}

func newServer() *authtest.Server { return authtest.NewServer(simulated) }

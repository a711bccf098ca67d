package main

import (
	"net/http"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

func newServer() *authtest.Server {
	return authtest.NewServer(authtest.Config{
		Steps: []authtest.Step{{
			Name: "page", Path: "/login", Method: http.MethodGet,
			Body: authtest.HTMLBody, TokenCookie: "pre",
			Values: map[string]authtest.Value{"csrf": {Field: "csrf_token"}},
		}, {
			Name: "login", Path: "/session",
			Form: map[string]string{"user": "ann", "password": "made-up"},
			Wants: []authtest.Place{
				{Step: "page", Cookie: "pre"},
				{Step: "page", Value: "csrf", Field: "csrf_token"},
			},
			TokenCookie: "session",
			Values:      map[string]authtest.Value{"csrf": {Header: "X-Csrf-Token", Rotate: 1}},
			TTL:         time.Hour,
		}},
		API: authtest.API{
			Wants:   []authtest.Place{{Cookie: "session"}, {Header: "X-Csrf-Token", Value: "csrf"}},
			Refused: authtest.AnswerHandler(http.StatusForbidden, `{"detail":"CSRF failed"}`),
		},
	})
}

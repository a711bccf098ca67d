package main

import (
	"net/http"

	"github.com/requestforge/requestforge/authtest"
)

// newServer speaks https, and its Client finds every host of example.com there.
func newServer() *authtest.Server {
	return authtest.NewServer(authtest.Config{
		TLS: true,
		Steps: []authtest.Step{{
			Name: "login", Path: "/services/oauth2/token",
			ClientID: "shop", ClientSecret: "made-up-secret", ClientAuth: authtest.BodyClientAuth,
			Form:          map[string]string{"grant_type": "client_credentials"},
			Instances:     []string{"https://shop.example.com", "https://shop--eu.example.com"},
			InstanceField: "instance_url",
		}},
		API: authtest.API{
			Prefix:  "/services/data/",
			Refused: authtest.AnswerHandler(http.StatusUnauthorized, `[{"errorCode":"INVALID_SESSION_ID","message":"Session expired or invalid"}]`),
		},
	})
}

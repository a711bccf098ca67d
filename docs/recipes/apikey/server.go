package main

import "github.com/requestforge/requestforge/authtest"

func newServer() *authtest.Server {
	return authtest.NewServer(authtest.Config{
		Steps: []authtest.Step{{
			Name:       "login",
			JSON:       map[string]any{"user": "ann", "password": "made-up-password"},
			TokenField: "data.sid",
			TypeField:  "-",
		}},
		API: authtest.API{Wants: []authtest.Place{{Query: "api_key", Text: "made-up-key"}, {Cookie: "sid"}}},
	})
}

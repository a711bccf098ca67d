package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

// SDK is somebody else's, and has no field for a transport.
type SDK struct{ BaseURL string }

// Ping asks the API for nothing.
func (s SDK) Ping() error {
	resp, err := http.Get(s.BaseURL + "/ping")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func newServer() *authtest.Server {
	return authtest.NewServer(authtest.Config{Steps: []authtest.Step{{
		Name: "app", Path: "/oauth/token",
		ClientID: "shop", ClientSecret: "made-up",
		Form: map[string]string{"grant_type": "client_credentials"},
		TTL:  time.Hour,
	}}})
}

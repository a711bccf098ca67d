// Scopes and step-up: the login begins with the least that the program needs. The API asks
// for more where more is needed, for a scope first, then for a second factor, which takes a
// person. What the API may have is decided here.
package main

import (
	"fmt"
	"log"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
)

// scopes are those that the program asks for, and mayHave those that the API may ask for.
var scopes, mayHave = []string{"orders.read"}, []string{"orders.write", "payouts"}

func newClient(baseURL, password string, code func() string) (*http.Client, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		CoolDown: time.Nanosecond, // to look for a code costs nothing
		Steps: []requestforge.Step{{
			Name:              "user",
			AnswersChallenges: true,
			Fetcher: &requestforge.HTTPFetcher{
				URL: baseURL + "/token",
				BodyFrom: func(in requestforge.Input) (any, error) {
					ask := slices.Clone(scopes)
					for _, s := range strings.Fields(in.Challenge["scope"]) {
						if slices.Contains(mayHave, s) {
							ask = append(ask, s)
						}
					}
					form := url.Values{"user": {"ann"}, "password": {password}, "scope": {strings.Join(ask, " ")}}
					if in.Challenge["acr_values"] == "mfa" {
						form.Set("code", code())
						if form.Get("code") == "" {
							return nil, fmt.Errorf("no code yet: %w", requestforge.ErrNeedsPerson)
						}
					}
					return form, nil
				},
			},
		}},
	})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: baseURL, Source: tokens})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

func main() {
	srv := newServer()
	defer srv.Close()
	typed := ""
	client, err := newClient(srv.URL, "made-up-password", func() string { return typed })
	if err != nil {
		log.Fatal(err)
	}
	send := func(method, path string) {
		req, err := http.NewRequest(method, path, nil)
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(method, path, resp.Status)
	}
	send("GET", "/orders")
	send("POST", "/orders")
	send("POST", "/payouts") // nobody has typed a code
	send("GET", "/orders")   // which is no matter of the rest
	typed = "123456"
	send("POST", "/payouts")
	srv.revoke()
	send("POST", "/payouts") // the new token has all that the old one had
	send("DELETE", "/users") // a scope that the program doesn't want
	for _, login := range srv.logins {
		fmt.Println("login:", login)
	}
}

// A login for people: a page with a form sets a cookie and hides a CSRF value
// in the form, the form's answer sets the session's cookie, and each response
// of the API replaces the CSRF value of the next request.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/requestforge/requestforge"
)

func newClient(baseURL, password string) (*http.Client, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name:    "page",
		Fetcher: &requestforge.HTTPFetcher{URL: baseURL + "/login", Method: http.MethodGet, Cookies: true, Read: readPage},
	}, {
		Name:      "login",
		DependsOn: []string{"page"},
		Fetcher: &requestforge.HTTPFetcher{
			URL: baseURL + "/session", Cookies: true, TokenHeader: "X-Csrf-Token",
			BodyFrom: func(in requestforge.Input) (any, error) {
				return url.Values{"user": {"ann"}, "password": {password}, "csrf_token": {in.Parents["page"].AccessToken}}, nil
			},
		},
	}}})
	if err != nil {
		return nil, err
	}
	var newest sync.Map // CSRF value, by that of the login
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: baseURL, Source: tokens,
		Attach: []requestforge.Place{}, // the cookies go by themselves
		Prepare: func(out *http.Request, tok *requestforge.Token) error {
			csrf, _ := newest.LoadOrStore(tok.AccessToken, tok.AccessToken)
			out.Header.Set("X-Csrf-Token", csrf.(string))
			return nil
		},
		Learn: func(resp *http.Response, tok *requestforge.Token) (again bool) {
			if csrf := resp.Header.Get("X-Csrf-Token"); csrf != "" {
				newest.Store(tok.AccessToken, csrf)
			}
			return false
		},
		RefusedStatus: []int{http.StatusForbidden},
	})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

var hidden = regexp.MustCompile(`name="csrf_token" value="([^"]+)"`)

func readPage(_ requestforge.Input, _ *http.Response, page []byte) (*requestforge.Token, error) {
	m := hidden.FindSubmatch(page)
	if m == nil {
		return nil, errors.New("no CSRF value in the page")
	}
	return &requestforge.Token{AccessToken: string(m[1])}, nil
}

func main() {
	srv := newServer()
	defer srv.Close()
	client, err := newClient(srv.URL, "made-up")
	if err != nil {
		log.Fatal(err)
	}
	for i := range 3 {
		resp, err := client.Post("/orders", "text/plain", strings.NewReader("one more"))
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
		if i == 1 {
			srv.Revoke("login")
		}
	}
	fmt.Println(srv.Stats().Steps["login"].Fetches.OK, "logins")
}

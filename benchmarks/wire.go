// What is below every candidate: the request, the transport that sends it, and
// the auth server that its token is from. It is the same for all of them.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// origin is that of the API where it is served in the process.
const origin = "https://api.example.com"

// tokenLife is how long all tokens live: too long for anybody to renew one.
const tokenLife = 2 * time.Hour

// newRequest returns the request that is sent: a GET with three headers.
func newRequest(ctx context.Context, origin string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, origin+"/v1/users?page=2&per_page=50", nil)
	if err != nil {
		panic(err) // the URL is a constant, or httptest's
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "benchmarks/1.0")
	req.Header.Set("X-Request-Id", "5c1f2b6e-8d0a-4b7e-9f43-2a6f1c0d9e77")
	return req
}

const answer = `{"users":[{"id":17,"name":"Ann"},{"id":18,"name":"Bob"}]}`

// inProcess is the API without a network: a new response for each request,
// made with one allocation, so that it hides little of what is above it.
type inProcess struct{}

var answerHeader = http.Header{"Content-Type": {"application/json"}}

type response struct {
	http.Response
	body body
}

type body struct{ strings.Reader }

func (*body) Close() error { return nil }

func (inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		req.Body.Close()
	}
	r := new(response)
	r.body.Reset(answer)
	r.Response = http.Response{
		Status: "200 OK", StatusCode: http.StatusOK,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: answerHeader, Body: &r.body, ContentLength: int64(len(answer)), Request: req,
	}
	return &r.Response, nil
}

// wire is a transport whose requests can be looked at, for the proof that a
// candidate does what it is measured for.
type wire struct {
	http.RoundTripper
	see func(*http.Request) // nil while something is measured
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if w.see != nil {
		w.see(req)
	}
	return w.RoundTripper.RoundTrip(req)
}

// client sends a request and returns the answer. Most are the RoundTrip of a
// transport.
type client func(*http.Request) (*http.Response, error)

// exchange sends req, and reads the answer to its end. It reports whether the
// answer was good.
func (c client) exchange(req *http.Request) (bool, error) {
	resp, err := c(req)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK, err
}

// must is exchange where only a good answer will do.
func (c client) must(req *http.Request) error {
	ok, err := c.exchange(req)
	if err == nil && !ok {
		err = errors.New("the API did not take the request")
	}
	return err
}

// authServer gives out tokens, on loopback. Its tokens are numbered, so that
// it can say which of them are revoked.
type authServer struct {
	URL    string
	Client *http.Client // for fetches, with connections of its own

	latency time.Duration // before each answer
	failing atomic.Bool   // it answers 503

	fetches atomic.Int64
	revoked atomic.Int64 // this token and all before it
	arrived chan struct{}
	server  *httptest.Server
}

func newAuthServer(latency time.Duration) *authServer {
	s := &authServer{latency: latency, arrived: make(chan struct{}, 1)}
	s.server = httptest.NewServer(s)
	s.URL = s.server.URL
	s.Client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	return s
}

func (s *authServer) Close() {
	s.Client.CloseIdleConnections()
	s.server.Close()
}

const tokenPrefix = "made-up-access-token-of-common-length-"

func (s *authServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.fetches.Add(1)
	select {
	case s.arrived <- struct{}{}:
	default:
	}
	io.Copy(io.Discard, r.Body)
	if s.latency > 0 {
		select {
		case <-time.After(s.latency):
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if s.failing.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"error":"temporarily_unavailable"}`)
		return
	}
	fmt.Fprintf(w, `{"access_token":"%s%08d","token_type":"Bearer","expires_in":%d}`, tokenPrefix, n, int(tokenLife.Seconds()))
}

// takes reports whether the token of a request is good.
func (s *authServer) takes(req *http.Request) bool {
	text, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok {
		text = req.Header.Get("X-Auth-Token") // OpenStack's
	}
	number, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return false
	}
	n, err := strconv.ParseInt(number, 10, 64)
	return err == nil && n > s.revoked.Load()
}

// fetch gets a token, for the peers that leave this to a function of the
// application. It does what such functions do.
func (s *authServer) fetch(ctx context.Context, step, parent string) (string, time.Time, error) {
	form := strings.NewReader("grant_type=client_credentials")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/"+step, form)
	if err != nil {
		return "", time.Time{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(clientID, clientSecret)
	if parent != "" {
		req.Header.Set("X-Parent", parent)
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		return "", time.Time{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", time.Time{}, fmt.Errorf("the auth server says %s", resp.Status)
	}
	var token struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil {
		return "", time.Time{}, err
	}
	return token.AccessToken, time.Now().Add(time.Duration(token.ExpiresIn) * time.Second), nil
}

// The credentials of every login.
const clientID, clientSecret = "shop", "made-up"

// herd calls f from n goroutines at once, and returns how often it was true
// and how long all of them took.
func herd(n int, f func() bool) (trues int, took time.Duration) {
	var ready, done sync.WaitGroup
	var count atomic.Int64
	begin := make(chan struct{})
	ready.Add(n)
	for range n {
		done.Go(func() {
			ready.Done()
			<-begin
			if f() {
				count.Add(1)
			}
		})
	}
	ready.Wait()
	start := time.Now()
	close(begin)
	done.Wait()
	return int(count.Load()), time.Since(start)
}

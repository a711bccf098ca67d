// What happens when many callers need a token at the same time and there is
// none, or it was revoked, or the auth server is slow or fails.

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/requestforge/requestforge"
	"golang.org/x/oauth2"
)

var herdCases = suite{
	file:  "herd.txt",
	title: "A cold herd",
	benchmarks: []benchmark{
		storm("ColdHerd/steps=1", 0, herdLatency, coldHerd, xoauth2, cloud, azure, smithy, assembled, authLayer, stack),
		{name: "ColdHerd/steps=3", open: coldChains},
	},
}

var failingCases = suite{
	file:  "failing.txt",
	title: "An auth server that fails",
	benchmarks: []benchmark{
		storm("FailingAuthServer/waves=3", 6, time.Millisecond, failingServer, xoauth2, cloud, azure, smithy, authLayer),
	},
}

var refusalCases = suite{
	file:  "refusals.txt",
	title: "Late refusals of one revoked token",
	benchmarks: []benchmark{
		storm("LateRefusals", 10, time.Millisecond, lateRefusals, xoauth2, assembled, smithy, azure, oras, openstack, stack),
	},
}

var deadlineCases = suite{
	file:  "deadline.txt",
	title: "A caller in a hurry",
	benchmarks: []benchmark{
		storm("Deadline/server=500ms", 10, slowAnswer, deadline, xoauth2, cloud, azure, smithy, authLayer, stack),
	},
}

const (
	herdLatency = 20 * time.Millisecond
	slowAnswer  = 500 * time.Millisecond
	hurry       = 50 * time.Millisecond
)

// storm is a case in which each run begins with a new client without a token,
// and an auth server of its own that takes latency for an answer.
func storm(name string, rounds int, latency time.Duration, run func(ctx context.Context, s scale, p peer, auth *authServer) (counts, error), impls ...string) benchmark {
	return benchmark{
		name:   name,
		rounds: rounds,
		open: func(ctx context.Context, s scale) ([]candidate, func(), error) {
			var cands []candidate
			for _, impl := range impls {
				cands = append(cands, candidate{impl: impl, run: func(int) (counts, error) {
					auth := newAuthServer(latency)
					defer auth.Close()
					return run(ctx, s, peers[impl], auth)
				}})
			}
			return cands, func() {}, nil
		},
	}
}

// guarded is the API in the process, which refuses whom it doesn't know.
type guarded struct{ auth *authServer }

func (g guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if g.auth.takes(req) {
		return inProcess{}.RoundTrip(req)
	}
	return refusal(req), nil
}

func refusal(req *http.Request) *http.Response {
	return &http.Response{
		Status: "401 Unauthorized", StatusCode: http.StatusUnauthorized, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Www-Authenticate": {fmt.Sprintf(`Bearer realm="%s%s",service="api",error="invalid_token"`, origin, realmPath)}},
		Body:   http.NoBody, Request: req,
	}
}

func coldHerd(ctx context.Context, s scale, p peer, auth *authServer) (counts, error) {
	send, err := p.build(setting{base: guarded{auth}, origin: origin, auth: auth})
	if err != nil {
		return nil, err
	}
	return stampede(ctx, s, auth, send)
}

func stampede(ctx context.Context, s scale, auth *authServer, send client) (counts, error) {
	ok, took := herd(s.callers, func() bool {
		good, err := send.exchange(newRequest(ctx, origin))
		return good && err == nil
	})
	if ok != s.callers {
		return nil, fmt.Errorf("%d of %d callers had a good answer", ok, s.callers)
	}
	return counts{wall: float64(took), "fetches": float64(auth.fetches.Load()), "ok-answers": float64(ok)}, nil
}

// coldChains is the herd before a login of three steps, each of which needs
// the token of the one before.
func coldChains(ctx context.Context, s scale) ([]candidate, func(), error) {
	names := []string{"device", "app", "user"}
	run := func(build func(setting) (client, error)) func(int) (counts, error) {
		return func(int) (counts, error) {
			auth := newAuthServer(herdLatency)
			defer auth.Close()
			send, err := build(setting{base: guarded{auth}, origin: origin, auth: auth})
			if err != nil {
				return nil, err
			}
			return stampede(ctx, s, auth, send)
		}
	}
	return []candidate{
		{impl: xoauth2, run: run(func(s setting) (client, error) {
			t := &oauth2.Transport{Base: s.base, Source: nested(s.auth, chain(names)...)}
			return t.RoundTrip, nil
		})},
		{impl: stack, run: run(func(s setting) (client, error) {
			return stackOver(s, steps(s.auth, chain(names)...)...)
		})},
	}, func() {}, nil
}

// failingServer sends three waves of callers, one after the other, to an auth
// server that says 503. None can succeed; the question is what it costs the
// server.
func failingServer(ctx context.Context, s scale, p peer, auth *authServer) (counts, error) {
	auth.failing.Store(true)
	send, err := p.build(setting{base: guarded{auth}, origin: origin, auth: auth})
	if err != nil {
		return nil, err
	}
	var total time.Duration
	for range 3 {
		failed, took := herd(s.callers, func() bool {
			_, err := send.exchange(newRequest(ctx, origin))
			return err != nil
		})
		if failed != s.callers {
			return nil, fmt.Errorf("%d of %d callers had an error", failed, s.callers)
		}
		total += took
	}
	return counts{wall: float64(total), "fetches": float64(auth.fetches.Load())}, nil
}

// lateRefusals has callers send with one token that is then revoked. Their
// refusals are held back until all are there, and come one by one: the next
// when the caller before is done, with whatever it makes of its own.
func lateRefusals(ctx context.Context, s scale, p peer, auth *authServer) (counts, error) {
	g := &gate{guarded: guarded{auth}}
	send, err := p.build(setting{base: g, origin: origin, auth: auth})
	if err != nil {
		return nil, err
	}
	if ok, err := send.exchange(newRequest(ctx, origin)); err != nil || !ok {
		return nil, fmt.Errorf("the first request failed: %w", errors.Join(err, ctx.Err()))
	}
	before := auth.fetches.Load()
	auth.revoked.Store(before)

	waiting := g.hold(s.refusals)
	type outcome struct {
		ok  bool
		err error
	}
	done := make(chan outcome, s.refusals)
	for range s.refusals {
		go func() {
			ok, err := send.exchange(newRequest(ctx, origin))
			done <- outcome{ok, err}
		}()
	}
	var held []chan struct{}
	for range s.refusals {
		select {
		case h := <-waiting:
			held = append(held, h)
		case o := <-done:
			return nil, fmt.Errorf("a caller came back without a refusal: %w", errors.Join(o.err, errUnheld))
		}
	}
	start := time.Now()
	ok := 0
	for _, h := range held {
		close(h)
		if o := <-done; o.err != nil {
			return nil, o.err
		} else if o.ok {
			ok++
		}
	}
	return counts{
		wall:         float64(time.Since(start)),
		"refetches":  float64(auth.fetches.Load() - before),
		"ok-answers": float64(ok),
	}, nil
}

var errUnheld = errors.New("its token was taken")

// gate is an API that holds refusals back.
type gate struct {
	guarded
	mu      sync.Mutex
	left    int // refusals still to be held; guarded by mu
	waiting chan chan struct{}
}

// hold makes the next n refusals wait. Each is announced by the channel that
// lets it go when it is closed.
func (g *gate) hold(n int) <-chan chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.waiting = n, make(chan chan struct{}, n)
	return g.waiting
}

func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	if !g.auth.takes(req) {
		g.mu.Lock()
		var mine chan struct{}
		if g.left > 0 && carriesToken(req) {
			g.left--
			mine = make(chan struct{})
			g.waiting <- mine // never blocks: there is room for all
		}
		g.mu.Unlock()
		if mine != nil {
			select {
			case <-mine:
			case <-req.Context().Done():
				return nil, req.Context().Err()
			}
		}
	}
	return g.guarded.RoundTrip(req)
}

func carriesToken(req *http.Request) bool {
	return strings.Contains(req.Header.Get("Authorization"), tokenPrefix) || req.Header.Get("X-Auth-Token") != ""
}

// deadline has somebody wait for a token who has no deadline, and then
// somebody who has one. The second one's time is what counts.
func deadline(ctx context.Context, _ scale, p peer, auth *authServer) (counts, error) {
	send, err := p.build(setting{base: guarded{auth}, origin: origin, auth: auth})
	if err != nil {
		return nil, err
	}
	first := make(chan error, 1)
	go func() { first <- send.must(newRequest(ctx, origin)) }()
	<-auth.arrived

	start := time.Now()
	hurried, cancel := context.WithTimeout(ctx, hurry)
	defer cancel()
	send.exchange(newRequest(hurried, origin)) // with an error or, too late, an answer
	took := time.Since(start)
	if err := <-first; err != nil {
		return nil, err
	}
	return counts{wall: float64(took), "fetches": float64(auth.fetches.Load())}, nil
}

// A node is a step of a login: its name, and the steps whose tokens it needs.
type node struct {
	name    string
	parents []string
}

// chain is a login in which each step needs the one before.
func chain(names []string) []node {
	var nodes []node
	for i, name := range names {
		n := node{name: name}
		if i > 0 {
			n.parents = []string{names[i-1]}
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// steps is a login as requestforge has it.
func steps(auth *authServer, nodes ...node) []requestforge.Step {
	var steps []requestforge.Step
	for _, n := range nodes {
		steps = append(steps, step(auth, n.name, n.parents...))
	}
	return steps
}

// nested is a login as x/oauth2 has it: sources that ask other sources, one
// parent after the other, each of which keeps its token.
func nested(auth *authServer, nodes ...node) oauth2.TokenSource {
	made := make(map[string]oauth2.TokenSource)
	var last oauth2.TokenSource
	for _, n := range nodes {
		parents := make([]oauth2.TokenSource, 0, len(n.parents))
		for _, p := range n.parents {
			parents = append(parents, made[p])
		}
		last = oauth2.ReuseTokenSource(nil, source(func() (*oauth2.Token, error) {
			var tokens []string
			for _, p := range parents {
				t, err := p.Token()
				if err != nil {
					return nil, err
				}
				tokens = append(tokens, t.AccessToken)
			}
			token, expiry, err := auth.fetch(context.Background(), n.name, strings.Join(tokens, " "))
			return &oauth2.Token{AccessToken: token, Expiry: expiry}, err
		}))
		made[n.name] = last
	}
	return last
}

type source func() (*oauth2.Token, error)

func (f source) Token() (*oauth2.Token, error) { return f() }

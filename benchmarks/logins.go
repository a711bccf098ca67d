// Logins of several steps: how long they take, and that of three steps for
// many processes at once.

package main

import (
	"context"
	"time"

	"golang.org/x/oauth2"
)

var pipelineCases = suite{
	file:  "pipelines.txt",
	title: "A cold login of several steps",
	benchmarks: []benchmark{
		coldLogin("chain", chain([]string{"device", "app", "user"})...),
		coldLogin("diamond",
			node{name: "device"},
			node{name: "app", parents: []string{"device"}},
			node{name: "user", parents: []string{"device"}},
			node{name: "session", parents: []string{"app", "user"}}),
	},
}

// stepTime is how long the auth server takes for a step. Both shapes are three
// steps deep.
const stepTime = 50 * time.Millisecond

const (
	criticalPath = 3 * stepTime
	chainSum     = 3 * stepTime
	diamondSum   = 4 * stepTime
)

func coldLogin(shape string, nodes ...node) benchmark {
	return benchmark{
		name: "ColdLogin/shape=" + shape,
		open: func(ctx context.Context, _ scale) ([]candidate, func(), error) {
			auth := newAuthServer(stepTime)
			run := func(build func(setting) (client, error)) func(int) (counts, error) {
				return func(int) (counts, error) {
					before := auth.fetches.Load()
					send, err := build(setting{base: guarded{auth}, origin: origin, auth: auth})
					if err != nil {
						return nil, err
					}
					start := time.Now()
					if err := send.must(newRequest(ctx, origin)); err != nil {
						return nil, err
					}
					return counts{wall: float64(time.Since(start)), "fetches": float64(auth.fetches.Load() - before)}, nil
				}
			}
			return []candidate{
				{impl: xoauth2, run: run(func(s setting) (client, error) {
					return (&oauth2.Transport{Base: s.base, Source: nested(s.auth, nodes...)}).RoundTrip, nil
				})},
				{impl: stack, run: run(func(s setting) (client, error) {
					return stackOver(s, steps(s.auth, nodes...)...)
				})},
			}, auth.Close, nil
		},
	}
}

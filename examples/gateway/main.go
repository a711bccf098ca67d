// Gateway is a reverse proxy for many users, and a bad day in its life:
//
//	go run ./examples/gateway
//
// A user comes with the token of a session. The gateway has it confirmed, exchanges it at
// the auth server (RFC 8693) for one within the company, and that for one of the backend
// that the request is for. Its own token, with which it does so, all users share:
//
//	app (the gateway's) ─┐
//	                     ├─► user ─┬─► orders ───► backend
//	inbound (given) ─────┘         └─► invoices ─► backend
//
// The servers run in this process, and so does what goes wrong. What to look at:
//
//  1. gateway.go is what an application writes: newPipeline, with a Subject, and a
//     net/http/httputil.ReverseProxy for each backend.
//  2. run is the day, an act at a time. Its users (crowd.go) know nothing but their
//     session, and look whether an answer is theirs.
//  3. What is printed below the title of an act are the log records of the pipeline, put
//     in a few words by story.go, and last what the servers (server.go) counted meanwhile.
//  4. verdict says what is off: somebody else's answer, a refusal to somebody who should
//     have been served, an answer to somebody who shouldn't. The exit status is 1 then.
//
// See the story fail with -apart=false: Subject then is the same for all users, as it is
// in a gateway that takes its own name for theirs. See the log records themselves with -v,
// as JSON on standard error; there is no token in them, and no user.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"

	"github.com/requestforge/requestforge"
)

// run tells the story of a number of users to out and returns what is wrong with it.
func run(out io.Writer, raw slog.Handler, users int, subject func(context.Context) (string, error)) error {
	r := newRealm()
	defer r.close()
	s := &story{out: out, realm: r}
	cfg := settings{authURL: r.auth.URL, secret: secret, kept: users * 6 / 10, backends: map[string]string{}}
	for audience, srv := range r.backends {
		cfg.backends[audience] = srv.URL
	}
	below := &http.Transport{MaxIdleConnsPerHost: atOnce}
	defer below.CloseIdleConnections()
	tokens, err := newPipeline(cfg, subject, &http.Client{Transport: below}, slog.New(slog.NewMultiHandler(s, raw)))
	if err != nil {
		return err
	}
	defer tokens.Close()
	gateway, err := newGateway(cfg, tokens, below)
	if err != nil {
		return err
	}
	srv := httptest.NewServer(gateway)
	defer srv.Close()
	own := &http.Transport{MaxIdleConnsPerHost: atOnce}
	defer own.CloseIdleConnections()
	c := &crowd{client: &http.Client{Transport: own}, url: srv.URL, sessions: make([]atomicText, users)}
	for i := range users {
		c.login(r, i)
	}
	busy, part := users*4/10, users/10
	var off []error

	s.act("%d users, and nobody has a token yet. Each asks both backends", busy)
	c.each(0, busy, c.both)

	s.act("%d requests more, and nothing to fetch for them", 2*busy)
	before := r.seen()
	c.each(0, busy, c.both)
	off = append(off, fetched(before, r.seen()))

	s.act("They go on. Meanwhile %d have their tokens revoked, and %d others log out and in again", part, part)
	var wg sync.WaitGroup
	wg.Go(func() { c.each(part, busy, c.both); c.each(part, busy, c.both) })
	wg.Go(func() {
		for i := part; i < 2*part; i++ {
			r.kill("orders", name(i))
		}
	})
	wg.Go(func() { c.each(0, part, func(i int) { c.away(r, i) }) })
	wg.Wait()
	c.stranger("session-that-nobody-has")

	s.act("The gateway's own token is revoked, and with it what was made from it: all of the above")
	r.kill("app", "")
	c.each(0, busy, c.both)

	s.act("%d users more. There is room for %d in all: those idle longest are dropped", users-busy, cfg.kept)
	c.each(busy, users, c.both)
	s.line("gateway", fmt.Sprintf("keeps the tokens of %d users", tokens.Stats().Subjects))

	s.act("The first ones come back. Whoever was dropped is exchanged again")
	c.each(0, busy, c.both)

	s.summary(c, tokens.Stats())
	return errors.Join(append(off, verdict(r, c, tokens.Stats(), cfg.kept))...)
}

// fetched is an error if backends' tokens were given out between two counts.
func fetched(before, after map[string]count) error {
	n := 0
	for _, a := range audiences {
		n += after[a].ok - before[a].ok
	}
	if n > 0 {
		return fmt.Errorf("tokens fetched for users who have some: %d", n)
	}
	return nil
}

// verdict returns what is off, an error for each figure.
func verdict(r *realm, c *crowd, st requestforge.Stats, kept int) error {
	var off []error
	expect := func(what string, got, want int) {
		if got != want {
			off = append(off, fmt.Errorf("%s: %d, not %d", what, got, want))
		}
	}
	expect("answers that were somebody else's", int(c.others.Load()), 0)
	expect("refusals of users who have a session", int(c.refused.Load()), 0)
	expect("failures", int(c.failed.Load()), 0)
	expect("answers to whoever has no session", int(c.late.Load()), 0)
	expect("users' own tokens that reached a backend", r.strays(), 0)
	expect("tokens of the gateway's own", r.seen()["app"].ok, 2) // at first, and after it was revoked
	if st.Subjects > uint64(kept) || st.Evicted == 0 {
		off = append(off, fmt.Errorf("users in memory: %d, after %d were dropped; want %d at most", st.Subjects, st.Evicted, kept))
	}
	return errors.Join(off...)
}

func main() {
	apart := flag.Bool("apart", true, "tell users apart; without it the story fails")
	users := flag.Int("users", 1000, "how many there are, at least 20")
	verbose := flag.Bool("v", false, "write the log records to standard error, too, as JSON")
	flag.Parse()
	subject, raw := subjectOf, slog.Handler(slog.DiscardHandler)
	if !*apart {
		subject = func(context.Context) (string, error) { return "gateway", nil }
	}
	if *verbose {
		raw = slog.NewJSONHandler(os.Stderr, nil)
	}
	if err := run(os.Stdout, raw, max(20, *users), subject); err != nil {
		fmt.Fprintf(os.Stderr, "gateway: this is off:\n%v\n", err)
		os.Exit(1)
	}
}

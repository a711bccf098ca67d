// Many users in one process, each with tokens of their own: what a live token costs, what
// a user holds, and what all of them cost who come at once.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"golang.org/x/oauth2"

	"github.com/requestforge/requestforge"
)

var crowdCases = suite{
	file:  "crowd.txt",
	title: "Many users",
	benchmarks: []benchmark{
		crowdToken(1, "all", 1), crowdToken(1, "all", 2),
		crowdToken(1000, "all", 1), crowdToken(1000, "all", 2),
		crowdToken(manyUsers, "few", 1), crowdToken(manyUsers, "few", 2),
		crowdToken(manyUsers, "all", 1), crowdToken(manyUsers, "all", 2),
		crowdRequest(1, "all", 1), crowdRequest(1, "all", 2),
		crowdRequest(1000, "all", 1), crowdRequest(1000, "all", 2),
		crowdRequest(manyUsers, "few", 1), crowdRequest(manyUsers, "few", 2),
		crowdRequest(manyUsers, "all", 1), crowdRequest(manyUsers, "all", 2),
		{name: "CrowdMemory", rounds: 6, open: crowdMemory},
		{name: "CrowdHerd", rounds: 6, open: crowdHerd},
	},
}

const (
	manyUsers  = 100_000 // scale.users takes its place
	workingSet = 100     // of many users, those who come if they are few
)

// The names of the candidates, in the samples.
const (
	oneIdentity  = "one-identity"      // a pipeline without Subject
	subjects     = "subject"           // one pipeline with Subject
	ownPipelines = "pipeline-a-user"   // a map of pipelines, with a RWMutex
	ownSources   = "oauth2-a-user"     // a map of x/oauth2's sources, with a mutex
	ownAzure     = "azidentity-a-user" // a map of azidentity's on-behalf-of credentials, with a mutex
	lookup       = "map"               // for reference: the lookup of the user in a map that nobody writes to
	look         = "look"              // for reference: one look at what is the user's own, whose place is known
)

// tokenOf returns the token of ctx's user.
type tokenOf func(ctx context.Context) (string, error)

type crowdKey struct{}

func crowdUser(ctx context.Context) (string, error) {
	user, _ := ctx.Value(crowdKey{}).(string)
	return user, nil
}

func userName(i int) string { return "user-" + strconv.Itoa(i) }

// issuer is an auth server in the process. A user's token has 300 bytes and begins with
// the user's name.
type issuer struct {
	latency time.Duration

	fetches       atomic.Int64
	underWay, top atomic.Int64
}

func (s *issuer) issue(ctx context.Context, user string) (string, time.Time, error) {
	s.fetches.Add(1)
	n := s.underWay.Add(1)
	defer s.underWay.Add(-1)
	for top := s.top.Load(); n > top && !s.top.CompareAndSwap(top, n); top = s.top.Load() {
	}
	if s.latency > 0 {
		select {
		case <-time.After(s.latency):
		case <-ctx.Done():
			return "", time.Time{}, ctx.Err()
		}
	}
	return user + "." + strings.Repeat("x", 299-len(user)), time.Now().Add(tokenLife), nil
}

// fetcher is the login of a step, for whom user says.
func (s *issuer) fetcher(user func(requestforge.Input) string) requestforge.Fetcher {
	return requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
		token, expiry, err := s.issue(ctx, user(in))
		return &requestforge.Token{AccessToken: token, Expiry: expiry}, err
	})
}

// config is a login of two steps, the application's and the user's.
func (s *issuer) config(user func(requestforge.Input) string) requestforge.PipelineConfig {
	return requestforge.PipelineConfig{Steps: []requestforge.Step{
		{Name: "app", Fetcher: s.fetcher(func(requestforge.Input) string { return "app" })},
		{Name: "user", DependsOn: []string{"app"}, Fetcher: s.fetcher(user)},
	}}
}

// subjects is a pipeline for a number of users, with the default of MaxSubjects if that is
// enough.
func (s *issuer) subjects(users int) (*requestforge.Pipeline, error) {
	cfg := s.config(func(in requestforge.Input) string { return in.Subject })
	cfg.Subject, cfg.MaxSubjects, cfg.Steps[1].PerSubject = crowdUser, max(users, 10_000), true
	return requestforge.NewPipeline(cfg)
}

func (s *issuer) oneIdentity() (*requestforge.Pipeline, error) {
	return requestforge.NewPipeline(s.config(func(requestforge.Input) string { return userName(0) }))
}

func pipelineToken(p *requestforge.Pipeline, err error) (tokenOf, error) {
	return func(ctx context.Context) (string, error) {
		tok, err := p.Token(ctx)
		if err != nil {
			return "", err
		}
		return tok.AccessToken, nil
	}, err
}

// crowdPeers build what has tokens for a number of users.
var crowdPeers = map[string]func(s *issuer, users int) (tokenOf, error){
	oneIdentity:  func(s *issuer, _ int) (tokenOf, error) { return pipelineToken(s.oneIdentity()) },
	subjects:     func(s *issuer, users int) (tokenOf, error) { return pipelineToken(s.subjects(users)) },
	ownPipelines: func(s *issuer, _ int) (tokenOf, error) { return s.ownPipelines(), nil },
	ownSources:   func(s *issuer, _ int) (tokenOf, error) { return s.ownSources(), nil },
	ownAzure:     func(s *issuer, _ int) (tokenOf, error) { return s.ownAzure(), nil },
	lookup:       buildLookup,
	look:         buildLook,
}

// ownPipelines is what programs do without Subject: a pipeline for each user, made at the
// first request.
func (s *issuer) ownPipelines() tokenOf {
	var mu sync.RWMutex
	made := make(map[string]*requestforge.Pipeline)
	return func(ctx context.Context) (string, error) {
		user, err := crowdUser(ctx)
		if err != nil {
			return "", err
		}
		mu.RLock()
		p := made[user]
		mu.RUnlock()
		if p == nil {
			mu.Lock()
			if p = made[user]; p == nil {
				p, err = requestforge.NewPipeline(s.config(func(requestforge.Input) string { return user }))
				made[user] = p
			}
			mu.Unlock()
			if err != nil {
				return "", err
			}
		}
		tok, err := p.Token(ctx)
		if err != nil {
			return "", err
		}
		return tok.AccessToken, nil
	}
}

// sourceFunc is a source of x/oauth2.
type sourceFunc func() (*oauth2.Token, error)

func (f sourceFunc) Token() (*oauth2.Token, error) { return f() }

// ownSources is the same with x/oauth2. The application's source is shared.
func (s *issuer) ownSources() tokenOf {
	source := func(user string, parent oauth2.TokenSource) oauth2.TokenSource {
		return oauth2.ReuseTokenSource(nil, sourceFunc(func() (*oauth2.Token, error) {
			if parent != nil {
				if _, err := parent.Token(); err != nil {
					return nil, err
				}
			}
			token, expiry, err := s.issue(context.Background(), user)
			return &oauth2.Token{AccessToken: token, Expiry: expiry}, err
		}))
	}
	app := source("app", nil)
	var mu sync.Mutex
	made := make(map[string]oauth2.TokenSource)
	return func(ctx context.Context) (string, error) {
		user, err := crowdUser(ctx)
		if err != nil {
			return "", err
		}
		mu.Lock()
		src := made[user]
		if src == nil {
			src = source(user, app)
			made[user] = src
		}
		mu.Unlock()
		tok, err := src.Token()
		if err != nil {
			return "", err
		}
		return tok.AccessToken, nil
	}
}

// ownAzure is the same with azidentity, whose credential is that of one user's assertion,
// with a cache of its own. It has no application's token.
func (s *issuer) ownAzure() tokenOf {
	var mu sync.Mutex
	made := make(map[string]azcore.TokenCredential)
	return func(ctx context.Context) (string, error) {
		user, err := crowdUser(ctx)
		if err != nil {
			return "", err
		}
		mu.Lock()
		cred := made[user]
		if cred == nil {
			cred, err = azidentity.NewOnBehalfOfCredentialWithSecret(azureTenant, clientID, user, clientSecret, &azidentity.OnBehalfOfCredentialOptions{
				ClientOptions:            policy.ClientOptions{Transport: entra{s}, Telemetry: policy.TelemetryOptions{Disabled: true}},
				DisableInstanceDiscovery: true, // it would ask for it over a network
			})
			made[user] = cred
		}
		mu.Unlock()
		if err != nil {
			return "", err
		}
		tok, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{origin + "/.default"}})
		return tok.Token, err
	}
}

const azureTenant = "00000000-0000-0000-0000-000000000001"

// entra is the issuer as azidentity speaks to it: the metadata of the tenant, and tokens on
// behalf of whom the assertion names.
type entra struct{ *issuer }

func (e entra) Do(req *http.Request) (*http.Response, error) {
	var text string
	if strings.HasSuffix(req.URL.Path, "/.well-known/openid-configuration") {
		host := "https://" + req.URL.Host + "/" + azureTenant
		text = fmt.Sprintf(`{"issuer":"%[1]s/v2.0","authorization_endpoint":"%[1]s/oauth2/v2.0/authorize","token_endpoint":"%[1]s/oauth2/v2.0/token"}`, host)
	} else {
		if err := req.ParseForm(); err != nil {
			return nil, err
		}
		token, _, err := e.issue(req.Context(), req.PostForm.Get("assertion"))
		if err != nil {
			return nil, err
		}
		text = fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":%d}`, token, int(tokenLife.Seconds()))
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewBufferString(text)), Request: req,
	}, nil
}

// buildLookup is what any cache of users has to do at least.
func buildLookup(s *issuer, users int) (tokenOf, error) {
	made := make(map[string]*string, users)
	for i := range users {
		token, _, err := s.issue(context.Background(), userName(i))
		if err != nil {
			return nil, err
		}
		made[userName(i)] = &token
	}
	return func(ctx context.Context) (string, error) {
		user, err := crowdUser(ctx)
		if err != nil {
			return "", err
		}
		return *made[user], nil
	}, nil
}

// buildLook is less than any cache of users does: as many bytes a user as a subject has
// are there, one of them is looked at, and nothing is looked up.
func buildLook(_ *issuer, users int) (tokenOf, error) {
	made := make([]*[subjectBytes]byte, users)
	for i := range made {
		made[i] = new([subjectBytes]byte)
	}
	return func(ctx context.Context) (string, error) {
		user, err := crowdUser(ctx)
		if err != nil {
			return "", err
		}
		number, err := strconv.Atoi(strings.TrimPrefix(user, "user-"))
		if err == nil && made[number][0] != 0 {
			err = errors.New("somebody has written there")
		}
		return user, err
	}, nil
}

// subjectBytes are held for a user, about.
const subjectBytes = 1408

// arrival is the context of a request of a user's that has just arrived: whose the request
// is has been read a moment ago, and so is in the caches.
func arrival(ctx context.Context, user int) context.Context {
	return context.WithValue(ctx, crowdKey{}, userName(user))
}

// contexts returns those of a number of users.
func contexts(ctx context.Context, users int) []context.Context {
	made := make([]context.Context, users)
	for i := range made {
		made[i] = arrival(ctx, i)
	}
	return made
}

// admit gets a token for each of ctxs, and fails unless it is the user's own.
func admit(get tokenOf, ctxs []context.Context, own bool) error {
	for _, ctx := range ctxs {
		token, err := get(ctx)
		if err != nil {
			return err
		}
		if user, _ := crowdUser(ctx); own && !strings.HasPrefix(token, user+".") {
			return fmt.Errorf("%s has somebody else's token", user)
		}
	}
	return nil
}

// arrivals returns who comes, one after another: of all users, or of some.
func arrivals(users int, who string) []int {
	order := rand.New(rand.NewPCG(1, 2)) // the same in each run
	from := order.Perm(users)
	if who == "few" {
		from = from[:min(users, workingSet)]
	}
	made := make([]int, 1<<17)
	for i := range made {
		made[i] = from[order.IntN(len(from))]
	}
	return made
}

// usersOf is how many users a case has.
func (s scale) usersOf(users int) int {
	if users == manyUsers {
		return s.users
	}
	return users
}

func crowdName(name string, users int, who string, cores int) string {
	return fmt.Sprintf("%s/users=%d/who=%s/cores=%d", name, users, who, cores)
}

// onCores is a case with that many cores, and a caller on each.
func onCores(name string, cores int, open func(context.Context, scale) ([]candidate, error)) benchmark {
	return benchmark{name: name, timed: true, open: func(ctx context.Context, s scale) ([]candidate, func(), error) {
		before := runtime.GOMAXPROCS(cores)
		back := func() { runtime.GOMAXPROCS(before) }
		cands, err := open(ctx, s)
		if err != nil {
			back()
			return nil, nil, err
		}
		return cands, back, nil
	}}
}

// walk is a run that calls f for one user after another, each caller from another place on.
func walk(order []int, f func(user int) error) func(int) (counts, error) {
	begun := 0
	return inParallel(func() func() error {
		at := begun
		begun += len(order) / 3
		return func() error {
			at = (at + 1) % len(order)
			return f(order[at])
		}
	})
}

func crowdToken(users int, who string, cores int) benchmark {
	return onCores(crowdName("CrowdToken", users, who, cores), cores, func(ctx context.Context, s scale) ([]candidate, error) {
		impls := []string{oneIdentity, subjects, lookup, look, ownSources}
		if users < manyUsers {
			impls = append(impls, ownPipelines, ownAzure) // more of them is a matter of memory
		}
		n := s.usersOf(users)
		ctxs, order := contexts(ctx, n), arrivals(n, who)
		var cands []candidate
		for _, impl := range impls {
			get, err := crowdPeers[impl](new(issuer), n)
			if err == nil {
				err = admit(get, ctxs, impl != oneIdentity && impl != look)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", impl, err)
			}
			cands = append(cands, candidate{impl: impl, run: walk(order, func(user int) error {
				_, err := get(arrival(ctx, user))
				return err
			})})
		}
		return cands, nil
	})
}

func crowdRequest(users int, who string, cores int) benchmark {
	return onCores(crowdName("CrowdRequest", users, who, cores), cores, func(ctx context.Context, s scale) ([]candidate, error) {
		n := s.usersOf(users)
		order, req := arrivals(n, who), newRequest(ctx, origin)
		one, err := new(issuer).oneIdentity()
		many, err2 := new(issuer).subjects(n)
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		var cands []candidate
		for _, c := range []struct {
			impl string
			p    *requestforge.Pipeline
		}{{oneIdentity, one}, {subjects, many}} {
			w := &wire{RoundTripper: inProcess{}}
			t, err := requestforge.NewTransport(requestforge.Config{
				Base: w, Source: c.p, Origins: []string{origin}, Retry: requestforge.RetryPolicy{RetryMax: retries},
			})
			if err != nil {
				return nil, err
			}
			send := client(t.RoundTrip)
			var wrong error
			for user := range n {
				w.see = func(sent *http.Request) {
					user, _ := crowdUser(sent.Context())
					if c.impl == oneIdentity {
						user = userName(0)
					}
					if !strings.HasPrefix(sent.Header.Get("Authorization"), "Bearer "+user+".") {
						wrong = fmt.Errorf("%s: a request without its user's token", c.impl)
					}
				}
				if err := errors.Join(send.must(req.WithContext(arrival(ctx, user))), wrong); err != nil {
					return nil, err
				}
			}
			w.see = nil
			cands = append(cands, candidate{impl: c.impl, run: walk(order, func(user int) error { return send.must(req.WithContext(arrival(ctx, user))) })})
		}
		return cands, nil
	})
}

// inCrowds are those that have tokens for many users.
var inCrowds = []string{subjects, ownPipelines, ownSources, ownAzure}

// memoryUsers are those of CrowdMemory.
const memoryUsers = 1000

// crowdMemory is the heap that is held for each of 1,000 users with a live token.
func crowdMemory(ctx context.Context, s scale) ([]candidate, func(), error) {
	var cands []candidate
	ctxs := contexts(ctx, memoryUsers)
	for _, impl := range inCrowds {
		cands = append(cands, candidate{impl: impl, run: func(int) (counts, error) {
			before, goroutines := liveHeap(), runtime.NumGoroutine()
			get, err := crowdPeers[impl](new(issuer), memoryUsers)
			if err == nil {
				err = admit(get, ctxs, true)
			}
			held := liveHeap() - before
			more := max(0, runtime.NumGoroutine()-goroutines)
			runtime.KeepAlive(get)
			return counts{"user-bytes": float64(held / memoryUsers), "goroutines": float64(more)}, err
		}})
	}
	return cands, func() {}, nil
}

// liveHeap is what is left of the heap after a collection.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// crowdHerd is what it takes until each of many users, who come at once, has a token.
func crowdHerd(ctx context.Context, s scale) ([]candidate, func(), error) {
	var cands []candidate
	ctxs := contexts(ctx, s.callers)
	for _, impl := range inCrowds {
		cands = append(cands, candidate{impl: impl, run: func(int) (counts, error) {
			auth := &issuer{latency: herdLatency}
			get, err := crowdPeers[impl](auth, s.callers)
			if err != nil {
				return nil, err
			}
			var next atomic.Int64
			ok, took := herd(s.callers, func() bool {
				at := next.Add(1) - 1
				return admit(get, ctxs[at:at+1], true) == nil
			})
			if ok != s.callers {
				return nil, fmt.Errorf("%d of %d users had their own token", ok, s.callers)
			}
			return counts{wall: float64(took), "fetches": float64(auth.fetches.Load()), "at-once": float64(auth.top.Load())}, nil
		}})
	}
	return cands, func() {}, nil
}

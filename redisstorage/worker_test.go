package redisstorage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/redisstorage"
)

// The tests of many processes start the test binary again, with a job in its
// environment.
const jobVariable = "REDISSTORAGE_TEST_JOB"

func TestMain(m *testing.M) {
	logging.Disable() // go-redis tells of each try to reach a server that is down
	if text := os.Getenv(jobVariable); text != "" {
		if err := work(text, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// job is what a member of a fleet is told at its start.
type job struct {
	Master string // of Sentinel
	Redis  []string
	Auth   string // the URL of the auth server and the API
	Secret string // of the client; "": the right one
	File   string // where the client's secret is, instead; "": nowhere
	Life   time.Duration
	Rotate bool

	StorageTimeout time.Duration // 0: the pipeline's own
	LeaseTTL       time.Duration
	Clock          time.Duration // how far it is ahead

	// Accidents, at the first opportunity.
	DieInFetch      bool // killed while it holds the lock and has asked for nothing yet
	DieAfterRefresh bool // killed when it has a new refresh token and has told nobody
	StopWithLock    bool // stopped when it has got the lock
}

// phase is what it is told to do then, as often as it likes to hear it.
type phase struct {
	Requests int
	Pause    time.Duration // between two of them

	Invalidate string // the step to be invalidated first; "": none
	Deaf       bool   // from now on the storage can't be loaded before it has pushed something
}

// report is what it answers after a phase.
type report struct {
	Requests int
	Failed   int            // requests that the application has had no good answer to
	Refused  int            // those of them that had a 401
	Worst    time.Duration  // the slowest request
	Errors   []string       // some of them
	Tokens   map[string]int // how often the API accepted which
	Trouble  uint64         // calls of the storage that failed
	Lost     uint64         // leases that ended before they were given back
	Unaware  bool           // it was stopped past its lease and did not know
}

// sum adds reports up.
func sum(reports ...report) report {
	all := report{Tokens: make(map[string]int)}
	for _, r := range reports {
		all.Requests += r.Requests
		all.Failed += r.Failed
		all.Refused += r.Refused
		all.Worst = max(all.Worst, r.Worst)
		all.Trouble += r.Trouble
		all.Lost += r.Lost
		all.Unaware = all.Unaware || r.Unaware
		all.Errors = append(all.Errors, r.Errors...)
		for name, n := range r.Tokens {
			all.Tokens[name] += n
		}
	}
	return all
}

// loginSteps are those of a login in two steps. Without a life tokens live for
// an hour.
func loginSteps(life time.Duration, rotate bool) authtest.Config {
	if life == 0 {
		life = time.Hour
	}
	return authtest.Config{Steps: []authtest.Step{
		{Name: "app", ClientID: "id", ClientSecret: "secret", TTL: time.Hour},
		{Name: "user", Parents: map[string]string{"app": "Authorization"}, TTL: life, Expiry: authtest.ExpiresInFloat,
			RefreshTokens: rotate, Rotate: rotate},
	}}
}

// member is a pipeline of a fleet, with a client and a storage of its own. A
// worker is a process with one; a test may also have several in its own process.
type member struct {
	client   redis.UniversalClient
	storage  *accidental
	pipeline *requestforge.Pipeline
	idle     []*http.Transport // with connections to be closed
	api      *http.Client
	trouble  uint64 // as far as it was reported
}

func newMember(j job) (*member, error) {
	m := new(member)
	transport := func() *http.Transport {
		t := &http.Transport{}
		m.idle = append(m.idle, t)
		return t
	}
	sim := authtest.NewSimulator(loginSteps(j.Life, j.Rotate))
	sim.URL = j.Auth
	steps := sim.Steps()
	for i := range steps {
		for _, f := range []requestforge.Fetcher{steps[i].Fetcher, steps[i].Refresh} {
			if f, ok := f.(*requestforge.HTTPFetcher); ok {
				f.Client = &http.Client{Transport: transport()}
			}
		}
	}
	if j.Secret != "" {
		steps[0].Fetcher.(*requestforge.HTTPFetcher).ClientAuth.Secret = j.Secret
	}
	if j.File != "" {
		auth := steps[0].Fetcher.(*requestforge.HTTPFetcher).ClientAuth
		auth.Secret, auth.SecretFrom = "", requestforge.SecretFile(j.File)
	}
	user := &steps[1]
	user.Identity = user.Fetcher.(requestforge.Identifier).Identity() // whatever the fetcher becomes
	if j.DieInFetch {
		user.Fetcher = requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
			return nil, signalSelf(syscall.SIGKILL)
		})
	}
	if j.DieAfterRefresh {
		refresh := user.Refresh
		user.Refresh = requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
			if _, err := refresh.Fetch(ctx, in); err != nil {
				return nil, err
			}
			return nil, signalSelf(syscall.SIGKILL)
		})
	}

	m.client = redis.NewUniversalClient(&redis.UniversalOptions{Addrs: j.Redis, MasterName: j.Master, ContextTimeoutEnabled: true})
	shared, err := redisstorage.New(m.client, redisstorage.Options{LeaseTTL: j.LeaseTTL})
	if err != nil {
		return nil, err
	}
	m.storage = &accidental{Storage: shared, clock: j.Clock, ttl: j.LeaseTTL}
	m.storage.stop.Store(j.StopWithLock)
	m.pipeline, err = requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: steps, Storage: m.storage, KeyPrefix: "requestforge", StorageTimeout: j.StorageTimeout,
	})
	if err != nil {
		return nil, err
	}
	stack, err := requestforge.NewTransport(requestforge.Config{BaseURL: j.Auth, Source: m.pipeline, Base: transport()})
	if err != nil {
		return nil, err
	}
	m.api = &http.Client{Transport: stack, Timeout: time.Minute}
	return m, nil
}

func (m *member) close() {
	m.pipeline.Close()
	m.client.Close()
	for _, t := range m.idle {
		t.CloseIdleConnections()
	}
}

// do is one phase.
func (m *member) do(p phase) (report, error) {
	if p.Deaf {
		m.storage.deaf.Store(true)
	}
	if p.Invalidate != "" {
		if err := m.pipeline.InvalidateStep(context.Background(), p.Invalidate); err != nil {
			return report{}, err
		}
	}
	r := report{Requests: p.Requests, Tokens: make(map[string]int)}
	for i := range p.Requests {
		if i > 0 {
			time.Sleep(p.Pause)
		}
		request(m.api, &r)
	}
	trouble := m.pipeline.Stats().StorageErrors
	r.Trouble, m.trouble = trouble-m.trouble, trouble
	r.Lost = m.storage.lost.Swap(0)
	r.Unaware = m.storage.unaware.Load()
	return r, nil
}

// work is what a worker does: a phase for each line of in.
func work(text string, in io.Reader, out io.Writer) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	m, err := newMember(j)
	if err != nil {
		return err
	}
	defer m.close()

	// The other side closes the pipe when it has had enough, and when it dies.
	commands := json.NewDecoder(bufio.NewReader(in))
	answers := json.NewEncoder(out)
	if err := answers.Encode(report{}); err != nil {
		return err
	}
	for {
		var p phase
		if err := commands.Decode(&p); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		r, err := m.do(p)
		if err != nil {
			return err
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
}

// request sends one request, as the application.
func request(api *http.Client, r *report) {
	begun := time.Now()
	resp, err := api.Get("/api/things")
	if err == nil {
		var echo authtest.Echo
		if err = json.NewDecoder(resp.Body).Decode(&echo); err == nil {
			r.Tokens[echo.Token]++
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusUnauthorized {
			r.Refused++
		}
		if resp.StatusCode != http.StatusOK {
			delete(r.Tokens, "")
			err = fmt.Errorf("the API says %s", resp.Status)
		}
	}
	r.Worst = max(r.Worst, time.Since(begun))
	if err != nil {
		r.Failed++
		if len(r.Errors) < 3 {
			r.Errors = append(r.Errors, err.Error())
		}
	}
}

// signalSelf sends this process a signal that it can't catch. After SIGSTOP it
// returns when the process goes on.
func signalSelf(sig syscall.Signal) error { return syscall.Kill(os.Getpid(), sig) }

// accidental is a Storage in a process that has bad luck: its clock is wrong, it
// is stopped when it has got the lock, or it learns nothing but by a push.
type accidental struct {
	*redisstorage.Storage
	clock   time.Duration // how far it is ahead
	ttl     time.Duration // how long a lease lasts
	stop    atomic.Bool   // the process stops itself with its next lease
	unaware atomic.Bool   // it went on too late, and the lease didn't say so
	deaf    atomic.Bool   // no Load works until something is pushed
	lost    atomic.Uint64 // leases that ended before they were given back
}

var errDeaf = errors.New("nothing was pushed yet")

func (a *accidental) Watch(keys []string, changed func(key string, err error)) (stop func()) {
	return a.Storage.Watch(keys, func(key string, err error) {
		if key != "" {
			a.deaf.Store(false)
		}
		changed(key, err)
	})
}

// watchedLease is a lease that notes whether it was lost.
type watchedLease struct {
	requestforge.Lease
	lost *atomic.Uint64
}

func (l watchedLease) Unlock(ctx context.Context) error {
	if lost(l.Lease) {
		l.lost.Add(1)
	}
	return l.Lease.Unlock(ctx)
}

func (a *accidental) TryLock(ctx context.Context, key string) (requestforge.Lease, bool, error) {
	lease, ok, err := a.Storage.TryLock(ctx, key)
	if err != nil || !ok {
		return nil, false, err
	}
	if a.stop.CompareAndSwap(true, false) {
		begun := time.Now()
		signalSelf(syscall.SIGSTOP)
		for time.Since(begun) < a.ttl { // it may take a moment to work
		}
		if !lost(lease) {
			a.unaware.Store(true)
		}
	}
	return watchedLease{lease, &a.lost}, true, nil
}

// What such a process writes is as much ahead as its clock, and what it reads
// looks as much behind to it.
func (a *accidental) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	if a.deaf.Load() {
		return nil, errDeaf
	}
	entries, err := a.Storage.Load(ctx, keys...)
	for _, e := range entries {
		shift(e.Record, -a.clock)
	}
	return entries, err
}

func (a *accidental) Save(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	tok := *r.Token
	r.Token = &tok
	shift(&r, a.clock)
	e, err := a.Storage.Save(ctx, key, r, seen)
	shift(e.Record, -a.clock)
	return e, err
}

func shift(r *requestforge.Record, by time.Duration) {
	if r == nil {
		return
	}
	r.Issued = r.Issued.Add(by)
	if !r.Token.Expiry.IsZero() {
		r.Token.Expiry = r.Token.Expiry.Add(by)
	}
}

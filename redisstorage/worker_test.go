package redisstorage_test

import (
	"bufio"
	"context"
	"encoding/json"
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

// job is what one worker is told at its start.
type job struct {
	Master string // of Sentinel
	Redis  []string
	Auth   string // the URL of the auth server and the API
	Secret string // of the client; "": the right one
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
}

// report is what it answers after a phase.
type report struct {
	Requests int
	Failed   int            // requests that the application has had no good answer to
	Refused  int            // those of them that had a 401
	Worst    time.Duration  // the slowest request
	Errors   []string       // some of them
	Tokens   map[string]int // how often the API accepted which
	Fetches  uint64         // of the pipeline since the start
	Trouble  uint64         // calls of the storage that failed since the start
	Unaware  bool           // it was stopped past its lease and did not know
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

func work(text string, in io.Reader, out io.Writer) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	sim := authtest.NewSimulator(loginSteps(j.Life, j.Rotate))
	sim.URL = j.Auth
	steps := sim.Steps()
	for i := range steps {
		for _, f := range []requestforge.Fetcher{steps[i].Fetcher, steps[i].Refresh} {
			if f, ok := f.(*requestforge.BodyFetcher); ok {
				f.Client = &http.Client{Transport: &http.Transport{}}
			}
		}
	}
	if j.Secret != "" {
		steps[0].Fetcher.(*requestforge.BodyFetcher).ClientAuth.Secret = j.Secret
	}
	user := &steps[1]
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

	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: j.Redis, MasterName: j.Master, ContextTimeoutEnabled: true})
	defer client.Close()
	shared, err := redisstorage.New(client, redisstorage.Options{LeaseTTL: j.LeaseTTL})
	if err != nil {
		return err
	}
	storage := &accidental{Storage: shared, clock: j.Clock, lease: j.LeaseTTL}
	storage.stop.Store(j.StopWithLock)
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: steps, Storage: storage, StorageTimeout: j.StorageTimeout,
	})
	if err != nil {
		return err
	}
	defer pipeline.Close()
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: j.Auth, Tokens: pipeline, Base: &http.Transport{}})
	if err != nil {
		return err
	}
	api := &http.Client{Transport: transport, Timeout: time.Minute}

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
		r := report{Requests: p.Requests, Tokens: make(map[string]int)}
		if p.Invalidate != "" {
			if err := pipeline.InvalidateStep(context.Background(), p.Invalidate); err != nil {
				return err
			}
		}
		for i := range p.Requests {
			if i > 0 {
				time.Sleep(p.Pause)
			}
			request(api, &r)
		}
		stats := pipeline.Stats()
		for _, s := range stats.Steps {
			r.Fetches += s.Fetches
		}
		r.Trouble = stats.StorageErrors
		r.Unaware = storage.unaware.Load()
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

// accidental is a Storage in a process that has bad luck: its clock is wrong,
// or it is stopped when it has got the lock.
type accidental struct {
	*redisstorage.Storage
	clock   time.Duration // how far it is ahead
	lease   time.Duration // how long a lease lasts
	stop    atomic.Bool   // the process stops itself with its next lease
	unaware atomic.Bool   // it went on too late, and the lease didn't say so
}

func (a *accidental) TryLock(ctx context.Context, key string) (requestforge.Lease, bool, error) {
	lease, ok, err := a.Storage.TryLock(ctx, key)
	if ok && a.stop.CompareAndSwap(true, false) {
		begun := time.Now()
		signalSelf(syscall.SIGSTOP)
		for time.Since(begun) < a.lease { // it may take a moment to work
		}
		select {
		case <-lease.Done():
		default:
			a.unaware.Store(true)
		}
	}
	return lease, ok, err
}

// What such a process writes is as much ahead as its clock, and what it reads
// looks as much behind to it.
func (a *accidental) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
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

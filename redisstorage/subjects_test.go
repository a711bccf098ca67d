package redisstorage_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/redisstorage"
	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
	"github.com/requestforge/requestforge/sealedstorage"
)

type personKey struct{}

// as is the context of a request of a person.
func as(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, personKey{}, id)
}

// person is the name of one of many people, and idOf the ID.
func person(i int) string { return fmt.Sprintf("person-%d@people.example", i) }
func idOf(i int) string   { return requestforge.SubjectID(issuer, person(i)) }
func people(n int) (ids []string) {
	for i := range n {
		ids = append(ids, idOf(i))
	}
	return ids
}

const issuer = "https://issuer.example"

// office is an auth server and an API of many people. It takes the newest token of each
// step and person only, and its tokens say nothing of whom they are for.
type office struct {
	mu      sync.Mutex
	count   map[string]int    // how many tokens were given, by whose; guarded by mu
	current map[string]string // tokens by whose; guarded by mu
	refused int               // requests with a token that isn't current; guarded by mu
	foreign int               // of those, with a token of somebody else; guarded by mu
	owner   map[string]string // whose a token is; guarded by mu

	more http.Handler // for other paths; may be nil
}

func newOffice() *office {
	return &office{count: make(map[string]int), current: make(map[string]string), owner: make(map[string]string)}
}

// ServeHTTP gives tokens of a step to a person, and checks those of requests.
func (o *office) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, token := q.Get("id"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch r.URL.Path {
	case "/token":
		if id != "" && !o.takes("app", token) {
			http.Error(w, "", http.StatusUnauthorized)
			return
		}
		json.NewEncoder(w).Encode(o.issue(strings.TrimSpace(q.Get("step") + " " + id)))
	case "/api":
		if !o.takes("user "+id, token) {
			http.Error(w, "", http.StatusUnauthorized)
		}
	default:
		o.more.ServeHTTP(w, r)
	}
}

func (o *office) issue(whose string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count[whose]++
	token := rand.Text()
	o.current[whose], o.owner[token] = token, whose
	return token
}

func (o *office) takes(whose, token string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if token != "" && o.current[whose] == token {
		return true
	}
	o.refused++
	if o.owner[token] != whose {
		o.foreign++
	}
	return false
}

// revoke ends the tokens of people.
func (o *office) revoke(ids ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		delete(o.current, "user "+id)
	}
}

// given returns how many tokens were given, of app and of all people.
func (o *office) given() (app, user int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for whose, n := range o.count {
		if whose == "app" {
			app += n
		} else {
			user += n
		}
	}
	return app, user
}

// most returns how many tokens of one person were given at most.
func (o *office) most() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for whose, of := range o.count {
		if whose != "app" {
			n = max(n, of)
		}
	}
	return n
}

// local is a RoundTripper to a handler of this process.
type local struct{ http.Handler }

func (l local) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	l.ServeHTTP(w, r)
	return w.Result(), nil
}

// fetcher gets the tokens of a step from an office.
func fetcher(url, step string, to http.RoundTripper) requestforge.Fetcher {
	return requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
		req, err := http.NewRequestWithContext(ctx, "POST", fmt.Sprintf("%s/token?step=%s&id=%s", url, step, query(in.Subject)), nil)
		if err != nil {
			return nil, err
		}
		if app := in.Parents["app"]; app != nil {
			req.Header.Set("Authorization", "Bearer "+app.AccessToken)
		}
		resp, err := (&http.Client{Transport: to}).Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, &requestforge.AuthError{StatusCode: resp.StatusCode}
		}
		var access string
		if err := json.NewDecoder(resp.Body).Decode(&access); err != nil {
			return nil, err
		}
		return &requestforge.Token{AccessToken: access, Expiry: time.Now().Add(time.Hour)}, nil
	})
}

// counting is a Storage that counts the keys of subjects that are loaded.
type counting struct {
	*redisstorage.Storage
	looks  atomic.Int64 // loads of several subjects
	keys   atomic.Int64 // of subjects
	atOnce atomic.Int64 // the most in one load
	calls  atomic.Int64 // loads
}

func (c *counting) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	n := int64(0)
	for _, key := range keys {
		if strings.Contains(key, "/") {
			n++
		}
	}
	c.calls.Add(1)
	c.keys.Add(n)
	if n > 1 {
		c.looks.Add(1)
	}
	for most := c.atOnce.Load(); n > most && !c.atOnce.CompareAndSwap(most, n); most = c.atOnce.Load() {
	}
	return c.Storage.Load(ctx, keys...)
}

// settle waits until nothing has been loaded for a while that looks of pushes begin in.
func (c *counting) settle(t testing.TB) {
	t.Helper()
	last, since := c.calls.Load(), time.Now()
	eventually(t, "no more is loaded", func() bool {
		if now := c.calls.Load(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 700*time.Millisecond
	})
}

// counter is one process of an office's: app for all -> user for each.
type counter struct {
	pipeline *requestforge.Pipeline
	storage  *counting
	api      *http.Client
	url      string
}

// openCounter opens one with a Redis client of its own, as a process has.
func openCounter(t testing.TB, client redis.UniversalClient, url string, to http.RoundTripper, timeout time.Duration) *counter {
	t.Helper()
	s := &counting{Storage: newStorage(t, client, redisstorage.Options{LeaseTTL: timeout})}
	return newCounter(t, s, crowd(url, to, s, timeout), url, to)
}

// newCounter makes a counter of a pipeline over s.
func newCounter(t testing.TB, s *counting, cfg requestforge.PipelineConfig, url string, to http.RoundTripper) *counter {
	t.Helper()
	p, err := requestforge.NewPipeline(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	stack, err := requestforge.NewTransport(requestforge.Config{BaseURL: url, Source: p, Base: to})
	require.NoError(t, err)
	return &counter{p, s, &http.Client{Transport: stack, Timeout: time.Minute}, url}
}

// crowd is the pipeline of a counter.
func crowd(url string, to http.RoundTripper, s requestforge.Storage, timeout time.Duration) requestforge.PipelineConfig {
	return requestforge.PipelineConfig{
		Subject: func(ctx context.Context) (string, error) {
			id, _ := ctx.Value(personKey{}).(string)
			return id, nil
		},
		MaxSubjects: 200_000, Storage: s, KeyPrefix: "crowd", StorageTimeout: timeout,
		Steps: []requestforge.Step{
			{Name: "app", Identity: "app", Fetcher: fetcher(url, "app", to)},
			{Name: "user", Identity: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: fetcher(url, "user", to)},
		},
	}
}

const officeURL = "https://office.example"

// request sends a person's request.
func (c *counter) request(ctx context.Context, id string) error {
	req, err := http.NewRequestWithContext(as(ctx, id), "GET", c.url+"/api?id="+query(id), nil)
	if err != nil {
		return err
	}
	resp, err := c.api.Do(req)
	if err != nil {
		return err
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API says %s", resp.Status)
	}
	return nil
}

// serve sends a request of each person, several at once, and returns the first error.
func (c *counter) serve(ctx context.Context, ids []string, atOnce int) error {
	return each(ids, atOnce, func(id string) error { return c.request(ctx, id) })
}

// each calls f for each ID, several at once, and returns the first error.
func each(ids []string, atOnce int, f func(id string) error) error {
	next := make(chan string)
	errs := make(chan error, len(ids))
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for id := range next {
				if err := f(id); err != nil {
					errs <- err
				}
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	wg.Wait()
	close(errs)
	return <-errs
}

// status is what the user step of a person is at.
func (c *counter) status(t testing.TB, id string) requestforge.Status {
	t.Helper()
	return c.pipeline.State(as(t.Context(), id)).Steps[1].Status
}

func query(text string) string { return url.QueryEscape(text) }

// crowdOverOneConnection has many people log in over one Storage of one process, which
// hears by push what another process does to one of them, and to all. Without locks it
// takes a third of the time.
func crowdOverOneConnection(t *testing.T, many, events int, locks bool) {
	n := startNode(t)
	o := newOffice()
	here := openCounter(t, newClient(t, "", n.Addr), officeURL, local{o}, patience)
	if s := here.storage; !locks {
		require.NoError(t, here.pipeline.Close())
		here = newCounter(t, s, crowd(officeURL, local{o}, struct {
			requestforge.Storage
			requestforge.Watcher
		}{s, s}, patience), officeURL, local{o})
	}
	ids := people(many)

	require.NoError(t, here.request(t.Context(), ids[0]))
	eventually(t, "it listens", func() bool { return channels(t, n) == 1 })
	here.storage.settle(t)
	one := runtime.NumGoroutine()
	begun := time.Now()
	require.NoError(t, each(ids, 64, func(id string) error {
		tok, err := here.pipeline.Token(as(t.Context(), id))
		if err == nil && !o.takes("user "+id, tok.AccessToken) {
			err = fmt.Errorf("%s has somebody else's token", id)
		}
		return err
	}))
	t.Logf("%d have logged in after %v", many, time.Since(begun).Round(time.Millisecond))
	app, user := o.given()
	require.Equal(t, []int{1, many}, []int{app, user})
	require.EqualValues(t, many, here.pipeline.Stats().Subjects)

	here.storage.settle(t)
	eventually(t, "people need no goroutines", func() bool { return runtime.NumGoroutine() <= one+8 })
	require.Equal(t, 1, pushConnections(t, n))
	require.Equal(t, 1, channels(t, n))

	there := openCounter(t, newClient(t, "", n.Addr), officeURL, local{o}, patience)
	eventually(t, "the other process listens, too", func() bool { return pushConnections(t, n) == 2 })
	require.NoError(t, there.request(t.Context(), ids[0]))
	here.storage.settle(t)
	there.storage.settle(t)

	// event is what happens in the other process, with one push. It returns how long this
	// process took to know, and how many keys of subjects that has cost.
	event := func(what string, happens func() error, known func() bool) (after time.Duration, keys int64) {
		t.Helper()
		loads := func() int { return int(here.storage.calls.Load() + there.storage.calls.Load()) }
		keys, pushes, scripts, before := here.storage.keys.Load(), calls(t, n, "publish"), calls(t, n, "evalsha"), loads()
		require.NoError(t, happens(), what)
		begun := time.Now()
		require.Eventually(t, known, beforeLook, 5*time.Millisecond, "it wasn't pushed: %s", what)
		after = time.Since(begun)
		here.storage.settle(t)
		// A push may reach its sender before the sender has noted what it was about, which
		// is then told once more.
		require.InDelta(t, 1.5, calls(t, n, "publish")-pushes, 0.5, what)
		// What was loaded, by a look that was due, too, and what was changed.
		require.LessOrEqual(t, calls(t, n, "evalsha")-scripts, loads()-before+4, what)
		return after, here.storage.keys.Load() - keys
	}
	var took []time.Duration
	ctx := t.Context()
	for _, id := range ids[many-events:] {
		after, keys := event("a logout", func() error { return there.pipeline.Forget(as(ctx, id)) },
			func() bool { return here.status(t, id) == requestforge.StatusNone })
		require.InDelta(t, 1.5, keys, 0.5, "nobody else is looked at")
		took = append(took, after)
	}
	for _, id := range ids[:events] {
		after, keys := event("a revocation", func() error { return there.pipeline.InvalidateStep(as(ctx, id), "user") },
			func() bool { return here.status(t, id) == requestforge.StatusDead })
		require.InDelta(t, 1.5, keys, 0.5, "nobody else is looked at")
		took = append(took, after)
	}
	slices.Sort(took)
	t.Logf("known after %v, the slowest after %v", took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	require.Equal(t, map[requestforge.Status]int{
		requestforge.StatusLive: many - 2*events, requestforge.StatusNone: events, requestforge.StatusDead: events,
	}, here.pipeline.State(ctx).Steps[1].Subjects)

	stranger := idOf(many)
	looks := here.storage.calls.Load()
	_, keys := event("a logout of somebody who was never here", func() error { return there.pipeline.Forget(as(ctx, stranger)) },
		func() bool { return here.storage.calls.Load() > looks })
	require.Zero(t, keys, "nobody is looked at")

	_, keys = event("a revocation of what is shared", func() error { return there.pipeline.InvalidateStep(ctx, "app") },
		func() bool { return here.pipeline.State(ctx).Steps[0].Status == requestforge.StatusDead })
	require.Zero(t, keys, "nobody is looked at")
	require.Zero(t, here.pipeline.State(ctx).Steps[1].Subjects[requestforge.StatusLive], "all are condemned")
	const some = 100
	require.NoError(t, here.serve(ctx, ids[:some], 16))
	app, user = o.given()
	require.Equal(t, []int{2, many + some}, []int{app, user})
	require.Zero(t, o.foreign)
	require.Equal(t, some, here.pipeline.State(ctx).Steps[1].Subjects[requestforge.StatusLive])

	subjectsExpire(t, n, many+2) // the app's, and a tombstone of the stranger's
	require.Zero(t, here.pipeline.Stats().StorageErrors+here.pipeline.Stats().BadRecords)
}

// subjectsExpire checks every key that a server has: the key has an expiry and is in the
// slot of the pipeline, and nothing there holds an ID.
func subjectsExpire(t *testing.T, n *redistest.Node, keys int) {
	t.Helper()
	const life = 2*time.Hour + time.Minute // of a token, and as long to keep
	ctx := t.Context()
	var names []string
	for it := n.Client().Scan(ctx, 0, "*", 1000).Iterator(); it.Next(ctx); {
		names = append(names, it.Val())
	}
	require.Len(t, names, keys)
	for names := range slices.Chunk(names, 1000) {
		pipe := n.Client().Pipeline()
		lefts, values := make([]*redis.DurationCmd, len(names)), make([]*redis.MapStringStringCmd, len(names))
		for i, name := range names {
			lefts[i], values[i] = pipe.PTTL(ctx, name), pipe.HGetAll(ctx, name)
		}
		_, err := pipe.Exec(ctx)
		require.NoError(t, err)
		for i, name := range names {
			left, value := lefts[i].Val(), values[i].Val()
			_, record := value["r"]
			switch {
			case !strings.HasPrefix(name, "rf:token:{crowd}:"):
				t.Errorf("%s is in another slot", name)
			case left <= 0:
				t.Errorf("%s is for ever", name)
			case strings.Contains(name, "/") && record && left > life, !record && left > lostLife:
				t.Errorf("%s stays for %v", name, left)
			}
			stored := name
			for field, text := range value {
				stored += " " + field + " " + text
			}
			for _, part := range personal {
				if strings.Contains(stored, part) {
					t.Errorf("%s says who it is about, %q: %s", name, part, stored)
				}
			}
		}
	}
}

// personal are what all IDs hold, as it would be seen.
var personal = func() (all []string) {
	for _, part := range []string{issuer, "person-", "@people.example"} {
		all = append(all, part, query(part), hex.EncodeToString([]byte(part)))
		for skip := range 3 {
			if whole := part[skip : skip+(len(part)-skip)/3*3]; len(whole) >= 9 { // whatever is around it
				all = append(all, base64.StdEncoding.EncodeToString([]byte(whole)))
			}
		}
	}
	return all
}()

// The short form, with the race detector; numbers_test.go has the long one. (Not parallel:
// it counts the goroutines of the process.)
func TestHundredsOfSubjectsShareAConnection(t *testing.T) { crowdOverOneConnection(t, 300, 2, true) }

// All keys of a pipeline's subjects are on one node of a Cluster, and pushes reach the
// others there, too.
func TestSubjectsAreInOneSlotOfACluster(t *testing.T) {
	t.Parallel()
	const many = 100
	c := startCluster(t)
	o := newOffice()
	here := openCounter(t, newClient(t, "", c.Addrs()...), officeURL, local{o}, patience)
	there := openCounter(t, newClient(t, "", c.Addrs()...), officeURL, local{o}, patience)
	ids := people(many)
	for _, p := range []*counter{here, there} {
		require.NoError(t, p.serve(t.Context(), ids, 8))
	}
	app, user := o.given()
	require.Equal(t, []int{1, many}, []int{app, user})
	var sizes []int64
	for _, n := range c.Nodes[:3] {
		if size := n.Client().DBSize(t.Context()).Val(); size > 0 {
			sizes = append(sizes, size)
		}
	}
	require.Equal(t, []int64{many + 1}, sizes)
	eventually(t, "a logout is pushed", func() bool { // once more if it didn't listen yet
		require.NoError(t, there.pipeline.Forget(as(t.Context(), ids[7])))
		return here.status(t, ids[7]) == requestforge.StatusNone
	})
	require.Equal(t, requestforge.StatusLive, here.status(t, ids[8]))
}

// Each of 200 people logs in once in three processes, and once more after a revocation.
func TestSubjectsOfManyProcessesLogInOnce(t *testing.T) {
	t.Parallel()
	const many, processes = 200, 3
	n := startNode(t)
	o := newOffice()
	ids := people(many)
	var fleet []*counter
	for range processes {
		fleet = append(fleet, openCounter(t, newClient(t, "", n.Addr), officeURL, local{o}, patience))
	}
	serve := func() {
		t.Helper()
		errs := make([]error, processes)
		var wg sync.WaitGroup
		for i, c := range fleet {
			wg.Go(func() { errs[i] = c.serve(t.Context(), ids, 16) })
		}
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
	}
	for round := 1; round <= 3; round++ {
		serve()
		app, user := o.given()
		require.Equal(t, []int{1, round * many}, []int{app, user})
		require.Equal(t, round, o.most())
		o.revoke(ids...)
	}
	require.Zero(t, o.foreign)
	for _, c := range fleet {
		require.Zero(t, c.pipeline.Stats().StorageErrors)
	}
}

// Who was dropped from memory costs a load of one key of theirs, and no login, unless another
// process has logged them out or revoked their token meanwhile.
func TestSubjectsBeyondTheMaximumAreLoadedAgain(t *testing.T) {
	t.Parallel()
	const many, most = 600, 50
	n := startNode(t)
	o := newOffice()
	s := &counting{Storage: newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{LeaseTTL: patience})}
	cfg := crowd(officeURL, local{o}, s, patience)
	cfg.MaxSubjects = most
	here := newCounter(t, s, cfg, officeURL, local{o})
	there := openCounter(t, newClient(t, "", n.Addr), officeURL, local{o}, patience)
	ids, ctx := people(many), t.Context()
	require.NoError(t, here.serve(ctx, ids, 16))
	eventually(t, "it listens", func() bool { return pushConnections(t, n) == 2 })
	s.settle(t)
	require.EqualValues(t, most, here.pipeline.Stats().Subjects)
	require.EqualValues(t, many-most, here.pipeline.Stats().Evicted)

	keys := s.keys.Load()
	require.NoError(t, here.serve(ctx, ids[:many-most], 16)) // some of the others are there still
	require.InDelta(t, many-most, s.keys.Load()-keys, 16, "each is loaded once")
	_, user := o.given()
	require.Equal(t, many, user)

	keys = s.keys.Load()
	for i, id := range ids[:20] { // long dropped
		if i%2 == 0 {
			require.NoError(t, there.pipeline.Forget(as(ctx, id)))
		} else {
			require.NoError(t, there.pipeline.InvalidateStep(as(ctx, id), "user"))
		}
	}
	s.settle(t)
	require.Equal(t, keys, s.keys.Load(), "pushes about them cost nothing")
	require.NoError(t, here.serve(ctx, ids[:40], 16))
	_, user = o.given()
	require.Equal(t, many+20, user)
	require.Equal(t, 2, o.most())
	require.Zero(t, o.refused, "no dead token was sent")
}

// A Redis that is killed comes back without what it had, one that is silent with it.
func TestSubjectsAreServedWithoutRedisAndItsReturnIsNoStorm(t *testing.T) {
	servedWithoutRedis(t, 200)
}

// servedWithoutRedis has many people in two processes, and twice as many while Redis is
// gone instead of silent.
func servedWithoutRedis(t *testing.T, many int) {
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		crowdWithoutRedis(t, 2*many, (*redistest.Node).Kill, (*redistest.Node).Restart)
	})
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		crowdWithoutRedis(t, many, (*redistest.Node).Stop, func(n *redistest.Node) error { n.Resume(); return nil })
	})
}

// crowdWithoutRedis has people in two processes while there is no Redis, and afterwards.
func crowdWithoutRedis(t *testing.T, many int, end func(*redistest.Node), begin func(*redistest.Node) error) {
	const revoked, strangers, out = 20, 10, 3
	n := startNode(t)
	o := newOffice()
	here := openCounter(t, newClient(t, "", n.Addr), officeURL, local{o}, 0)
	there := openCounter(t, newClient(t, "", n.Addr), officeURL, local{o}, 0)
	ids, ctx := people(many), t.Context()
	both := func(ids []string) (fetches int) {
		t.Helper()
		_, before := o.given()
		for _, c := range []*counter{here, there} {
			require.NoError(t, c.serve(ctx, ids, 16))
		}
		_, after := o.given()
		return after - before
	}
	both(ids)
	// A call of the storage that took too long may have cost a login, which is shared then.
	eventually(t, "they share all tokens", func() bool { return both(ids) == 0 })
	eventually(t, "both listen", func() bool { return pushConnections(t, n) == 2 })

	lost := make(chan error, 100)
	for _, c := range []*counter{here, there} {
		var once sync.Once
		t.Cleanup(c.storage.Watch([]string{"crowd:other"}, func(_ string, err error) {
			if err != nil {
				once.Do(func() { lost <- err })
			}
		}))
	}
	scripts := func() int { return calls(t, n, "evalsha") + calls(t, n, "eval") }
	before := scripts()
	end(n)
	require.Zero(t, both(ids), "who has a token needs no Redis")
	o.revoke(ids[:revoked]...)
	require.LessOrEqual(t, both(ids[:revoked]), 3*revoked) // they take each other's away
	require.NoError(t, here.serve(ctx, people(many + strangers)[many:], 16))
	for _, id := range ids[many-out:] {
		require.ErrorContains(t, here.pipeline.Forget(as(ctx, id)), "others may not know yet")
	}
	require.Zero(t, both(ids[revoked:many-out]))

	for range 2 {
		<-lost
	}
	for _, c := range []*counter{here, there} {
		c.storage.looks.Store(0)
		c.storage.keys.Store(0)
		c.storage.atOnce.Store(0)
	}
	require.NoError(t, begin(n))
	eventually(t, "what was forgotten meanwhile is forgotten there, too", func() bool {
		for _, id := range ids[many-out:] {
			if there.status(t, id) != requestforge.StatusNone {
				return false
			}
		}
		return true
	})
	inRounds := 0 // looks, at most
	for _, c := range []*counter{here, there} {
		eventually(t, "everybody is looked at", func() bool { return c.storage.keys.Load() >= int64(many) })
		c.storage.settle(t)
		keys, looks := c.storage.keys.Load(), c.storage.looks.Load()
		t.Logf("%d keys in %d looks, at most %d at once", keys, looks, c.storage.atOnce.Load())
		require.LessOrEqual(t, c.storage.atOnce.Load(), int64(500))
		// A look is at 500, but for the last of a round, however many rounds there was time
		// for, and for those at who was pushed.
		most := (int(keys)/many + 1) * (many/500 + 1)
		require.LessOrEqual(t, int(looks), most+2*revoked+strangers+out)
		inRounds += most
	}
	after := scripts()
	if after > before { // it is the same server, which has also read what came while it was silent
		after -= before
	}
	t.Logf("%d scripts", after)
	// Looks, each of which may be one at the shared steps, too, what is done about those who
	// were revoked or are new, and the logouts.
	require.LessOrEqual(t, after, 2*inRounds+5*(2*revoked+strangers)+20*out)

	require.Zero(t, both(ids[revoked:many-out]), "nobody has lost a token")
	both(ids)
	id := ids[revoked+1]
	require.NoError(t, here.request(ctx, id))
	eventually(t, "pushes are back", func() bool {
		err := there.pipeline.InvalidateStep(as(ctx, id), "user") // a call may still take too long
		return err == nil && here.status(t, id) == requestforge.StatusDead
	})
	require.Zero(t, o.foreign)
}

// A record that was moved under another subject's key is nobody's token: it is counted,
// and replaced by a login. With encryption nothing in Redis shows a token or an ID.
func TestSubjectsRecordThatWasMovedIsNobodys(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed %v", sealed), func(t *testing.T) {
			t.Parallel()
			n := startNode(t)
			o := newOffice()
			open := func() (p *requestforge.Pipeline, bad func() uint64) {
				var s requestforge.Storage = newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
				unreadable := func() uint64 { return 0 }
				if sealed {
					key := sealedstorage.Key{ID: "k", Secret: bytes.Repeat([]byte("k"), 32)}
					e, err := sealedstorage.New(s, sealedstorage.Config{Keys: []sealedstorage.Key{key}})
					require.NoError(t, err)
					s, unreadable = e, e.Unreadable
				}
				p, err := requestforge.NewPipeline(crowd(officeURL, local{o}, s, patience))
				require.NoError(t, err)
				t.Cleanup(func() { p.Close() })
				return p, func() uint64 { return p.Stats().BadRecords + unreadable() }
			}
			token := func(p *requestforge.Pipeline, id string) string {
				tok, err := p.Token(as(t.Context(), id))
				require.NoError(t, err)
				return tok.AccessToken
			}
			keyOf := func(p *requestforge.Pipeline, id string) string {
				before, err := n.Client().Keys(t.Context(), "*").Result()
				require.NoError(t, err)
				token(p, id)
				after, err := n.Client().Keys(t.Context(), "rf:token:*/*").Result()
				require.NoError(t, err)
				after = slices.DeleteFunc(after, func(name string) bool { return slices.Contains(before, name) })
				require.Len(t, after, 1)
				return after[0]
			}
			first, _ := open()
			ann, bob := idOf(0), idOf(1)
			annKey, bobKey := keyOf(first, ann), keyOf(first, bob)
			again, bad := open()
			require.Equal(t, token(first, ann), token(again, ann), "tokens come back")
			require.Equal(t, token(first, bob), token(again, bob), "tokens come back")
			require.Zero(t, bad())
			_, user := o.given()
			require.Equal(t, 2, user)

			if sealed {
				secrets := append([]string{token(first, ann), token(first, bob)}, personal...)
				tok, err := first.Source("app").Token(t.Context())
				require.NoError(t, err)
				secrets = append(secrets, tok.AccessToken)
				for _, secret := range secrets {
					secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret)))
				}
				names, err := n.Client().Keys(t.Context(), "*").Result()
				require.NoError(t, err)
				require.Len(t, names, 3)
				for _, name := range names {
					stored := name + fmt.Sprint(n.Client().HGetAll(t.Context(), name).Val())
					for _, secret := range secrets {
						require.NotContains(t, stored, secret)
					}
				}
			}

			require.NoError(t, n.Client().Copy(t.Context(), annKey, bobKey, 0, true).Err())
			third, bad := open()
			require.NotContains(t, []string{token(first, ann), token(first, bob)}, token(third, bob))
			require.Positive(t, bad())
			require.Equal(t, token(first, ann), token(third, ann))
			_, user = o.given()
			require.Equal(t, 3, user)
			fourth, bad := open()
			require.Equal(t, token(third, bob), token(fourth, bob), "it was replaced")
			require.Zero(t, bad())
		})
	}
}

// Many subjects over one storage, in one to three processes, while everything goes wrong
// for some of them: none ever gets another's token, and one whose servers work is served
// as if the others weren't there.
//
// The model knows nothing of stamps and marks (pipeline_model_test.go does). Its auth
// server remembers of each token for whom it was made, when, and from which others.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	rf "github.com/requestforge/requestforge"
)

// crowdNames are the subjects. The first one's servers always work: see crowd.saint.
var crowdNames = []string{"a|b", "a", "b|a", rf.SubjectID("a", "b")}

const saint = 0

var crowdLives = map[string]time.Duration{"app": 15 * time.Minute, "user": 10 * time.Minute, "backend": 4 * time.Minute}

// crowdFaults are the calls of the storage that may fail.
var crowdFaults = []string{"Load", "Save", "Revoke", "Delete", "TryLock"}

// crowdShape is what stays as it is in one run.
type crowdShape struct {
	Processes, Subjects   int
	Max                   int // MaxSubjects
	Given, Refresh, Carry bool
	Own                   bool // Storage nil, in one process
	Faults                bool // of the storage
	Fetches               int  // MaxFetches
	Script                [][]crowdOp
}

// crowdOp is something that one of the goroutines does.
type crowdOp struct {
	What  string
	Wait  time.Duration // before it
	Who   int           // a subject
	Where int           // a process
	Which int
}

var crowdOps = rapid.Custom(func(t *rapid.T) crowdOp {
	return crowdOp{
		What: rapid.SampledFrom([]string{
			"call", "call", "call", "call", "call", "token", "token", "source", "source",
			"refresh", "own step", "own step", "shared step", "forget", "forget", "refuse", "refuse another's",
			"restart", "new given", "bad given", "api refuses", "api refuses", "auth refuses", "auth refuses", "slow", "heal", "heal",
			"app revoked", "break", "break", "mend",
		}).Draw(t, "what"),
		Wait:  time.Duration(rapid.SampledFrom([]int{0, 50, 150, 350, 1500, 20_000, 45_000, 130_000, 300_000, 650_000}).Draw(t, "wait")) * time.Millisecond,
		Who:   rapid.IntRange(0, 3).Draw(t, "who"),
		Where: rapid.IntRange(0, 2).Draw(t, "where"),
		Which: rapid.IntRange(0, 11).Draw(t, "which"),
	}
})

// crowdLongest is how many things one goroutine does at most.
var crowdLongest = 8

var crowdShapes = rapid.Custom(func(t *rapid.T) crowdShape {
	s := crowdShape{
		Processes: rapid.IntRange(1, 3).Draw(t, "processes"),
		Subjects:  rapid.IntRange(2, 4).Draw(t, "subjects"),
		Max:       rapid.SampledFrom([]int{0, 1, 2}).Draw(t, "max"),
		Given:     rapid.Bool().Draw(t, "given"),
		Refresh:   rapid.Bool().Draw(t, "refresh"),
		Carry:     rapid.Bool().Draw(t, "carry"),
		Faults:    rapid.Bool().Draw(t, "faults"),
		Fetches:   rapid.SampledFrom([]int{0, 4}).Draw(t, "fetches"),
	}
	if s.Processes == 1 && !s.Faults {
		s.Own = rapid.Bool().Draw(t, "own")
	}
	for range 3 {
		s.Script = append(s.Script, rapid.SliceOfN(crowdOps, 4, crowdLongest).Draw(t, "script"))
	}
	return s
})

// crowdGrant is a token as the auth server knows it.
type crowdGrant struct {
	step, subject string
	login         time.Time              // when the session began
	from          map[string]*crowdGrant // all that it was made from, by access token
	given         *rf.Token              // that it was made from; nil: none
	unsure        bool                   // its Save had no answer, so that it may have two stamps
}

// logout is one that holds from at on, for sessions that began before over.
type logout struct{ over, at time.Time }

// crowd is what all processes share, and the first thing that went wrong.
type crowd struct {
	crowdShape
	mu      sync.Mutex
	storage *rf.MemoryStorage
	wrong   string
	history []string

	procs    []*crowdProcess
	n        map[string]int // tokens made, by step
	grants   map[string]*crowdGrant
	given    map[string]*rf.Token // of each subject, now
	givens   map[string]string    // whose each given token is
	bad      map[string]bool      // given tokens that are refused
	api      map[string]bool      // subjects whom the API refuses
	auth     map[string]error     // what the auth server says to a subject
	slow     map[string]bool      // subjects whose auth server takes its time
	calls    map[string]int       // under way at the API, by subject
	asked    map[string]int       // under way at the auth server, by subject
	gone     map[string]bool      // app tokens that both servers refuse
	made     map[string]int       // fetches, by subject and step
	events   map[string]int       // what may cost a subject a fetch
	forgets  map[string]int       // of a subject
	shared   int                  // what may cost everybody one
	revoked  time.Time            // when the app tokens were, last
	refusals int                  // of subjects, by either server
	dead     map[string]time.Time // since when a token is dead for all processes
	logouts  map[string][]logout  // that are in the storage
}

// crowdProcess is one pipeline, and what its process must know.
type crowdProcess struct {
	w       *crowd
	name    string
	born    time.Time
	p       *rf.Pipeline
	known   map[string]bool      // tokens
	dead    map[string]time.Time // since when
	logouts map[string][]logout  // by subject
	fail    map[string]string    // how calls of the storage fail
}

func (w *crowd) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%9.3f  ", time.Since(epoch2000).Seconds())+fmt.Sprintf(format, args...))
}

func (w *crowd) fault(format string, args ...any) {
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
		w.note("WRONG: %s", w.wrong)
	}
}

type crowdTrace struct{}

// context is one request's of a subject, with the subject's given token.
func (w *crowd) context(ctx context.Context, who string) context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.given[who]; g == nil || time.Until(g.Expiry) < time.Minute {
		w.give(who)
	}
	return context.WithValue(context.WithValue(as(ctx, who), givenKey{}, w.given[who]), crowdTrace{}, "trace")
}

// give gives a subject a new token to bring.
func (w *crowd) give(who string) {
	w.n["given"]++
	if w.given[who] != nil {
		w.events[who]++ // an older one may bound a child
	}
	life := []time.Duration{5 * time.Minute, 20 * time.Minute, time.Hour}[w.n["given"]%3]
	w.given[who] = &rf.Token{AccessToken: fmt.Sprintf("given-%d", w.n["given"]), Expiry: time.Now().Add(life)}
	w.givens[w.given[who].AccessToken] = who
}

// owned holds a token that who has got of a step to whose it is.
func (w *crowd) owned(name, who, step string, tok *rf.Token) *crowdGrant {
	if step == "given" {
		if w.givens[tok.AccessToken] != who {
			w.fault("%s: %q got the given token of %q", name, who, w.givens[tok.AccessToken])
		}
		return nil
	}
	g := w.grants[tok.AccessToken]
	if g == nil || g.step != step {
		w.fault("%s: %q got %s for the step %s", name, who, tok.AccessToken, step)
		return nil
	}
	if step == "app" {
		who = ""
	}
	if g.subject != who || tok.Extra["sub"] != who {
		w.fault("%s: %q got %s of %q, which says %q", name, who, tok.AccessToken, g.subject, tok.Extra["sub"])
	}
	for access, f := range g.from {
		if f.subject != "" && f.subject != who {
			w.fault("%s: %q got %s, made from %s of %q", name, who, tok.AccessToken, access, f.subject)
		}
	}
	if g.given != nil && w.givens[g.given.AccessToken] != who {
		w.fault("%s: %q got %s, made from what was given by %q", name, who, tok.AccessToken, w.givens[g.given.AccessToken])
	}
	if !time.Now().Before(tok.Expiry) || g.given != nil && step == "user" && tok.Expiry.After(g.given.Expiry) {
		w.fault("%s: %q got %s, which has expired or outlives what was given: %v", name, who, tok.AccessToken, tok.Expiry)
	}
	return g
}

// handed holds a token that a call from begun on has handed out to whose it is, and to
// what is dead.
func (p *crowdProcess) handed(who, step string, tok *rf.Token, begun time.Time) {
	w := p.w
	w.note("%s: %q has %s", p.name, who, tok.AccessToken)
	g := w.owned(p.name, who, step, tok)
	if g == nil {
		return
	}
	all := map[string]*crowdGrant{tok.AccessToken: g}
	for access, f := range g.from {
		all[access] = f
	}
	for access, f := range all {
		if at, ok := p.dead[access]; ok && at.Before(begun) && !f.unsure {
			w.fault("%s: %q got %s, but %s was dead here since %v", p.name, who, tok.AccessToken, access, at.Sub(epoch2000))
		}
		if at, ok := w.dead[access]; ok && !f.unsure && w.everywhere(p, at, begun) {
			w.fault("%s: %q got %s, but %s was dead everywhere since %v", p.name, who, tok.AccessToken, access, at.Sub(epoch2000))
		}
		if f.subject == "" {
			continue
		}
		for _, l := range p.logouts[who] {
			if f.login.Before(l.over) && l.at.Before(begun) {
				w.fault("%s: %q got %s, from a login at %v, but the logout was at %v", p.name, who, tok.AccessToken, f.login.Sub(epoch2000), l.over.Sub(epoch2000))
			}
		}
		for _, l := range w.logouts[who] {
			if f.login.Before(l.over) && w.everywhere(p, l.at, begun) {
				w.fault("%s: %q got %s, from a login at %v, but %q logged out everywhere at %v", p.name, who, tok.AccessToken, f.login.Sub(epoch2000), who, l.over.Sub(epoch2000))
			}
		}
		p.known[access] = true
	}
}

// everywhere reports whether a process must have heard of what the storage has had since
// at: a new one at once, others with their next look.
func (w *crowd) everywhere(p *crowdProcess, at, begun time.Time) bool {
	return !w.Faults && !w.Own && at.Before(begun) && (at.Before(p.born) || begun.Sub(at) > time.Minute)
}

// crowdStorage is the storage as one process sees it.
type crowdStorage struct {
	*rf.MemoryStorage
	p *crowdProcess
}

// try makes a call of the storage, which may fail before or after it, or land late.
func crowdTry[T any](ctx context.Context, s *crowdStorage, op string, call func(context.Context) (T, error)) (T, error) {
	var none T
	s.p.w.mu.Lock()
	how := s.p.fail[op]
	s.p.w.mu.Unlock()
	switch how {
	case "fails":
		return none, errDisk
	case "loses its answer":
		_, _ = call(ctx)
		return none, errDisk
	case "is late":
		go func() {
			time.Sleep(5 * time.Second)
			_, _ = call(context.WithoutCancel(ctx))
		}()
		<-ctx.Done()
		return none, ctx.Err()
	}
	return call(ctx)
}

func (s *crowdStorage) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	return crowdTry(ctx, s, "Load", func(ctx context.Context) ([]rf.Entry, error) { return s.MemoryStorage.Load(ctx, keys...) })
}

func (s *crowdStorage) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	e, err := crowdTry(ctx, s, "Save", func(ctx context.Context) (rf.Entry, error) { return s.MemoryStorage.Save(ctx, key, r, seen) })
	if err != nil {
		s.p.w.mu.Lock()
		defer s.p.w.mu.Unlock()
		s.p.w.grants[r.Token.AccessToken].unsure = true
	}
	return e, err
}

func (s *crowdStorage) Revoke(ctx context.Context, key string, stamp uint64) error {
	_, err := crowdTry(ctx, s, "Revoke", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.MemoryStorage.Revoke(ctx, key, stamp)
	})
	return err
}

func (s *crowdStorage) Delete(ctx context.Context, key string, seen uint64) (rf.Entry, error) {
	return crowdTry(ctx, s, "Delete", func(ctx context.Context) (rf.Entry, error) { return s.MemoryStorage.Delete(ctx, key, seen) })
}

func (s *crowdStorage) TryLock(ctx context.Context, key string) (rf.Lease, bool, error) {
	s.p.w.mu.Lock()
	how := s.p.fail["TryLock"]
	s.p.w.mu.Unlock()
	if how != "" {
		return nil, false, errDisk
	}
	return s.MemoryStorage.TryLock(ctx, key)
}

// fetcher is the auth server of a step, for one process.
func (p *crowdProcess) fetcher(step string) rf.Fetcher {
	w := p.w
	return rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		who := in.Subject
		w.mu.Lock()
		g := &crowdGrant{step: step, subject: who, login: time.Now(), from: map[string]*crowdGrant{}}
		caller, _ := ctx.Value(userKey{}).(string)
		if trace := ctx.Value(crowdTrace{}) != nil; caller != who || who == "" && (ctx.Value(givenKey{}) != nil || trace != w.Carry) {
			w.fault("%s: the fetch of %s for %q sees the context of %q", p.name, step, who, caller)
		}
		for name, tok := range in.Parents {
			parent := w.owned(p.name, who, name, tok)
			if name == "given" {
				g.given = w.tokenGiven(tok.AccessToken, tok)
			}
			if parent == nil {
				continue
			}
			p.known[tok.AccessToken] = true
			g.from[tok.AccessToken] = parent
			for access, f := range parent.from {
				g.from[access] = f
			}
			if parent.given != nil {
				g.given = parent.given
			}
		}
		if in.Previous != nil {
			prev := w.grants[strings.TrimPrefix(in.Previous.RefreshToken, "refresh ")]
			if prev.subject != who || in.Previous.Extra["sub"] != who {
				w.fault("%s: the refresh token for %q is of %q", p.name, who, prev.subject)
			}
			g.login = prev.login
		}
		pause := 300 * time.Millisecond
		if w.slow[who] {
			pause = 20 * time.Second
		}
		w.asked[who]++
		w.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked[who]--
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		refused := func(err error) (*rf.Token, error) {
			w.refusals++
			w.note("%s: the fetch of %s for %q is refused: %v", p.name, step, who, err)
			return nil, err
		}
		if g.given != nil && w.bad[g.given.AccessToken] {
			return refused(&rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true})
		}
		if err := w.auth[who]; err != nil {
			return refused(err)
		}
		for access := range g.from {
			if w.gone[access] {
				return refused(&rf.AuthError{StatusCode: 401, Code: "invalid_token"})
			}
		}
		w.n[step]++
		w.made[who+" "+step]++
		access := fmt.Sprintf("%s-%d", step, w.n[step])
		w.grants[access] = g
		w.note("%s: fetched %s for %q from %v", p.name, access, who, in.Parents)
		tok := &rf.Token{AccessToken: access, Expiry: time.Now().Add(crowdLives[step]), Extra: map[string]any{"sub": who}}
		if step == "user" && w.Refresh {
			tok.RefreshToken = "refresh " + access
		}
		return tok, nil
	})
}

// tokenGiven returns a given token with its end.
func (w *crowd) tokenGiven(access string, tok *rf.Token) *rf.Token {
	return &rf.Token{AccessToken: access, Expiry: tok.Expiry}
}

// process starts one.
func (w *crowd) process(t *testing.T, i int) *crowdProcess {
	p := &crowdProcess{w: w, name: fmt.Sprint("P", i), born: time.Now(), known: map[string]bool{}, dead: map[string]time.Time{}, logouts: map[string][]logout{}, fail: map[string]string{}}
	user := rf.Step{Name: "user", Identity: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: p.fetcher("user")}
	if w.Refresh {
		user.Refresh = user.Fetcher
	}
	steps := []rf.Step{{Name: "app", Identity: "app", Fetcher: p.fetcher("app")}, {Name: "backend", Identity: "backend", DependsOn: []string{"user"}, Fetcher: p.fetcher("backend")}}
	if w.Given {
		user.DependsOn = append(user.DependsOn, "given")
		steps = append(steps, rf.Step{Name: "given", Given: givenOf})
	}
	cfg := rf.PipelineConfig{Subject: userOf, MaxSubjects: w.Max, MaxFetches: w.Fetches, RefreshAhead: -1, Steps: append(steps, user)}
	if !w.Own {
		cfg.Storage, cfg.KeyPrefix = &crowdStorage{w.storage, p}, "x"
	}
	if w.Carry {
		cfg.Carry = func(from, to context.Context) context.Context {
			return context.WithValue(to, crowdTrace{}, from.Value(crowdTrace{}))
		}
	}
	var err error
	if p.p, err = rf.NewPipeline(cfg); err != nil {
		t.Fatal(err)
	}
	return p
}

// ask gets a token and judges it.
func (p *crowdProcess) ask(ctx context.Context, who, step string, ask func(context.Context) (*rf.Token, error)) {
	w, begun := p.w, time.Now()
	tok, err := ask(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	p.late(who, begun)
	if err != nil {
		p.failed(who, err)
		return
	}
	p.handed(who, step, tok, begun)
}

// late holds a call of the saint to how long it may take.
func (p *crowdProcess) late(who string, begun time.Time) {
	most := 15 * time.Second
	if p.w.Faults {
		most = time.Minute
	}
	if took := time.Since(begun); who == crowdNames[saint] && took > most {
		p.w.fault("%s: %q, whose servers work, waited for %v", p.name, who, took)
	}
}

// failed holds an error to what the saint may see: that of its own logouts, and of tokens that
// were revoked one after the other.
func (p *crowdProcess) failed(who string, err error) {
	p.w.note("%s: %q: %v", p.name, who, err)
	text := err.Error()
	if who == crowdNames[saint] && !strings.Contains(text, "forgotten") && !strings.Contains(text, "revoked by the time it arrived") {
		p.w.fault("%s: %q, whose servers work, got %v", p.name, who, err)
	}
}

// call sends a request to the API.
func (p *crowdProcess) call(ctx context.Context, who string) {
	w, begun := p.w, time.Now()
	w.mu.Lock()
	w.calls[who]++
	forgets := w.forgets[who]
	w.mu.Unlock()
	layer := &rf.AuthTransport{Source: p.p, Origins: []string{host}, Retry: rf.SimpleAuthRetry(6, 0), Base: fetchRT(func(r *http.Request) (*http.Response, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		access := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		g := w.grants[access]
		status := 200
		switch {
		case g == nil || g.step != "backend" || g.subject != who:
			w.fault("%s: the request of %q has %s of %v", p.name, who, access, g)
		case w.api[who]:
			w.refusals++
			status = 401
		default:
			for a := range g.from {
				if w.gone[a] {
					status = 401
				}
			}
		}
		w.note("%s: the API says %d to %q with %s", p.name, status, who, access)
		return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
	})}
	req, _ := http.NewRequestWithContext(ctx, "GET", host, nil)
	resp, err := layer.RoundTrip(req)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[who]--
	p.late(who, begun)
	switch {
	case err != nil:
		p.failed(who, err)
	case resp.StatusCode != 200 && who == crowdNames[saint] && w.forgets[who] == forgets: // else a logout has ended the replays
		w.fault("%s: %q, whose servers work, got %d", p.name, who, resp.StatusCode)
	}
}

// kill makes a call after which what the process knows of a step is dead: of one subject,
// "" for a shared one.
func (p *crowdProcess) kill(who, step string, call func() error) {
	w := p.w
	w.mu.Lock()
	var known []string
	for access := range p.known {
		if g := w.grants[access]; g.step == step && g.subject == who {
			known = append(known, access)
		}
	}
	if who == "" {
		w.shared++
	} else {
		w.events[who]++
	}
	w.mu.Unlock()
	err := call()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("%s: killed %v: %v", p.name, known, err)
	// A process that has dropped the subject, and can't load, has nothing to mark: the
	// error says so.
	dropped := err != nil && who != "" && w.Max > 0 && w.Max < w.Subjects
	for _, access := range known {
		if _, ok := p.dead[access]; !ok && !dropped {
			p.dead[access] = time.Now()
		}
		if _, ok := w.dead[access]; !ok && err == nil {
			w.dead[access] = time.Now()
		}
	}
}

func (w *crowd) do(t *testing.T, op crowdOp) {
	who := crowdNames[op.Who%w.Subjects]
	w.mu.Lock()
	where := op.Where % w.Processes
	p := w.procs[where]
	w.note("%s: %s of %q, %d", p.name, op.What, who, op.Which)
	w.mu.Unlock()
	ctx := w.context(t.Context(), who)
	switch op.What {
	case "call":
		p.call(ctx, who)
	case "token":
		p.ask(ctx, who, "backend", p.p.Token)
	case "source":
		step := []string{"app", "user", "backend", "given"}[op.Which%4]
		if step == "given" && !w.Given {
			return
		}
		p.ask(ctx, who, step, p.p.Source(step).Token)
	case "refresh":
		w.mu.Lock()
		w.events[who]++
		w.mu.Unlock()
		p.ask(ctx, who, "backend", p.p.Refresh)
	case "own step":
		step := []string{"user", "backend"}[op.Which%2]
		p.kill(who, step, func() error { return p.p.InvalidateStep(ctx, step) })
	case "shared step":
		p.kill("", "app", func() error { return p.p.InvalidateStep(ctx, "app") })
	case "forget":
		over := time.Now()
		w.mu.Lock()
		w.events[who]++
		w.forgets[who]++
		w.mu.Unlock()
		err := p.p.Forget(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err == nil || !w.Faults {
			p.logouts[who] = append(p.logouts[who], logout{over, time.Now()})
		}
		if err == nil {
			w.logouts[who] = append(w.logouts[who], logout{over, time.Now()})
		}
	case "refuse", "refuse another's":
		// With the context of who: a token of who's, or of somebody else's, by value.
		w.mu.Lock()
		var all []string
		for access, g := range w.grants {
			if g.step != "app" && (g.subject == who) == (op.What == "refuse") {
				all = append(all, access)
			}
		}
		slices.Sort(all)
		if len(all) == 0 {
			w.mu.Unlock()
			return
		}
		if op.What == "refuse" {
			w.events[who]++
		}
		w.mu.Unlock()
		_ = p.p.Invalidate(ctx, &rf.Token{AccessToken: all[op.Which%len(all)]})
	case "restart":
		if w.Own {
			return
		}
		_ = p.p.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		clear(p.fail)
		if w.Faults && op.Which%2 == 0 { // killed: the storage hears nothing more of it
			p.breaks()
		}
		w.procs[where] = w.process(t, where)
	case "new given":
		w.mu.Lock()
		defer w.mu.Unlock()
		w.give(who)
	case "app revoked":
		w.mu.Lock()
		defer w.mu.Unlock()
		if time.Since(w.revoked) < 10*time.Minute {
			return // a newer token that works no better isn't replaced for five minutes
		}
		w.shared++
		w.revoked = time.Now()
		for access, g := range w.grants {
			if g.step == "app" {
				w.gone[access] = true
			}
		}
	default:
		w.trouble(op, who, p)
	}
}

// trouble is that of one subject, or of the storage of one process. A subject is in trouble,
// or out of it, between two requests: what is refused and then accepted within one
// is a proof.
func (w *crowd) trouble(op crowdOp, who string, p *crowdProcess) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch op.What {
	case "break":
		if w.Faults {
			how := []string{"fails", "loses its answer", "is late"}[op.Which/2%3]
			if op.Which == 0 {
				p.breaks()
				return
			}
			p.fail[crowdFaults[op.Which%len(crowdFaults)]] = how
		}
		return
	case "mend":
		clear(p.fail)
		return
	}
	if who == crowdNames[saint] || w.calls[who]+w.asked[who] > 0 {
		return
	}
	w.events[who]++
	switch op.What {
	case "bad given":
		w.bad[w.given[who].AccessToken] = true
	case "api refuses":
		w.api[who] = true
	case "auth refuses":
		w.auth[who] = []error{
			&rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}, &rf.AuthError{StatusCode: 401}, &rf.AuthError{StatusCode: 403},
			&rf.AuthError{StatusCode: 503}, &rf.AuthError{StatusCode: 429, RetryAfter: 2 * time.Minute}, errors.New("reset"),
		}[op.Which%6]
	case "slow":
		w.slow[who] = true
	case "heal":
		w.heal(who)
	}
}

// breaks lets each call of the storage fail.
func (p *crowdProcess) breaks() {
	for _, name := range crowdFaults {
		p.fail[name] = "fails"
	}
}

func (w *crowd) heal(who string) {
	delete(w.api, who)
	delete(w.auth, who)
	delete(w.slow, who)
	maps.DeleteFunc(w.bad, func(given string, _ bool) bool { return w.givens[given] == who }) // an older one's children live
}

// within holds what was fetched to the reasons there were: nobody's trouble is one for
// anybody else.
func (w *crowd) within() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Faults || w.Own && w.Max > 0 {
		return
	}
	lived := func(step string) int { return int(time.Since(epoch2000) / (crowdLives[step] * 8 / 10)) }
	for _, who := range crowdNames[:w.Subjects] {
		for _, step := range []string{"user", "backend"} {
			if made, most := w.made[who+" "+step], 1+3*w.events[who]+3*w.shared+lived(step); made > most && who == crowdNames[saint] {
				w.fault("%d fetches of %s for %q, want at most %d", made, step, who, most)
			}
		}
	}
	if made, most := w.made[" app"], 1+3*w.shared+w.refusals+lived("app"); made > most {
		w.fault("%d fetches of app, want at most %d", made, most)
	}
}

func (w *crowd) run(t *testing.T) {
	for i := range w.Processes {
		w.procs = append(w.procs, w.process(t, i))
	}
	var wg sync.WaitGroup
	for i, ops := range w.Script {
		wg.Go(func() {
			for _, op := range ops {
				time.Sleep(op.Wait + []time.Duration{101, 1_009, 10_007}[i])
				w.do(t, op)
			}
		})
	}
	wg.Wait()
	w.within()
	w.end(t)
}

// end lets all be well again, and holds the processes to that.
func (w *crowd) end(t *testing.T) {
	w.mu.Lock()
	w.note("all is well")
	for _, who := range crowdNames[:w.Subjects] {
		if w.given[who] == nil {
			w.give(who)
		}
		w.heal(who)
	}
	for _, p := range w.procs {
		clear(p.fail)
	}
	w.mu.Unlock()
	time.Sleep(7 * time.Minute) // for cool-downs, and what is late
	for _, p := range w.procs {
		for range 2 {
			for _, who := range crowdNames[:w.Subjects] {
				ctx := w.context(t.Context(), who)
				p.call(ctx, who)
				tok, err := p.p.Token(ctx)
				w.mu.Lock()
				if err != nil {
					w.fault("%s: %q, long after the trouble: %v", p.name, who, err)
				} else {
					p.handed(who, "backend", tok, time.Now())
				}
				w.mu.Unlock()
			}
		}
		if n := p.p.Stats().Subjects; w.Max > 0 && !(w.Refresh && (w.Own || w.Faults)) && n > uint64(w.Max) {
			w.fault("%s: %d subjects in memory, want %d", p.name, n, w.Max)
		}
		if err := p.p.Close(); err != nil {
			w.fault("%s: %v", p.name, err)
		}
	}
	time.Sleep(time.Minute)
}

func newCrowd(shape crowdShape) *crowd {
	return &crowd{
		crowdShape: shape, storage: rf.NewMemoryStorage(),
		n: map[string]int{}, grants: map[string]*crowdGrant{}, given: map[string]*rf.Token{}, givens: map[string]string{}, bad: map[string]bool{},
		api: map[string]bool{}, auth: map[string]error{}, slow: map[string]bool{}, calls: map[string]int{}, asked: map[string]int{},
		gone: map[string]bool{}, made: map[string]int{}, events: map[string]int{}, forgets: map[string]int{}, dead: map[string]time.Time{}, logouts: map[string][]logout{},
	}
}

func TestSubjectsAgreeWithTheirModel(t *testing.T) {
	t.Parallel()
	checkCrowd(t)
}

func checkCrowd(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newCrowd(crowdShapes.Draw(rt, "crowd"))
		synctest.Test(t, func(t *testing.T) { w.run(t) })
		if w.wrong != "" {
			rt.Fatalf("%s\n%s", w.wrong, strings.Join(w.history, "\n"))
		}
	})
}

package browser

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/forgez"
)

// stage is an auth server that does what a test says.
type stage struct {
	mu    sync.Mutex
	life  time.Duration // of the next tokens
	gates map[string]chan struct{}
	fails map[string]error // by step, or by step and subject: "user ann"
	n     int
}

func newStage() *stage {
	return &stage{life: time.Hour, gates: make(map[string]chan struct{}), fails: make(map[string]error)}
}

// hold makes the fetches of a step wait until the function that it returns is called.
func (s *stage) hold(step string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gate := make(chan struct{})
	s.gates[step] = gate
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.gates, step)
		close(gate)
	})
}

// fail makes the fetches of a step fail; nil ends that.
func (s *stage) fail(step string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[step] = err
}

func (s *stage) live(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life = d
}

// step is a step of the stage's.
func (s *stage) step(name string, parents ...string) requestforge.Step {
	return requestforge.Step{Name: name, DependsOn: parents, Fetcher: requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
		s.mu.Lock()
		gate := s.gates[name]
		s.mu.Unlock()
		if gate != nil {
			select {
			case <-gate:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		err := cmp.Or(s.fails[name+" "+in.Subject], s.fails[name])
		if err != nil {
			return nil, err
		}
		s.n++
		return &requestforge.Token{AccessToken: fmt.Sprintf("token-%s-%d", name, s.n), RefreshToken: fmt.Sprintf("refresh-%s-%d", name, s.n), Expiry: time.Now().Add(s.life)}, nil
	})}
}

func pipeline(t *testing.T, cfg requestforge.PipelineConfig) *requestforge.Pipeline {
	t.Helper()
	p, err := requestforge.NewPipeline(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/debug/tokens", h)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL + "/debug/tokens"
}

func page(pipelines map[string]*requestforge.Pipeline) http.Handler {
	return &forgez.Page{Pipelines: pipelines}
}

type userKey struct{}

func as(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

func userOf(ctx context.Context) (string, error) {
	user, _ := ctx.Value(userKey{}).(string)
	return user, nil
}

// use asks for a token, whatever becomes of it.
func use(ctx context.Context, p *requestforge.Pipeline) {
	_, _ = p.Token(ctx)
}

// shop is a picture of what there may be: shared steps and each subject's own, and much
// that goes wrong.
type shop struct {
	*stage
	office, tenants *requestforge.Pipeline
	pipelines       map[string]*requestforge.Pipeline
	busy            func() // a token is got, and another one renewed
}

func newShop(t *testing.T) *shop {
	t.Helper()
	ctx := t.Context()
	s := &shop{stage: newStage()}
	s.office = pipeline(t, requestforge.PipelineConfig{
		Steps: []requestforge.Step{s.step("device"), s.step("app", "device"), s.step("user", "app", "device"), s.step("orders", "user"), s.step("invoices", "user", "app"), s.step("reports", "user")},
		Leaf:  "orders",
	})
	s.live(24 * time.Hour)
	use(ctx, s.office)
	s.live(40 * time.Minute)
	if err := s.office.InvalidateStep(ctx, "user"); err != nil {
		t.Fatal(err)
	}
	use(ctx, s.office)
	s.fail("invoices", &requestforge.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true})
	_, _ = s.office.Source("invoices").Token(ctx)
	release := s.hold("reports")
	fetched := make(chan struct{})
	go func() {
		defer close(fetched)
		_, _ = s.office.Source("reports").Token(ctx)
	}()
	t.Cleanup(func() { release(); <-fetched })

	s.tenants = pipeline(t, requestforge.PipelineConfig{
		Steps: []requestforge.Step{s.step("app"), {Name: "session", Given: func(context.Context) (*requestforge.Token, error) {
			return &requestforge.Token{AccessToken: "token-session", Expiry: time.Now().Add(time.Hour)}, nil
		}}, s.step("tenant", "app", "session"), s.step("storage", "tenant")},
		Subject:      userOf,
		SubjectLabel: func(subject string) string { return "tenant-" + subject[len(subject)-3:] },
	})
	for i := range 42 {
		name := fmt.Sprintf("subject-name-%03d", i)
		if i%14 == 13 {
			s.fail("storage "+name, &requestforge.AuthError{StatusCode: 403, Code: "access_denied", Permanent: true})
		}
		use(as(ctx, name), s.tenants)
	}
	s.busy = func() {
		release()
		<-fetched
		if err := s.office.InvalidateStep(ctx, "orders"); err != nil {
			t.Error(err)
		}
	}
	s.pipelines = map[string]*requestforge.Pipeline{"back office": s.office, "tenants": s.tenants}
	return s
}

package requestforge_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// unwrapping is a Storage whose Unwrap returns next.
type unwrapping struct {
	rf.Storage
	next rf.Storage
}

func (u *unwrapping) Unwrap() rf.Storage { return u.next }

// A step with a Refresh needs a Locker, so NewPipeline says whether there is one.
func TestPipelineFindsALockerThatAStorageWraps(t *testing.T) {
	memory := rf.NewMemoryStorage()
	wrap := func(next rf.Storage) rf.Storage { return &unwrapping{memory, next} }
	cycle := &unwrapping{Storage: memory}
	cycle.next = cycle
	for name, test := range map[string]struct {
		storage rf.Storage
		err     string
	}{
		"wrapped":             {wrap(memory), ""},
		"wrapped twice":       {wrap(wrap(memory)), ""},
		"no Locker below":     {wrap(plainStorage{memory}), "Locker"},
		"no Unwrap":           {plainStorage{wrap(memory)}, "Locker"},
		"nothing below":       {wrap(nil), "Locker"},
		"a nil pointer below": {wrap((*unwrapping)(nil)), "Locker"},
		"a cycle":             {cycle, "Locker"},
		"a nil pointer":       {(*unwrapping)(nil), "nil *requestforge_test.unwrapping"},
	} {
		t.Run(name, func(t *testing.T) {
			step := newLogin().step("user")
			step.Refresh = step.Fetcher
			p, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{step}, Storage: test.storage})
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.NoError(t, p.Close())
		})
	}
}

// observed counts which of the optional interfaces of a storage are used.
type observed struct {
	*rf.MemoryStorage
	locks, watches, loads, saves atomic.Int32
}

func (o *observed) TryLock(ctx context.Context, key string) (rf.Lease, bool, error) {
	o.locks.Add(1)
	return o.MemoryStorage.TryLock(ctx, key)
}

func (o *observed) Watch([]string, func(string, error)) (stop func()) {
	o.watches.Add(1)
	return func() {}
}

func (o *observed) LoadFailure(context.Context, string) (rf.Failure, error) {
	o.loads.Add(1)
	return rf.Failure{}, nil
}

func (o *observed) SaveFailure(context.Context, string, rf.Failure) error {
	o.saves.Add(1)
	return nil
}

func TestPipelineUsesAllThatAWrappedStorageOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &observed{MemoryStorage: rf.NewMemoryStorage()}
		l := newLogin()
		l.takes = time.Millisecond
		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 400, Permanent: true} })
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: &unwrapping{next, next}})
		_, err := p.Token(t.Context())
		require.Error(t, err)
		synctest.Wait()
		require.EqualValues(t, 1, next.locks.Load())
		require.EqualValues(t, 1, next.watches.Load())
		require.EqualValues(t, 1, next.loads.Load())
		require.EqualValues(t, 1, next.saves.Load())
	})
}

// counting wraps a fetcher as an application would.
type counting struct {
	inner rf.Fetcher
	n     int
}

func (c *counting) Fetch(ctx context.Context, in rf.Input) (*rf.Token, error) {
	c.n++
	return c.inner.Fetch(ctx, in)
}

func (c *counting) Unwrap() rf.Fetcher { return c.inner }

// checking wraps a fetcher, and says what is wrong with itself.
type checking struct {
	counting
	mistake error
}

func (c *checking) Validate() error { return c.mistake }

// A wrapper that checks itself hides nothing of what it wraps; what both say is said once.
func TestEachOfWrappedFetchersIsChecked(t *testing.T) {
	inner := &rf.HTTPFetcher{URL: "http://auth.example.com", HeaderFrom: map[string]string{"X-App": "app"}}
	for name, tt := range map[string]struct {
		outer error
		want  []string
	}{
		"nothing of its own": {nil, []string{"plain http", `wants the token of "app"`}},
		"a mistake":          {errors.New("too many tries"), []string{"too many tries", "plain http"}},
		"the inner one's":    {inner.Validate(), []string{"plain http"}},
	} {
		_, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{{Name: "user", Fetcher: &checking{counting{inner: &counting{inner: inner}}, tt.outer}}}})
		for _, want := range tt.want {
			if err == nil || strings.Count(err.Error(), want) != 1 {
				t.Errorf("%s: got %v, want %q once", name, err, want)
			}
		}
	}
}

// What NewPipeline knows of a fetcher, it knows of one that is wrapped, too.
func TestWrappedFetcherIsChecked(t *testing.T) {
	for name, tt := range map[string]struct {
		inner rf.Fetcher
		want  string
	}{
		"a bad URL":          {&rf.HTTPFetcher{URL: "http://auth.example.com"}, "plain http"},
		"a step not said":    {&rf.HTTPFetcher{URL: "https://auth.example.com", HeaderFrom: map[string]string{"X-App": "app"}}, `wants the token of "app"`},
		"no identity":        {&rf.HTTPFetcher{URL: "https://auth.example.com", Prepare: func(*http.Request, rf.Input) error { return nil }}, "can't say who it logs in as"},
		"a nil fetcher":      {(*rf.HTTPFetcher)(nil), "nil *HTTPFetcher"},
		"nothing is missing": {&rf.HTTPFetcher{URL: "https://auth.example.com"}, ""},
	} {
		_, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{{Name: "user", Fetcher: &counting{inner: &counting{inner: tt.inner}}}}, Storage: newShared(), KeyPrefix: "app"})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

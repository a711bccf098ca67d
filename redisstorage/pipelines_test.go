package redisstorage_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/redisstorage"
)

// spy is a Storage that notes how pipelines use it.
type spy struct {
	*redisstorage.Storage
	loads   atomic.Int64
	watches atomic.Int64 // that nobody has stopped

	mu   sync.Mutex
	keys map[string]string // of the pipelines' one step, by KeyPrefix and colon; guarded by mu
}

func (s *spy) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	s.loads.Add(1)
	return s.Storage.Load(ctx, keys...)
}

func (s *spy) Watch(keys []string, changed func(key string, err error)) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		s.keys[prefixOf(key)] = key
	}
	s.watches.Add(1)
	end := s.Storage.Watch(keys, changed)
	var once sync.Once
	return func() {
		end()
		once.Do(func() { s.watches.Add(-1) })
	}
}

// keyOf returns the key of the step of the pipeline with this KeyPrefix.
func (s *spy) keyOf(prefix string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[prefix+":"]
}

// startPipeline starts a pipeline of one step.
func (s *spy) startPipeline(t *testing.T, prefix string) *requestforge.Pipeline {
	t.Helper()
	var fetches atomic.Int32
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Storage: s, KeyPrefix: prefix, StorageTimeout: 5 * time.Second,
		Steps: []requestforge.Step{{
			Name: "user", Identity: "test",
			Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
				return &requestforge.Token{AccessToken: fmt.Sprint(prefix, " ", fetches.Add(1)), Expiry: time.Now().Add(time.Hour)}, nil
			}),
		}},
	})
	require.NoError(t, err)
	return p
}

// beforeLook is less than it takes a pipeline to look by itself, which is 19 s: what
// it knows earlier was pushed.
const beforeLook = 15 * time.Second

// revokeAndHear revokes the tokens of pipelines in another Storage, and waits until
// each of them has dropped its own.
func (s *spy) revokeAndHear(t *testing.T, other *redisstorage.Storage, pipelines map[string]*requestforge.Pipeline) {
	t.Helper()
	token := func(prefix string) string {
		tok, err := pipelines[prefix].Token(t.Context())
		require.NoError(t, err)
		return tok.AccessToken
	}
	before := make(map[string]string)
	for prefix := range pipelines {
		before[prefix] = token(prefix)
	}
	for prefix := range pipelines {
		key := s.keyOf(prefix)
		require.NoError(t, other.Revoke(t.Context(), key, load(t, other, key).Record.Stamp))
	}
	require.Eventually(t, func() bool {
		for prefix, was := range before {
			if token(prefix) != was {
				delete(before, prefix)
			}
		}
		return len(before) == 0
	}, beforeLook, 10*time.Millisecond, "a pipeline has not heard of its revocation")
}

// Pipelines over one Storage share one subscription: 300 of them hold one connection
// and hardly more goroutines than one does, and each hears of its revocations. Those
// that are dropped without Close leave nothing behind.
// (Not parallel: it counts the goroutines of the process.)
func TestPipelinesShareAConnectionAndCanBeDropped(t *testing.T) {
	const many = 300
	n := startNode(t)
	other := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	s := &spy{Storage: newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{}), keys: make(map[string]string)}
	none := runtime.NumGoroutine()
	all := make(map[string]*requestforge.Pipeline)
	dropped := make(map[string]weak.Pointer[requestforge.Pipeline])
	start := func(prefix string) {
		p := s.startPipeline(t, prefix)
		_, err := p.Token(t.Context())
		require.NoError(t, err)
		all[prefix], dropped[prefix] = p, weak.Make(p)
	}
	start("first")
	eventually(t, "one listens", func() bool { return channels(t, n) == 1 })
	var one int
	eventually(t, "one has settled", func() bool {
		before := one
		one = runtime.NumGoroutine()
		return one == before && one <= none+8
	})

	for i := 1; i < many; i++ {
		start(fmt.Sprint("tenant-", i))
	}
	eventually(t, "all listen", func() bool { return channels(t, n) == many })
	require.Equal(t, 1, pushConnections(t, n))
	require.EqualValues(t, many, s.watches.Load())
	eventually(t, "they need no goroutines", func() bool { return runtime.NumGoroutine() <= one+8 })
	s.revokeAndHear(t, other, all)
	require.Equal(t, 1, pushConnections(t, n))

	// All but one are dropped.
	all = map[string]*requestforge.Pipeline{"first": all["first"]}
	eventually(t, "what is dropped is collected", func() bool {
		runtime.GC()
		for prefix, p := range dropped {
			if prefix != "first" && p.Value() != nil {
				return false
			}
		}
		return true
	})
	eventually(t, "its watches and channels go", func() bool {
		return s.watches.Load() == 1 && channels(t, n) == 1 && runtime.NumGoroutine() <= one+1 // Eventually's own
	})
	require.Equal(t, 1, pushConnections(t, n))
	s.revokeAndHear(t, other, all)

	all = nil
	eventually(t, "with the last the connection goes", func() bool {
		runtime.GC()
		return dropped["first"].Value() == nil && s.watches.Load() == 0 && pushConnections(t, n) == 0 && runtime.NumGoroutine() <= none+1
	})
}

// Whoever can publish on the channel can't make the others load as fast as they can:
// 30,000 messages cost a look at once, and four a second.
func TestPushesAreBounded(t *testing.T) {
	t.Parallel()
	const messages, most = 30_000, 20
	n := startNode(t)
	s := &spy{Storage: newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{}), keys: make(map[string]string)}
	p := s.startPipeline(t, "p")
	defer p.Close()
	_, err := p.Token(t.Context())
	require.NoError(t, err)
	key := s.keyOf("p")
	changes := watch(t, s.Storage, key)
	begun, before := time.Now(), s.loads.Load()
	for range messages / 1000 {
		pipe := n.Client().Pipeline()
		for range 1000 {
			pipe.Publish(t.Context(), "rf:revoked:{p}", key)
		}
		_, err := pipe.Exec(t.Context())
		require.NoError(t, err)
	}
	for got := 0; got < messages; {
		if next(t, changes) == key {
			got++
		}
	}
	loads := s.loads.Load() - before
	// One at once, one after each pause, and one that is still due: ten in two seconds.
	require.LessOrEqual(t, loads, 2+int64(time.Since(begun)/(250*time.Millisecond)))
	if time.Since(begun) <= 2*time.Second {
		require.LessOrEqual(t, loads, int64(most))
	}
	// What is pushed last isn't lost among the others.
	other := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	s.revokeAndHear(t, other, map[string]*requestforge.Pipeline{"p": p})
	require.Greater(t, s.loads.Load(), before, "nobody has looked")
}

//go:build soak

// A client's secret that is rotated while many processes work with it. secret_test.go of
// the root has the small and exact form.

package redisstorage_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge/authtest"
)

// rotatingAuth is an auth server whose client has another secret now and then, and the
// file in which the client finds the secret.
type rotatingAuth struct {
	*authtest.Simulator
	t    *testing.T
	file string

	mu     sync.RWMutex // no request is judged while the secret changes
	secret string
	wrong  int
	count  sync.Mutex // guards wrong
}

func newRotatingAuth(t *testing.T, life time.Duration) (auth *rotatingAuth, url string) {
	cfg := loginSteps(life, false)
	cfg.Steps[0].TTL = life
	auth = &rotatingAuth{Simulator: authtest.NewSimulator(cfg), t: t, file: filepath.Join(t.TempDir(), "secret")}
	srv := httptest.NewServer(auth)
	t.Cleanup(srv.Close)
	return auth, srv.URL
}

// rotate gives the client another secret, at the server and in the file.
func (a *rotatingAuth) rotate(server, file string) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secret = server
	next := a.file + ".next"
	require.NoError(a.t, os.WriteFile(next, []byte(file+"\n"), 0o600))
	require.NoError(a.t, os.Rename(next, a.file))
}

// tries returns how often a wrong secret came since the last call.
func (a *rotatingAuth) tries() int {
	a.count.Lock()
	defer a.count.Unlock()
	n := a.wrong
	a.wrong = 0
	return n
}

func (a *rotatingAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if id, secret, ok := r.BasicAuth(); ok {
		time.Sleep(200 * time.Millisecond) // so that rotations meet requests under way
		a.mu.RLock()
		right := secret == a.secret
		a.mu.RUnlock()
		r.SetBasicAuth(id, "wrong")
		if right {
			r.SetBasicAuth(id, "secret") // the simulator's
		} else {
			a.count.Lock()
			a.wrong++
			a.count.Unlock()
		}
	}
	a.Simulator.ServeHTTP(w, r)
}

// Fifty processes log in all the time while the secret is rotated: no request fails, and
// each rotation costs one wrong try at most. A wrong secret is one try a cool-down, and
// the corrected one works at the next request of every process.
func TestASecretIsRotatedInFiftyProcesses(t *testing.T) {
	const rotations, pause = 10, 2 * time.Second
	auth, url := newRotatingAuth(t, 2*time.Second)
	auth.rotate("secret-0", "secret-0")
	j := sure(startNode(t).Addr)
	j.Auth, j.File = url, auth.file
	workers := startWorkers(t, crew(replicas, j)...)
	begin(t, workers, phase{Requests: 1})
	require.Zero(t, end(t, workers).Failed)

	begin(t, workers, phase{Requests: int(rotations * pause / (100 * time.Millisecond)), Pause: 100 * time.Millisecond})
	for i := range rotations {
		time.Sleep(pause)
		next := fmt.Sprint("secret-", i+1)
		auth.rotate(next, next)
	}
	r := end(t, workers)
	wrong := auth.tries()
	stats := auth.Stats()
	t.Logf("%d requests, %d failed, %d logins of the client, %d wrong tries in %d rotations, worst latency added %v",
		r.Requests, r.Failed, stats.Steps["app"].Fetches.OK, wrong, rotations, r.Worst.Round(time.Millisecond))
	require.Zero(t, r.Failed, "%q", r.Errors)
	require.LessOrEqual(t, wrong, rotations)
	require.Greater(t, stats.Steps["app"].Fetches.OK, rotations/2)

	auth.rotate("right", "wrong")
	begun := time.Now()
	begin(t, workers, phase{Requests: 60, Pause: 100 * time.Millisecond})
	require.Positive(t, end(t, workers).Failed)
	// One a cool-down, and that of a fetch that was under way with the secret before, which
	// is then tried with the wrong one.
	bound := 2 + int(time.Since(begun)/(30*time.Second))
	wrong = auth.tries()
	t.Logf("%d tries of a wrong secret in %v (at most %d)", wrong, time.Since(begun).Round(time.Second), bound)
	require.LessOrEqual(t, wrong, bound)
	auth.rotate("right", "right")
	begin(t, workers, phase{Requests: 5})
	r = end(t, workers)
	t.Logf("after that %d requests, %d failed, worst latency added %v", r.Requests, r.Failed, r.Worst.Round(time.Millisecond))
	require.Zero(t, r.Failed, "%q", r.Errors)
	require.Zero(t, auth.tries())
}

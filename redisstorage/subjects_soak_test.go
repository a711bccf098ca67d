//go:build soak

// Many people and many processes, in real time: make soak. On a small scale
// subjects_test.go shows the same, for make test.

package redisstorage_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAHundredThousandSubjectsShareAConnection(t *testing.T) {
	crowdOverOneConnection(t, 100_000, 5, false)
}

// meeting is where processes wait for each other.
type meeting struct {
	processes int
	met       func(round int) // called when all have come, before they go on

	mu     sync.Mutex
	joined int                   // guarded by mu
	came   map[int]int           // by round; guarded by mu
	all    map[int]chan struct{} // closed when all have come, by round; guarded by mu
}

// ServeHTTP gives a process its number, or has it wait.
func (m *meeting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.URL.Path == "/join" {
		fmt.Fprint(w, m.joined)
		m.joined++
		return
	}
	var round int
	if _, err := fmt.Sscan(r.URL.Query().Get("round"), &round); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if m.all[round] == nil {
		m.all[round] = make(chan struct{})
	}
	all := m.all[round]
	if m.came[round]++; m.came[round] == m.processes {
		m.met(round)
		close(all)
	}
	m.mu.Unlock()
	defer m.mu.Lock()
	select {
	case <-all:
	case <-time.After(5 * time.Minute):
		http.Error(w, "the others don't come", http.StatusGatewayTimeout)
	}
}

// Fifty processes serve 2,000 people, each a thousand of them. Each person logs in once
// in all processes, and once more when the tokens of all are revoked at once.
func TestFiftyProcessesLogEachSubjectInOnce(t *testing.T) {
	const many, apiece = 2000, 1000
	if shared := os.Getenv(sharedVariable); shared != "" {
		addr, url, _ := strings.Cut(shared, " ")
		to := &http.Transport{MaxIdleConnsPerHost: 16}
		say := func(path string) (said string) {
			resp, err := (&http.Client{Transport: to}).Get(url + path)
			require.NoError(t, err)
			defer resp.Body.Close()
			fmt.Fscan(resp.Body, &said)
			require.Equal(t, http.StatusOK, resp.StatusCode, said)
			return said
		}
		var number int
		_, err := fmt.Sscan(say("/join"), &number)
		require.NoError(t, err)
		all := people(many)
		var mine []string
		for i := range apiece {
			mine = append(mine, all[(number*many/replicas+i)%many])
		}
		c := openCounter(t, newClient(t, "", addr), url, to, patience)
		for round := range 2 {
			say(fmt.Sprint("/meet?round=", round))
			rand.Shuffle(apiece, func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			require.NoError(t, c.serve(t.Context(), mine, 8))
		}
		say("/meet?round=2")
		require.Zero(t, c.pipeline.Stats().StorageErrors)
		to.CloseIdleConnections()
		return
	}
	n := startNode(t)
	o := newOffice()
	begun := time.Now()
	o.more = &meeting{processes: replicas, came: make(map[int]int), all: make(map[int]chan struct{}), met: func(round int) {
		app, user := o.given()
		t.Logf("round %d begins after %v; %d and %d logins, %d requests refused", round, time.Since(begun).Round(time.Second), app, user, o.refused)
		if app != min(round, 1) || user != round*many || o.most() != round {
			t.Errorf("%d logins of the app and %d of people, at most %d of one", app, user, o.most())
		}
		if round == 1 {
			o.revoke(people(many)...)
		}
	}}
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	together(t, replicas, t.Name(), n.Addr+" "+server.URL)
	require.Equal(t, 2, o.most())
	require.Zero(t, o.foreign)
}

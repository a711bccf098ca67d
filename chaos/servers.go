// The resource servers, the foreign one among them: what they do with a
// request, and what they put down of it.

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/chaos/oracle"
)

// servers is how many resource servers there are. One more is foreign: no
// token may go there.
const servers = 4

// The headers in which a request says who it is.
const (
	idHeader   = "X-Chaos-Id"   // set by the caller; http.Client keeps it along redirects
	sendHeader = "X-Chaos-Send" // set below the stack: the hop and the send
)

// quiet swallows what net/http says of broken connections.
var quiet = log.New(io.Discard, "", 0)

// server is one resource server.
//
//	/api/…       needs a live token of the last step
//	/api/go      needs one, too, and redirects to the query's "to" with "code"
//	/public/…    is excluded: no token may come
//	/landing/…   is where redirects to another origin lead: no token may come
//
// and at the foreign one no path needs a token, and none may come.
type server struct {
	led      *ledger
	plan     *plan
	auth     *authServer
	clock    time.Duration
	foreign  bool // it asks for no token, and takes note of any
	refusing atomic.Bool
	down     atomic.Bool // each request gets a 503
	srv      *httptest.Server
}

func (s *server) start() {
	s.srv = httptest.NewUnstartedServer(s)
	s.srv.Config.ErrorLog = quiet
	s.srv.Start()
}

// visit is a request while it is being served.
type visit struct {
	*server
	*oracle.Visit
	w    http.ResponseWriter
	r    *http.Request
	coin *rand.Rand
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get(callHeader) != "" { // this host is the auth server's, too
		s.auth.ServeHTTP(w, r)
		return
	}
	v := &visit{server: s, w: w, r: r, Visit: &oracle.Visit{Origin: s.srv.URL, Method: r.Method, Path: r.URL.Path, Tokens: tokensIn(r)}}
	v.ID, _ = strconv.Atoi(r.Header.Get(idHeader))
	fmt.Sscanf(r.Header.Get(sendHeader), "%d.%d", &v.Hop, &v.N)
	v.coin = s.plan.coin(v.ID, v.Hop, v.N)
	s.led.note(func(run *oracle.Run, now time.Duration) {
		v.At = now
		run.Visits = append(run.Visits, v.Visit)
	})
	w.Header().Set("Date", time.Now().Add(s.clock).UTC().Format(http.TimeFormat))
	v.serve()
}

// tokensIn returns the labels of all tokens in the head of a request. The
// bodies are the callers' own, made of a few letters; see load.go.
func tokensIn(r *http.Request) []string {
	found := labels(r.URL.RequestURI())
	for _, values := range r.Header {
		for _, value := range values {
			found = append(found, labels(value)...)
		}
	}
	return found
}

func (v *visit) serve() {
	pause := time.Duration(1+v.coin.IntN(8)) * time.Millisecond
	fault := v.plan.fault(v.coin)
	if v.down.Load() {
		fault = unavailable
	}
	switch fault {
	case resetUnread:
		v.reset()
		return
	case cutUpload:
		if v.r.ContentLength != 0 {
			io.CopyN(io.Discard, v.r.Body, max(1, v.r.ContentLength/2))
			v.reset()
			return
		}
	case failPlainly:
		v.answer(http.StatusInternalServerError, "")
		return
	case unavailable:
		v.answer(http.StatusServiceUnavailable, v.excuse())
		return
	case comeBack, tooMany:
		v.w.Header().Set("Retry-After", "0")
		v.note(func(time.Duration) { v.Again = true })
		v.answer(map[apiFault]int{comeBack: 503, tooMany: 429}[fault], v.excuse())
		return
	case comeBackDate:
		v.w.Header().Set("Retry-After", time.Now().Add(v.clock).UTC().Format(http.TimeFormat))
		v.note(func(time.Duration) { v.Again = true })
		v.answer(http.StatusServiceUnavailable, "")
		return
	}
	if !v.foreign && strings.HasPrefix(v.Path, "/api/") && !v.authorized() {
		return
	}
	wait(v.r, pause)
	if to := v.r.URL.Query().Get("to"); to != "" {
		code, _ := strconv.Atoi(v.r.URL.Query().Get("code"))
		v.w.Header().Set("Location", to)
		v.answer(code, "")
		return
	}
	v.work(fault)
}

// authorized judges the request's token. The refusal of a dead one takes its
// time, so that many are on their way at once. Either way the body is unread.
func (v *visit) authorized() bool {
	refusing := v.refusing.Load()
	var live bool
	v.note(func(now time.Duration) {
		live = v.auth.live(v.r.Header.Get("Authorization"))
		v.Live, v.Refusing, v.At = live, refusing, now
	})
	if live && !refusing {
		return true
	}
	if !refusing {
		wait(v.r, time.Duration(15+v.coin.IntN(45))*time.Millisecond)
	}
	v.w.Header().Set("WWW-Authenticate", `Bearer realm="chaos", error="invalid_token"`)
	v.answer(http.StatusUnauthorized, v.excuse())
	return false
}

// excuse is the body of an answer that may not be the last one: its connection serves
// nobody else until the body is read.
func (v *visit) excuse() string { return strings.Repeat("sorry ", 1+v.coin.IntN(500)) }

// work does what the request asks for: it reads the body and says so.
func (v *visit) work(fault apiFault) {
	sum := sha256.New()
	if _, err := io.Copy(sum, v.r.Body); err != nil {
		v.reset() // the client has broken off
		return
	}
	hash := hex.EncodeToString(sum.Sum(nil))
	v.note(func(time.Duration) { v.Ran, v.BodyHash = true, hash })
	text := fmt.Sprintf("%d %s %s\n", v.ID, v.Method, hash)
	text += strings.Repeat(".", v.coin.IntN(4096))
	switch fault {
	case lostAnswer:
		v.reset()
	case cutAnswer:
		v.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		v.note(func(time.Duration) { v.Status, v.Reset = http.StatusOK, true })
		io.WriteString(v.w, text[:len(text)/2])
		http.NewResponseController(v.w).Flush()
		panic(http.ErrAbortHandler)
	default:
		v.answer(http.StatusOK, text)
	}
}

func (v *visit) note(f func(now time.Duration)) {
	v.led.note(func(_ *oracle.Run, now time.Duration) { f(now) })
}

// answer puts the status down before anybody can learn of it.
func (v *visit) answer(status int, text string) {
	v.note(func(time.Duration) { v.Status = status })
	v.w.WriteHeader(status)
	io.WriteString(v.w, text)
}

// reset breaks the connection: half of the time as a peer does that has
// crashed.
func (v *visit) reset() {
	v.note(func(time.Duration) { v.Reset = true })
	if conn, _, err := http.NewResponseController(v.w).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok && v.coin.IntN(2) == 0 {
			tcp.SetLinger(0)
		}
		conn.Close()
		return
	}
	panic(http.ErrAbortHandler)
}

// wait gives up when the client does.
func wait(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}

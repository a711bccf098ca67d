// What the servers that are Go libraries need to run in this process.

package servers

import (
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// serve serves what handler returns for its own origin on a port of its own,
// until stop is called.
func serve(handler func(origin string) (http.Handler, error)) (stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h, err := handler("http://" + l.Addr().String())
	if err != nil {
		l.Close()
		return nil, err
	}
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // clients that leave are no news
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	return func() error {
		err := srv.Close()
		<-done
		return err
	}, nil
}

// guarded is a resource that answers 200 to a request with a token that live
// takes, and else what RFC 6750 §3.1 says.
func guarded(live func(r *http.Request) bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if live(r) {
			w.Write([]byte(`{"ok":true}`))
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		w.Write([]byte(`{"error":"invalid_token"}`))
	}
}

// oneByOne keeps concurrent requests from h: the example storages of zitadel and
// fosite touch some of their maps without a lock.
func oneByOne(h http.Handler) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

package main

import (
	"net/http"
	"sync"
	"testing"
)

func Example() {
	main()
	// Output:
	// 10 requests were served
	// 10 requests were served
	// 10 requests were served
	// 3 tokens were fetched, 2 refused for a certificate that wasn't theirs
}

// Whenever the certificate is rotated, a caller sees nothing of it, and one token is
// fetched.
func TestRotationUnderLoad(t *testing.T) {
	const rotations, callers = 5, 20
	srv := newServer()
	defer srv.Close()
	conns := &connections{settings: srv.clientSettings()}
	conns.use(srv.newCertificate())
	defer conns.CloseIdleConnections()
	client, err := newClient(srv.URL, conns)
	if err != nil {
		t.Fatal(err)
	}
	var served [callers]chan struct{}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range served {
		served[i] = make(chan struct{})
		all.Go(func() {
			for {
				resp, err := client.Get("/orders")
				if err != nil {
					t.Error(err)
				} else if resp.Body.Close(); resp.StatusCode != http.StatusOK {
					t.Error(resp.Status)
				}
				select {
				case served[i] <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	for rotated := 1; rotated <= 1+rotations; rotated++ {
		// The first request of each caller may be from before the rotation. Nobody's
		// lasts for two: its replay would be refused as well.
		for range 3 {
			for _, done := range served {
				<-done
			}
		}
		if fetched, _ := srv.counts(); fetched != rotated {
			t.Errorf("%d tokens were fetched for %d certificates", fetched, rotated)
		}
		if rotated <= rotations {
			conns.use(srv.newCertificate())
		}
	}
	close(stop)
	all.Wait()
}

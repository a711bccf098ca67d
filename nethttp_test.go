// What net/http's own tests have found in our transports; conformance/ runs
// them.

package requestforge_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
)

// Found by TestTransportCancelRequestInDo.
func TestRetryIsOverAfterCancelRequest(t *testing.T) {
	var sends atomic.Int32
	arrived := make(chan bool, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sends.Add(1) == 1 {
			arrived <- true
			<-r.Context().Done()
		}
	}))
	defer srv.Close()
	tr := new(http.Transport)
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: &requestforge.RetryTransport{
		Base:   tr,
		Policy: requestforge.ExponentialBackoff(3, time.Nanosecond, time.Nanosecond),
	}}

	req, err := http.NewRequest("GET", srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-arrived
		//lint:ignore SA1019 old programs still call it
		tr.CancelRequest(req)
	}()
	resp, err := client.Do(req)
	if err == nil {
		resp.Body.Close()
		t.Errorf("got %s, want an error", resp.Status)
	} else if !strings.Contains(err.Error(), "net/http: request canceled") {
		t.Errorf("got %v, want http.Transport's own error", err)
	}
	if got := sends.Load(); got != 1 {
		t.Errorf("%d sends, want 1", got)
	}
}

// overSource has no token, and notes whether it was asked with a context that
// was over already.
type overSource struct{ over bool }

func (s *overSource) Token(ctx context.Context) (*requestforge.Token, error) {
	s.over = ctx.Err() != nil
	return nil, context.Canceled
}

func (s *overSource) Invalidate(context.Context, *requestforge.Token) error { return nil }

// Found by TestTransportCancelRequestBeforeDo.
func TestAuthFetchesNothingForACanceledRequest(t *testing.T) {
	src := new(overSource)
	rt := &requestforge.AuthTransport{Source: src, Origins: []string{requestforge.AnyOrigin}}
	req, err := http.NewRequest("GET", "https://api.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel := make(chan struct{})
	close(cancel)
	//lint:ignore SA1019 old programs still set it
	req.Cancel = cancel
	if resp, err := rt.RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Errorf("got %s, want an error", resp.Status)
	}
	if !src.over {
		t.Error("the source was asked as if somebody waited for the token")
	}
}

//go:build !race

package authtest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/requestforge/requestforge/authtest"
)

func TestServerLogIsBounded(t *testing.T) {
	sim := authtest.NewSimulator(oneStep(nil))
	h := http.Handler(sim)
	for i := range 25_000 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", fmt.Sprintf("/%d", i%7), nil))
	}
	log := sim.Log()
	if len(log) != 10_000 || log[len(log)-1].Path != fmt.Sprintf("/%d", 24_999%7) || log[0].Path != fmt.Sprintf("/%d", 15_000%7) {
		t.Errorf("%d events from %s to %s", len(log), log[0].Path, log[len(log)-1].Path)
	}
}

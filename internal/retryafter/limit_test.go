package retryafter_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/requestforge/requestforge/internal/retryafter"
)

func TestLimit(t *testing.T) {
	now := time.Unix(1772370000, 0)
	for _, tt := range []struct {
		header http.Header
		wait   time.Duration
		used   bool
	}{
		{http.Header{}, 0, false},
		{http.Header{"X-Ratelimit-Remaining": {"1"}}, 0, false},
		{http.Header{"X-Ratelimit-Remaining": {""}}, 0, false},
		{http.Header{"X-Ratelimit-Remaining": {"none"}}, 0, false},
		{http.Header{"X-Ratelimit-Remaining": {"0"}}, 0, true},
		{http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"1772370060"}}, time.Minute, true},
		{http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"30"}}, 30 * time.Second, true},
		{http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"1"}, "Ratelimit": {"limit=1"}}, time.Second, true},
		{http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"1000000000"}}, 0, true}, // past
		{http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"-5"}}, 0, true},
		{http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"NaN"}}, 0, true},
		{http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"1e300"}}, 0, true},
		{http.Header{"X-Rate-Limit-Remaining": {" 0 "}, "X-Rate-Limit-Reset": {"2"}}, 2 * time.Second, true},
		{http.Header{"Ratelimit-Remaining": {"0"}}, 0, true},
		{http.Header{"Ratelimit": {`"default";r=0;t=30`}}, 30 * time.Second, true},
		{http.Header{"Ratelimit": {`"default";r=5;t=30`}}, 0, false},
		{http.Header{"Ratelimit": {"limit=10, remaining=0, reset=5"}}, 5 * time.Second, true},
	} {
		if wait, used := retryafter.Limit(tt.header, now); wait != tt.wait || used != tt.used {
			t.Errorf("%v: got %v, %v", tt.header, wait, used)
		}
	}
}

// How often a refused request is replayed, and after which waits.

package requestforge

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Schedule says how long to wait before the next replay; negative: no more.
// A BackOff of cenkalti/backoff fits, v4 and v5.
type Schedule interface{ NextBackOff() time.Duration }

// AuthRetryStrategy makes the Schedule of one request. It is called for the
// first refusal of a request, by many goroutines at once.
type AuthRetryStrategy func() Schedule

// SimpleAuthRetry replays up to retries times, each after delay.
func SimpleAuthRetry(retries int, delay time.Duration) AuthRetryStrategy {
	return func() Schedule { return limited(retries, backoff.NewConstantBackOff(max(0, delay))) }
}

// ExponentialAuthRetry replays up to retries times, after waits that begin
// near base, double, are spread by half and end at limit.
func ExponentialAuthRetry(retries int, base, limit time.Duration) AuthRetryStrategy {
	return func() Schedule {
		return limited(retries, backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(max(0, base)),
			backoff.WithMultiplier(2),
			backoff.WithMaxInterval(max(0, limit)),
			backoff.WithMaxElapsedTime(0),
		))
	}
}

func limited(retries int, b backoff.BackOff) Schedule {
	return backoff.WithMaxRetries(b, uint64(max(0, retries)))
}

// nextReplay is how long to wait before a layer's next replay of x, by the schedule that
// begin makes for the first one; negative: no more.
func nextReplay(x *exchange, l layer, begin AuthRetryStrategy) time.Duration {
	st := authStateOf(x, l)
	if st.schedule == nil {
		if st.schedule = begin(); st.schedule == nil {
			return -1
		}
	}
	return st.schedule.NextBackOff()
}

// authState is what an auth layer remembers of one request of the caller.
type authState struct {
	schedule Schedule // of the replays; nil: no refusal yet
	learned  bool     // Learn has had the request sent again, and has been content with no response since
}

func authStateOf(x *exchange, l layer) *authState {
	st := x.of(l)
	state, _ := st.state.(*authState)
	if state == nil {
		state = new(authState)
		st.state = state
	}
	return state
}

// newLesson reports that Learn, which wants the request sent again, may have that done: for
// the first time in a request of the caller, or after a lesson that has helped.
func newLesson(x *exchange, l layer) bool {
	st := authStateOf(x, l)
	first := !st.learned
	st.learned = true
	return first
}

// lessonHelped notes a response that Learn is content with.
func lessonHelped(x *exchange, l layer) {
	if x.rare == nil {
		return
	}
	for _, st := range x.states {
		if state, ok := st.state.(*authState); ok && st.layer == l {
			state.learned = false
		}
	}
}

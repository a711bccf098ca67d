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

// What a refusal costs: who is blamed, and how often.

package requestforge_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// An acceptance starts the count of refusals in a row over.
func TestPipelineAcceptanceEndsTheClimbOfTheBlame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		refuse := func(want string) {
			t.Helper()
			time.Sleep(10 * time.Second) // a drop for each
			require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
			mustToken(t, p)
			require.Equal(t, want, fmt.Sprint(l.fetches("device"), " ", l.fetches("app"), " ", l.fetches("user")))
		}
		refuse("1 1 2")
		refuse("1 2 3")
		refuse("2 3 4")
		accept(t, p)
		refuse("2 3 5") // the first in a row again
		refuse("2 4 6")
		refuse("3 5 7")
	})
}

// Where the blame climbs to several ancestors, it takes all of them.
func TestPipelineBlameTakesAllAncestorsOfADistance(t *testing.T) {
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("root"), l.step("a", "root"), l.step("b", "root"), l.step("user", "a", "b")}})
	for _, want := range []string{"1 1 1 2", "1 2 2 3", "2 3 3 4"} {
		require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
		mustToken(t, p)
		require.Equal(t, want, fmt.Sprint(l.fetches("root"), " ", l.fetches("a"), " ", l.fetches("b"), " ", l.fetches("user")))
	}
}

// A replay that was accepted gives back what its own request took, no more.
func TestAuthAcceptedReplayGivesBackItsOwnDropsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
		good := ""
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(tok string) bool { return tok == good })}
		for range 2 { // two of three drops are gone for good
			require.Equal(t, 401, get(t, &rf.AuthTransport{Source: p, Origins: []string{host}, Base: rt.Base, Retry: rf.SimpleAuthRetry(0, 0)}, host).StatusCode)
		}
		for n := 4; n < 9; n++ {
			good = fmt.Sprintf("user-%d", n)
			require.Equal(t, 200, get(t, rt, host).StatusCode)
		}
		require.Zero(t, p.Stats().RefusalsIgnored)
		good = ""
		require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
		require.Zero(t, p.Stats().RefusalsIgnored, "the third")
		require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
		require.EqualValues(t, 1, p.Stats().RefusalsIgnored, "there is no fourth")
	})
}

// A server error after a replay proves nothing.
func TestAuthReplayThatFailsGivesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
		sends, sick := 0, true
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: status(func() int {
			if sends++; !sick && sends%2 == 0 {
				return 500
			}
			return 401
		})}
		get(t, rt, host) // from here on no young token is waited for
		sends, sick = 0, false
		for range 5 {
			get(t, rt, host)
		}
		require.NotZero(t, p.Stats().RefusalsIgnored)
	})
}

// A server that breaks has not accepted the token.
func TestAuthErrorOfTheServerIsNoAcceptance(t *testing.T) {
	for code, want := range map[int]string{200: "1 3", 404: "2 3", 500: "2 3"} {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("app"), l.step("user", "app")}})
		require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
		get(t, &rf.AuthTransport{Source: p, Origins: []string{host}, Base: status(func() int { return code })}, host)
		require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
		mustToken(t, p)
		require.Equal(t, want, fmt.Sprint(l.fetches("app"), " ", l.fetches("user")), code)
	}
}

// A token is handed out until the skew before its expiry, and not at it.
func TestPipelineTokenIsHandedOutToTheSkewAndNotAtIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		l.life["user"] = time.Hour
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, RefreshAhead: -1})
		mustToken(t, p)
		time.Sleep(time.Hour - 10*time.Second - 1)
		require.Equal(t, "user-1", mustToken(t, p).AccessToken)
		time.Sleep(time.Nanosecond)
		require.Equal(t, "user-2", mustToken(t, p).AccessToken)
	})
}

// status answers with what f says.
func status(f func() int) roundTrip {
	return func(req *http.Request) (*http.Response, error) { return reply(req, f()), nil }
}

//go:build !race

// Large numbers: what each costs, where one of many differs, and that none is lost. The
// race detector makes a step six times as dear and sees no more in the ten thousandth
// than in the first, so these tests are built without it; their short forms, beside the
// functions that they share, and the tests of the same paths are built with it.

package requestforge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// histories is how many histories rapid draws.
const histories = "100"

// The race detector sees a quarter of these.
func TestPipelineAgreesWithItsModelOften(t *testing.T) { checkPipeline(t) }

func TestSubjectsAgreeWithTheirModelOften(t *testing.T) { checkCrowd(t) }

func TestAllMixesOfAnswersStayWithinTheBudgetOfSends(t *testing.T) { challengesWithinTheBudget(t, 1) }

func TestSecretRotatedUnderTheLoadOfManyProcesses(t *testing.T) { secretRotatedUnderLoad(t, 50) }

func TestNothingStaysBehind(t *testing.T) { nothingStaysBehind(t, 10_000) }

func TestPipelineNoRecordHoldsASecret(t *testing.T) { noRecordHoldsASecret(t, 300, true) }

func TestSubjectsThatAreColdAtOnce(t *testing.T) { coldAtOnce(t, 10_000) }

func TestSubjectsThatAreRevokedAtOnce(t *testing.T) { revokedAtOnce(t, 2000) }

// Ten thousand IDs that want to be taken for each other: each has its own token, in memory,
// in the storage, and for a second process, which fetches none.
func TestTenThousandHostileSubjects(t *testing.T) {
	ids := hostile(10_000)
	storage := rf.NewMemoryStorage()
	owner := map[string]string{} // of each token
	fetcher := rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
		tok := fmt.Sprint("token-", len(owner))
		owner[tok] = in.Subject
		return &rf.Token{AccessToken: tok, Expiry: time.Now().Add(time.Hour)}, nil
	})
	cfg := rf.PipelineConfig{Subject: userOf, Storage: storage, KeyPrefix: "x", MaxSubjects: 2000, RefreshAhead: -1, Steps: []rf.Step{
		{Name: "backend", Identity: "backend", PerSubject: true, Fetcher: fetcher},
	}}
	first := pipeline(t, cfg)
	of := make([]string, len(ids))
	for i, id := range ids {
		of[i] = tokenAs(t, first, as(t.Context(), id))
		if owner[of[i]] != id {
			t.Fatalf("%.100q got the token of %.100q", id, owner[of[i]])
		}
	}
	require.Len(t, owner, len(ids), "one each")
	require.Len(t, rf.StoredKeys(storage), len(ids))
	second := pipeline(t, cfg)
	for i := len(ids) - 1; i >= 0; i-- {
		if got := tokenAs(t, second, as(t.Context(), ids[i])); got != of[i] {
			t.Fatalf("%.100q got %s, want %s", ids[i], got, of[i])
		}
	}
	require.Len(t, owner, len(ids), "the second has loaded")
}

// What is remembered of refused given tokens is bounded (maxBefore): failure.before must
// not hold failures that hold their own before, and so on to the first one ever.
func TestRefusedGivenTokensAreNotKeptForEver(t *testing.T) {
	var o office
	o.refuse = func(step, _ string, _ rf.Input) error {
		if step == "user" {
			return &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}
		}
		return nil
	}
	p := pipeline(t, o.exchange())
	heap := func() int {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	run := func(from, to int) {
		for i := from; i < to; i++ {
			_, err := p.Token(with(as(t.Context(), "ann"), fmt.Sprint("request", i)))
			require.Error(t, err)
		}
	}
	run(0, 500)
	before := heap()
	run(500, 10_500)
	grown := heap() - before
	runtime.KeepAlive(p)
	require.Less(t, grown, 500_000, "bytes for 10,000 refused tokens of one subject")
}

// Retries and replays together stay within one budget, whatever the answers:
// RetryMax + 1 + the replays of one strategy. With a foreign layer between,
// replays happen on the first attempt only.
func TestAuthAndRetrySendWithinOneBudget(t *testing.T) {
	const retries, replays = 4, 2
	for name, between := range map[string]func(http.RoundTripper) http.RoundTripper{
		"ours alone": func(rt http.RoundTripper) http.RoundTripper { return rt },
		"foreign":    func(rt http.RoundTripper) http.RoundTripper { return roundTrip(rt.RoundTrip) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for seed := range 1 << 12 { // two bits an answer, six answers in turn
					n, sends := 0, 0
					src := sourceFunc(func(context.Context) (*rf.Token, error) { n++; return &rf.Token{AccessToken: fmt.Sprint(n)}, nil })
					auth := &rf.AuthTransport{Source: src, Origins: []string{host}, Retry: rf.SimpleAuthRetry(replays, 0), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
						answer := seed >> (2 * (sends % 6)) & 3
						sends++
						switch answer {
						case 0:
							return reply(req, 401), nil
						case 1:
							return reply(req, 429), nil
						case 2:
							return reply(req, 503, "Retry-After", "0"), nil
						}
						reply(req, 0)
						return nil, io.ErrUnexpectedEOF
					})}
					rt := &rf.RetryTransport{Base: between(auth), Policy: rf.ExponentialBackoff(retries, 1, 1)}
					req, _ := http.NewRequest("GET", host, nil)
					rt.RoundTrip(req)
					if most := retries + 1 + replays; sends > most {
						t.Fatalf("answers %012b: %d sends, want at most %d", seed, sends, most)
					}
				}
			})
		})
	}
}

// Whatever is written can be read: the bounds of both sides are the same.
func TestRecordAtItsBoundsComesBack(t *testing.T) {
	for depth, r := 9_995, recordOf("k", "a"); depth < 10_002; depth++ {
		v := any("deep")
		for range depth {
			v = []any{v}
		}
		r.Token.Extra = map[string]any{"v": v, "raw": json.RawMessage(strings.Repeat("[", depth) + strings.Repeat("]", depth))}
		if data, err := r.MarshalBinary(); err == nil {
			require.NoError(t, new(rf.Record).UnmarshalBinary(data), "depth %d", depth)
		} else if depth < 9_997 {
			t.Errorf("depth %d: %v", depth, err)
		}
	}

	empty, err := recordOf("k", "").MarshalBinary()
	require.NoError(t, err)
	fits := strings.Repeat("x", (4<<20-len(empty))/4*3)
	data, err := recordOf("k", fits).MarshalBinary()
	require.NoError(t, err)
	require.NoError(t, new(rf.Record).UnmarshalBinary(data))
	_, err = recordOf("k", fits+"xxx").MarshalBinary()
	require.ErrorContains(t, err, "4 MiB")

	_, err = rf.NewMemoryStorage().Save(t.Context(), "k", recordOf("k", fits), 0)
	require.NoError(t, err)
	_, err = rf.NewMemoryStorage().Save(t.Context(), "k", recordOf("k", fits+"xxx"), 0)
	require.ErrorContains(t, err, "4 MiB")
}

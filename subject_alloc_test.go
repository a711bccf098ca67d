//go:build !race

package requestforge_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// verified is whom a request was verified to be from, of two parts.
type verified struct{ issuer, user string }

func (v verified) of(ctx context.Context) context.Context {
	return context.WithValue(ctx, userKey{}, v)
}

// verifiedOf makes an ID of the parts at each call, as most programs do.
func verifiedOf(ctx context.Context) (string, error) {
	v, _ := ctx.Value(userKey{}).(verified)
	return rf.SubjectID(v.issuer, v.user), nil
}

// crowded is a pipeline with a live token for the subject of each context.
func crowded(t *testing.T, subject func(context.Context) (string, error), ctxs ...context.Context) *rf.Pipeline {
	var o office
	cfg := o.chain()
	cfg.Subject = subject
	p := pipeline(t, cfg)
	for _, ctx := range ctxs {
		_, err := p.Token(ctx)
		require.NoError(t, err)
	}
	return p
}

// waysOfASubject are the ways in which a program says whose a request is, and what each
// allocates.
var waysOfASubject = []struct {
	name    string
	subject func(context.Context) (string, error)
	ctx     context.Context
	allocs  float64
}{
	{"a string that is kept", userOf, as(context.Background(), "ann"), 0},
	{"SubjectID of two parts", verifiedOf, verified{"https://issuer.example", "ann"}.of(context.Background()), 1},
	{"SubjectID of two long parts", verifiedOf, verified{"https://issuer.example/realms/a-tenant-with-a-name", "0b7c4f0e-5305-4e10-a9a1-8c38564c78b8"}.of(context.Background()), 1},
}

// With a subject Token allocates what the program's Subject does.
func TestAllocSubjectTokenLive(t *testing.T) {
	for _, w := range waysOfASubject {
		t.Run(w.name, func(t *testing.T) {
			p := crowded(t, w.subject, w.ctx)
			for name, src := range map[string]rf.TokenSource{"the pipeline": p, "a parent": p.Source("user")} {
				require.Equal(t, w.allocs, testing.AllocsPerRun(1000, func() {
					if _, err := src.Token(w.ctx); err != nil {
						t.Fatal(err)
					}
				}), name)
			}
		})
	}
}

// A whole request with a subject, too: nothing else is added to one with one identity.
func TestAllocSubjectRequest(t *testing.T) {
	stack := func(p *rf.Pipeline) http.RoundTripper {
		auth := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: &sink{}}
		return &rf.LoggingTransport{Base: &rf.RetryTransport{Base: auth, Policy: rf.RetryPolicy{RetryMax: 3}}}
	}
	var o office
	cfg := o.chain()
	cfg.Subject = nil
	for i := range cfg.Steps {
		cfg.Steps[i].PerSubject = false
	}
	one := stack(pipeline(t, cfg))
	for _, w := range waysOfASubject {
		many := stack(crowded(t, w.subject, w.ctx))
		for name, req := range requests(t) {
			t.Run(w.name+"/"+name, func(t *testing.T) {
				require.Equal(t, w.allocs, allocs(t, many, req.WithContext(w.ctx))-allocs(t, one, req.WithContext(w.ctx)))
			})
		}
	}
}

// A subject with a token of 300 bytes is at most 1,500 bytes, with what is stored of it, and
// no goroutine.
func TestSubjectsMemory(t *testing.T) {
	const n = 10_000
	each := heapOf(t, n, n) / n
	t.Logf("%d bytes a subject", each)
	require.LessOrEqual(t, each, int64(1500))
}

// However many have come: what MaxSubjects subjects hold is the bound.
func TestSubjectsMemoryAfterTenTimesAsMany(t *testing.T) {
	const most = 2000
	share := heapOf(t, most, most)
	held := heapOf(t, 10*most, most)
	t.Logf("%d bytes a subject, %d after ten times as many", share/most, held/most)
	require.LessOrEqual(t, held, int64(most*1500))
}

// To note uses, and to look after a parent's session, allocates nothing.
func TestIdleLimitAllocatesNothing(t *testing.T) {
	l := &lounge{limit: time.Hour}
	p := pipeline(t, rf.PipelineConfig{Steps: l.steps()})
	for _, step := range []string{"session", "user"} {
		src, ctx := p.Source(step), t.Context()
		_, err := src.Token(ctx)
		require.NoError(t, err)
		require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = src.Token(ctx) }), step)
	}
}

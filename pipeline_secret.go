// Secrets of a fetcher that change while the program runs: what they were when they were
// read, and whether a failure was another secret's. How long a failure is remembered
// otherwise is pipeline_failure.go's.

package requestforge

import (
	"context"
	"crypto/sha256"
	"io"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// A SecretReader is a [Fetcher] whose secrets may change while the program runs, as
// ClientAuth.SecretFrom lets them. A [Pipeline] calls ReadSecrets before each try of a
// fetch, after a refusal, and while the step cools down. ReadSecrets reads the secrets and
// writes them to w, which hashes them: when the hash changes, a cool-down ends. The
// returned context is made from ctx and holds the secrets; Fetch is given that context, or
// one made from it, and uses what it holds, so that one try reads each secret once.
//
// A secret that can't be read is an error, and Fetch, given the context that comes with
// the error, fails for the same reason. The context is never nil. A fetcher without such
// secrets writes nothing and returns ctx. ReadSecrets may be called by several goroutines
// at once, and ends when ctx does.
//
// Of a fetcher that wraps another one the SecretReader is the fetcher itself, or else
// what its method Unwrap() Fetcher returns.
type SecretReader interface {
	ReadSecrets(ctx context.Context, w io.Writer) (context.Context, error)
}

// sum is a hash of a fetcher's changing secrets; zero: there are none. No sum is stored,
// logged or printed.
type sum [sha256.Size]byte

// reading is the state of a fetcher's changing secrets at one moment. The zero reading is
// that of a fetcher without any.
type reading struct {
	of  *secrets // where to read again; nil: there are no changing secrets
	sum sum
	bad bool // a secret couldn't be read
}

// renewedSince reports whether a secret has changed since before. While a secret can't be
// read the answer is no: a try would fail for that reason.
func (r reading) renewedSince(before reading) bool {
	return r.of != nil && !r.bad && (before.bad || r.sum != before.sum)
}

// secrets are the changing secrets of one fetcher of a step, with the last glance at them
// during a cool-down.
//
// The invariant: a glance costs a pause of glanceShare times its duration or that of the
// glance before, whichever is shorter, at most maxGlancePause; and no glance begins while
// more than glanceBurst of pauses is still to come. So a slow vault is asked seldom, however
// many callers there are, and a file is read for the next call, on a machine that is busy,
// too. No caller waits for a glance longer than glanceTime.
type secrets struct {
	reader SecretReader // nil: the fetcher has no changing secrets
	work   flight.Flight[glance]
	last   atomic.Pointer[glance]
}

// glance is a reading during a cool-down.
type glance struct {
	reading
	begun time.Time
	took  time.Duration
	paid  time.Time // when the pauses of all glances so far are over
}

const (
	glanceTime     = 2 * time.Second
	glanceShare    = 50
	glanceBurst    = 10 * time.Second
	maxGlancePause = 30 * time.Second
)

// secretsOf returns the secrets of a fetcher, which may be nil.
func secretsOf(f Fetcher) *secrets {
	reader, _ := unwrap.Find[SecretReader](f)
	return &secrets{reader: reader}
}

// written counts what is written through it.
type written struct {
	io.Writer
	n int
}

func (w *written) Write(p []byte) (int, error) {
	w.n += len(p)
	return w.Writer.Write(p)
}

// read reads the secrets, and returns the context for Fetch.
func (s *secrets) read(ctx context.Context) (context.Context, reading) {
	if s.reader == nil {
		return ctx, reading{}
	}
	h := sha256.New()
	w := &written{Writer: h}
	with, err := s.reader.ReadSecrets(ctx, w)
	if with == nil {
		with = ctx
	}
	if w.n == 0 && err == nil {
		return with, reading{}
	}
	return with, reading{of: s, sum: sum(h.Sum(nil)), bad: err != nil}
}

// bounded is read without a fetch, for at most glanceTime. A ReadSecrets that is deaf to ctx
// is left behind, and counts towards hanging.
func (s *secrets) bounded(ctx context.Context, hanging *flight.Limit) reading {
	if s.reader == nil {
		return reading{}
	}
	ctx, stop := context.WithTimeout(ctx, glanceTime)
	defer stop()
	r, err := flight.Bounded(ctx, hanging, func(ctx context.Context) (reading, error) {
		_, r := s.read(ctx)
		return r, nil
	}, nil)
	if err != nil {
		return reading{of: s, bad: true}
	}
	return r
}

// glance returns a reading from after since, a new one unless pauses are to come; ok is false
// if there is none yet. Callers at the same time share a reading.
func (s *secrets) glance(ctx context.Context, since time.Time, read func(context.Context) reading) (r reading, ok bool) {
	l := s.last.Load()
	if l == nil || time.Until(l.paid) <= glanceBurst {
		made, err := s.work.Do(ctx, func(ctx context.Context) (glance, error) {
			made := glance{begun: time.Now()}
			made.reading = read(ctx)
			made.took, made.paid = time.Since(made.begun), made.begun
			if before := s.last.Load(); before != nil {
				if before.paid.After(made.paid) {
					made.paid = before.paid
				}
				made.paid = made.paid.Add(min(glanceShare*min(made.took, before.took), maxGlancePause))
			}
			s.last.Store(&made)
			return made, nil
		})
		if err != nil {
			return reading{}, false
		}
		l = &made
	}
	return l.reading, !l.begun.Before(since)
}

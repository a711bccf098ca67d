package requestforge_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// unwrapping is a Storage whose Unwrap returns next.
type unwrapping struct {
	rf.Storage
	next rf.Storage
}

func (u *unwrapping) Unwrap() rf.Storage { return u.next }

// A step with a Refresh needs a Locker, so NewPipeline says whether there is one.
func TestPipelineFindsALockerThatAStorageWraps(t *testing.T) {
	memory := rf.NewMemoryStorage()
	wrap := func(next rf.Storage) rf.Storage { return &unwrapping{memory, next} }
	cycle := &unwrapping{Storage: memory}
	cycle.next = cycle
	for name, test := range map[string]struct {
		storage rf.Storage
		err     string
	}{
		"wrapped":             {wrap(memory), ""},
		"wrapped twice":       {wrap(wrap(memory)), ""},
		"no Locker below":     {wrap(plainStorage{memory}), "Locker"},
		"no Unwrap":           {plainStorage{wrap(memory)}, "Locker"},
		"nothing below":       {wrap(nil), "Locker"},
		"a nil pointer below": {wrap((*unwrapping)(nil)), "Locker"},
		"a cycle":             {cycle, "Locker"},
		"a nil pointer":       {(*unwrapping)(nil), "nil *requestforge_test.unwrapping"},
	} {
		t.Run(name, func(t *testing.T) {
			step := newLogin().step("user")
			step.Refresh = step.Fetcher
			p, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{step}, Storage: test.storage})
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.NoError(t, p.Close())
		})
	}
}

// observed counts which of the optional interfaces of a storage are used.
type observed struct {
	*rf.MemoryStorage
	locks, watches, loads, saves atomic.Int32
}

func (o *observed) TryLock(ctx context.Context, key string) (rf.Lease, bool, error) {
	o.locks.Add(1)
	return o.MemoryStorage.TryLock(ctx, key)
}

func (o *observed) Watch(ctx context.Context, _ []string, _ func(string)) error {
	o.watches.Add(1)
	<-ctx.Done()
	return nil
}

func (o *observed) LoadFailure(context.Context, string) (rf.Failure, error) {
	o.loads.Add(1)
	return rf.Failure{}, nil
}

func (o *observed) SaveFailure(context.Context, string, rf.Failure) error {
	o.saves.Add(1)
	return nil
}

func TestPipelineUsesAllThatAWrappedStorageOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &observed{MemoryStorage: rf.NewMemoryStorage()}
		l := newLogin()
		l.takes = time.Millisecond
		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 400, Permanent: true} })
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: &unwrapping{next, next}})
		_, err := p.Token(t.Context())
		require.Error(t, err)
		synctest.Wait()
		require.EqualValues(t, 1, next.locks.Load())
		require.EqualValues(t, 1, next.watches.Load())
		require.EqualValues(t, 1, next.loads.Load())
		require.EqualValues(t, 1, next.saves.Load())
	})
}

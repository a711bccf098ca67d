package trial_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/internal/trial"
)

func TestTriesDoubleUpToTheLongest(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tr := trial.New(begin)
	for passed, want := range map[time.Duration]time.Duration{
		0:                       250 * time.Millisecond,
		249 * time.Millisecond:  time.Millisecond,
		250 * time.Millisecond:  500 * time.Millisecond,
		750 * time.Millisecond:  time.Second,
		1750 * time.Millisecond: 1250 * time.Millisecond,
		2 * time.Second:         time.Second,
		trial.Longest:           -1,
		time.Hour:               -1,
	} {
		if got := tr.Next(begin.Add(passed), trial.Longest); got != want {
			t.Errorf("after %v: %v, want %v", passed, got, want)
		}
		if passed >= trial.Short {
			want = -1
		}
		if got := tr.Next(begin.Add(passed), trial.Short); got != want {
			t.Errorf("in a hurry, after %v: %v, want %v", passed, got, want)
		}
	}
}

// One caller at a time has the turn, and the next one gets it when that one passes.
func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := trial.New(time.Now())
		var wg sync.WaitGroup
		had := 0
		for range 10 {
			wg.Go(func() {
				if !tr.Turn(t.Context(), nil, time.Minute) {
					return
				}
				if had++; had == 3 {
					tr.End()
				}
				tr.Sleep(t.Context(), nil, time.Second)
				tr.Pass()
			})
		}
		wg.Wait()
		// The fourth, if any, was ready at the instant of the end.
		if had < 3 || had > 4 {
			t.Errorf("%d had the turn, want 3", had)
		}
		if tr.Turn(t.Context(), nil, time.Minute) || !tr.Over() {
			t.Error("a turn after the end")
		}
	})
}

func TestWaitsEndWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := trial.New(time.Now())
		tr.Turn(t.Context(), nil, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		left := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(left) })
		for _, wait := range []func(){
			func() { tr.Turn(ctx, nil, time.Hour) },
			func() { tr.Turn(t.Context(), left, time.Hour) },
			func() { tr.Turn(t.Context(), nil, time.Second) },
			func() { tr.Sleep(ctx, nil, time.Hour) },
			func() { tr.Sleep(t.Context(), left, time.Hour) },
		} {
			begun := time.Now()
			wait()
			if took := time.Since(begun); took > time.Second {
				t.Errorf("took %v", took)
			}
		}
	})
}

func TestIdle(t *testing.T) {
	tr := trial.New(time.Now())
	tr.Enter()
	if tr.Idle() {
		t.Error("idle with a caller")
	}
	tr.Leave()
	if !tr.Idle() {
		t.Error("not idle without a caller")
	}
}

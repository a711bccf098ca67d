package retrybudget_test

import (
	"sync"
	"testing"
	"time"

	"github.com/requestforge/requestforge/internal/retrybudget"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func taken(b *retrybudget.Budget, at time.Time, tries int) (n int) {
	for range tries {
		if b.Take(at) {
			n++
		}
	}
	return n
}

func TestABudgetIsUsedUpAndComesBack(t *testing.T) {
	b := retrybudget.New(10)
	for range 1000 {
		b.Request() // it is full already
	}
	for _, c := range []struct {
		what     string
		requests int
		passes   time.Duration
		want     int
	}{
		{"all", 0, 0, 10},
		{"nothing left", 0, 0, 0},
		{"a tenth of the requests", 35, 0, 3},
		{"by time", 5, 2 * retrybudget.Every, 3}, // 0.5 were left, 0.5 came, and 2
		{"not more than in the beginning", 1000, time.Hour, 10},
		{"a clock set back", 0, -time.Hour, 0},
	} {
		for range c.requests {
			b.Request()
		}
		begin = begin.Add(c.passes)
		if got := taken(b, begin, 100); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
}

func TestNoBudgetIsNeverUsedUp(t *testing.T) {
	var b *retrybudget.Budget
	b.Request()
	if got := taken(b, begin, 1000); got != 1000 {
		t.Errorf("%d", got)
	}
}

// While nothing is missing a request writes nothing.
func TestAFullBudgetAllocatesNothing(t *testing.T) {
	b := retrybudget.New(10)
	if n := testing.AllocsPerRun(100, b.Request); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestABudgetServesManyAtOnce(t *testing.T) {
	b := retrybudget.New(50)
	var all sync.WaitGroup
	var mu sync.Mutex
	got := 0
	for range 100 {
		all.Go(func() {
			b.Request()
			n := taken(b, begin, 10)
			mu.Lock()
			defer mu.Unlock()
			got += n
		})
	}
	all.Wait()
	if got < 50 || got > 60 {
		t.Errorf("%d retries for 100 requests, want 50 to 60", got)
	}
}

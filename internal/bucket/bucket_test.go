package bucket_test

import (
	"testing"
	"time"

	"github.com/requestforge/requestforge/internal/bucket"
)

func TestBucket(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	b := bucket.Full(3, 10*time.Second)
	for _, step := range []struct {
		at   time.Duration
		give int
		want bool
	}{
		{0, 0, true},
		{time.Second, 0, true},
		{2 * time.Second, 0, true},
		{9 * time.Second, 0, false},
		{10 * time.Second, 0, true}, // the first drop's interval began with the first one taken
		{19 * time.Second, 0, false},
		{19 * time.Second, 1, true},
		{19 * time.Second, 0, false},
		{20 * time.Second, 0, true},
		{20 * time.Second, 9, true}, // no more than the size comes back
		{20 * time.Second, 0, true},
		{20 * time.Second, 0, true},
		{20 * time.Second, 0, false},
		{time.Hour, 0, true},
		{time.Hour, 0, true},
		{time.Hour, 0, true},
		{time.Hour, 0, false},
	} {
		b.Give(step.give)
		if empty := b.Empty(at(step.at)); empty == step.want {
			t.Errorf("after %v: Empty() = %v", step.at, empty)
		}
		if got := b.Take(at(step.at)); got != step.want {
			t.Errorf("after %v: Take() = %v, want %v", step.at, got, step.want)
		}
	}
}

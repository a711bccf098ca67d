//go:build soak

package main

import (
	"testing"
	"time"

	"github.com/requestforge/requestforge/chaos/oracle"
)

// A short run; make chaos has the long one.
func TestInvariantsHoldInAShortRun(t *testing.T) {
	p := newPlan(7, 8*time.Second, 3000)
	seen, err := run(p)
	if err != nil {
		t.Fatal(err)
	}
	v := oracle.Judge(seen)
	text := report(p, seen, v)
	if len(v.Violations) > 0 {
		t.Error("\n" + text)
	}
	if len(seen.Requests) != p.requests || len(seen.Revocations) == 0 || v.Statuses[200] < p.requests/3 {
		t.Errorf("too little has happened:\n%s", text)
	}
}

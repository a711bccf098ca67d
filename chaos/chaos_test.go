package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTheSameSeedMakesTheSamePlan(t *testing.T) {
	text := func(seed uint64) string {
		p := newPlan(seed, time.Minute, 50_000)
		var b strings.Builder
		p.print(&b)
		l := &load{plan: p, origins: []string{"http://a", "http://b", "http://c", "http://d"}, foreign: "http://e"}
		for id := range 20 {
			o := l.order(id)
			fmt.Fprintln(&b, o, p.fault(p.coin(id, 1, 2)))
		}
		return b.String()
	}
	three, again, four := text(3), text(3), text(4)
	if three != again {
		t.Error("one seed, two plans")
	}
	if three == four {
		t.Error("two seeds, one plan")
	}
}

// Each kind of trouble is in a plan of a minute, whatever the seed.
func TestAPlanHasSomeOfEverything(t *testing.T) {
	for seed := range uint64(50) {
		p := newPlan(seed, time.Minute, 50_000)
		least := map[eventKind]int{revoke: 30, auth: 8, refuse: 2, down: 2, storage: 3, rotate: 2, logout: 3, restart: 3}
		for kind, n := range least {
			if got := p.count(kind); got < n {
				t.Errorf("seed %d: %d of %q", seed, got, kind)
			}
		}
		for _, step := range stepNames {
			n := 0
			for _, e := range p.events {
				if e.kind == revoke && e.step == step {
					n++
				}
			}
			if n < 5 {
				t.Errorf("seed %d: step %s is revoked %d times", seed, step, n)
			}
		}
	}
}

// Command chaos runs the whole stack of requestforge against servers at which
// everything goes wrong, by a plan that a seed decides, and judges what was
// seen.
//
//	go run . -seed 1 -for 60s -requests 50000
//	go run . -seed 1 -plan
//	go run ./mutate
//
// What to read: plan.go is what goes wrong, load.go and client.go are the
// callers and the client under test, servers.go and authserver.go are the
// other side, and package oracle, which knows neither of them, is what must
// hold all the same. The exit status is 1 if something didn't.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/requestforge/requestforge/chaos/oracle"
)

func main() {
	seed := flag.Uint64("seed", 1, "decides everything that goes wrong")
	last := flag.Duration("for", 60*time.Second, "how long the run takes at least")
	requests := flag.Int("requests", 50_000, "how many requests are sent, evenly over that time")
	book := flag.String("ledgers", "", "a file for the ledgers, as JSON; empty: none")
	show := flag.Bool("plan", false, "print the plan and do nothing")
	flag.Parse()

	p := newPlan(*seed, *last, *requests)
	if *show {
		p.print(os.Stdout)
		return
	}
	seen, err := run(p)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	if *book != "" {
		text, err := json.Marshal(seen)
		if err == nil {
			err = os.WriteFile(*book, text, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(2)
		}
	}
	v := oracle.Judge(seen)
	fmt.Print(report(p, seen, v))
	if len(v.Violations) > 0 {
		os.Exit(1)
	}
}

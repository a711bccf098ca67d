// The story: what happens to the fleet, and what it may cost. What a replica
// does is replica.go's.

// Command replicas runs a fleet of processes that share one login through
// Redis, and lets bad things happen to them: a revoked token, a replica that
// is killed while it holds the lock, a Redis that is killed and restarted.
//
//	go run ./examples/replicas
//
// It needs redis-server, and starts everything else itself: the auth server
// and the API, a Redis of its own, and the replicas. All figures come from the
// auth server's counters. It exits with 1 if they aren't what they should be.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
)

func main() {
	logging.Disable() // of go-redis, which tells of each try
	if os.Getenv(jobVariable) != "" {
		if err := replicate(os.Getenv(jobVariable), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "replica:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "replicas:", err)
		os.Exit(1)
	}
}

// authServer is a login in two steps and the API behind it.
func authServer() authtest.Config {
	return authtest.Config{Steps: []authtest.Step{
		{Name: "app", ClientID: "replicas", ClientSecret: "secret", TTL: time.Hour},
		{Name: "user", Parents: map[string]string{"app": "Authorization"}, TTL: time.Hour},
	}}
}

// run tells the story. An error means that it didn't happen, or not as it
// should.
func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("replicas", flag.ContinueOnError)
	flags.SetOutput(out)
	n := flags.Int("n", 8, "how many replicas")
	each := flags.Int("requests", 25, "how many requests each of them sends in each chapter")
	share := flags.Bool("share", true, "share one login; without, see what that costs")
	patience := flags.Duration("patience", 2*time.Second, "how long a call of Redis may take, and a lock outlives its owner; more on a busy machine")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *n < 2 || *each < 1 {
		return errors.New("it takes two replicas, and a request of each")
	}

	auth := authtest.NewServer(authServer())
	defer auth.Close()
	dir, err := os.MkdirTemp("", "replicas-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	redis, err := redistest.Start(dir)
	if err != nil {
		return err
	}
	defer redis.Close()

	s := &story{out: out, auth: auth}
	defer s.end()
	fmt.Fprintf(out, "%d replicas, a Redis at %s, an auth server with two steps at %s\n\n", *n, redis.Addr, auth.URL)
	j := job{Redis: redis.Addr, Auth: auth.URL, Share: *share, Patience: *patience}
	for range *n {
		if err := s.start(j); err != nil {
			return err
		}
	}

	s.chapter("All of them start at once, without a token", 2, order{Requests: *each})
	auth.Revoke("user")
	s.chapter("The user token is revoked", 1, order{Requests: *each})
	auth.Revoke("user")
	s.sacrifice(j)
	s.chapter("It is revoked again; a new replica, which holds the lock, is killed", 1, order{Requests: *each})
	redis.Kill()
	auth.Revoke("user")
	s.chapter("Redis is killed, and the token revoked: each fetches for itself", len(s.fleet), order{Requests: *each})
	if err := redis.Restart(); err != nil {
		return err
	}
	auth.Revoke("user")
	// go-redis tries a server that was down once a second.
	s.chapter("Redis is back, with nothing in it, and the token revoked", 1, order{Requests: *each, Wait: true})
	return s.tally()
}

// story is the fleet and what has become of it so far.
type story struct {
	out   io.Writer
	auth  *authtest.Server
	fleet []*replica

	sent, failed, refused int
	fetches, allowed      int
	off                   []error // what is not as it should be
}

// replica is a process of the fleet.
type replica struct {
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *json.Decoder
}

// start starts a replica, and waits until it is ready.
func (s *story) start(j job) error {
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r := &replica{cmd: exec.Command(self)}
	r.cmd.Env = append(os.Environ(), jobVariable+"="+string(text))
	r.cmd.Stderr = os.Stderr
	if r.orders, err = r.cmd.StdinPipe(); err != nil {
		return err
	}
	answers, err := r.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	r.answers = json.NewDecoder(answers)
	if err := r.cmd.Start(); err != nil {
		return err
	}
	s.fleet = append(s.fleet, r)
	return r.answers.Decode(new(answer))
}

// fetched is how often the auth server was asked for a token.
func (s *story) fetched() (n int) {
	for _, step := range s.auth.Stats().Steps {
		n += step.Fetches.Attempted
	}
	return n
}

// chapter has every replica do as ordered, and says what it cost. Allowed is
// how many fetches it may cost.
func (s *story) chapter(title string, allowed int, o order) {
	begun := time.Now()
	for _, r := range s.fleet {
		s.check(json.NewEncoder(r.orders).Encode(o))
	}
	var sum answer
	for _, r := range s.fleet {
		var a answer
		s.check(r.answers.Decode(&a))
		sum.Sent += a.Sent
		sum.Failed += a.Failed
		sum.Refused += a.Refused
		sum.Worst = max(sum.Worst, a.Worst)
	}
	fetches := s.fetched() - s.fetches
	fmt.Fprintf(s.out, "%s.\n  %d requests in %v, %d failed; %d of at most %d fetches; the slowest request took %v\n\n",
		title, sum.Sent, time.Since(begun).Round(time.Millisecond), sum.Failed, fetches, allowed, sum.Worst.Round(time.Millisecond))
	if fetches > allowed {
		s.check(fmt.Errorf("%d fetches instead of %d: %s", fetches, allowed, title))
	}
	s.sent += sum.Sent
	s.failed += sum.Failed
	s.refused += sum.Refused
	s.fetches += fetches
	s.allowed += allowed
}

// sacrifice has one more replica take the lock, and die before it has asked the
// auth server. Its lock ends soon.
func (s *story) sacrifice(j job) {
	j.Patience = 2 * time.Second
	if err := s.start(j); err != nil {
		s.check(err)
		return
	}
	last := len(s.fleet) - 1
	r := s.fleet[last]
	s.fleet = s.fleet[:last]
	s.check(json.NewEncoder(r.orders).Encode(order{Requests: 1, Die: true}))
	if err := r.answers.Decode(new(answer)); err == nil {
		s.check(errors.New("the replica that was to die lives"))
	}
	r.end()
}

func (s *story) check(err error) {
	if err != nil {
		s.off = append(s.off, err)
	}
}

func (s *story) tally() error {
	fmt.Fprintf(s.out, "In all: %d requests, %d failed, %d refusals seen by a caller; %d of at most %d fetches.\n",
		s.sent, s.failed, s.refused, s.fetches, s.allowed)
	if s.failed > 0 || s.refused > 0 {
		s.check(errors.New("not every request was served"))
	}
	return errors.Join(s.off...)
}

func (s *story) end() {
	for _, r := range s.fleet {
		r.end()
	}
}

// end ends a replica: it reads the end of its orders.
func (r *replica) end() {
	r.orders.Close()
	r.cmd.Wait()
}

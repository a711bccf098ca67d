// What a replica does: log in once for all of them, and send requests.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/redisstorage"
)

// jobVariable holds the job of a process that is a replica.
const jobVariable = "REPLICAS_JOB"

type job struct {
	Redis, Auth string
	Share       bool
	Patience    time.Duration // with Redis, and of Redis with an owner of the lock
}

// An order is a line of JSON on a replica's standard input, and an answer one
// on its output.
type order struct {
	Requests int
	Die      bool // in the next fetch
	Wait     bool // until the client has noticed that Redis is back
}

type answer struct {
	Sent, Failed, Refused int
	Worst                 time.Duration
}

func replicate(text string, in io.Reader, out io.Writer) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}

	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                 []string{j.Redis},
		ContextTimeoutEnabled: true, // a call ends with its context
	})
	defer client.Close()
	shared, err := redisstorage.New(client, redisstorage.Options{
		LeaseTTL: j.Patience, // so long the others wait for one that died
	})
	if err != nil {
		return err
	}
	var storage requestforge.Storage = shared
	if !j.Share {
		storage = requestforge.NewMemoryStorage()
	}

	var die bool
	login := &requestforge.HTTPFetcher{
		URL:            j.Auth + "/user",
		HeaderFrom:     map[string]string{"Authorization": "app"},
		ExpiresInField: "expires_in",
	}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Storage:        storage,
		KeyPrefix:      "replicas",
		StorageTimeout: j.Patience, // many processes on one small machine
		Steps: []requestforge.Step{
			{Name: "app", Fetcher: &requestforge.HTTPFetcher{
				URL:            j.Auth + "/app",
				ClientAuth:     &requestforge.ClientAuth{ID: "replicas", Secret: "secret"},
				ExpiresInField: "expires_in",
			}},
			{Name: "user", DependsOn: []string{"app"}, Identity: login.Identity(), Fetcher: requestforge.FetcherFunc(
				func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
					if die {
						return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
					}
					return login.Fetch(ctx, in)
				})},
		},
	})
	if err != nil {
		return err
	}
	defer pipeline.Close()
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: j.Auth, Source: pipeline})
	if err != nil {
		return err
	}
	api := &http.Client{Transport: transport, Timeout: time.Minute}

	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	if err := answers.Encode(answer{}); err != nil { // ready
		return err
	}
	for {
		var o order
		if err := orders.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		for o.Wait && client.Ping(context.Background()).Err() != nil {
			time.Sleep(50 * time.Millisecond)
		}
		die = o.Die
		var a answer
		for range o.Requests {
			send(api, &a)
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// send is all that the application itself has to do.
func send(api *http.Client, a *answer) {
	begun := time.Now()
	a.Sent++
	resp, err := api.Get("/api/things")
	if err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusUnauthorized {
			a.Refused++
		}
		if resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("the API says %s", resp.Status)
		}
	}
	if err != nil {
		a.Failed++
		fmt.Fprintln(os.Stderr, "replica:", err)
	}
	a.Worst = max(a.Worst, time.Since(begun))
}

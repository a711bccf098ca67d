// slack-go takes a client. Most of its calls are forms with Slack's token in
// them, which is not where ours goes.

package sdk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	slackgo "github.com/slack-go/slack"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// slack-go asks a gateway behind a login of two calls, which has the token for
// Slack.
func Example_slack() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Handler: slack.api(&shelf{value: "It works."})},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Source:     tokens,
		Origins:    []string{srv.URL},
		OnConflict: requestforge.ReplaceCaller, // for the calls that aren't forms
		Retry:      requestforge.RetryPolicy{RetryMax: 3},
	})
	if err != nil {
		log.Fatal(err)
	}
	client := slackgo.New("",
		slackgo.OptionHTTPClient(&http.Client{Transport: transport, Timeout: 30 * time.Second}),
		slackgo.OptionAPIURL(srv.URL+"/api/"),
	)

	channel, err := client.GetConversationInfo(&slackgo.GetConversationInfoInput{ChannelID: "C1"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(channel.Topic.Value)
	// Output: It works.
}

func TestSlack(t *testing.T) { check(t, slack) }

var slack = register(sdk{
	name:   "slack-go/slack",
	module: "github.com/slack-go/slack",
	option: "slack.OptionHTTPClient",
	auth:   never,
	where:  " in forms; always in GETs, JSON and files, empty or not",
	tries:  1,
	posts:  true,
	how: "`ReplaceCaller`; leave `OptionRetry` out. Even reads are POSTs: our layer retries a 429, and the rest with `RetryNonIdempotent` only. " +
		"Slack's own token is in the form, beside ours.",

	api: func(s *shelf) http.Handler {
		mux := http.NewServeMux()
		answer := func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{"ok": true, "channel": map[string]any{
				"id": "C1", "topic": map[string]any{"value": s.get()},
			}})
		}
		mux.HandleFunc("POST /api/conversations.info", func(w http.ResponseWriter, r *http.Request) { answer(w) })
		mux.HandleFunc("POST /api/conversations.setTopic", func(w http.ResponseWriter, r *http.Request) {
			s.put(r.PostFormValue("topic"))
			answer(w)
		})
		mux.HandleFunc("GET /api/chat.getPermalink", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{"ok": true, "permalink": s.get()})
		})
		return mux
	},

	open: func(t *testing.T, c conn) client {
		api := slackClient(c)
		text := func(channel *slackgo.Channel, err error) (string, error) {
			if err != nil {
				return "", err
			}
			return channel.Topic.Value, nil
		}
		return client{
			read: func(ctx context.Context) (string, error) {
				return text(api.GetConversationInfoContext(ctx, &slackgo.GetConversationInfoInput{ChannelID: "C1"}))
			},
			write: func(ctx context.Context, value string) (string, error) {
				return text(api.SetTopicOfConversationContext(ctx, "C1", value))
			},
		}
	},
})

func slackClient(c conn) *slackgo.Client {
	return slackgo.New(c.credential,
		slackgo.OptionHTTPClient(c.http),
		slackgo.OptionAPIURL(c.url+"/api/"),
		slackgo.OptionDebug(true),
		slackgo.OptionLog(log.New(c.log, "", 0)),
	)
}

// Slack's own token is in the form, beside ours in the header.
func TestSlackSendsItsTokenInTheForm(t *testing.T) {
	w := newWorld(t, slack, requestforge.Config{})
	if got, err := w.open(t, credential, false).write(t.Context(), "topic"); err != nil || got != "topic" {
		t.Fatalf("write decoded %q, %v", got, err)
	}
	requests := w.api.requests()
	if len(requests) != 1 || !strings.Contains(string(requests[0].body), "token="+credential) {
		t.Error("the form has no token")
	}
	w.closed(t)
}

// A GET is a call for which slack-go sets the header, and it does even if it has
// no token: then it says "Bearer ", which is the caller's header all the same.
func TestSlackSetsTheHeaderOfAGET(t *testing.T) {
	byHeader := *slack
	byHeader.open = func(t *testing.T, c conn) client {
		api := slackClient(c)
		return client{read: func(ctx context.Context) (string, error) {
			return api.GetPermalinkContext(ctx, &slackgo.PermalinkParameters{Channel: "C1", Ts: "1"})
		}}
	}
	for _, own := range []string{"", credential} {
		w := newWorld(t, &byHeader, requestforge.Config{OnConflict: requestforge.ReplaceCaller})
		c := w.open(t, own, false)
		for range 2 {
			if got, err := c.read(t.Context()); err != nil || got != w.shelf.get() {
				t.Fatalf("with token %q: read %q, %v", own, got, err)
			}
			w.revoke()
		}
		w.fetches(t, 1, 2)
		w.closed(t)

		w = newWorld(t, &byHeader, requestforge.Config{})
		if got, err := w.open(t, own, false).read(t.Context()); err == nil {
			t.Errorf("with token %q, kept: read %q, want an error", own, got)
		}
		w.fetches(t, 0, 0)
	}
	t.Run("keeps it with KeepCaller", func(t *testing.T) { keep(t, &byHeader) })
	t.Run("is stopped with RejectCaller", func(t *testing.T) { reject(t, &byHeader) })
}

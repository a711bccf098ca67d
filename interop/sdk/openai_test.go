// openai-go sets Authorization whenever it has a key, and it looks for one in
// the environment.

package sdk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// A gateway to a model that takes the tokens of our login. Whatever key the SDK
// finds in its environment is replaced.
func Example_openAI() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Handler: openAI.api(new(shelf))},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Source:     tokens,
		Origins:    []string{srv.URL},
		OnConflict: requestforge.ReplaceCaller,
		Retry:      requestforge.RetryPolicy{RetryMax: 3},
	})
	if err != nil {
		log.Fatal(err)
	}
	client := openai.NewClient(
		option.WithHTTPClient(&http.Client{Transport: transport, Timeout: 30 * time.Second}),
		option.WithBaseURL(srv.URL),
		option.WithAPIKey("replaced"),
		option.WithMaxRetries(0),
	)

	completion, err := client.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{
		Model:    "echo",
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("It works.")},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(completion.Choices[0].Message.Content)
	// Output: It works.
}

func TestOpenAI(t *testing.T) { check(t, openAI) }

var openAI = register(sdk{
	name:   "openai/openai-go",
	module: "github.com/openai/openai-go/v3",
	option: "option.WithHTTPClient",
	auth:   sometimes,
	tries:  3,
	how: "`ReplaceCaller`: with `WithAPIKey`, or `OPENAI_API_KEY` in its environment, it sets the header itself. " +
		"`WithMaxRetries(0)` leaves retries to us; a POST, as most of its calls are, is then retried after a 429 or a 503 with Retry-After, " +
		"and after other failures only with `RetryNonIdempotent`.",

	api: func(s *shelf) http.Handler {
		mux := http.NewServeMux()
		answer := func(w http.ResponseWriter, id, content string) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{
				"id": id, "object": "chat.completion", "model": "echo", "created": 1,
				"choices": []any{map[string]any{
					"index": 0, "finish_reason": "stop",
					"message": map[string]any{"role": "assistant", "content": content},
				}},
			})
		}
		mux.HandleFunc("GET /chat/completions/value", func(w http.ResponseWriter, r *http.Request) {
			answer(w, "value", s.get())
		})
		mux.HandleFunc("POST /chat/completions", func(w http.ResponseWriter, r *http.Request) {
			var params struct {
				Messages []struct{ Content string }
			}
			if err := json.NewDecoder(r.Body).Decode(&params); err != nil || len(params.Messages) != 1 {
				http.Error(w, `{"error":{"message":"no message"}}`, http.StatusBadRequest)
				return
			}
			s.put(params.Messages[0].Content)
			answer(w, "value", params.Messages[0].Content)
		})
		return mux
	},

	open: func(t *testing.T, c conn) client {
		opts := []option.RequestOption{option.WithHTTPClient(c.http), option.WithBaseURL(c.url)}
		if c.credential != "" {
			opts = append(opts, option.WithAPIKey(c.credential))
		} else {
			opts = append(opts, option.WithHeaderDel("Authorization")) // of the environment
		}
		if !c.retries {
			opts = append(opts, option.WithMaxRetries(0))
		}
		api := openai.NewClient(opts...)
		content := func(completion *openai.ChatCompletion, err error) (string, error) {
			if err != nil {
				return "", err
			}
			if len(completion.Choices) != 1 {
				return "", fmt.Errorf("%d choices, want 1", len(completion.Choices))
			}
			return completion.Choices[0].Message.Content, nil
		}
		return client{
			read: func(ctx context.Context) (string, error) {
				return content(api.Chat.Completions.Get(ctx, "value"))
			},
			write: func(ctx context.Context, value string) (string, error) {
				return content(api.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{
					Model:    "echo",
					Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(value)},
				}))
			},
		}
	},
})

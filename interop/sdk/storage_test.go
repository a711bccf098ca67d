// google.golang.org/api takes a client and then adds no credentials of its own.
// What holds for storage/v1 does for all of its services.

package sdk_test

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	gcs "google.golang.org/api/storage/v1"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// A Google API downloads an object from a server behind a login of two calls.
func Example_googleStorage() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Handler: storage.api(&shelf{value: "It works."})},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Source:  tokens,
		Origins: []string{srv.URL},
		Retry:   requestforge.RetryPolicy{RetryMax: 3},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	service, err := gcs.NewService(ctx,
		option.WithHTTPClient(&http.Client{Transport: transport, Timeout: 30 * time.Second}),
		option.WithEndpoint(srv.URL+"/storage/v1/"),
	)
	if err != nil {
		log.Fatal(err)
	}

	resp, err := service.Objects.Get("bucket", "note").Context(ctx).Download()
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	note, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(note))
	// Output: It works.
}

func TestGoogleStorage(t *testing.T) { check(t, storage) }

var storage = register(sdk{
	name:   "google.golang.org/api",
	module: "google.golang.org/api",
	option: "option.WithHTTPClient",
	auth:   never,
	where:  " with this option",
	tries:  1,
	how:    "As it is: the option turns the SDK's own login off. Of its own it retries only the chunks of a resumable upload, which are POSTs and so not retried by our layer, too.",

	api: func(s *shelf) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /storage/v1/b/bucket/o/note", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, s.get())
		})
		mux.HandleFunc("POST /upload/storage/v1/b/bucket/o", func(w http.ResponseWriter, r *http.Request) {
			media, err := uploaded(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			s.put(media)
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{
				"name": "note", "size": strconv.Itoa(len(media)), "md5Hash": checksum(media),
			})
		})
		return mux
	},

	open: func(t *testing.T, c conn) client {
		service, err := gcs.NewService(t.Context(), option.WithHTTPClient(c.http), option.WithEndpoint(c.url+"/storage/v1/"))
		if err != nil {
			t.Fatal(err)
		}
		return client{
			read: func(ctx context.Context) (string, error) {
				resp, err := service.Objects.Get("bucket", "note").Context(ctx).Download()
				if err != nil {
					return "", err
				}
				defer resp.Body.Close()
				note, err := io.ReadAll(resp.Body)
				return string(note), err
			},
			// The answer describes the object and doesn't repeat it.
			write: func(ctx context.Context, value string) (string, error) {
				object, err := service.Objects.Insert("bucket", &gcs.Object{Name: "note"}).
					Media(strings.NewReader(value)).Context(ctx).Do()
				if err != nil {
					return "", err
				}
				if object.Size != uint64(len(value)) || object.Md5Hash != checksum(value) {
					return "", fmt.Errorf("got an object of %d bytes, MD5 %s", object.Size, object.Md5Hash)
				}
				return value, nil
			},
		}
	},
})

// uploaded returns the media of a multipart upload, which has the object's
// description before it.
func uploaded(r *http.Request) (string, error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return "", err
	}
	parts := multipart.NewReader(r.Body, params["boundary"])
	if _, err := parts.NextPart(); err != nil {
		return "", err
	}
	part, err := parts.NextPart()
	if err != nil {
		return "", err
	}
	media, err := io.ReadAll(part)
	if err != nil {
		return "", err
	}
	if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
		return "", errors.New("there are more than two parts")
	}
	return string(media), nil
}

func checksum(value string) string {
	sum := md5.Sum([]byte(value))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Media of more than a chunk, 16 MiB by default, is a resumable upload. The SDK
// sends a chunk again that a server failed on; it is a POST, which our layer
// doesn't retry, so nothing multiplies. A token that is revoked between two
// chunks is replaced, as for any request.
func TestGoogleStorageResumesAnUpload(t *testing.T) {
	const chunk = 256 << 10
	value := text("chunk", chunk+chunk/2)
	synctest.Test(t, func(t *testing.T) {
		var w *world
		var parts []string
		failed := false
		resumable := *storage
		resumable.api = func(s *shelf) http.Handler {
			mux := http.NewServeMux()
			mux.HandleFunc("POST /upload/storage/v1/b/bucket/o", func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Location", "https://"+r.Host+"/session")
			})
			mux.HandleFunc("POST /session", func(rw http.ResponseWriter, r *http.Request) {
				part, err := io.ReadAll(r.Body)
				if err != nil {
					http.Error(rw, err.Error(), http.StatusBadRequest)
					return
				}
				if !failed {
					failed = true
					rw.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				parts = append(parts, string(part))
				if len(parts) == 1 {
					w.revoke()
					rw.Header().Set("X-Http-Status-Code-Override", "308")
					return
				}
				s.put(strings.Join(parts, ""))
				rw.Header().Set("Content-Type", "application/json")
				json.NewEncoder(rw).Encode(map[string]any{"name": "note", "md5Hash": checksum(s.get())})
			})
			return mux
		}
		w = newSimulation(t, &resumable, requestforge.Config{Retry: requestforge.RetryPolicy{RetryMax: 1}})
		service, err := gcs.NewService(t.Context(),
			option.WithHTTPClient(&http.Client{Transport: w.above}), option.WithEndpoint(w.sim.URL+"/storage/v1/"))
		if err != nil {
			t.Fatal(err)
		}
		object, err := service.Objects.Insert("bucket", &gcs.Object{Name: "note"}).
			Media(strings.NewReader(value), googleapi.ChunkSize(chunk)).Context(t.Context()).Do()
		if err != nil || object.Md5Hash != checksum(value) || w.shelf.get() != value {
			t.Fatalf("got %+v, %v; the API has %s", object, err, brief(w.shelf.get()))
		}
		// The session, the first chunk twice, the second one; and that
		// one's replay, which the SDK didn't see.
		if sent, arrived := w.above.sent(), w.below.sent(); sent != 4 || arrived != 5 {
			t.Errorf("the SDK sent %d requests, and %d arrived; want 4 and 5", sent, arrived)
		}
		w.fetches(t, 1, 2)
		w.closed(t)
	})
}

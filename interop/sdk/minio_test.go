// minio-go takes a transport, not a client. Like the SDK of AWS it signs if it
// is given credentials, and sends bodies without GetBody.

package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// MinIO behind a gateway that takes a token instead of a signature.
func Example_minio() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Handler: bucket(&shelf{value: "It works."})},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Source:        tokens,
		Origins:       []string{srv.URL},
		MaxReplayBody: 1 << 20, // a larger object is sent once
		Retry:         requestforge.RetryPolicy{RetryMax: 3},
	})
	if err != nil {
		log.Fatal(err)
	}
	client, err := minio.New(strings.TrimPrefix(srv.URL, "http://"), &minio.Options{
		Transport:  transport,
		Region:     "eu-central-1",
		MaxRetries: 1, // it counts tries
		// Anonymous. Without any Creds a PUT over http would be signed.
		Creds: credentials.NewStaticV4("", "", ""),
	})
	if err != nil {
		log.Fatal(err)
	}

	object, err := client.GetObject(context.Background(), "shop", "value", minio.GetObjectOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer object.Close()
	value, err := io.ReadAll(object)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(value))
	// Output: It works.
}

func TestMinIO(t *testing.T) { check(t, minIO) }

var minIO = register(sdk{
	name:   "minio/minio-go",
	module: "github.com/minio/minio-go/v7",
	option: "minio.Options.Transport",
	auth:   sometimes,
	tries:  10,
	how: "`credentials.NewStaticV4(\"\", \"\", \"\")` for our token: without any `Creds` a PUT over http is signed with an empty key. With credentials it signs (SigV4): keep `KeepCaller`, and the request passes through as it is, without a replay. " +
		"`MaxRetries: 1` leaves retries to us. " +
		"Bodies have no `GetBody`: `MaxReplayBody` has to hold an object, or a part of it, that is to be replayed. " +
		"Set `Region`, or it asks for it first.",

	api:  bucket,
	body: 32 << 10,

	open: func(t *testing.T, c conn) client {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		options := &minio.Options{
			Transport: c.http.Transport,
			Secure:    u.Scheme == "https",
			Creds:     credentials.NewStaticV4("", "", ""),
			Region:    region,
		}
		if c.credential != "" {
			options.Creds = credentials.NewStaticV4(accessKey, c.credential, "")
		}
		if !c.retries {
			options.MaxRetries = 1
		}
		api, err := minio.New(u.Host, options)
		if err != nil {
			t.Fatal(err)
		}
		return client{
			read: func(ctx context.Context) (string, error) {
				object, err := api.GetObject(ctx, "shop", "value", minio.GetObjectOptions{})
				if err != nil {
					return "", err
				}
				defer object.Close()
				value, err := io.ReadAll(object)
				return string(value), err
			},
			write: func(ctx context.Context, value string) (string, error) {
				info, err := api.PutObject(ctx, "shop", "value", strings.NewReader(value), int64(len(value)), minio.PutObjectOptions{})
				if err != nil {
					return "", err
				}
				if info.ETag != etag(value) {
					return "", fmt.Errorf("stored as %s, want %s", info.ETag, etag(value))
				}
				return value, nil
			},
		}
	},
})

// Without Creds a PUT over http is signed all the same, with an empty key. Our
// layer would take that for the caller's own header.
func TestMinIOWithoutCredsIsNotAnonymous(t *testing.T) {
	errNotSent := errors.New("not sent")
	var made string
	api, err := minio.New("127.0.0.1", &minio.Options{
		Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			made = req.Header.Get("Authorization")
			req.Body.Close()
			return nil, errNotSent
		}),
		Region:     region,
		MaxRetries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = api.PutObject(t.Context(), "shop", "value", strings.NewReader("a"), 1, minio.PutObjectOptions{})
	if !errors.Is(err, errNotSent) {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made, sigV4+" Credential=/") {
		t.Errorf("Authorization is %q; the table says that it is signed with an empty key", made)
	}
}

// minioStatus is the status of the response that err is about, 0 if there is
// none.
func minioStatus(err error) int {
	if err == nil {
		return 0
	}
	return minio.ToErrorResponse(err).StatusCode
}

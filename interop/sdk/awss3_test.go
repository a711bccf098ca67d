// aws-sdk-go-v2 signs if it is given credentials, and sends bodies without
// GetBody.

package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// A store behind a gateway that takes a token instead of a signature.
func Example_awsS3() {
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
	client := s3.New(s3.Options{
		HTTPClient:   &http.Client{Transport: transport, Timeout: 30 * time.Second},
		Credentials:  aws.AnonymousCredentials{},
		Retryer:      aws.NopRetryer{},
		BaseEndpoint: aws.String(srv.URL),
		UsePathStyle: true,
		Region:       "eu-central-1",
	})

	object, err := client.GetObject(context.Background(), &s3.GetObjectInput{
		Bucket: aws.String("shop"),
		Key:    aws.String("value"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer object.Body.Close()
	value, err := io.ReadAll(object.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(value))
	// Output: It works.
}

func TestAWSS3(t *testing.T) { check(t, awsS3) }

var awsS3 = register(sdk{
	name:   "aws-sdk-go-v2 s3",
	module: "github.com/aws/aws-sdk-go-v2/service/s3",
	option: "s3.Options.HTTPClient",
	auth:   sometimes,
	tries:  3,
	how: "`aws.AnonymousCredentials{}` for our token. With other credentials it signs (SigV4): keep `KeepCaller`, and the request passes through as it is, without a replay. " +
		"`aws.NopRetryer{}` leaves retries to us. " +
		"Bodies have no `GetBody`: `MaxReplayBody` has to hold an object, or a part of it, that is to be replayed. " +
		"Its `Expect: 100-continue` from 2 MiB on spares nothing: `http.Transport` doesn't wait for requests that don't say HTTP/1.1, and its don't.",

	api:  bucket,
	body: 32 << 10,

	open: func(t *testing.T, c conn) client {
		options := s3.Options{
			HTTPClient:   c.http,
			Credentials:  aws.AnonymousCredentials{},
			BaseEndpoint: aws.String(c.url),
			UsePathStyle: true,
			Region:       region,
		}
		if c.credential != "" {
			options.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: c.credential}, nil
			})
		}
		if !c.retries {
			options.Retryer = aws.NopRetryer{}
		}
		api := s3.New(options)
		return client{
			read: func(ctx context.Context) (string, error) {
				out, err := api.GetObject(ctx, &s3.GetObjectInput{
					Bucket: aws.String("shop"),
					Key:    aws.String("value"),
				})
				if err != nil {
					return "", err
				}
				defer out.Body.Close()
				value, err := io.ReadAll(out.Body)
				return string(value), err
			},
			write: func(ctx context.Context, value string) (string, error) {
				out, err := api.PutObject(ctx, &s3.PutObjectInput{
					Bucket: aws.String("shop"),
					Key:    aws.String("value"),
					Body:   strings.NewReader(value),
				})
				if err != nil {
					return "", err
				}
				if got := strings.Trim(aws.ToString(out.ETag), `"`); got != etag(value) {
					return "", fmt.Errorf("stored as %s, want %s", got, etag(value))
				}
				return value, nil
			},
		}
	},
})

// awsStatus is the status of the response that err is about, 0 if there is
// none.
func awsStatus(err error) int {
	if e := (*smithyhttp.ResponseError)(nil); errors.As(err, &e) {
		return e.HTTPStatusCode()
	}
	return 0
}

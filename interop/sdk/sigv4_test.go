// What a server of S3 does with a request signed with AWS Signature Version 4:
// it signs it again and compares.

package sdk_test

import (
	"bufio"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// What the clients and the server of these tests share, besides the secret key.
const (
	accessKey = "AKIAMADEUP"
	region    = "eu-central-1"
)

const sigV4 = "AWS4-HMAC-SHA256"

// verifySigV4 reports what is wrong with the signature of r, nil if nothing is.
// A layer that had touched the Authorization header or any header or part of
// the URL that was signed would be found out. The payload is signed by its
// hash, which isn't compared with the body here.
func verifySigV4(r *http.Request) error {
	fields, ok := strings.CutPrefix(r.Header.Get("Authorization"), sigV4+" ")
	if !ok {
		return fmt.Errorf("not signed with %s", sigV4)
	}
	part := map[string]string{}
	for field := range strings.SplitSeq(fields, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		part[name] = value
	}
	scope := strings.Split(part["Credential"], "/") // key, date, region, service, aws4_request
	if len(scope) != 5 || scope[0] != accessKey || scope[3] != "s3" {
		return fmt.Errorf("Credential %q is not one of %s for s3", part["Credential"], accessKey)
	}
	signed := strings.Split(part["SignedHeaders"], ";")
	if !slices.Contains(signed, "host") || !slices.Contains(signed, "x-amz-date") {
		return fmt.Errorf("SignedHeaders %q lack host or x-amz-date", part["SignedHeaders"])
	}
	date, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return err
	}

	// The same request, with what was signed and nothing else.
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.RequestURI(), nil)
	if err != nil {
		return err
	}
	for _, name := range signed {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = slices.Clone(r.Header.Values(name))
		}
	}
	err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(
		context.Background(),
		aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: credential},
		again, r.Header.Get("X-Amz-Content-Sha256"), scope[3], scope[2], date)
	if err != nil {
		return err
	}
	_, want, _ := strings.Cut(again.Header.Get("Authorization"), "Signature=")
	if subtle.ConstantTimeCompare([]byte(part["Signature"]), []byte(want)) != 1 {
		return errors.New("the signature doesn't match the request")
	}
	return nil
}

// readBody returns the object in r's body, which is chunked in the way of
// AWS if each chunk is signed.
func readBody(r *http.Request) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(r.Body)
	}
	var object []byte
	in := bufio.NewReader(r.Body)
	for {
		line, err := in.ReadString('\n') // "5;chunk-signature=…"
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil {
			return nil, err
		}
		chunk := make([]byte, n+2) // with the line's end
		if _, err := io.ReadFull(in, chunk); err != nil {
			return nil, err
		}
		if n == 0 {
			return object, nil
		}
		object = append(object, chunk[:n]...)
	}
}

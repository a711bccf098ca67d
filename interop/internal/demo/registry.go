// What the programs do with a registry.

package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/requestforge/requestforge"
)

var (
	content = []byte("hello, registry")
	digest  = fmt.Sprintf("sha256:%x", sha256.Sum256(content))

	// Repository is the path of a repository, Uploads where a blob's
	// upload begins, and Blob where it is then.
	Repository = "/v2/demo/hello"
	Uploads    = Repository + "/blobs/uploads/"
	Blob       = Repository + "/blobs/" + digest
)

// Push uploads the blob and returns an error unless that ends with status.
func Push(ctx context.Context, client *http.Client, status int) error {
	resp, err := send(ctx, client, http.MethodPost, Uploads, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusAccepted {
		to, err := resp.Location()
		if err != nil {
			return err
		}
		values := to.Query()
		values.Set("digest", digest)
		to.RawQuery = values.Encode()
		if resp, err = send(ctx, client, http.MethodPut, to.String(), content); err != nil {
			return err
		}
	}
	if resp.StatusCode != status {
		return fmt.Errorf("the upload ends with %s, not %d", resp.Status, status)
	}
	return nil
}

// Pull downloads the blob and compares it.
func Pull(ctx context.Context, client *http.Client) error {
	resp, err := send(ctx, client, http.MethodGet, Blob, nil)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !bytes.Equal(got, content) {
		return fmt.Errorf("the download ends with %s and %d bytes", resp.Status, len(got))
	}
	return nil
}

// send returns the response with its body in memory.
func send(ctx context.Context, client *http.Client, method, url string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(got))
	return resp, err
}

// AwaitRefusal returns once the server of url takes tok no longer.
func AwaitRefusal(ctx context.Context, url string, tok *requestforge.Token) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+tok.AccessToken)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusUnauthorized {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

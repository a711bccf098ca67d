// A secret in a file that a platform mounts, and replaces while the program runs.
// client_auth.go decides when the secret is read.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"
)

// SecretFile returns a [ClientAuth].SecretFrom that reads the secret from a file at each
// call, for secrets that a platform mounts and replaces:
//
//	ClientAuth: &requestforge.ClientAuth{ID: "shop", SecretFrom: requestforge.SecretFile("/run/secrets/shop")}
//
// White space around the secret is removed. The function returns an error if the file is
// missing, empty, larger than 64 KiB, a directory, a pipe, a device, or not UTF-8 text. The
// error names the file and quotes nothing of the content. A file that is replaced by a
// rename, or by a symbolic link as in Kubernetes, is read whole, old or new. A file that is
// overwritten in place may be read half-written. Several goroutines may call the function at
// once.
func SecretFile(name string) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		for try := 1; ; try++ {
			secret, err := readSecret(name)
			// Kubernetes removes the old files as soon as the link leads to the new files. So
			// an open that has followed the old link finds no file.
			if try == 3 || !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
				return secret, err
			}
		}
	}
}

// readSecret reads the secret in a file.
func readSecret(name string) (string, error) {
	info, err := os.Stat(name)
	switch {
	case name == "":
		return "", errors.New("the file has no name")
	case err != nil:
		return "", err
	case info.IsDir():
		return "", fmt.Errorf("%s is a directory; name the file in it", name)
	case !info.Mode().IsRegular(): // opening a pipe would wait for a writer
		return "", fmt.Errorf("%s is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", err
	case len(text) > maxSecret:
		return "", fmt.Errorf("%s is larger than 64 KiB", name)
	case !utf8.Valid(text):
		return "", fmt.Errorf("%s is no text in UTF-8", name)
	}
	secret := strings.TrimSpace(strings.TrimPrefix(string(text), "\ufeff"))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	return secret, nil
}

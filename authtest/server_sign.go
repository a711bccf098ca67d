// The signatures that the API demands of requests. The configuration is in
// server.go.

package authtest

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// Signature describes the signature of each request to the API. The key is the
// token of the first place in API.Wants. If the key must not be sent along, let the
// first place want a Value of the step instead of the token.
type Signature struct {
	// Header is the request header that has the signature. "" means
	// X-Signature.
	Header string

	// DateHeader is the request header with the time of the signature, in the
	// format of HTTP or RFC 3339. "" means Date.
	DateHeader string

	// MaxAge is how far the date may be from the server's clock. 0 means
	// five minutes.
	MaxAge time.Duration

	// NonceHeader is a request header whose value is valid once, so that a client
	// has to sign a request anew before each send. "" means no nonce.
	NonceHeader string

	// Sign computes the right signature. Nil means the HMAC-SHA-256, in lower-case
	// hexadecimal, of SigningString.
	Sign func(key string, r *http.Request) string
}

// SigningString returns the text that is signed unless a Signature has a Sign: the
// method, the path with the query, the date as in its header, and the nonce if
// there is a nonce. A newline separates the parts.
func (sig Signature) SigningString(r *http.Request) string {
	parts := []string{r.Method, r.URL.RequestURI(), r.Header.Get(cmp.Or(sig.DateHeader, "Date"))}
	if sig.NonceHeader != "" {
		parts = append(parts, r.Header.Get(sig.NonceHeader))
	}
	return strings.Join(parts, "\n")
}

// checkSignature returns the mistake in the signature of a request, or records the
// request's nonce if there is no mistake. The caller holds s.mu.
func (s *Simulator) checkSignature(r *http.Request, key *token) string {
	sig := s.cfg.API.Signature
	if sig == nil {
		return ""
	}
	header, dateHeader := cmp.Or(sig.Header, "X-Signature"), cmp.Or(sig.DateHeader, "Date")
	for _, name := range []string{header, dateHeader, sig.NonceHeader} {
		if name != "" && (len(r.Header.Values(name)) != 1 || r.Header.Get(name) == "") {
			return "header " + name + " is missing, or there is more than one"
		}
	}
	date, err := http.ParseTime(r.Header.Get(dateHeader))
	if err != nil {
		date, err = time.Parse(time.RFC3339, r.Header.Get(dateHeader))
	}
	if err != nil {
		return "header " + dateHeader + " isn't a date"
	}
	if age := s.now().Sub(date).Abs(); age > cmp.Or(sig.MaxAge, 5*time.Minute) {
		return "header " + dateHeader + " is too far from the server's clock"
	}
	want := ""
	if sig.Sign != nil {
		want = sig.Sign(key.value, r)
	} else {
		mac := hmac.New(sha256.New, []byte(key.value))
		mac.Write([]byte(sig.SigningString(r)))
		want = hex.EncodeToString(mac.Sum(nil))
	}
	if r.Header.Get(header) != want {
		return "the signature isn't that of this request with " + key.label
	}
	if sig.NonceHeader == "" {
		return ""
	}
	nonce := key.label + " " + r.Header.Get(sig.NonceHeader)
	if s.nonces[nonce] {
		return "the nonce in header " + sig.NonceHeader + " was used before"
	}
	s.nonces[nonce] = true
	return ""
}

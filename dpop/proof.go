// The claims of a proof, and the nonces of servers. Proofs of requests without a pipeline's
// token are client.go's.

package dpop

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/net/http/httpguts"

	"github.com/requestforge/requestforge"
)

// claims are those of a proof (RFC 9449 §4.2).
type claims struct {
	jwt.Claims `json:"-"` // none of these is in a proof

	ID     string `json:"jti"`
	Method string `json:"htm"`
	URL    string `json:"htu"`
	Issued int64  `json:"iat"`
	Hash   string `json:"ath,omitempty"`
	Nonce  string `json:"nonce,omitempty"`
}

// A server is who gives nonces and takes proofs with them.
type server struct {
	origin string
	token  bool // of requests with a token: an API may have the origin of the auth server
}

// Without double quotes, since AuthTransport masks quoted text in an error of Prepare.
var (
	errScheme = errors.New(prefix + "the request's Authorization doesn't have the scheme DPoP, so the token is bound to no key: send the login through dpop.Client, or, if the server binds tokens without the token type DPoP, set Scheme of the Place to DPoP")
	errURL    = errors.New(prefix + "a proof takes an absolute URL with a path")
)

// Prepare is for the field Prepare of [requestforge.Config] and [requestforge.AuthTransport],
// beside [Key.Learn]. Each send, retries and replays included, gets a new proof of the method,
// the URL and the token in Authorization, with a new jti, and with the newest nonce of the
// URL's origin if the origin has given one (RFC 9449 §7.1). The URL in the proof has neither
// query nor fragment, and is normalized (§4.3).
//
// Authorization must have the scheme DPoP, as with a nil Attach and an auth server that names
// the token type DPoP. A token of another type is bound to no key, and so an error: nothing is
// sent. A program that takes unbound tokens, too, calls Prepare only if tok.Type() is DPoP.
//
// net/http repeats a request by itself if the connection turns out to be closed; the repeat
// has the same proof.
func (k *Key) Prepare(out *http.Request, tok *requestforge.Token) error {
	if err := k.check(); err != nil {
		return err
	}
	token := boundToken(out)
	if token == "" {
		return errScheme
	}
	out.Header.Set("Authorization", "DPoP "+token) // some servers know one spelling
	return k.sign(out, token)
}

// Learn is for the field Learn beside [Key.Prepare]. Learn remembers the nonce of each
// response, whatever the status, for the origin of the request. Learn returns true for a 401
// that asks for a nonce and brings one (use_dpop_nonce, RFC 9449 §9): the request is sent once
// more, with the same token and a new proof. A second such 401 in a row goes to the caller, and
// costs no token either. resp must have a Request; the token may be nil.
func (k *Key) Learn(resp *http.Response, _ *requestforge.Token) (again bool) {
	if k.check() != nil || resp == nil || resp.Request == nil || resp.Request.URL == nil {
		return false
	}
	learned := k.learn(resp, server{originOf(resp.Request.URL), true})
	return learned && resp.StatusCode == http.StatusUnauthorized && challenged(resp)
}

// learn remembers the nonce of resp, and reports whether there is one.
func (k *Key) learn(resp *http.Response, from server) bool {
	nonces := resp.Header["Dpop-Nonce"]
	if len(nonces) != 1 || !isNonce(nonces[0]) { // several are a mistake (§8.1)
		return false
	}
	k.nonces.Add(from, nonces[0])
	return true
}

// maxNonce is in bytes: no nonce may make a request too large to be read.
const maxNonce = 4096

// isNonce reports whether s is 1*NQCHAR (RFC 9449 §8.1, RFC 6749 appendix A).
func isNonce(s string) bool {
	return s != "" && len(s) <= maxNonce && !strings.ContainsFunc(s, func(r rune) bool {
		return r < '!' || r > '~' || r == '"' || r == '\\'
	})
}

// challenged reports whether a challenge of resp asks for a nonce. The error code is looked
// for anywhere in the header: at worst a mistaken match costs one send.
func challenged(resp *http.Response) bool {
	for _, line := range resp.Header["Www-Authenticate"] {
		if strings.Contains(line, nonceWanted) {
			return true
		}
	}
	return false
}

// nonceWanted is the error code of RFC 9449 §8 and §9.
const nonceWanted = "use_dpop_nonce"

// boundToken returns the token of the scheme DPoP in out's Authorization, or "".
func boundToken(out *http.Request) string {
	scheme, token, _ := strings.Cut(out.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "DPoP") {
		return ""
	}
	return strings.TrimLeft(token, " ")
}

// sign puts a proof onto out, for token unless token is "", in place of any proof there.
func (k *Key) sign(out *http.Request, token string) error {
	proof, err := k.proof(out, token)
	if err != nil {
		return err
	}
	for name := range out.Header {
		if strings.EqualFold(name, "DPoP") {
			delete(out.Header, name)
		}
	}
	out.Header.Set("DPoP", proof)
	return nil
}

func (k *Key) proof(out *http.Request, token string) (string, error) {
	to, err := target(out)
	if err != nil {
		return "", err
	}
	c := claims{
		ID:     rand.Text(),
		Method: cmp.Or(out.Method, http.MethodGet),
		URL:    to,
		Issued: time.Now().Unix(),
	}
	if token != "" {
		c.Hash = hash(token)
	}
	c.Nonce, _ = k.nonces.Get(server{originOf(out.URL), token != ""})
	signed, err := (&jwt.Token{
		Method: jwt.SigningMethodES256,
		Header: map[string]any{"typ": "dpop+jwt", "alg": jwt.SigningMethodES256.Alg(), "jwk": k.jwk},
		Claims: c,
	}).SignedString(k.private())
	if err != nil {
		return "", fmt.Errorf(prefix+"the proof can't be signed: %w", err)
	}
	return signed, nil
}

// hash is the ath of a token.
func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64url(sum[:])
}

// target is the htu of out: the target URI without query and fragment, as the server has it
// from the request line and Host, and normalized by scheme (RFC 3986 §6.2.3).
func target(out *http.Request) (string, error) {
	if out.URL == nil || out.URL.Host == "" || out.URL.Scheme == "" {
		return "", errURL
	}
	path, _, _ := strings.Cut(out.URL.RequestURI(), "?")
	if !strings.HasPrefix(path, "/") { // Opaque
		return "", errURL
	}
	return origin(out.URL.Scheme, cmp.Or(out.Host, out.URL.Host)) + path, nil
}

func originOf(u *url.URL) string { return origin(u.Scheme, u.Host) }

// origin returns scheme://host in lower case and ASCII, without the default port.
func origin(scheme, host string) string {
	scheme, host = strings.ToLower(scheme), strings.ToLower(host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	host = strings.TrimSuffix(host, ":")
	if ascii, err := httpguts.PunycodeHostPort(host); err == nil {
		host = ascii
	}
	return scheme + "://" + host
}

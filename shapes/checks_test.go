// Values that are computed, as the server of a row checks them; and the mutants of a
// request, which the server has to refuse.

package shapes_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The settings of all rows: what a program would have from its configuration. Each is odd
// enough to be noticed if it is escaped once too often or too seldom.
const (
	user     = "ada+ops@example.org"
	password = `p%40ss wörd+"&=`
	clientID = "client 7:b"
	secret   = "s3cr%2Bt/+= ~"
	apiKey   = "k-3f9a/77+b=="
	patToken = "pat-5d1c9be0a4"
)

var secrets = []string{password, secret, apiKey, patToken}

var (
	rsaKey   = must(rsa.GenerateKey(rand.Reader, 2048))
	ecKey    = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	thumb    = sha256.Sum256([]byte("the certificate of the client"))
	x5tS256  = base64.RawURLEncoding.EncodeToString(thumb[:])
	readyJWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyZWFkeSJ9.made-beforehand" // from the settings
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// assertion is a JWT that the client signs.
type assertion struct {
	alg, kid, x5t string
	typ           bool // has to be there
	iss, sub, aud string
	more          map[string]string
	life          time.Duration
	jti           bool
}

func (w assertion) is() check {
	return func(got string, at *at) error {
		header, claims, err := verify(got, w.alg)
		if err != nil {
			return err
		}
		bad := func(name string) error { return fmt.Errorf("JWT: %s: %w", name, errValue) }
		switch {
		case w.typ && header["typ"] != "JWT":
			return bad("typ")
		case w.kid != "" && header["kid"] != w.kid:
			return bad("kid")
		case w.kid == "" && header["kid"] != nil:
			return bad("kid, of which there is none")
		case w.x5t != "" && header["x5t#S256"] != w.x5t:
			return bad("x5t#S256")
		}
		for name, want := range map[string]string{"iss": w.iss, "sub": w.sub, "aud": w.aud} {
			if want != "" && claims[name] != want {
				return bad(name)
			}
		}
		for name, want := range w.more {
			if claims[name] != want {
				return bad(name)
			}
		}
		iat, ok1 := claims["iat"].(float64)
		exp, ok2 := claims["exp"].(float64)
		now := float64(time.Now().Unix())
		switch {
		case !ok1 || !ok2:
			return bad("iat or exp")
		case iat > now || iat < now-60 || exp <= now:
			return bad("iat or exp")
		case exp-iat > w.life.Seconds()+60:
			return bad("lifetime")
		}
		if w.jti {
			id, _ := claims["jti"].(string)
			if len(id) < 16 {
				return bad("jti")
			}
			return at.once(id)
		}
		return nil
	}
}

func jwtParts(text string) (header, claims map[string]any, signed string, sig []byte, err error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, nil, "", nil, errors.New("no JWT")
	}
	for i, into := range []*map[string]any{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(raw, into) != nil {
			return nil, nil, "", nil, errors.New("no JWT")
		}
	}
	sig, err = base64.RawURLEncoding.Strict().DecodeString(parts[2])
	return header, claims, parts[0] + "." + parts[1], sig, err
}

func verify(text, alg string) (header, claims map[string]any, err error) {
	header, claims, signed, sig, err := jwtParts(text)
	if err != nil {
		return nil, nil, err
	}
	if header["alg"] != alg {
		return nil, nil, fmt.Errorf("JWT: alg is %v", header["alg"])
	}
	sum := sha256.Sum256([]byte(signed))
	ok := false
	switch alg {
	case "RS256":
		ok = rsa.VerifyPKCS1v15(&rsaKey.PublicKey, crypto.SHA256, sum[:], sig) == nil
	case "PS256":
		ok = rsa.VerifyPSS(&rsaKey.PublicKey, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case "ES256":
		ok = len(sig) == 64 && ecdsa.Verify(&ecKey.PublicKey, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	}
	if !ok {
		return nil, nil, errors.New("JWT: the signature is wrong")
	}
	return header, claims, nil
}

// Avanan: a signature over four values, and on API requests the path.
func avananSig(api bool) check {
	return func(got string, at *at) error {
		h := at.r.Header
		text := h.Get("X-Av-Req-Id") + h.Get("X-Av-App-Id") + h.Get("X-Av-Date")
		if api {
			text += at.r.URL.Path
		}
		sum := sha256.Sum256([]byte(base64.StdEncoding.EncodeToString([]byte(text + secret))))
		if got != hex.EncodeToString(sum[:]) {
			return errValue
		}
		return nil
	}
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// randomID is a UUID that comes for the first time.
var randomID check = func(got string, at *at) error {
	if !uuid.MatchString(got) {
		return errValue
	}
	return at.once(got)
}

// nowAs is the present time in a layout.
func nowAs(layout string) check {
	return func(got string, _ *at) error {
		t, err := time.Parse(layout, got)
		if err != nil || time.Since(t).Abs() > time.Minute {
			return errValue
		}
		return nil
	}
}

// totp is a time-based one-time password, good once.
var totp check = func(got string, at *at) error {
	if got != otpAt(time.Now()) {
		return errValue
	}
	return at.once(got)
}

// otpAt is what the device that both sides know shows at t.
func otpAt(t time.Time) string {
	sum := sha256.Sum256([]byte("otp seed" + strconv.FormatInt(t.Unix()/30, 10)))
	n := uint32(sum[0])<<16 | uint32(sum[1])<<8 | uint32(sum[2])
	return fmt.Sprintf("%08d", n)
}

// bare header values that aren't the row's business.
var ordinary = []string{"User-Agent", "Accept", "Accept-Encoding", "Content-Type", "Content-Length", "Referer"}

// mutants are requests that differ from a good one in one place, each of which the server
// has to refuse: a value that is missing, another value, a value in another place. So each
// value that a program sends is one that the row demands. A call is tried once a run.
func (s *sim) mutants(f *found) {
	name := "API"
	if f.call != nil {
		name = f.call.name
	}
	name += " " + f.at.r.Method
	if s.tried[name] {
		return
	}
	s.tried[name] = true
	try := func(what string, change func(r *http.Request, body []byte) []byte) {
		r := f.at.r.Clone(f.at.r.Context())
		body := change(r, bytes.Clone(f.at.body))
		r.Body = io.NopCloser(bytes.NewReader(body))
		if got := s.lookCall(r, body); got != nil && got.err == nil {
			s.fault("%s: the simulator takes it with %s", name, what)
		}
		if got := s.lookAPI(r, body); got != nil && got.err == nil {
			s.fault("%s: the simulator takes it with %s", name, what)
		}
	}
	for _, h := range sortedKeys(f.at.r.Header) {
		if _, named := headerWant(f.want, h); h == "Cookie" || !named && slices.Contains(ordinary, h) {
			continue
		}
		try("no header "+h, func(r *http.Request, b []byte) []byte { r.Header.Del(h); return b })
		try("another header "+h, func(r *http.Request, b []byte) []byte { r.Header.Set(h, r.Header.Get(h)+"x"); return b })
		try(h+" in another header", func(r *http.Request, b []byte) []byte {
			r.Header["X-Other"] = r.Header[h]
			r.Header.Del(h)
			return b
		})
		try(h+" in the query", func(r *http.Request, b []byte) []byte {
			q := r.URL.Query()
			q.Set(h, r.Header.Get(h))
			r.URL.RawQuery = q.Encode()
			r.Header.Del(h)
			return b
		})
	}
	cookies := f.at.r.Cookies()
	for i, c := range cookies {
		put := func(r *http.Request, change func(c *http.Cookie) bool) {
			r.Header.Del("Cookie")
			for j, c := range cookies {
				c := *c
				if i != j || change(&c) {
					r.AddCookie(&c)
				}
			}
		}
		try("no cookie "+c.Name, func(r *http.Request, b []byte) []byte {
			put(r, func(*http.Cookie) bool { return false })
			return b
		})
		try("another cookie "+c.Name, func(r *http.Request, b []byte) []byte {
			put(r, func(c *http.Cookie) bool { c.Value += "x"; return true })
			return b
		})
	}
	q := f.at.r.URL.Query()
	for _, p := range sortedKeys(q) {
		change := func(value ...string) func(*http.Request, []byte) []byte {
			return func(r *http.Request, b []byte) []byte {
				q := r.URL.Query()
				if q.Del(p); value != nil {
					q[p] = value
				}
				r.URL.RawQuery = q.Encode()
				return b
			}
		}
		try("no query parameter "+p, change())
		try("another query parameter "+p, change(q.Get(p)+"x"))
	}
	s.bodyMutants(f, try)
}

func (s *sim) bodyMutants(f *found, try func(string, func(*http.Request, []byte) []byte)) {
	if len(f.at.body) == 0 {
		return
	}
	switch typ, _, _ := strings.Cut(f.at.r.Header.Get("Content-Type"), ";"); typ {
	case "application/x-www-form-urlencoded":
		fields, _ := url.ParseQuery(string(f.at.body))
		for _, name := range sortedKeys(fields) {
			change := func(value ...string) func(*http.Request, []byte) []byte {
				return func(_ *http.Request, b []byte) []byte {
					fields, _ := url.ParseQuery(string(b))
					if fields.Del(name); value != nil {
						fields[name] = value
					}
					return []byte(fields.Encode())
				}
			}
			try("no form field "+name, change())
			try("another form field "+name, change(fields.Get(name)+"x"))
			try("the form in the query", func(r *http.Request, b []byte) []byte {
				r.URL.RawQuery = string(b)
				return nil
			})
		}
	case "application/json":
		for _, change := range []string{"no", "another"} {
			for i := 0; ; i++ {
				body, path := jsonMutant(f.at.body, i, change == "no")
				if path == "" {
					break
				}
				try(change+" JSON "+path, func(*http.Request, []byte) []byte { return body })
			}
		}
	default: // each secret in the text
		texts := maps.Clone(f.at.v)
		for i, value := range append([]string{user}, secrets...) {
			var b strings.Builder
			xml.EscapeText(&b, []byte(value))
			texts["setting"+strconv.Itoa(i)] = b.String()
		}
		for name, value := range texts {
			if !clock[name] && value != "" && bytes.Contains(f.at.body, []byte(value)) {
				try("another "+name, func(_ *http.Request, b []byte) []byte {
					return bytes.ReplaceAll(b, []byte(value), []byte(value+"x"))
				})
			}
		}
	}
}

// jsonMutant changes or leaves out the i-th member below body.
func jsonMutant(body []byte, i int, drop bool) ([]byte, string) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return nil, ""
	}
	var path string
	n := -1
	var walk func(v any, at string)
	walk = func(v any, at string) {
		switch v := v.(type) {
		case map[string]any:
			for _, name := range sortedKeys(v) {
				here := at + "." + name
				if n++; n == i {
					path = here
					if drop {
						delete(v, name)
					} else {
						v[name] = "altered"
					}
					return
				}
				walk(v[name], here)
				if path != "" {
					return
				}
			}
		case []any:
			for j, w := range v {
				walk(w, at+"."+strconv.Itoa(j))
				if path != "" {
					return
				}
			}
		}
	}
	walk(v, "")
	return must(json.Marshal(v)), path
}

func headerWant(f facts, canonical string) (any, bool) {
	for name, want := range f.header {
		if http.CanonicalHeaderKey(name) == canonical {
			return want, true
		}
	}
	return nil, false
}

func sortedKeys[M ~map[string]V, V any](m M) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

package dpop_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/dpop"
)

// exampleKey is the key of RFC 7515 appendix A.3, and its thumbprint by RFC 7638 §3: the hash
// of the members in this order.
func exampleKey(t testing.TB) (pkcs8 []byte, thumbprint string) {
	const x, y, d = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
	scalar, err := base64.RawURLEncoding.DecodeString(d)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err = x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pkcs8, ath(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`)
}

func TestKeyComesBackAsItWasWritten(t *testing.T) {
	data, thumbprint := exampleKey(t)
	key, err := dpop.ParseKey(data)
	if err != nil || key.Thumbprint() != thumbprint {
		t.Fatalf("%v, %v; want %s", key, err, thumbprint)
	}
	if p := prove(t, key, "GET", "https://api.example.com/", "t"); p.jkt != thumbprint {
		t.Errorf("%+v", p)
	}
	again, err := key.MarshalBinary()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("%x, %v; want %x", again, err, data)
	}
	if a, b := dpop.NewKey(), dpop.NewKey(); a.Thumbprint() == b.Thumbprint() || len(a.Thumbprint()) != 43 {
		t.Errorf("%v and %v", a, b)
	}
}

// Whatever isn't a key of this kind is an error that says so, and shows none of it.
func TestWhatIsNoKeyIsAnError(t *testing.T) {
	pkcs8 := func(key any) []byte {
		data, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := exampleKey(t)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":   {nil, "PKCS #8"},
		"text":      {[]byte("hunter2"), "PKCS #8"},
		"half":      {good[:len(good)/2], "PKCS #8"},
		"P-384":     {pkcs8(p384), "P-256"},
		"Ed25519":   {pkcs8(edwards), "P-256"},
		"no scalar": {bytes.Replace(good, good[36:68], make([]byte, 32), 1), "PKCS #8"},
	} {
		key, err := dpop.ParseKey(c.data)
		if key != nil || err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
}

// Everything that takes a key says which mistake it is, and sends nothing.
func TestNilAndZeroKeysAreErrors(t *testing.T) {
	const want = "requestforge: dpop: the Key is nil or zero; NewKey, StoredKey and ParseKey make one"
	for _, key := range []*dpop.Key{nil, {}} {
		req, err := http.NewRequest("GET", "https://api.example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "DPoP t")
		if err := key.Prepare(req, nil); err == nil || err.Error() != want {
			t.Error(err)
		}
		if key.Learn(&http.Response{StatusCode: 401, Request: req, Header: http.Header{"Dpop-Nonce": {"n"}, "Www-Authenticate": {"DPoP error=use_dpop_nonce"}}}, nil) {
			t.Error("Learn wants to send again")
		}
		if _, err := key.MarshalBinary(); err == nil || err.Error() != want {
			t.Error(err)
		}
		if got := key.Thumbprint(); got != "" {
			t.Error(got)
		}
		base := roundTrip(func(*http.Request) (*http.Response, error) { t.Error("sent"); return nil, nil })
		if _, err := dpop.Client(key, base).Get("https://auth.example.com/"); err == nil || !strings.Contains(err.Error(), want) {
			t.Error(err)
		}
		if text := fmt.Sprint(key); strings.Contains(text, "PANIC") {
			t.Error(text)
		}
	}
	if key := dpop.NewKey(); key.Learn(nil, nil) || key.Learn(&http.Response{}, nil) {
		t.Error("Learn wants nothing sent again")
	}
	var none dpop.Keys
	if _, err := none.Client(nil).Get("https://auth.example.com/"); err == nil || !strings.Contains(err.Error(), "Keys function is nil") {
		t.Error(err)
	}
	if none.Learn(nil, nil) || none.Learn(&http.Response{}, nil) {
		t.Error("Learn wants nothing sent again")
	}
}

// A token that is bound to no key is an error: a program that wants the binding isn't talked
// out of it (RFC 9449 §5).
func TestTokenThatIsNotBoundIsAnError(t *testing.T) {
	raw := strings.ToUpper("DPoP") // a spelling that http.Header doesn't know
	key := dpop.NewKey()
	for name, c := range map[string]struct {
		tok    requestforge.Token
		attach []requestforge.Place
		want   string // of the error; "": it is sent with the scheme DPoP
	}{
		"Bearer":         {requestforge.Token{AccessToken: "t"}, nil, "scheme DPoP"},
		"another place":  {requestforge.Token{AccessToken: "t", TokenType: "DPoP"}, []requestforge.Place{{Header: "X-Token"}}, "scheme DPoP"},
		"the type":       {requestforge.Token{AccessToken: "t", TokenType: "DPoP"}, nil, ""},
		"in lower case":  {requestforge.Token{AccessToken: "t", TokenType: "dpop"}, nil, ""},
		"the Place says": {requestforge.Token{AccessToken: "t"}, []requestforge.Place{{Header: "Authorization", Scheme: "DPoP"}}, ""},
	} {
		sent := ""
		layer := &requestforge.AuthTransport{
			Source: requestforge.StaticToken(&c.tok), Origins: []string{"https://api.example.com"}, Attach: c.attach,
			Prepare: key.Prepare, Learn: key.Learn,
			Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				sent = req.Header.Get("Authorization")
				if n := len(req.Header.Values("DPoP")); n != 1 || req.Header[raw] != nil {
					t.Errorf("%s: %v", name, req.Header)
				}
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
			}),
		}
		req, err := http.NewRequest("GET", "https://api.example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header[raw] = []string{"the caller's"}
		req.Header.Set("DPoP", "the caller's, too")
		resp, err := layer.RoundTrip(req)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) || sent != "" || resp != nil {
				t.Errorf("%s: %v, %q", name, err, sent)
			}
			continue
		}
		if err != nil || sent != "DPoP t" {
			t.Errorf("%s: %v, %q", name, err, sent)
		}
	}
}

// Only MarshalBinary writes the private key.
func TestKeyPrintsItsThumbprintOnly(t *testing.T) {
	data, thumbprint := exampleKey(t)
	key, err := dpop.ParseKey(data)
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{"jpsQnnGQmL", fmt.Sprintf("%x", data[36:68])[:12], fmt.Sprint(new(big.Int).SetBytes(data[36:68])), fmt.Sprint(data[36:40])[1:10]}
	check := func(how, text string, shown bool) {
		t.Helper()
		for _, secret := range secrets {
			if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
				t.Errorf("%s: %s", how, text)
			}
		}
		if shown && !strings.Contains(text, thumbprint) {
			t.Errorf("%s: %s", how, text)
		}
	}
	type inside struct {
		Key    dpop.Key
		hidden dpop.Key
		ptr    *dpop.Key
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		check(verb, fmt.Sprintf(verb, key), true)
		check(verb, fmt.Sprintf(verb, *key), true)
		check(verb, fmt.Sprintf(verb, inside{*key, *key, key}), true)
		check(verb, fmt.Sprintf(verb, &inside{*key, *key, key}), true)
		check(verb, fmt.Sprintf(verb, dpop.Client(key, nil)), false)
		check(verb, fmt.Sprintf(verb, dpop.Client(key, nil).Transport), false)
	}
	for _, v := range []any{key, *key, inside{Key: *key}} {
		text, err := json.Marshal(v)
		check("JSON", string(text)+fmt.Sprint(err), true)
	}
	text, err := xml.Marshal(key)
	check("XML", string(text)+fmt.Sprint(err), true)
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", key, "value", *key)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", key, "value", *key)
	check("slog", out.String(), true)
	out.Reset()
	if err := gob.NewEncoder(&out).Encode(key); err == nil {
		t.Error("gob encodes a key")
	}
	check("gob", out.String(), false)
}

// Whatever is taken for a key is one: it signs, and comes back as it was written.
func FuzzParseKey(f *testing.F) {
	good, _ := exampleKey(f)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte("-----BEGIN PRIVATE KEY-----"))
	f.Add([]byte(nil))
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P521()} {
		private, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		data, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := dpop.ParseKey(data)
		if err != nil {
			if key != nil || !strings.HasPrefix(err.Error(), "requestforge: dpop: ParseKey: ") {
				t.Error(key, err)
			}
			return
		}
		written, err := key.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		again, err := dpop.ParseKey(written)
		if err != nil || again.Thumbprint() != key.Thumbprint() {
			t.Fatal(again, err)
		}
		req, err := http.NewRequest("GET", "https://api.example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "DPoP t")
		if err := key.Prepare(req, nil); err != nil {
			t.Fatal(err)
		}
		if p, err := verify(req.Header.Get("DPoP")); err != nil || p.jkt != key.Thumbprint() {
			t.Fatal(p, err)
		}
	})
}

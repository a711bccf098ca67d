// The key, its encoding, and the public part, which alone is printed. Proofs are proof.go's,
// and keeping a key is stored.go's.

package dpop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	lru "github.com/hashicorp/golang-lru/v2"
)

// A Key signs the proofs: an ECDSA key on P-256, for ES256. [NewKey], [StoredKey] and
// [ParseKey] make a Key; the zero Key is an error of each request. A Key remembers the nonces
// of servers, so a program makes one Key and shares that Key. All methods are safe for concurrent use.
//
// Printed, logged or encoded as JSON a Key shows its thumbprint. To keep the key use
// [StoredKey] or [Key.MarshalBinary].
type Key struct {
	// fmt prints a function as an address, whatever the verb and the value around the
	// function.
	private func() *ecdsa.PrivateKey

	jwk        json.RawMessage // the public key
	thumbprint string
	nonces     *lru.Cache[server, string]
}

// maxServers bounds the nonces that a Key remembers. A forgotten nonce costs a send.
const maxServers = 1024

var (
	errNoKey   = errors.New(prefix + "the Key is nil or zero; NewKey, StoredKey and ParseKey make one")
	errDamaged = errors.New(prefix + "ParseKey: not a private key in PKCS #8 and DER, which MarshalBinary writes")
	errCurve   = errors.New(prefix + "ParseKey: the key is not an ECDSA key on P-256, which ES256 takes")
	errGob     = errors.New(prefix + "encoding/gob would write the private key; Key.MarshalBinary is the one encoding that may")
)

// NewKey makes a new key, which ends with the process unless the program keeps the encoding
// of [Key.MarshalBinary].
func NewKey() *Key {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil {
		var key *Key
		if key, err = newKey(private); err == nil {
			return key
		}
	}
	panic(prefix + "NewKey: " + err.Error()) // crypto/rand doesn't fail, and the curve is right
}

// ParseKey returns the key that [Key.MarshalBinary] has written: PKCS #8 in DER, of an ECDSA
// key on P-256. An error shows nothing of data.
func ParseKey(data []byte) (*Key, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(data)
	if err != nil {
		return nil, errDamaged
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, errCurve
	}
	if _, err := private.ECDH(); err != nil { // no number of the curve
		return nil, errDamaged
	}
	return newKey(private)
}

func newKey(private *ecdsa.PrivateKey) (*Key, error) {
	point, err := private.PublicKey.Bytes() // 4, X, Y
	if err != nil {
		return nil, errDamaged
	}
	nonces, err := lru.New[server, string](maxServers)
	if err != nil {
		return nil, err
	}
	// The thumbprint is the hash of these members in this order (RFC 7638 §3.2).
	jwk := fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, base64url(point[1:33]), base64url(point[33:]))
	sum := sha256.Sum256([]byte(jwk))
	return &Key{
		private:    func() *ecdsa.PrivateKey { return private },
		jwk:        json.RawMessage(jwk),
		thumbprint: base64url(sum[:]),
		nonces:     nonces,
	}, nil
}

func base64url(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// check returns what is wrong with k.
func (k *Key) check() error {
	if k == nil || k.private == nil {
		return errNoKey
	}
	return nil
}

// MarshalBinary encodes the private key as PKCS #8 in DER, for [ParseKey]. The encoding is a
// secret: a thief of tokens who has the encoding, too, can use the tokens.
func (k *Key) MarshalBinary() ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	data, err := x509.MarshalPKCS8PrivateKey(k.private())
	if err != nil {
		return nil, errCurve
	}
	return data, nil
}

// Thumbprint is the SHA-256 thumbprint of the public key (RFC 7638) in base64url, 43 bytes,
// which is no secret. Servers call the thumbprint jkt. A program sends the thumbprint to an
// authorization endpoint as dpop_jkt (RFC 9449 §10), and puts the thumbprint into
// PipelineConfig.KeyPrefix to keep the tokens of different keys apart. The thumbprint of a nil
// or zero Key is "".
func (k *Key) Thumbprint() string {
	if k == nil {
		return ""
	}
	return k.thumbprint
}

// String returns the thumbprint.
func (k Key) String() string { return "dpop.Key(" + k.thumbprint + ")" }

// Format writes String, whatever the verb.
func (k Key) Format(s fmt.State, verb rune) {
	text := k.String()
	if verb == 'q' {
		text = strconv.Quote(text)
	}
	io.WriteString(s, text)
}

// MarshalJSON returns String as a JSON string.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// MarshalText returns String, for XML and the like.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// GobEncode is an error: what gob writes could be read back.
func (k Key) GobEncode() ([]byte, error) { return nil, errGob }

// LogValue returns String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

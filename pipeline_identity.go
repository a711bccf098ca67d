// The identity and the configuration of a step: two short texts that represent both in the
// storage. The identity decides where tokens are found, the configuration whether a failure
// still concerns the step.

package requestforge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/slowhash"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// An Identifier is a [Fetcher] that can say who it logs in as. Identity returns the
// configuration without secrets: address, client, user, scope, audience. Fetchers with
// tokens of different people, rights or servers have different identities; a rotated secret
// leaves the identity unchanged. Empty means unknown, for a fetcher that runs a function of
// the program. An Identity is hashed, never shown. NewPipeline calls Identity once.
//
// A fetcher that wraps another fetcher has its own Identity and Fingerprint, or else those
// of the fetcher returned by its method Unwrap() Fetcher.
type Identifier interface {
	Identity() string
}

// A Fingerprinter is a [Fetcher] that can write down its whole configuration, secrets
// included. A [Pipeline] computes a slow hash and keeps a small part, so that processes
// share failures until a secret is corrected. Few programs need a Fingerprinter.
type Fingerprinter interface {
	Fingerprint(w io.Writer)
}

// storageKey is the key of a step in the storage. The name is escaped so that the last
// colon always ends the prefix. A hash of the identities of the step and its ancestors
// follows: another client, user, scope, audience or URL finds none of the old tokens, and
// two configurations side by side don't fight over one record. A step without any identity,
// its own or an ancestor's, has no hash. parents are the keys of the parents. cookies says
// whether the step's tokens include the login's cookies.
func storageKey(prefix, name, identity string, cookies bool, parents []string) string {
	key := prefix + ":" + url.QueryEscape(name)
	if cookies {
		key += ";cookies" // tokens from before don't have them; no escaped name has a semicolon
	}
	h, known := sha256.New(), identity != ""
	fmt.Fprintf(h, "%q", identity)
	for _, parent := range parents {
		fmt.Fprintf(h, "%q", parent)
		known = known || strings.Contains(parent[strings.LastIndexByte(parent, ':')+1:], "@")
	}
	if !known {
		return key
	}
	return key + "@" + hex.EncodeToString(h.Sum(nil)[:10])
}

// identityOf returns the identity that a step names, or else its fetcher's.
func identityOf(said string, f Fetcher) string {
	if i, ok := unwrap.Find[Identifier](f); ok && said == "" && !mistake.IsNil(f) {
		return i.Identity()
	}
	return said
}

// inManyProcesses reports whether further processes may use the storage.
func inManyProcesses(s Storage) bool {
	_, own := unwrap.Find[interface{ inOneProcess() }](s)
	return !own && s != nil
}

// print represents the configuration of a step, secrets included, so that a failure is
// forgotten as soon as the configuration changes. Two bounds limit what a print reveals:
// each guess at a password costs a slow hash, and only 16 bits of the hash are kept. One
// change in 65,536 goes unnoticed, for the length of a cool-down.
//
// The print includes changing secrets (see reading) as of the last reading.
//
// The invariant: a goroutine computes the print for the secrets of one moment once. No
// caller waits longer than the caller's context says. A fetcher whose Fingerprint crashes
// has no print.
type print struct {
	made  atomic.Pointer[madePrint] // the last print
	begun atomic.Bool               // the slow hash no longer waits for the hashes of other steps
	work  flight.Flight[madePrint]
}

// madePrint is a print, and the sum of the changing secrets in the print.
type madePrint struct {
	of   sum
	text string
}

// ready reports whether of is cheap by now for these secrets.
func (p *print) ready(secrets sum) bool {
	made := p.made.Load()
	return made != nil && made.of == secrets
}

// of returns the print. Computing a print takes a tenth of a second and more, and continues
// if ctx ends before.
func (p *print) of(ctx context.Context, secrets sum, config []byte, fetchers ...Fetcher) (string, error) {
	for {
		if made := p.made.Load(); made != nil && made.of == secrets {
			return made.text, nil
		}
		made, err := p.work.Do(ctx, func(context.Context) (madePrint, error) {
			if made := p.made.Load(); made != nil && made.of == secrets { // made by a call that has just ended
				return *made, nil
			}
			p.begun.Store(false)
			w := bytes.NewBuffer(config)
			for _, f := range fetchers {
				fmt.Fprintf(w, "%T ", f)
				if d, ok := unwrap.Find[Fingerprinter](f); ok {
					d.Fingerprint(w)
				}
			}
			if secrets != (sum{}) {
				w.Write(secrets[:])
			}
			made := madePrint{secrets, slowhash.Print(w.Bytes(), func() { p.begun.Store(true) })}
			p.made.Store(&made)
			return made, nil
		})
		if err != nil || made.of == secrets { // else a call for other secrets was under way
			return made.text, err
		}
	}
}

// From a record to a token and back. What a flight does with the storage is
// pipeline_fetch.go's.

package requestforge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/requestforge/requestforge/internal/challenge"
)

// minKeep is how long the record of a step without children and without a refresh token
// outlives its expiry: long enough for the mark of the record to outlive every copy of the
// token.
const minKeep = time.Hour

// records turns the records of a pipeline into tokens of its ledger, and tokens
// into records.
type records struct {
	graph  *graph
	owner  owner         // of the tokens
	suffix string        // of the owner's keys
	ahead  time.Duration // PipelineConfig.RefreshAhead
}

// key returns the key of s, one of the owner's steps, in the storage.
func (rs *records) key(s *step) string {
	if !s.perSubject {
		return s.key
	}
	return s.key + rs.suffix
}

// read makes a token of a record, or says why the record is none of s.
func (rs *records) read(s *step, r *Record, now time.Time) (*held, error) {
	if r.Key != rs.key(s) {
		return nil, errors.New("it was saved under another key")
	}
	if r.Stamp == 0 || r.Stamp > maxStamp {
		return nil, errors.New("its stamp is out of range")
	}
	if err := r.Token.validate(); err != nil {
		return nil, err
	}
	if len(r.Lineage) != len(s.ancestors) {
		return nil, errors.New("it was made by another graph of steps")
	}
	made := lineage(len(rs.graph.steps))
	for _, a := range s.ancestors {
		stamp, ok := r.Lineage[a.key]
		if !ok {
			return nil, errors.New("it was made by another graph of steps")
		}
		if stamp == 0 || stamp > maxStamp {
			return nil, errors.New("a stamp of its lineage is out of range")
		}
		made[a.index] = stamp
	}
	made[s.index] = r.Stamp
	tok, issued := *r.Token, r.Issued
	if issued.After(now) && !tok.Expiry.IsZero() {
		// Written by a clock ahead of ours, which put the expiry as
		// far ahead.
		tok.Expiry = tok.Expiry.Add(now.Sub(issued))
		issued = now
	}
	h := rs.hold(s, tok, issued, made)
	h.loaded, h.until = true, nanoseconds(r.Until)
	h.askFor(challenge.Lasting(r.Challenge))
	return h, nil
}

// write returns the record of h, without a stamp.
func (rs *records) write(h *held) Record {
	s := h.step
	r := Record{Key: rs.key(s), Token: h.tok, Issued: h.issued.Round(0), Lineage: make(map[string]uint64, len(s.ancestors))}
	r.Until, r.Challenge = h.ends(), h.asked()
	for _, a := range s.ancestors {
		r.Lineage[a.key] = h.stamps[a.index]
	}
	if h.tok.RefreshToken == "" && !s.parent {
		// A parent's mark is in its record, and has to outlive the tokens
		// made from the parent, which stay until replaced.
		r.Keep = max(minKeep, h.tok.Expiry.Sub(h.issued))
	}
	return r
}

// hold makes tok ready to be handed out. made holds the stamps.
func (rs *records) hold(s *step, tok Token, issued time.Time, made stamps) *held {
	one := &heldInOne{token: tok, held: held{owner: rs.owner, step: s, issued: issued, stamps: made}}
	h := &one.held
	h.tok = &one.token
	one.prov.begin(h.tok)
	one.prov.origin = h
	h.tok.prov, h.tok.AccessToken = &one.prov, one.prov.text() // one text for both
	defer h.watchUse()
	// Beyond these years Unix nanoseconds overflow, or are 0. The first is
	// never for our ends, the second long ago.
	if tok.Expiry.IsZero() || tok.Expiry.Year() > 2200 {
		return h
	}
	if tok.Expiry.Year() < 1971 {
		h.renew, h.end, h.edge = 1, 1, 1
		return h
	}
	life := tok.Expiry.Sub(issued)
	h.end = tok.Expiry.Add(-min(maxSkew, life/10)).UnixNano()
	h.edge = h.end
	if rs.ahead > 0 && life > 0 {
		window := min(life/2, rs.ahead)
		window -= rand.N(window/4 + 1) // replicas must not all come at once
		h.renew = min(h.end, tok.Expiry.Add(-window).UnixNano())
		h.edge = h.renew
	}
	return h
}

// nanoseconds is a bound in Unix nanoseconds; 0: no bound, or a bound beyond the life of
// any process.
func nanoseconds(t time.Time) int64 {
	switch {
	case t.IsZero() || t.Year() > 2200:
		return 0
	case t.Year() < 1971:
		return 1
	}
	return t.UnixNano()
}

// sameToken reports whether r, which may be nil, is what h was saved as.
func sameToken(r *Record, h *held) bool {
	return r != nil && r.Token.AccessToken == h.tok.AccessToken && r.Token.RefreshToken == h.tok.RefreshToken && r.Issued.Equal(h.issued)
}

// canonicalExtra gives extra the form of a loaded Extra, so that a fetched token equals
// its loaded copy: JSON's values, numbers exact.
func canonicalExtra(extra map[string]any) (map[string]any, error) {
	if len(extra) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(extra)
	if err != nil {
		return nil, fmt.Errorf("the token's Extra can't be written as JSON: %T", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var same map[string]any
	if err := dec.Decode(&same); err != nil {
		return nil, fmt.Errorf("the token's Extra can't be read back from JSON: %T", err)
	}
	return same, nil
}

// Parents' tokens that an auth server has refused: which tokens a fetch replaces, and how
// often. pipeline_fetch.go asks again with newer tokens.

package requestforge

import (
	"slices"
	"time"
)

// mostReplaced is how often one fetch replaces its parents' tokens. More than once happens
// only if a replacement may be no newer than the refusal: another process has saved it, and
// the auth server may have ended it together with the refused token.
const mostReplaced = 3

// refusedParents are the refusals of parents' tokens within one fetch.
//
// The invariant: only a parent's token made after a refusal proves that the refused token
// wasn't the reason. The refused tokens are revoked after the very request has worked with
// newer tokens, not before: a good token must survive an auth server's bad day.
type refusedParents struct {
	since    time.Time // the begin of the fetch
	times    int       // replacements so far
	at       time.Time // of the last replacement
	replaced []*step   // then
	revoke   []blame   // the refused tokens
}

// replace returns the tokens of parents, refused just now, that may be replaced. A single
// subject's refusal isn't enough to take a shared token from all subjects, unless certain.
func (r *refusedParents) replace(fs *flights, s *step, parents []*held, certain bool) (suspects []*held) {
	now := time.Now()
	if suspects = r.suspects(fs, s, parents, certain, now); len(suspects) == 0 {
		if r.times > 0 {
			fs.ledger.blamedInVain(s, now)
			r.revoke = nil
		}
		return nil
	}
	r.times, r.at, r.replaced = r.times+1, now, nil
	for _, h := range suspects {
		r.replaced = append(r.replaced, h.step)
		if certain || fs.of(h.step) == fs {
			r.revoke = append(r.revoke, blame{h.step, h.stamp()})
		}
	}
	return suspects
}

// suspects returns the refused parents that may be replaced now. At first the fetch's own
// parents are judged by their history, and shared parents by how often the subject suspected
// shared parents in vain; later on only those count that replaced a suspect without being
// newer than the refusal.
func (r *refusedParents) suspects(fs *flights, s *step, parents []*held, certain bool, now time.Time) []*held {
	again := r.times > 0
	if again {
		parents = slices.DeleteFunc(slices.Clone(parents), func(h *held) bool { return !r.stale(h) })
	}
	var own, shared []*held
	for _, h := range parents {
		switch {
		case fs.of(h.step) == fs:
			own = append(own, h)
		case h.takenAt.Load() < r.since.UnixNano(): // else the token has just worked for another subject
			shared = append(shared, h)
		}
	}
	if !certain && !again && !fs.ledger.mayBlame(s, own, now) {
		own = nil
	}
	if len(shared) > 0 && !fs.ledger.suspectParents(s, shared, again, now) {
		shared = nil
	}
	return append(own, shared...)
}

// stale reports whether h has replaced a refused token, but may be older than the refusal. By
// whose clock another process has saved a token is unknown.
func (r *refusedParents) stale(h *held) bool {
	return r.times < mostReplaced && slices.Contains(r.replaced, h.step) && (h.loaded || h.issued.Before(r.at))
}

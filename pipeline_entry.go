// One step in a ledger (pipeline_ledger.go): its entry, and the messages to and from the
// ledger.

package requestforge

import (
	"hash/maphash"
	"time"
)

// entry holds a ledger's knowledge of one step.
type entry struct {
	top      uint64 // the highest stamp or mark heard of
	stored   uint64 // version of the entry in the storage, when last looked at
	token    *held  // the newest known token, live or not; nil: no token
	spent    uint64 // refresh tokens up to this stamp must not be sent again
	spentSum uint64 // of the refresh token spent last, see refreshSum: a lost answer of a Save gives a token two stamps; 0: none
	gone     uint64 // the highest tombstone heard of
	due      bool   // a tombstone of this process isn't in the storage yet
	untold   bool   // a Revoke has failed, and the storage may not know the mark
	tried    bool   // while due: a Delete was sent, and its answer may be lost
	fetching bool   // a flight of the step is under way
	refusals refusals

	// Most steps of most subjects never have these: a hundred thousand subjects fit
	// into memory without.
	doubt    *doubt    // about the newest refresh token; nil: none
	failures *failures // nil: no fetch has failed
}

// hear notes the stamps of f, whose token is of no use. A due tombstone is replaced only by
// a later tombstone.
func (e *entry) hear(f finding) {
	e.top = max(e.top, f.mark, f.gone, f.version)
	if e.due {
		e.gone = max(e.gone, f.gone)
	}
}

// strip drops the token, and keeps what its fetch was asked for.
func (e *entry) strip() {
	if e.token != nil && (len(e.token.asked()) > 0 || e.failures != nil) {
		e.failed().asked = e.token.asked()
	}
	e.token = nil
}

// asked returns what the fetch of the newest token was asked for because of challenges.
func (e *entry) asked() map[string]string {
	switch {
	case e.token != nil:
		return e.token.asked()
	case e.failures != nil:
		return e.failures.asked
	}
	return nil
}

// spend notes that refresh tokens up to stamp must not be sent again.
func (e *entry) spend(stamp uint64) { e.spent = max(e.spent, stamp) }

// refreshSeed is the process's own.
var refreshSeed = maphash.MakeSeed()

// refreshSum is a sum of h's tokens, never 0: another login may bring the same refresh token.
func (h *held) refreshSum() uint64 {
	return maphash.Comparable(refreshSeed, [2]string{h.tok.AccessToken, h.tok.RefreshToken}) | 1
}

// refreshable reports whether the refresh token of the newest token may be sent.
func (e *entry) refreshable() bool {
	t := e.token
	return t != nil && t.tok.RefreshToken != "" && t.stamp() > e.spent && (e.spentSum == 0 || t.refreshSum() != e.spentSum)
}

// end forgets the tokens up to stamp, refresh tokens included, and the failures.
func (e *entry) end(stamp uint64) {
	e.top, e.failures = max(e.top, stamp), nil
	e.spend(stamp)
	if e.token != nil && e.token.stamp() <= stamp {
		e.token = nil
	}
}

// doubtAbout notes a doubt whether the refresh token with a stamp was spent, and reports
// whether the doubt has lasted for so long that a login is due.
func (e *entry) doubtAbout(stamp uint64, now time.Time) bool {
	if e.doubt == nil {
		e.doubt = &doubt{}
	}
	return e.doubt.about(stamp, now)
}

// failed returns the failures of the step, to add to.
func (e *entry) failed() *failures {
	if e.failures == nil {
		e.failures = &failures{}
	}
	return e.failures
}

// answers returns what the challenges of the step have cost, nil if no API has asked for more.
func (e *entry) answers() *answers {
	if e.failures == nil {
		return nil
	}
	return e.failures.answers
}

// cooling returns the remembered failure, or nil.
func (e *entry) cooling(now time.Time) *failure {
	if e.failures == nil || !e.failures.cur.lasts(now) {
		return nil
	}
	return e.failures.cur
}

// unburied returns the part of a logout that is missing in the storage, by the finding of a
// load: a tombstone that this process couldn't write, or a tombstone lost by the storage,
// with or without an old record in its place. The owner of such a record is unknown: a
// logout that comes too late costs a login, a logout left out leaves a session open.
func (e *entry) unburied(f finding) (lack, bool) {
	lost := e.gone > f.gone && (f.version == 0 || f.version != f.gone && f.version <= e.gone)
	if !e.due && !lost {
		return lack{}, false
	}
	n := lack{step: f.step, bury: true, seen: f.version}
	if e.top > max(f.mark, f.version) && f.version > 0 {
		n.mark = e.top // for the tombstone to be above the lost stamps
	}
	return n, true
}

// facts returns what State shows of the step, but for whether the token is live.
func (e *entry) facts(now time.Time) facts {
	f := facts{token: e.token, fetching: e.fetching, due: e.due || e.untold, failure: e.cooling(now)}
	if e.failures != nil {
		f.last = e.failures.last
	}
	return f
}

// A finding is what a load found under the key of a step.
type finding struct {
	step    *step
	mark    uint64
	gone    uint64
	version uint64 // see Entry.Version
	tok     *held  // nil: no record, or a useless record
}

// A lack is a mark or a tombstone of a step that the storage never heard of or has lost.
type lack struct {
	step *step
	mark uint64 // 0: no mark
	bury bool   // a tombstone
	seen uint64 // the version to be buried
}

// A saving says how a flight has to save a new token.
type saving struct {
	floor    uint64 // the new stamp has to be higher
	stored   uint64 // version of the entry to be replaced
	previous *held  // the token known before; nil: no token
}

// facts are State's view of one step.
type facts struct {
	token    *held // nil: no token
	live     bool
	fetching bool
	due      bool     // a tombstone, or a mark, isn't in the storage yet
	failure  *failure // still remembered; nil: no such failure
	last     *failure // the last failure, remembered or not; nil: no failure
}

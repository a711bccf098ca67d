// What was seen of a run, by those who saw it: callers, connections, servers,
// the auth server and the pipeline's log. What it should have been is
// oracle.go's. Nothing here knows how requestforge works inside.

// Package oracle judges a chaos run by the ledgers that were kept of it.
package oracle

import "time"

// Rules are what the run was set up with.
type Rules struct {
	Origins     []string      // where the token may go, below /api/
	Steps       []string      // of the login, the first one first
	RetryMax    int           // sends again after a failure
	AuthReplays int           // sends again after a refusal
	BucketSize  int           // invalidations at once ...
	BucketEvery time.Duration // ... and one more so often
	Memory      time.Duration // the longest that a failed fetch is remembered, unless a Retry-After is longer
	Grace       time.Duration // what a caller may take beyond its context

	// Slack is how far apart two ledgers may be about one instant: the
	// machine may take a goroutine's time away between an act and its note.
	Slack time.Duration

	// Renewals is how many natural ends of tokens fall into the run.
	Renewals int
}

// Run is everything that was seen. Times are from its beginning.
type Run struct {
	Rules
	Took time.Duration

	Requests    []*Request
	Hops        []*Hop
	Sends       []*Send
	Visits      []*Visit
	AuthCalls   []*AuthCall
	Revocations []Revocation
	Refusals    []Window // an API refused every token
	Notes       []Note

	Spared         uint64 // by the pipeline's own count
	FamiliesKilled int    // refresh tokens that came twice
	SpoiltSaves    int    // saves that the storage failed
	Leaked         string // goroutines left at the end; "" if none
}

// BodyKind says how a request's body can be had again.
type BodyKind string

// The kinds of body.
const (
	NoBody    BodyKind = "none"
	GetBody   BodyKind = "GetBody"
	KeptBody  BodyKind = "reader" // short enough to be kept for another send
	LargeBody BodyKind = "large"  // longer than what is kept: one-shot
)

// Failure says what kind of error a caller got.
type Failure string

// The kinds of failure.
const (
	NoFailure     Failure = ""
	EndedContext  Failure = "its context"
	NoToken       Failure = "no token"
	BrokenNetwork Failure = "network"
	BrokenBody    Failure = "response cut off"
	WrongBody     Failure = "response of another request"
)

// Request is one call of a caller, redirects and all.
type Request struct {
	ID       int
	Method   string
	URL      string
	Body     BodyKind
	BodyHash string // what every server that reads the body has to see
	Keyed    bool   // it has an Idempotency-Key

	Began, Due, Ended time.Duration // Due is its context's end; Ended 0: never
	Status            int
	Failure           Failure
	Err               string

	Closes   []int         // of each body that the stack was given, how often it closed it
	LastRead time.Duration // when the last Read of its body returned
}

// Hop is one RoundTrip of the whole stack: http.Client makes one more of them
// for each redirect.
type Hop struct {
	ID, Hop      int
	Began, Ended time.Duration // Ended 0: never
	Status       int           // 0: an error
}

// Send is one request that the stack handed to net/http.
type Send struct {
	ID, Hop, N   int // N counts the sends of the hop, from 1
	Origin, Path string
	Token        string // its label: "user-3"
	Began, Ended time.Duration
	Status       int // 0: an error
	Opened       bool
	Closes       int // of the response's body
}

// Visit is one request that a server has seen.
type Visit struct {
	ID, Hop, N           int
	Origin, Method, Path string
	At                   time.Duration
	Tokens               []string // labels of all tokens found anywhere in it
	Live                 bool     // the auth server's book has the token as good, at that instant
	Refusing             bool     // the server refused every token
	Ran                  bool     // the handler did its work
	BodyHash             string   // of what it did its work with
	Status               int      // 0: the connection was reset before
	Again                bool     // the answer says that nothing was done and may be tried again
	Reset                bool     // the connection was reset at some point
}

// AuthCall is one request to the auth server.
type AuthCall struct {
	Step         string
	Began, Ended time.Duration
	Outcome      AuthOutcome
	Status       int // 0: none
	RetryAfter   time.Duration
}

// AuthOutcome is what became of an AuthCall.
type AuthOutcome string

// The outcomes.
const (
	Granted AuthOutcome = "granted"
	Refused AuthOutcome = "refused" // 4xx: the credentials or a parent's token were no good
	Spoilt  AuthOutcome = "spoilt"  // a fault: 5xx, 429, no answer, half an answer, HTML
)

// Revocation is one act of the plan against the tokens of a step.
type Revocation struct {
	At   time.Duration
	Step string
}

// Window is a span of time.
type Window struct{ From, To time.Duration }

// Note is what the pipeline has logged while it worked for a request.
type Note struct {
	ID   int // 0: for nobody's request
	At   time.Duration
	Kind NoteKind
}

// NoteKind is the kind of a Note.
type NoteKind string

// The notes that count.
const (
	Invalidated NoteKind = "a token was invalidated"
	Spared      NoteKind = "refused too often; the token stays"
)

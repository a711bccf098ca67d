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
	RetryBudget int           // sends again after failures at once, over all requests of a process
	Memory      time.Duration // the longest that a failed fetch is remembered, unless a Retry-After is longer
	Grace       time.Duration // what a caller may take beyond its context

	// Slack is how far apart two ledgers may be about one instant: the
	// machine may take a goroutine's time away between an act and its note.
	Slack time.Duration

	// RenewEvery has, for each step whose tokens end by themselves, how soon
	// after a token comes the next one at the earliest.
	RenewEvery []time.Duration
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
	Troubles    []Window // the storage failed or hung
	Logouts     []Logout
	Processes   []*Process // by their number; each takes the place of the one before
	Notes       []Note
	SpoiltSaves []time.Duration // saves that the storage failed

	FamiliesKilled int    // refresh tokens that came twice
	Leaked         string // goroutines left at the end; "" if none
}

// Process is one process of the application: a client, with a pipeline and a bucket of
// its own. All processes share one storage.
type Process struct {
	Identity     string        // who its steps log in as
	Rotated      bool          // it has another secret than the one before, and else the same configuration
	Began, Ended time.Duration // Ended is when the next one took its place; 0: never. Requests go on
	Spared       uint64        // by the pipeline's own count
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
	Process  int
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
	Process      int // whose connection it was
	Origin, Path string
	Token        string // its label: "user-3"
	Began, Ended time.Duration
	Status       int // 0: an error
	Number       int // the send's own word for N
	Opened       bool
	Freed        time.Duration // when the response's body was read to its end, or closed: the connection is free; 0: never
	Closes       int           // of the response's body
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
	Process      int           // that has asked; -1: none of the run's
	Sent         time.Duration // by the client
	Left         time.Duration // when the client had the whole answer, or gave up; 0: never
	Heard        bool          // the client had the whole answer
	Brought      []string      // labels of the tokens in the request
	Gave         []string      // and of those in the answer
	Refresh      bool          // it carries a refresh token
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

// Logout is a Forget, while it took.
type Logout struct {
	Window
	Identity string
	Process  int  // in which it was; -1: in one that did nothing else
	Told     bool // the storage knows of it
}

// Window is a span of time.
type Window struct{ From, To time.Duration }

// Note is what the pipeline has logged while it worked for a request.
type Note struct {
	ID      int // 0: for nobody's request
	Process int
	At      time.Duration
	Kind    NoteKind
}

// NoteKind is the kind of a Note.
type NoteKind string

// The notes that count.
const (
	Invalidated NoteKind = "a token was invalidated"
	Spared      NoteKind = "refused too often; the token stays"
)

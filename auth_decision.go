// Why a request does, or does not, carry a token: the words for that. The decision is
// auth_transport.go's.

package requestforge

// Reason says why a request would, or would not, carry the token.
type Reason string

// The reasons.
const (
	ReasonSend         Reason = "the request carries the token"
	ReasonNoSource     Reason = "there is no source of tokens"
	ReasonNoURL        Reason = "the request has no URL, or one without a host; the transport below has its own error for it"
	ReasonExcludedPath Reason = "the path is excluded"
	ReasonConflict     Reason = "the caller has set a place of the token's, or user information, itself"
	ReasonOrigin       Reason = "the origin is not among Origins"
	ReasonRedirect     Reason = "a redirect has left the origin of the caller's own request"
	ReasonPlaintext    Reason = "the token would travel over plain http"
	ReasonSubject      Reason = "the request's context says not whose token it wants"
	ReasonConfig       Reason = "the transport is configured wrongly"
)

// Decision is the answer of Explain.
type Decision struct {
	// Send reports whether the request carries the token.
	Send bool
	// Reason is why, or why not.
	Reason Reason
	// Place is what the caller has set, for ReasonConflict: header "X-Key".
	Place string
	// Err is the error that RoundTrip returns instead of sending the
	// request, or nil if it is sent.
	Err error
}

// text is d for the log.
func (d Decision) text() string {
	if d.Place == "" {
		return string(d.Reason)
	}
	return string(d.Reason) + ": " + d.Place
}

// The interface of everything that gets the token of a step. HTTPFetcher, the implementation
// in this package, is in http_fetcher.go and replaces three older types: BodyTokenFetcher is
// an HTTPFetcher with TokenField, HeaderTokenFetcher an HTTPFetcher with TokenHeader,
// HttpTokenFetcher an HTTPFetcher with Read. pipeline.go decides when a step is fetched.

package requestforge

import (
	"context"
	"time"
)

// Input is the data for a fetch. The tokens are shared and must not be modified.
type Input struct {
	// Parents holds the token of each step in DependsOn, by the step's name.
	Parents map[string]*Token

	// Previous is the step's last token, most likely expired or revoked by now; a fetch uses
	// the refresh token in Previous. Nil means that there is no previous token, or no
	// previous token that the fetch may use.
	Previous *Token

	// Subject names the owner of the token, as PipelineConfig.Subject returned the name: use
	// Subject to choose the user's password or the tenant's URL. "" for a step that all
	// subjects share.
	Subject string

	// Challenge holds the parameters that APIs have asked for in challenges, by name in lower
	// case, if the step [Step.AnswersChallenges]. Nil means no parameters. The following
	// parameters add up, and are passed again to each later fetch:
	//
	//  - scope: the scopes of all challenges, with a blank between (RFC 6750 §3.1)
	//  - acr_values: of the last challenge (RFC 9470 §3)
	//  - max_age: in seconds, the least of all challenges (RFC 9470 §3)
	//  - claims: the text of a JSON object with the members of all challenges (OpenID Connect
	//    Core §5.5), whether sent as JSON or in base64
	//  - resource: an absolute URL of the origin that the request went to (RFC 8707)
	//
	// In the fetch that a challenge has caused, Challenge also holds the other parameters of
	// that challenge: error, realm, resource_metadata (RFC 9728 §5.1) and any further
	// parameter. All parameters are text from an API. Their form is checked, with at most 16
	// parameters of 4 KiB, but the fetcher decides which of them an API may ask for.
	Challenge map[string]string

	until   time.Time // upper bound for the expiry of the new token; zero: no bound
	newest  *Token    // the step's newest token, dead or alive, usable or not
	ttl     bool      // the expiry of newest is the step's TTL, or a given token's, and not the server's word
	cookies bool      // a later step needs the cookies of this step
	anew    []string  // the parents with newer tokens than the tokens that Previous was made from
}

// knownEnd returns the expiry that a server gave for this access token when the server handed
// out the token before; zero if no server has.
func (in *Input) knownEnd(access string) time.Time {
	if !in.newest.is(access) || in.ttl {
		return time.Time{}
	}
	return in.newest.Expiry
}

// countedDown is how long after the end of a token a server may still hand out the token with
// a lifetime of 0, because the server has cached the token. After countedDown, 0 has another
// meaning.
const countedDown = time.Minute

// endsNow reports whether a lifetime of 0 for this access token means that the token ends
// now. An answer to a refresh brings a new token, and perhaps the only refresh token left, so
// endsNow never doubts a refresh.
func (in *Input) endsNow(access string, now time.Time) bool {
	end := in.knownEnd(access)
	return in.Previous == nil && !end.IsZero() && now.Before(end.Add(countedDown))
}

// rotates reports whether tok, an answer to a refresh, has a new refresh token. Then the old
// refresh token is spent, even if the rest of tok is unusable.
func (in *Input) rotates(tok *Token) bool {
	return in.Previous != nil && tok != nil && tok.RefreshToken != "" && tok.RefreshToken != in.Previous.RefreshToken
}

// Fetcher gets the token of a step for all callers of the pipeline, and not only for the
// caller whose values ctx holds. So a fetcher that takes a user or a tenant from ctx gives
// Ann's token to Bob; see the example Incorrect. If each user has tokens, set
// [PipelineConfig.Subject], make the step [Step.PerSubject], and take the user from
// Input.Subject.
//
//   - Several goroutines may call Fetch at once, one for each pipeline and subject.
//   - Fetch returns a token or an error. A token that has no AccessToken or has already
//     expired counts as an error.
//   - Fetch returns when ctx ends, since all callers that need the step wait for Fetch.
//   - Fetch doesn't retry. The pipeline tries again after network errors, and after an
//     [AuthError] that is Temporary or has status 408, 425, 429 or 5xx. Any other error is
//     final, since trying a wrong password again may lock the account.
//   - Errors are logged, and must not quote the server's answer.
//   - If a fetcher has a method Validate() error, NewPipeline calls Validate and reports its
//     error before any fetch.
//   - A fetcher that wraps another Fetcher has a method Unwrap() Fetcher, so that NewPipeline
//     finds the inner fetcher's mistakes and identity.
//   - A fetcher whose secrets may change while the program runs implements [SecretReader].
//   - For a storage shared with other programs, a fetcher implements [Identifier], or the step
//     sets Step.Identity.
type Fetcher interface {
	Fetch(ctx context.Context, in Input) (*Token, error)
}

// FetcherFunc is a function used as a Fetcher.
type FetcherFunc func(ctx context.Context, in Input) (*Token, error)

// Fetch calls f.
func (f FetcherFunc) Fetch(ctx context.Context, in Input) (*Token, error) { return f(ctx, in) }

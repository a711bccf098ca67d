// A login as a program describes the login. pipeline_graph.go turns the description into a
// graph.

package requestforge

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"
)

// Step is one call of a login.
type Step struct {
	// Name identifies the step in DependsOn, in errors, in logs and, with
	// PipelineConfig.KeyPrefix, in the storage. Required, unique.
	Name string

	// DependsOn names the steps whose tokens the fetch uses. The tokens arrive in
	// Input.Parents.
	DependsOn []string

	// Identity says, without a secret, who the step logs in as: client, user, scope,
	// audience. It becomes part of the storage key, so a step with another Identity finds
	// none of the stored tokens. "" means the identity that Fetcher reports, see
	// [Identifier]. Required with a shared Storage if Fetcher reports no identity.
	Identity string

	// TTL bounds the life of a token, from the moment of the fetch. The earlier of TTL and
	// the token's own Expiry wins. Zero means no bound.
	TTL time.Duration

	// ExpireEarly ends a token of this step earlier than the auth server says. Set it if a
	// server wants more than the usual margin of 10 s (a tenth of the life, for short
	// lives). At most half of the life is taken off. The token's Expiry is the earlier
	// time. ExpireEarly has no effect on a token without an expiry. Zero means the server's
	// time.
	ExpireEarly time.Duration

	// Timeout is PipelineConfig.FetchTimeout for this step, for a slow server or a step
	// that waits for a person. Zero means FetchTimeout; negative means no bound.
	Timeout time.Duration

	// Fetcher gets a token from scratch. Required, unless the step is Given.
	Fetcher Fetcher

	// Given replaces Fetcher where a token arrives with the request: a user's own token, to
	// be exchanged. It returns the token from the request's context. A step with Given has
	// no other field but Name. Given is called for the fetch of a step that depends on this
	// step, and for users of the step's [Pipeline.Source]. The pipeline neither stores nor
	// renews the token, and a token made from a given token lives no longer. While the made
	// token lives, a newer given token costs no fetch. An error, nil, an expired token, and
	// a refusal by the auth server become the error of the request at once; requests of the
	// same subject with another token are unaffected. Needs PipelineConfig.Subject. Given
	// is called by many goroutines at once.
	Given func(ctx context.Context) (*Token, error)

	// PerSubject gives each subject a token of this step, see PipelineConfig.Subject. Steps
	// that depend on a given or per-subject step are per subject anyway.
	PerSubject bool

	// Refresh, if set, gets the next token while the previous token holds a refresh token;
	// the refresh token is in Input.Previous. If the auth server refuses the refresh token
	// (see AuthError.RefreshRefused), or answers 400 or 401, Fetcher is called instead.
	// After any other failure the refresh token stays, and each later fetch sends the same
	// refresh token again. Fetcher is also called if for more than a minute it stays open
	// whether the server has taken the refresh token. Refresh needs a Storage that is a
	// Locker, because a refresh token that is used twice can cost the login.
	Refresh Fetcher

	// Revoke, if set, tells the auth server to end a token and its session. in.Previous is
	// the token, in.Parents has the parents' tokens for the call. The pipeline calls Revoke
	// for [Pipeline.Logout], for PipelineConfig.RevokeReplaced, and for a token that was
	// fetched in vain, since another process was faster or a logout came between. The
	// pipeline never calls Revoke with the step's current token, never on the path of a
	// request, and once a token, across all processes.
	//
	// Write Revoke like a Fetcher: Step.Timeout bounds the call (30 s if Timeout is no
	// bound), network errors, 5xx and the like are tried again, and the result of
	// NewAuthError is a good error to return. A 4xx for a token without a refresh token
	// that has expired or was revoked before counts as success. Revoke must not ask the
	// pipeline for the step's own token.
	Revoke func(ctx context.Context, in Input) error

	// IdleLimit is the time without use after which the server ends a session of this step.
	// A token that this process hasn't used for IdleLimit, less 10 s or a tenth, is
	// replaced before the next use instead of being sent and refused. While tokens made
	// from this step's token are in use, Refresh renews the step's token after half of the
	// limit. An unused session ends at the server. Zero means no limit.
	IdleLimit time.Duration

	// AnswersChallenges lets the step answer an API that asks for more than the token could
	// show: more scope (insufficient_scope, RFC 6750 §3.1), a stronger or younger login
	// (insufficient_user_authentication, RFC 9470), or further claims (OpenID Connect, and
	// Entra's continuous access evaluation). Of the token's step and its ancestors, the
	// nearest step with AnswersChallenges is fetched once for all challenged callers, with
	// [Input.Challenge]. The new token replaces the old token for all callers, and the
	// requests are replayed. The old token serves until then, and also if the fetch fails.
	// A challenge goes back to the caller if the challenge names nothing to ask for, if no
	// step answers, or if the layer's Source is neither the Pipeline nor a Source of the
	// Pipeline.
	//
	// Demands add up. They are stored with the token and are part of Input.Challenge of
	// each later fetch in every process, since a renewal has to repeat them. If the auth
	// server later refuses the demands (invalid_scope, say), the step is fetched without
	// them. To keep strong tokens off ordinary requests, use two steps with an API or a
	// layer for each, see [Pipeline.Source].
	//
	// Refresh answers a challenge for claims alone. Fetcher answers all further challenges:
	// a refresh token neither widens its scope (RFC 6749 §6) nor makes the login stronger.
	// A fetcher that would need a person returns [ErrNeedsPerson]. A challenge to a
	// subject's request is answered by a step of that subject, so that no subject replaces
	// a shared token. Fetches for challenges have bounds like those for refusals, see
	// [Pipeline.Invalidate], with separate counts. A failed fetch isn't repeated for the
	// length of a cool-down, which affects challenged callers only. A scope or acr that the
	// challenged token was fetched with isn't requested again until the token is 5 minutes
	// old. False means that challenges go back to the caller.
	AnswersChallenges bool

	// OnError is called with each error of a fetch of this step, after the last try. The
	// call is part of the fetch: all callers who wait for the token wait for OnError, too,
	// for the rest of FetchTimeout and at least a second (less if FetchTimeout is shorter;
	// 30 s without a FetchTimeout). Then ctx ends and the pipeline leaves the function
	// behind. While 16 calls for a step still run, OnError isn't called. A panic is
	// ignored.
	OnError func(ctx context.Context, err error)

	// OnRotate is called with a token whose refresh token differs from the refresh token
	// before. The call comes after the save and before any caller gets the token, so that
	// an application can keep the refresh token, too. OnRotate runs like OnError.
	OnRotate func(ctx context.Context, tok *Token)
}

// PipelineConfig describes a Pipeline. The zero value of each field but Steps
// is a sensible choice.
type PipelineConfig struct {
	// Steps are the calls of the login, in any order. Usually exactly one step is no other
	// step's parent, and its token goes on requests. Any step's token can go on requests,
	// see [Pipeline.Source].
	Steps []Step

	// Subject returns the user, tenant or installation that a context belongs to. One
	// pipeline then serves many subjects: steps with [Step.PerSubject] or [Step.Given], and
	// all steps made from them, have a token for each subject, with separate failures and
	// refusals. The remaining steps are shared. Nil means one identity.
	//
	//	Subject: func(ctx context.Context) (string, error) {
	//		user := userOf(ctx) // as verified by the program's own middleware
	//		return requestforge.SubjectID(user.Issuer, user.ID), nil
	//	}
	//
	// The string must be a complete, verified identity: equal strings get equal tokens.
	// Never use a session, an unverified header, or several strings joined by hand; see
	// [SubjectID]. An error or "" fails the request before anything is sent. Subject is
	// called once for a request that finds its token, by many goroutines at once. A panic
	// is an error.
	Subject func(ctx context.Context) (string, error)

	// MaxSubjects is the number of subjects in memory. Beyond the number, the pipeline
	// drops the subjects idle longest; their next request costs a load or a fetch. A
	// subject in use stays, however many others come: of more than 100 subjects, those
	// count as in use that have asked since a quarter of the number came. The
	// pipeline never drops a subject with a fetch under way, with a request that is being
	// sent again, with a logout or a revocation still to be stored, or with a refresh token
	// that is stored nowhere else: with Storage nil, no subject with a refresh token; nor
	// with a token that waits for RevokeReplaced. Refusals, cool-downs and functions left
	// behind of dropped subjects are remembered, of at least 1,000 subjects. Zero means
	// 10,000.
	MaxSubjects int

	// Carry chooses the values of a caller's context for the fetch of a shared step, such
	// as a trace. It returns to, plus the chosen values of from. By default there are no
	// values, so that no user gets into a token for all users. Nil means no values. Only
	// with Subject; the fetch of a subject's own step sees the values of a caller of that
	// subject.
	Carry func(from, to context.Context) context.Context

	// SubjectLabel returns the name of a subject for log records and AuthErrors: a short
	// hash, a tenant's name. Nil and "" mean no name. A panic counts as "".
	SubjectLabel func(subject string) string

	// MaxFetches bounds the requests to auth servers under way at once, over all steps and
	// subjects. Further requests wait, for FetchTimeout at most. A request gives its place
	// back while waiting for another step's token, unless a Fetcher waits with another
	// context than its own. Revocations have as many places of their own. Zero means 256;
	// negative means no bound.
	MaxFetches int

	// Leaf names the step whose token [Pipeline.Token] returns, and a transport with the
	// pipeline as its Source sends. "" means the only step that is no other step's parent.
	// With several such steps and "", Token returns an error with their names.
	Leaf string

	// Storage keeps the tokens. Nil means a MemoryStorage for this pipeline alone.
	Storage Storage

	// KeyPrefix separates programs that share a Storage. The key of a step is KeyPrefix, a
	// colon, the step's name and a hash of the identity; the key of a subject's step also
	// has a slash and a hash of the subject. Two pipelines with one prefix share the tokens
	// of steps with equal name, identity and subject. Required unless Storage is, or wraps,
	// a MemoryStorage; "" then means "requestforge".
	KeyPrefix string

	// RefreshFrom names the step to blame for the first refusal of a token made from that
	// step: the step and all steps made from the step are fetched again, see Invalidate. ""
	// blames the refused token alone, as does the refusal of a token not made from
	// RefreshFrom.
	RefreshFrom string

	// FetchTimeout bounds one fetch of one step with all its tries, whoever started the
	// fetch, unless the step has a Timeout. A fetcher that ignores its context is left
	// behind. While 16 fetchers of a step (or of a subject, or 256 of all subjects) still
	// run, further fetches there fail at once with an error that says so, without a
	// cool-down. Zero means 30 s; negative means no bound, so a silent auth server can hold
	// every waiter until its own context ends. A fetch that is refused with a parent's
	// token less than 10 s old is repeated for FetchTimeout, 3 s at most: the server may
	// not know the token yet.
	//
	// A connection may be dead without being closed. If another try is possible, a request
	// therefore has three quarters of the remaining time for its answer, and the try after
	// a request without an answer takes a new connection. A refresh, which is sent once a
	// fetch, has all of the time.
	FetchTimeout time.Duration

	// FetchRetries is how often a fetch is tried again after a network error, 408, 425,
	// 429, 5xx, or an AuthError that is Temporary. All remaining answers are final: a wrong
	// password is sent once. Zero means 2; negative means never.
	FetchRetries int

	// StorageTimeout bounds each call of Storage. Zero means 250 ms.
	StorageTimeout time.Duration

	// CoolDown is how long the first failure of a step is remembered: until then all
	// callers get the failure at once. The time doubles with each failure in a row, up to
	// MaxCoolDown; permanent failures begin at MaxCoolDown. A Retry-After can make the time
	// longer, up to 5 min. A changed secret ends the cool-down, see
	// [ClientAuth].SecretFrom. Zero means 1 s for CoolDown and 30 s for MaxCoolDown.
	CoolDown, MaxCoolDown time.Duration

	// RefreshAhead is how long before its expiry a token in use is renewed in the
	// background; at most half of its life. Zero means 5 min; negative means never.
	RefreshAhead time.Duration

	// RevokeReplaced has Step.Revoke called for each token that a login from scratch has
	// replaced. The duration is the delay, in which requests with the old token can end. A
	// server that counts sessions then never has more than two sessions of a step. A token
	// replaced by Refresh belongs to the continuing session and isn't revoked. A process
	// that ends during the delay leaves one session more; so does a subject who is dropped
	// from memory while Storage is nil, see MaxSubjects. Zero means never: old sessions end
	// at the server.
	RevokeReplaced time.Duration

	// KeepAnswers keeps the auth server's answer to a failed fetch for [AuthError.Answer],
	// to find out why a login fails. The contents of the request are masked as far as
	// known, but the remaining text is the server's and may name people. False means that
	// no answer is kept.
	KeepAnswers bool

	// Logger gets records of fetches, invalidations, failures and storage outages, without
	// any secret. If a handler takes longer than a second, the pipeline stops waiting and
	// drops records until the handler returns. A panic in the handler is ignored. Nil means
	// no logging.
	Logger *slog.Logger
}

// maxHangingInAll is maxHanging for all subjects together.
const maxHangingInAll = 256

// defaultSubjects is the default of MaxSubjects.
const defaultSubjects = 10_000

// withDefaults returns c with the default of each unset field, and reports mistakes in the
// set fields to bad.
func (c PipelineConfig) withDefaults(bad func(string, ...any)) PipelineConfig {
	c.Steps = slices.Clone(c.Steps)
	c.FetchRetries = cmp.Or(c.FetchRetries, 2)
	c.MaxFetches = cmp.Or(c.MaxFetches, 256)
	for _, d := range []struct {
		name     string
		value    *time.Duration
		unset    time.Duration
		negative bool // a negative value has a meaning
	}{
		{"FetchTimeout", &c.FetchTimeout, 30 * time.Second, true},
		{"StorageTimeout", &c.StorageTimeout, 250 * time.Millisecond, false},
		{"CoolDown", &c.CoolDown, time.Second, false},
		{"MaxCoolDown", &c.MaxCoolDown, max(30*time.Second, c.CoolDown), false},
		{"RefreshAhead", &c.RefreshAhead, 5 * time.Minute, true},
		{"RevokeReplaced", &c.RevokeReplaced, 0, false},
	} {
		*d.value = cmp.Or(*d.value, d.unset)
		if *d.value < 0 && !d.negative {
			bad("PipelineConfig.%s is negative (%v); use 0 for the default of %v", d.name, *d.value, d.unset)
		}
	}
	if c.MaxCoolDown < c.CoolDown {
		bad("PipelineConfig.MaxCoolDown (%v) is below CoolDown (%v)", c.MaxCoolDown, c.CoolDown)
	}
	return c
}

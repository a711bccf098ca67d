// Package authtest helps to test programs that log in, as net/http/httptest helps
// to test programs that speak HTTP.
//
// The package has three parts:
//
//   - [Server] and [Simulator] simulate an auth server with any number of dependent
//     steps, and the API behind the auth server, as strictly as real servers. They
//     check credentials and parent tokens, let tokens expire, rotate refresh tokens
//     and detect the reuse of a refresh token. A test revokes tokens, holds refusals
//     back, makes steps fail, and reads the counters and the log, which gives the
//     reason for each refusal.
//   - [TestRoundTripper] checks that an http.RoundTripper which wraps another
//     RoundTripper keeps the promises that net/http and its callers rely on.
//   - [TestStorage] checks that a store of tokens keeps the rules of a
//     requestforge.Storage.
//
// A Config describes the logins and the API:
//
//	token in a field, a header, a cookie    Step.TokenField, TokenHeader, TokenCookie
//	token as text, JSON string, XML, HTML   Step.Body
//	CSRF value, account, key ID beside it   Step.Values, and a Place that wants one
//	base URL from the login                 Step.Instances, Simulator.Move
//	token bare, in the query, in a cookie   API.Wants
//	several at once, an API key among them  API.Wants, with Place.Step and Place.Text
//	token as the key of a signature         API.Signature
//	CSRF value that each response replaces  Value.Rotate
//	refusal with a code in a 200            API.Refused, Step.Refused, Denied: AnswerHandler
//	so many sessions, and no more           Step.MaxSessions
//	leases that their token renews          Step.RenewPath, Step.MaxTTL
//
// A Server listens on loopback. A Simulator has no listener: its Transport serves
// requests in the process. So a Simulator works inside a testing/synctest bubble,
// where waiting an hour for a token to expire costs no time.
package authtest

// Package authtest helps to test programs that log in, as net/http/httptest
// helps to test programs that speak HTTP.
//
// It has three parts:
//
//   - [Server] and [Simulator] play an auth server of any number of dependent
//     steps and the API behind it, with the strictness of a real one: they
//     check credentials and parent tokens, let tokens expire, rotate refresh
//     tokens and notice when one is used twice. A test revokes tokens, holds
//     refusals back, makes steps fail, and reads the counters.
//   - [TestRoundTripper] checks that an http.RoundTripper built on another one
//     keeps the promises that net/http and its callers rely on.
//   - TestStorage does the same for a store of tokens.
//
// A Server listens on loopback. A Simulator is the same thing without a
// listener: its Transport serves requests in the process, so that it works
// inside a testing/synctest bubble, where an hour until a token expires costs
// nothing.
package authtest

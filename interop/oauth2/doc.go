// Package oauth2 holds the tests of golang.org/x/oauth2 and requestforge
// together, against real servers: a pipeline as the source of an SDK that takes
// an oauth2.TokenSource, and the grants of x/oauth2 as steps of a pipeline.
package oauth2

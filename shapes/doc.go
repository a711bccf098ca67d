// Package shapes proves how far the settings of requestforge reach: 63 two-step
// logins of a public catalog of providers and 27 logins of public Go clients, each
// against a simulator that behaves as the vendor's server is known to.
// docs/shapes.md is the result, a line for each login.
//
// The package holds tests only. It is a module of its own because it needs the
// grants of oauth2source, too.
package shapes

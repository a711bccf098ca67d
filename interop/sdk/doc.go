// The package has tests only. Each SDK's file begins with its example, which is
// what to copy; sdk_test.go has what all of them are put through.

// Package sdk shows that the SDKs people use work over a requestforge
// transport, by their own option for a client or a transport, and how to
// combine the two where an SDK authenticates or retries on its own. The README
// has the table.
package sdk

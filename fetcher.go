// How one step turns an HTTP exchange into a token. Which step is asked, and
// when, is pipeline.go's.

package requestforge

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Token is what an auth server gave out.
type Token struct {
	AccessToken  string
	TokenType    string
	RefreshToken string
	Expiry       time.Time
	Extra        map[string]any

	prov *provenance
}

// Input is what a fetch may use.
type Input struct {
	Parents  map[string]*Token
	Previous *Token
}

// Fetcher gets the token of one step.
type Fetcher interface {
	Fetch(ctx context.Context, in Input) (*Token, error)
}

// FetcherFunc is a function that is a Fetcher.
type FetcherFunc func(ctx context.Context, in Input) (*Token, error)

// Fetch calls f.
func (f FetcherFunc) Fetch(ctx context.Context, in Input) (*Token, error) { return f(ctx, in) }

// ClientAuth is a client's id and secret (RFC 6749 §2.3.1).
type ClientAuth struct {
	ID, Secret string
	InBody     bool
}

// BodyFetcher reads a token from the body of an HTTP response.
type BodyFetcher struct {
	URL, Method    string
	Header         http.Header
	JSON           any
	Form           url.Values
	TokenField     string
	TypeField      string
	RefreshField   string
	ExpiresInField string
	ExpiresAtField string
	TokenType      string
	ClientAuth     *ClientAuth
	AllowPlaintext bool
	HeaderFrom     map[string]string
	BodyFrom       func(in Input) (any, error)
	Prepare        func(req *http.Request, in Input) error
	Client         *http.Client
}

// Fetch implements Fetcher.
func (f *BodyFetcher) Fetch(ctx context.Context, in Input) (*Token, error) { return nil, nil }

// HeaderFetcher reads a token from a header of an HTTP response.
type HeaderFetcher struct {
	URL, Method    string
	Header         http.Header
	JSON           any
	Form           url.Values
	TokenHeader    string
	TokenType      string
	ClientAuth     *ClientAuth
	AllowPlaintext bool
	HeaderFrom     map[string]string
	BodyFrom       func(in Input) (any, error)
	Prepare        func(req *http.Request, in Input) error
	Client         *http.Client
}

// Fetch implements Fetcher.
func (f *HeaderFetcher) Fetch(ctx context.Context, in Input) (*Token, error) { return nil, nil }

// AuthError says why no token could be had.
type AuthError struct {
	Step       string
	StatusCode int
	Code       string
	Permanent  bool
	RetryAfter time.Duration
	Err        error
}

func (e *AuthError) Error() string { return "" }

// Unwrap returns e.Err.
func (e *AuthError) Unwrap() error { return e.Err }

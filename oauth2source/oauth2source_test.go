package oauth2source_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
)

// sourceFunc is a requestforge.TokenSource without a pipeline.
type sourceFunc func(ctx context.Context) (*requestforge.Token, error)

func (f sourceFunc) Token(ctx context.Context) (*requestforge.Token, error) { return f(ctx) }

func (f sourceFunc) Invalidate(context.Context, *requestforge.Token) error { return nil }

func TestTokenSourceHandsOutEverythingButTheRefreshToken(t *testing.T) {
	expiry := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	src := sourceFunc(func(context.Context) (*requestforge.Token, error) {
		return &requestforge.Token{
			AccessToken:  "access",
			TokenType:    "DPoP",
			RefreshToken: "refresh",
			Expiry:       expiry,
			Extra:        map[string]any{"scope": "read"},
		}, nil
	})
	tok, err := oauth2source.TokenSource(t.Context(), src).Token()
	if err != nil {
		t.Fatal(err)
	}
	if tok.AccessToken != "access" || tok.Type() != "DPoP" || !tok.Expiry.Equal(expiry) || tok.Extra("scope") != "read" {
		t.Errorf("got %q, %q, %v, %v", tok.AccessToken, tok.Type(), tok.Expiry, tok.Extra("scope"))
	}
	if tok.RefreshToken != "" {
		t.Error("the refresh token was handed out")
	}
}

func TestTokenSourceOfABareToken(t *testing.T) {
	src := sourceFunc(func(context.Context) (*requestforge.Token, error) {
		return &requestforge.Token{AccessToken: "access"}, nil
	})
	tok, err := oauth2source.TokenSource(t.Context(), src).Token()
	if err != nil {
		t.Fatal(err)
	}
	if tok.Type() != "Bearer" || !tok.Valid() || tok.Extra("scope") != nil {
		t.Errorf("type %q, valid %v, scope %v", tok.Type(), tok.Valid(), tok.Extra("scope"))
	}
}

func TestTokenSourceCachesNothing(t *testing.T) {
	calls := 0
	src := oauth2source.TokenSource(t.Context(), sourceFunc(func(context.Context) (*requestforge.Token, error) {
		calls++
		return &requestforge.Token{AccessToken: []string{"", "first", "second"}[calls]}, nil
	}))
	for _, want := range []string{"first", "second"} {
		if tok, err := src.Token(); err != nil || tok.AccessToken != want {
			t.Errorf("got %v, %v; want %s", tok, err, want)
		}
	}
}

func TestTokenSourceContextBoundsEveryCall(t *testing.T) {
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	src := oauth2source.TokenSource(ctx, sourceFunc(func(ctx context.Context) (*requestforge.Token, error) {
		if ctx.Value(key{}) != "value" {
			t.Error("not the context that TokenSource was given")
		}
		return &requestforge.Token{AccessToken: "access"}, ctx.Err()
	}))
	if _, err := src.Token(); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := src.Token(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestTokenSourceReturnsErrorsAsTheyAre(t *testing.T) {
	want := &requestforge.AuthError{Step: "user", StatusCode: 401}
	_, err := oauth2source.TokenSource(t.Context(), sourceFunc(func(context.Context) (*requestforge.Token, error) {
		return nil, want
	})).Token()
	if err != error(want) {
		t.Errorf("got %v, want the source's own error", err)
	}
}

func TestTokenSourceMistakesAreErrors(t *testing.T) {
	var nilContext context.Context
	for name, src := range map[string]oauth2.TokenSource{
		"nil source":          oauth2source.TokenSource(t.Context(), nil),
		"nil source, context": oauth2source.TokenSource(nilContext, nil),
		"no token, no error": oauth2source.TokenSource(nilContext, sourceFunc(func(ctx context.Context) (*requestforge.Token, error) {
			return nil, ctx.Err()
		})),
	} {
		if tok, err := src.Token(); tok != nil || err == nil {
			t.Errorf("%s: got %v, %v", name, tok, err)
		}
	}
}

// Package flight runs one call for many callers, apart from all of them.
package flight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptrace"
	"reflect"
	"runtime"
	"runtime/debug"
	"sync"
)

// Flight is at most one call at a time, shared by everyone who wants its
// result. It differs from x/sync's singleflight in three ways: the call
// belongs to nobody (it runs on, with its own deadline, when the caller that
// began it leaves), every caller leaves when its own context ends, and a
// panic or Goexit is an error for all of them instead of a crash.
//
// The zero value is ready. A Flight must not be copied after first use.
type Flight[T any] struct {
	mu  sync.Mutex
	cur *call[T] // nil: none under way
}

type call[T any] struct {
	done chan struct{} // closed when val and err are set
	val  T
	err  error
}

// Do joins the call under way, or begins one with fn and Detach(ctx), and
// waits for its result. When ctx ends first it returns context.Cause(ctx) and
// the call goes on. A ctx that is over already begins nothing.
func (f *Flight[T]) Do(ctx context.Context, fn func(context.Context) (T, error)) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, context.Cause(ctx)
	}
	c, _ := f.start(ctx, fn)
	select {
	case <-c.done:
		return c.val, c.err
	case <-ctx.Done():
	}
	select {
	case <-c.done: // both were ready: an answer is worth more than an error
		return c.val, c.err
	default:
		var zero T
		return zero, context.Cause(ctx)
	}
}

// Start begins a call if none is under way, waits for nothing, and reports
// whether it did.
func (f *Flight[T]) Start(ctx context.Context, fn func(context.Context) (T, error)) bool {
	_, started := f.start(ctx, fn)
	return started
}

func (f *Flight[T]) start(ctx context.Context, fn func(context.Context) (T, error)) (*call[T], bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cur != nil {
		return f.cur, false
	}
	c := &call[T]{done: make(chan struct{})}
	f.cur = c
	go func() {
		defer close(c.done)
		defer func() {
			f.mu.Lock()
			f.cur = nil
			f.mu.Unlock()
		}()
		protect(Detach(ctx), c, fn)
	}()
	return c, true
}

// Bounded runs fn in a goroutine of its own and returns its result, or
// context.Cause(ctx) as soon as ctx ends, even if fn is deaf to it. A result
// that comes later is given to late, if that isn't nil, so that what it holds
// can be let go.
func Bounded[T any](ctx context.Context, fn func(context.Context) (T, error), late func(T, error)) (T, error) {
	var (
		mu   sync.Mutex
		gone bool // guarded by mu: the caller has left
		c    = &call[T]{done: make(chan struct{})}
	)
	go func() {
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			close(c.done)
			if gone && late != nil {
				late(c.val, c.err)
			}
		}()
		protect(ctx, c, fn)
	}()
	select {
	case <-c.done:
		return c.val, c.err
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	select {
	case <-c.done:
		return c.val, c.err
	default:
		gone = true
		var zero T
		return zero, context.Cause(ctx)
	}
}

// PanicError is what a panic inside a call becomes. Its text names the type
// of the panic's value and, only if that is a runtime error, the value:
// anything else may hold a secret.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	if err, ok := e.Value.(runtime.Error); ok {
		return "panic: " + err.Error()
	}
	return fmt.Sprintf("panic with a value of type %T", e.Value)
}

// Format keeps the panic's value out of every verb.
func (e *PanicError) Format(s fmt.State, verb rune) { fmt.Fprint(s, e.Error()) }

// MarshalJSON keeps it out of JSON, for who logs each error of a chain.
func (e *PanicError) MarshalJSON() ([]byte, error) { return json.Marshal(e.Error()) }

// ErrGoexit is what a runtime.Goexit inside a call becomes.
var ErrGoexit = errors.New("runtime.Goexit was called")

// protect calls fn and leaves its result in c. A panic becomes an error; so
// does a Goexit, which can't be stopped: it is seen by neither the return nor
// a recovered panic having set c.err.
func protect[T any](ctx context.Context, c *call[T], fn func(context.Context) (T, error)) {
	c.err = ErrGoexit
	defer func() {
		if v := recover(); v != nil {
			c.err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	c.val, c.err = fn(ctx)
}

// Detach returns a context with ctx's values but neither its end nor its
// httptrace hooks: a hook must not fire after the request that it belongs to
// has gone.
func Detach(ctx context.Context) context.Context {
	return detached{context.WithoutCancel(ctx)}
}

type detached struct{ context.Context }

func (d detached) Value(key any) any {
	switch v := d.Context.Value(key).(type) {
	case *httptrace.ClientTrace:
		return nil
	default:
		// httptrace hands the hooks for package net down in a second
		// value, of a type that can't be named here.
		if v != nil && reflect.TypeOf(v).String() == "*nettrace.Trace" {
			return nil
		}
		return v
	}
}

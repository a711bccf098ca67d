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
	"sync/atomic"
)

// Flight runs at most one call at a time, shared by all callers that want the result.
// Flight differs from x/sync's singleflight in three ways: the call belongs to no
// caller (the call runs on, with its own deadline, when the caller that began the call
// leaves), every caller leaves when its own context ends, and a panic or Goexit becomes
// an error for all callers instead of a crash.
//
// The invariant of Close: once a Flight is closed, the context of a call without
// waiting callers is over, and no caller gets the result of such a call.
//
// The zero value is ready. A Flight must not be copied after first use.
type Flight[T any] struct {
	mu     sync.Mutex
	cur    *call[T] // nil: no call under way
	closed bool
}

type call[T any] struct {
	done chan struct{} // closed when val and err are set
	val  T
	err  error

	waiting int                     // callers in Do, guarded by Flight.mu
	end     context.CancelCauseFunc // nil: a call of Bounded
	ended   bool                    // by Close, guarded by Flight.mu
}

// ErrClosed is the cause of the end of a context whose call Close has ended.
var ErrClosed = errors.New("closed, and nobody waits for the result")

// Do joins the call under way, or begins a call with fn and Detach(ctx), and waits for
// the result. If ctx ends first, Do returns context.Cause(ctx) and the call goes on. If
// ctx is over already, Do begins no call. If Close has ended the call, Do waits for the
// end and begins another call.
func (f *Flight[T]) Do(ctx context.Context, fn func(context.Context) (T, error)) (T, error) {
	var zero T
	if ctx.Err() != nil {
		return zero, context.Cause(ctx)
	}
	for {
		c, _ := f.start(ctx, fn, 1)
		over := false
		select {
		case <-c.done:
		case <-ctx.Done():
			over = true
		}
		ended := f.leave(c)
		select {
		case <-c.done: // both may be ready: an answer is worth more than an error
			over = false
		default:
		}
		switch {
		case over:
			return zero, context.Cause(ctx)
		case !ended:
			return c.val, c.err
		case ctx.Err() != nil:
			return zero, context.Cause(ctx)
		}
	}
}

// leave removes a caller from the callers that wait for c, and reports whether Close
// had ended c before.
func (f *Flight[T]) leave(c *call[T]) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.waiting--
	ended := c.ended
	f.endLocked(c)
	return ended
}

// endLocked ends c if c is under way, the Flight is closed and nobody waits.
func (f *Flight[T]) endLocked(c *call[T]) {
	if f.closed && f.cur == c && c.waiting == 0 && !c.ended {
		c.ended = true
		c.end(ErrClosed)
	}
}

// Close ends the call under way if no caller waits, and from now on each call as soon
// as its last caller leaves. Do works as before, Start begins no call.
func (f *Flight[T]) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.cur != nil {
		f.endLocked(f.cur)
	}
}

// CloseAll closes flights in their order.
func CloseAll[T any](flights []Flight[T]) {
	for i := range flights {
		flights[i].Close()
	}
}

// Busy reports whether a call is under way.
func (f *Flight[T]) Busy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cur != nil
}

// Start begins a call if no call is under way, without waiting, and reports whether
// Start began a call.
func (f *Flight[T]) Start(ctx context.Context, fn func(context.Context) (T, error)) bool {
	_, started := f.start(ctx, fn, 0)
	return started
}

// start joins or begins a call for callers who wait.
func (f *Flight[T]) start(ctx context.Context, fn func(context.Context) (T, error), callers int) (*call[T], bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.cur; c != nil {
		c.waiting += callers
		return c, false
	}
	if f.closed && callers == 0 {
		return nil, false
	}
	c := &call[T]{done: make(chan struct{}), waiting: callers}
	// Only Close cancels the context: fn may keep the context for later.
	ctx, c.end = context.WithCancelCause(Detach(ctx))
	f.cur = c
	go func() {
		defer close(c.done)
		defer func() {
			f.mu.Lock()
			f.cur = nil
			f.mu.Unlock()
		}()
		protect(ctx, c, fn)
	}()
	return c, true
}

// Limit counts calls of Bounded that were left behind and still run. At max such calls,
// no call begins. The methods may be called concurrently.
type Limit struct {
	max  int32
	left atomic.Int32
	all  *Limit // counts the call, too; nil: no further Limit
}

// NewLimit returns a Limit of max calls.
func NewLimit(max int32) *Limit { return &Limit{max: max} }

// Set gives a zero Limit its max. The calls count towards all, too, unless all is nil.
func (l *Limit) Set(max int32, all *Limit) { l.max, l.all = max, all }

// Full reports whether no call would begin.
func (l *Limit) Full() bool { return l != nil && (l.left.Load() >= l.max || l.all.Full()) }

// Busy reports whether calls left behind still run.
func (l *Limit) Busy() bool { return l.left.Load() > 0 }

// add counts n more calls.
func (l *Limit) add(n int32) {
	for ; l != nil; l = l.all {
		l.left.Add(n)
	}
}

// ErrFull is the error of a call that wasn't begun because of a Limit.
var ErrFull = errors.New("earlier calls still hang")

// Bounded runs fn in a goroutine and returns the result of fn, or context.Cause(ctx) as
// soon as ctx ends, even if fn ignores ctx. A call left behind counts towards limit,
// unless limit is nil, until fn returns. If limit is full, Bounded doesn't call fn and
// returns ErrFull. If late isn't nil, a late result is passed to late, to release
// resources in the result.
func Bounded[T any](ctx context.Context, limit *Limit, fn func(context.Context) (T, error), late func(T, error)) (T, error) {
	var (
		mu   sync.Mutex
		gone bool // guarded by mu: the caller has left
		c    = &call[T]{done: make(chan struct{})}
		zero T
	)
	if limit.Full() {
		return zero, ErrFull
	}
	go func() {
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			close(c.done)
			if !gone {
				return
			}
			limit.add(-1)
			if late != nil {
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
		limit.add(1)
		return zero, context.Cause(ctx)
	}
}

// PanicError is the error for a panic inside a call. The text names the type of the
// panic's value. Only for a runtime error the text has the value, since any other value
// may hold a secret.
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

// MarshalJSON keeps Value out of JSON, for a logger that encodes each error of a chain.
func (e *PanicError) MarshalJSON() ([]byte, error) { return json.Marshal(e.Error()) }

// ErrGoexit is the error for a runtime.Goexit inside a call.
var ErrGoexit = errors.New("runtime.Goexit was called")

// protect calls fn and leaves the result in c. A panic becomes an error. A Goexit can't
// be stopped, but becomes an error, too: c.err keeps its initial ErrGoexit if neither a
// return nor a recovered panic has set c.err.
func protect[T any](ctx context.Context, c *call[T], fn func(context.Context) (T, error)) {
	c.err = ErrGoexit
	defer func() {
		if v := recover(); v != nil {
			c.err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	c.val, c.err = fn(ctx)
}

// Detach returns a context with ctx's values but neither its end nor its httptrace
// hooks: a hook must not fire after the hook's request is gone.
func Detach(ctx context.Context) context.Context {
	return detached{context.WithoutCancel(ctx)}
}

type detached struct{ context.Context }

func (d detached) Value(key any) any {
	switch v := d.Context.Value(key).(type) {
	case *httptrace.ClientTrace:
		return nil
	default:
		// httptrace passes the hooks for package net in a second value, of an internal
		// type.
		if v != nil && reflect.TypeOf(v).String() == "*nettrace.Trace" {
			return nil
		}
		return v
	}
}

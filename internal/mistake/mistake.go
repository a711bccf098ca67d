// Package mistake collects the mistakes of a configuration, and marks errors that only
// a change of the program can repair.
package mistake

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// prefix begins every error text of the project.
const prefix = "requestforge: "

// List collects mistakes. The zero value is empty.
type List []error

// Addf adds a mistake, with the project's prefix before its text.
func (l *List) Addf(format string, args ...any) {
	*l = append(*l, fmt.Errorf(prefix+format, args...))
}

// Err returns all mistakes joined, or nil.
func (l List) Err() error { return errors.Join(l...) }

// Each calls f with the text of each of the mistakes joined in err, without the
// project's prefix.
func Each(err error, f func(text string)) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			Each(err, f)
		}
	} else if err != nil {
		f(strings.TrimPrefix(err.Error(), prefix))
	}
}

// In joins errs, each with name before its text.
func In(name string, errs []error) error {
	var named []error
	for _, err := range errs {
		named = append(named, fmt.Errorf("%s: %w", name, err))
	}
	return errors.Join(named...)
}

// IsNil reports whether v isn't nil but holds a nil value: such a v would pass for a
// set value and panic at its first use.
func IsNil(v any) bool {
	switch rv := reflect.ValueOf(v); rv.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan:
		return rv.IsNil()
	}
	return false
}

// Final returns err marked as an error that another send can't repair.
func Final(err error) error { return &final{err} }

type final struct{ error }

// RetryVerdict tells a retry layer that another send is useless.
func (*final) RetryVerdict() (retry bool, after time.Duration) { return false, 0 }

func (f *final) Unwrap() error { return f.error }

package requestforge

import (
	"fmt"
	"strings"

	"github.com/requestforge/requestforge/internal/match"
)

// Stand-ins for what other rooms bring; this file goes when they are merged.

func (t *AuthTransport) check() error {
	var errs joinedErrors
	if strings.ContainsAny(t.Header, " \t\r\n:") {
		errs = append(errs, fmt.Errorf("Header %q: not a header name", t.Header))
	}
	if t.CallerHeader < KeepCaller || t.CallerHeader > RejectCaller {
		errs = append(errs, fmt.Errorf("CallerHeader %d: unknown", t.CallerHeader))
	}
	if _, err := match.ParseOrigins(t.Origins); err != nil {
		eachMistake(err, func(text string) { errs = append(errs, fmt.Errorf("Origins %s", text)) })
	}
	if _, err := match.ParsePaths(t.pathPrefix, t.ExcludedPaths); err != nil {
		eachMistake(err, func(text string) { errs = append(errs, fmt.Errorf("ExcludedPaths %s", text)) })
	}
	if errs == nil {
		return nil
	}
	return errs
}

func (p RetryPolicy) check() error {
	var errs joinedErrors
	if p.RetryWaitMin < 0 {
		errs = append(errs, fmt.Errorf("RetryWaitMin %v: negative", p.RetryWaitMin))
	}
	if p.AttemptTimeout < 0 {
		errs = append(errs, fmt.Errorf("AttemptTimeout %v: negative", p.AttemptTimeout))
	}
	if errs == nil {
		return nil
	}
	return errs
}

type joinedErrors []error

func (e joinedErrors) Error() string   { return fmt.Sprint([]error(e)) }
func (e joinedErrors) Unwrap() []error { return e }

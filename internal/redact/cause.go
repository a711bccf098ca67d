package redact

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Cause returns err with a text in which URLs, as in [Error], and whatever is
// quoted are masked: what net/http, url and encoding/json quote, a malformed
// status line, a Location, a field, is what came over the wire or was going
// to. A text that begins with the package's own name stays, but for its URLs:
// it quotes steps and fields.
//
// errors.Is and errors.As still find all of err's chain, in which the URL of a
// *url.Error is masked too. err itself is untouched; nil stays nil.
func Cause(err error) error { return reword(err, causeText) }

// Words is Cause without a look at quotes, for an error that an application
// made.
func Words(err error) error { return reword(err, Error) }

func causeText(err error) string {
	text := Error(err)
	if strings.HasPrefix(text, "requestforge: ") {
		return text
	}
	return inQuotes.ReplaceAllLiteralString(text, `"`+Mask+`"`)
}

var inQuotes = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

func reword(err error, text func(error) string) error {
	if ue, ok := err.(*url.Error); ok {
		return &url.Error{Op: ue.Op, URL: Text(ue.URL), Err: reword(ue.Err, text)}
	}
	if err == nil || text(err) == err.Error() {
		return err
	}
	return &reworded{text(err), err}
}

// reworded is err with another text. It has no Unwrap: whoever logs a whole
// chain must not get to the first text again.
type reworded struct {
	text string
	err  error
}

func (e *reworded) Error() string        { return e.text }
func (e *reworded) Is(target error) bool { return errors.Is(e.err, target) }

// Format writes the text for every verb: %#v, and any that doesn't fit a
// string, would print the fields of err.
func (e *reworded) Format(s fmt.State, verb rune) {
	text := e.text
	if verb == 'q' {
		text = strconv.Quote(text)
	}
	io.WriteString(s, text)
}

func (e *reworded) As(target any) bool {
	if !errors.As(e.err, target) {
		return false
	}
	if ue, ok := target.(**url.Error); ok {
		*ue = Cause(*ue).(*url.Error)
	}
	return true
}

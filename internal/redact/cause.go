package redact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Cause returns err with a text in which URLs, as in [Error], and all other quoted
// texts are masked: net/http, url and encoding/json quote data from or for the wire,
// such as a malformed status line, a Location or a field. In a text that begins with
// the package's own name only URLs are masked, since such a text quotes steps and
// fields.
//
// errors.Is and errors.As still find all of err's chain, in which the URL of a
// *url.Error is masked too. err itself is unchanged; nil stays nil.
func Cause(err error) error { return CauseAt(err, Text) }

// CauseAt is Cause with show in place of [Text] for the URLs of *url.Error
// values, some of which are a server's words: the target of a redirect.
func CauseAt(err error, show func(raw string) string) error {
	return wording{show: show, quotes: true}.reword(err)
}

// Answer is CauseAt for an error about an answer with this body. Where the text
// repeats all of the body, or a word of the body that looks like a secret, the
// repetition is masked. The text of an *oauth2.RetrieveError, which holds the
// body, is replaced.
func Answer(err error, body []byte, show func(raw string) string) error {
	return wording{show: show, quotes: true, body: string(bytes.TrimSpace(body))}.reword(err)
}

// Words is Cause without masking quotes, for an error made by an application.
func Words(err error) error { return wording{show: Text}.reword(err) }

// Inner is Words for an error inside a text of this package, which already begins with
// the package's name: the name isn't repeated.
func Inner(err error) error { return wording{show: Text, inner: true}.reword(err) }

// Without returns err with every occurrence of name in the text masked. An empty name
// masks nothing.
func Without(err error, name string) error {
	if name == "" || !strings.Contains(err.Error(), name) {
		return err
	}
	text := strings.ReplaceAll(err.Error(), name, Mask)
	return &reworded{text, err, func(ue *url.Error) error {
		return &url.Error{Op: ue.Op, URL: strings.ReplaceAll(ue.URL, name, Mask), Err: Without(ue.Err, name)}
	}}
}

// ownName begins every text of this package and of the project's other modules.
const ownName = "requestforge: "

// wording says how the text of an error is masked.
type wording struct {
	show   func(raw string) string // the URL of a *url.Error
	quotes bool                    // quoted text is masked
	body   string                  // masked where the text repeats the body
	inner  bool                    // without ownName
}

func (w wording) text(err error) string {
	if quotesBody(err) {
		return "oauth2: the auth server refused the request"
	}
	text := errorText(err, w.show, written)
	if w.inner {
		text = strings.ReplaceAll(text, ownName, "")
	}
	if len(w.body) >= shortBody {
		text = strings.ReplaceAll(text, w.body, Mask)
		text = word.ReplaceAllStringFunc(text, func(s string) string {
			if len(s) >= secretLength && strings.ContainsAny(s, "0123456789") && strings.Contains(w.body, s) {
				return Mask
			}
			return s
		})
	}
	if !w.quotes || strings.HasPrefix(text, ownName) {
		return text
	}
	urls := appendURLs(nil, err)
	return inQuotes.ReplaceAllStringFunc(text, func(s string) string {
		if slices.ContainsFunc(urls, func(raw string) bool { return s == strconv.Quote(w.show(raw)) }) {
			return s // masked already
		}
		return `"` + Mask + `"`
	})
}

// shortBody is the length below which a body says nothing, and may be a part
// of any word.
const shortBody = 4

// secretLength is the length from which a word with a digit is taken for a
// secret: encoding/json, for one, quotes a number without quotes.
const secretLength = 8

var word = regexp.MustCompile(`[\pL\pN_](?:[\pL\pN_.~+=%-]*[\pL\pN_=])?`)

// quotesBody reports whether an *oauth2.RetrieveError is in err's tree. The
// name of the type is enough, and saves a dependency.
func quotesBody(err error) bool {
	if err == nil {
		return false
	}
	if fmt.Sprintf("%T", err) == "*oauth2.RetrieveError" {
		return true
	}
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.ContainsFunc(all.Unwrap(), quotesBody)
	}
	return quotesBody(errors.Unwrap(err))
}

var inQuotes = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// reword masks the text of err. An error whose methods panic gets a replacement text:
// the callers of redact don't recover from a panic.
func (w wording) reword(err error) (masked error) {
	defer func() {
		if recover() != nil {
			masked = textless{err}
		}
	}()
	if ue, ok := err.(*url.Error); ok {
		return &url.Error{Op: ue.Op, URL: w.show(ue.URL), Err: w.reword(ue.Err)}
	}
	if err == nil {
		return nil
	}
	text := w.text(err)
	if text == err.Error() {
		return err
	}
	w.quotes = true
	return &reworded{text, err, func(ue *url.Error) error { return w.reword(ue) }}
}

// textless is an error whose Error method panics.
type textless struct{ err error }

func (e textless) Error() string {
	return fmt.Sprintf("an error of type %T, which panics when asked what it is", e.err)
}

// Format writes the text for every verb.
func (e textless) Format(s fmt.State, _ rune) { io.WriteString(s, e.Error()) }

// reworded is err with another text. reworded has no Unwrap, so that a logger of a
// whole chain doesn't reach the original text.
type reworded struct {
	text  string
	err   error
	inner func(*url.Error) error // masks a *url.Error of err's chain; a func, since no verb of fmt prints the captured values
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
		*ue = e.inner(*ue).(*url.Error)
	}
	return true
}

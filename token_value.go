// A value in a token's Extra, by its path.

package requestforge

import "github.com/requestforge/requestforge/internal/tokenjson"

// Value returns the value of Extra at a path of names and array indexes with dots between
// them ("csrf", "data.0.tenant"): a string unchanged, a number or a truth value as in JSON.
// Value returns "" if there is no value, or if the value is an object or an array.
func (t *Token) Value(path string) string { return tokenjson.Value(t.Extra, path) }

// is reports whether access is t's access token. A nil t has no access token.
func (t *Token) is(access string) bool { return t != nil && t.AccessToken == access }

// ofStep names the step of t, as part of a sentence, or returns "" if t comes from no
// pipeline.
func (t *Token) ofStep() string {
	if o := t.origin(); o != nil {
		return " of step \"" + o.stepName() + "\""
	}
	return ""
}

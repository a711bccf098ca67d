// Data that a step's token takes over: from the previous token, the values that a refresh
// leaves out; from a parent, the token itself.

package requestforge

import (
	"maps"
	"slices"
	"strings"

	"github.com/requestforge/requestforge/internal/loginjar"
	"github.com/requestforge/requestforge/internal/tokenjson"
)

// completed returns extra with the members of before that extra lacks, objects merged member
// by member: an answer to a refresh has fewer members than an answer to a login. completed
// modifies neither map.
func completed(extra, before map[string]any) map[string]any {
	if len(before) == 0 {
		return extra
	}
	all := maps.Clone(before)
	for name, v := range extra {
		object, ok := v.(map[string]any)
		old, was := before[name].(map[string]any)
		if ok && was {
			v = completed(object, old)
		}
		all[name] = v
	}
	return all
}

// hands reports whether tok's access token is t's access token, or a value of t's Extra as
// returned by Value, or such a value whose scheme became tok's type.
func (t *Token) hands(tok *Token) bool {
	return t.is(tok.AccessToken) || t != nil && holds(t.Extra, tok)
}

// cookies returns t's cookies, or nil. t may be nil.
func (t *Token) cookies() *loginjar.Jar {
	if t == nil {
		return nil
	}
	return t.jar
}

// jars returns the cookies of the tokens used by a fetch, in rising precedence. Previous has
// newer cookies than the parents of Previous, and older cookies than a parent that has logged
// in anew since.
func (in *Input) jars() []*loginjar.Jar {
	var before, since []*loginjar.Jar
	for _, name := range slices.Sorted(maps.Keys(in.Parents)) {
		if jar := in.Parents[name].cookies(); slices.Contains(in.anew, name) {
			since = append(since, jar)
		} else {
			before = append(before, jar)
		}
	}
	return slices.Concat(before, []*loginjar.Jar{in.Previous.cookies()}, since)
}

// jarFor returns the cookies for raw, the token of a fetcher. If raw has no cookies, jarFor
// returns the cookies of the previous token in a refresh, and of the parent whose token is
// handed on; and of each parent, if a later step needs the cookies of the login. The jar is a
// copy, since no two tokens may share the cookies that an API renews. The copy includes
// renewals by the API during the fetch.
func (in *Input) jarFor(raw *Token) *loginjar.Jar {
	jar := raw.jar
	switch {
	case jar != nil && len(in.anew) == 0:
		jar = jar.CaughtUp(in.Previous.cookies())
	case jar != nil:
		jar = loginjar.New(jar)
	default:
		some := *in
		if !in.cookies {
			some.Parents = maps.Clone(in.Parents)
			maps.DeleteFunc(some.Parents, func(_ string, p *Token) bool { return !p.hands(raw) })
			if in.Previous.cookies() != nil && len(in.anew) == 0 {
				some.Parents = nil
			}
		}
		jar = loginjar.New(some.jars()...)
	}
	if jar.Blank() {
		return nil
	}
	return jar
}

// holds reports whether tok's access token is among the values below v.
func holds(v any, tok *Token) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, w := range v {
			if holds(w, tok) {
				return true
			}
		}
		return false
	case []any:
		for _, w := range v {
			if holds(w, tok) {
				return true
			}
		}
		return false
	case nil, bool:
		return false // no token can have such a value
	}
	text := strings.Trim(tokenjson.Value(map[string]any{"v": v}, "v"), tokenjson.Blanks)
	scheme, rest, _ := strings.Cut(text, " ")
	return text == tok.AccessToken || strings.EqualFold(scheme, tok.TokenType) && strings.TrimLeft(rest, " ") == tok.AccessToken
}

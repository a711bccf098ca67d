// The response to a login: the place of the token, and the further values. The
// configuration is in server.go.

package authtest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AnswerHandler returns a handler that answers every request with status and body.
// The Content-Type is JSON or XML if body looks like JSON or XML. Use AnswerHandler
// for Refused and Denied, to simulate a server that refuses in an unusual way, such
// as with a code in a 200.
func AnswerHandler(status int, body string) http.Handler {
	kind := http.DetectContentType([]byte(body))
	switch {
	case json.Valid([]byte(body)):
		kind = "application/json"
	case strings.HasPrefix(body, "<") && !strings.HasPrefix(kind, "text/html"):
		kind = "application/xml"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// granted returns the answer with the token t, and with refresh unless refresh is
// nil. The caller holds s.mu.
func (s *Simulator) granted(r *http.Request, t, refresh *token, now time.Time) *answer {
	st := t.step
	ans := &answer{status: st.Status, header: make(http.Header), outcome: Granted, token: t}
	body := make(map[string]any)
	if st.extra != nil {
		// compileFields has encoded extra.
		body, _ = decodeObject(st.extra)
	}
	set := func(field string, v any) {
		if field != "" {
			put(body, strings.Split(field, "."), v)
		}
	}
	set(st.TypeField, st.TokenType)
	set(st.InstanceField, s.absolute(t.instance))
	if refresh != nil {
		set(st.RefreshField, refresh.value)
	}
	if st.expiry {
		set(st.ExpiryField, st.lifetime(t.expires.Sub(now), t.expires.Add(s.cfg.ClockOffset)))
	}
	for name, v := range st.Values {
		set(v.Field, t.values[name][0])
		ans.giveOut(r, v, t.values[name][0])
	}
	switch {
	case st.TokenHeader != "" || st.TokenCookie != "":
		ans.giveOut(r, Value{Header: st.TokenHeader, Cookie: st.TokenCookie}, t.value)
	case st.Body == TextBody:
		ans.text, ans.kind = t.value, "text/plain; charset=utf-8"
	case st.Body == JSONStringBody:
		ans.text, ans.kind = strconv.Quote(t.value), "application/json"
	default:
		set(st.TokenField, t.value)
	}
	ans.body = body
	if st.Body == XMLBody {
		var b strings.Builder
		b.WriteString(xml.Header)
		for name, v := range body { // at most one name: the root
			writeXML(&b, name, v)
		}
		ans.text, ans.kind = b.String(), "application/xml"
	}
	if st.Body == HTMLBody {
		var b strings.Builder
		b.WriteString("<!DOCTYPE html>\n<html><body><form method=\"post\">\n")
		writeInputs(&b, "", body)
		b.WriteString("</form></body></html>\n")
		ans.text, ans.kind = b.String(), "text/html; charset=utf-8"
	}
	return ans
}

// giveOut puts a value into a header or a cookie of the answer.
func (a *answer) giveOut(r *http.Request, v Value, value string) {
	if v.Header != "" {
		a.header.Set(v.Header, value)
	}
	if v.Cookie != "" {
		c := http.Cookie{Name: v.Cookie, Value: value, Path: "/", HttpOnly: true, Secure: scheme(r) == "https"}
		a.header.Add("Set-Cookie", c.String())
	}
}

// lifetime returns the remaining life of a token, or the expiry by the server's
// clock, in the response's format.
func (st *step) lifetime(left time.Duration, expires time.Time) any {
	seconds := int64(left / time.Second)
	switch st.Expiry {
	case ExpiresInString:
		return strconv.FormatInt(seconds, 10)
	case ExpiresInFloat:
		f := strconv.FormatFloat(left.Seconds(), 'f', -1, 64)
		if !strings.Contains(f, ".") {
			f += ".0"
		}
		return json.RawMessage(f)
	case ExpiresAtRFC3339:
		return expires.UTC().Format(time.RFC3339)
	case ExpiresAtUnix:
		return expires.Unix()
	}
	return seconds
}

// put stores v in a tree of objects and arrays, and returns the tree. A
// number leads into an array, unless there is an object already.
func put(tree any, path []string, v any) any {
	if len(path) == 0 {
		return v
	}
	object, isObject := tree.(map[string]any)
	if i, err := strconv.Atoi(path[0]); err == nil && !isObject {
		array, _ := tree.([]any)
		for len(array) <= i {
			array = append(array, nil)
		}
		array[i] = put(array[i], path[1:], v)
		return array
	}
	if !isObject {
		object = make(map[string]any)
	}
	object[path[0]] = put(object[path[0]], path[1:], v)
	return object
}

// writeXML writes an element with its content. An array becomes an element for each
// value.
func writeXML(b *strings.Builder, name string, v any) {
	if array, ok := v.([]any); ok {
		for _, v := range array {
			writeXML(b, name, v)
		}
		return
	}
	b.WriteString("<" + name + ">")
	switch v := v.(type) {
	case map[string]any:
		for _, child := range slices.Sorted(maps.Keys(v)) {
			writeXML(b, child, v[child])
		}
	case nil:
	case json.RawMessage:
		xml.EscapeText(b, v)
	default:
		xml.EscapeText(b, []byte(fmt.Sprint(v)))
	}
	b.WriteString("</" + name + ">")
}

// writeInputs writes an input for each text below v.
func writeInputs(b *strings.Builder, name string, v any) {
	object, ok := v.(map[string]any)
	if array, isArray := v.([]any); isArray {
		for i, v := range array {
			writeInputs(b, fmt.Sprint(name, ".", i), v)
		}
		return
	}
	if !ok {
		fmt.Fprintf(b, "<input type=\"hidden\" name=\"%s\" value=\"%s\">\n", html.EscapeString(name), html.EscapeString(fmt.Sprint(v)))
		return
	}
	for _, child := range slices.Sorted(maps.Keys(object)) {
		writeInputs(b, strings.TrimPrefix(name+"."+child, "."), object[child])
	}
}

// absolute is the URL of an instance.
func (s *Simulator) absolute(instance string) string {
	if strings.HasPrefix(instance, "/") {
		return s.URL + instance
	}
	return instance
}

// misplaced names the instance where t is valid if the request has brought t to
// another place.
func (s *Simulator) misplaced(r *http.Request, t *token) string {
	if t.instance == "" {
		return ""
	}
	base, url := s.absolute(t.instance), scheme(r)+"://"+r.Host+r.URL.Path
	if rest, ok := strings.CutPrefix(url, base); ok && (rest == "" || rest[0] == '/') {
		return ""
	}
	return t.label + " is good at " + base + " only"
}

// scheme returns the scheme of the request's URL.
func scheme(r *http.Request) string {
	if r.TLS != nil || r.URL.Scheme == "https" {
		return "https"
	}
	return "http"
}

package masked

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/requestforge/requestforge/internal/redact"
)

// secretNames are parts of the names of fields and headers with secret values.
var secretNames = []string{
	"token", "secret", "password", "passwd", "pwd", "assertion", "credential", "cookie", "session", "sid", "jwt", "key",
	"auth", "otp", "pin", "ticket", "signature", "nonce", "bearer", "sso", "saml", "user_code", "device_code", "login",
}

// reasons are the names of fields with the reason of a refusal, in an answer with a status
// of success.
var reasons = []string{"error", "message", "description", "reason", "detail", "title", "hint", "status", "msg", "problem", "fault", "success", "ok"}

// named reports whether the value of a field or header of this name may be a secret.
func named(name string) bool { return has(name, secretNames) }

func has(name string, parts []string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(name, part) })
}

// hidden reports whether the value at this path of an answer is masked completely. With a
// status of success, every value except the reasons is masked.
func hidden(path []string, ok bool) bool {
	if len(path) == 0 {
		return ok
	}
	name := path[len(path)-1]
	if has(name, []string{"error", "errors"}) {
		return false // error_token_missing is a reason, too
	}
	if slices.ContainsFunc(path, named) {
		return true
	}
	return ok && !slices.ContainsFunc(path, func(name string) bool { return has(name, reasons) })
}

// maskFields masks the values of the fields of body, JSON or text, that may be secrets. ok
// means that the answer has a status of success.
func (s *secrets) maskFields(body []byte, ok bool) string {
	if trimmed := bytes.TrimSpace(body); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[' || trimmed[0] == '"') {
		var b strings.Builder
		last, leaves := 0, 0
		end := eachLeaf(body, func(path []string, from, to int, value string) {
			leaves++
			shown := redact.Mask
			if !hidden(path, ok) {
				if shown = s.mask(value); shown == value || !bytes.ContainsRune(body[from:to], '\\') {
					return // mask will find the secrets in the text
				}
			}
			b.Write(body[last:from])
			quoted, _ := json.Marshal(shown)
			b.Write(quoted)
			last = to
		})
		b.Write(body[last:max(last, end)])
		if len(bytes.TrimSpace(body[end:])) > 0 { // not JSON, or cut off: the field of the rest is unknown
			b.WriteString(redact.Mask)
		}
		if leaves > 0 || end == len(body) {
			return b.String()
		}
	}
	return maskPairs(string(body))
}

// pair is a field of a form, of XML or HTML attributes, or of a text.
var pair = regexp.MustCompile(`([\pL\pN_.\[\]-]+)("?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s&"'<>,;}]+)`)

// shown is body masked. ok says that the answer's status is one of success.
func (s *secrets) shown(body []byte, ok bool) string {
	if text := string(body); formBody.MatchString(text) && !s.many {
		return s.maskForm(text, ok)
	}
	return s.mask(s.maskFields(body, ok))
}

// maskForm masks a form, field by field: the escapes would join words.
func (s *secrets) maskForm(body string, ok bool) string {
	fields := strings.Split(body, "&")
	for i, field := range fields {
		name, value, _ := strings.Cut(field, "=")
		text, err := url.QueryUnescape(strings.TrimSpace(value))
		switch {
		case hidden([]string{name}, ok) || err != nil:
			text = redact.Mask
		default:
			text = s.mask(text)
		}
		fields[i] = s.mask(name) + "=" + url.QueryEscape(text)
	}
	return strings.Join(fields, "&")
}

// maskPairs masks the values in body, which isn't JSON, whose names say that the values may
// be secrets.
func maskPairs(body string) string {
	return pair.ReplaceAllStringFunc(body, func(text string) string {
		if parts := pair.FindStringSubmatch(text); hidden([]string{parts[1]}, false) {
			return parts[1] + parts[2] + redact.Mask
		}
		return text
	})
}

var formBody = regexp.MustCompile(`^[\pL\pN_.\[\]%-]+=[^\s&]*(&[\pL\pN_.\[\]%-]+=[^\s&]*)*\s*$`)

// eachLeaf calls f for each string and number in body, which is JSON, with the path of
// names, and the offsets where the value begins and ends. eachLeaf returns the offset where
// the JSON ends, or where invalid JSON begins.
func eachLeaf(body []byte, f func(path []string, from, to int, value string)) int {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	type level struct {
		object, value bool   // value: a name was read, and the name's value comes next
		name          string // the last name
	}
	var levels []level
	for {
		before := int(dec.InputOffset())
		tok, err := dec.Token()
		if err != nil {
			return before
		}
		end := int(dec.InputOffset())
		var top *level
		if len(levels) > 0 {
			top = &levels[len(levels)-1]
		}
		if d, ok := tok.(json.Delim); ok {
			switch d {
			case '{', '[':
				levels = append(levels, level{object: d == '{'})
				continue
			}
			levels = levels[:len(levels)-1]
			if len(levels) > 0 {
				levels[len(levels)-1].value = false
			} else {
				return end
			}
			continue
		}
		if top != nil && top.object && !top.value {
			top.name, top.value = tok.(string), true
			continue
		}
		if top != nil {
			top.value = false
		}
		switch tok.(type) {
		case string, json.Number:
			var path []string
			for _, l := range levels {
				if l.object {
					path = append(path, l.name)
				}
			}
			from := before + len(body[before:end]) - len(bytes.TrimLeft(body[before:end], " \t\r\n,:"))
			f(path, from, end, fmt.Sprint(tok))
		}
		if len(levels) == 0 {
			return end
		}
	}
}

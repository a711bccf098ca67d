// Package masked shows a server's answer without the contents of the request and without
// tokens: all values of the request that the body or the header repeats are masked, and so
// is every text that looks like a token. When in doubt, masked masks.
package masked

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/requestforge/requestforge/internal/redact"
)

const (
	// MaxBody bounds the body that Answer returns, in bytes.
	MaxBody = 4 << 10

	maxRead   = 64 << 10 // of an answer, to be masked
	maxSent   = 1 << 20  // of the body of a request
	maxTexts  = 50_000   // texts to look for
	shortText = 4        // a shorter text is masked only as a whole word
	plainText = 12       // a shorter text of letters, too
)

// Answer returns the body and the header of resp, masked, with at most MaxBody of the body.
// body is the part of the answer's body that was read. Answer masks the contents of
// resp.Request, and of the requests whose redirects led to resp.Request, as far as they are
// available: header, URL and a body with GetBody. known are further texts to mask. Answer
// neither reads nor changes resp.
func Answer(resp *http.Response, body []byte, known []string) ([]byte, http.Header) {
	s := newSecrets(resp, known)
	cut := len(body) > maxRead
	body = bytes.ToValidUTF8(body[:min(len(body), maxRead)], []byte("?"))
	shown := s.shown(body, 200 <= resp.StatusCode && resp.StatusCode <= 299)
	if cut {
		shown = s.withoutTail(shown)
	}
	if s.hiddenIn(shown) {
		shown = redact.Mask
	}
	if len(shown) > MaxBody {
		shown = strings.ToValidUTF8(shown[:MaxBody], "")
	}
	return []byte(shown), s.header(resp.Header)
}

// secrets are the texts to be masked.
type secrets struct {
	all  []secret // the longest first
	many bool     // more than are looked for: everything is masked
}

// A secret is a text to be masked, in lower case.
type secret struct {
	text  string
	whole bool // only as a whole word: "client" stays in "invalid_client"
}

func newSecrets(resp *http.Response, known []string) *secrets {
	found := slices.Clone(known)
	for hops := 0; resp != nil && resp.Request != nil && hops < 100; hops++ {
		found = append(found, sent(resp.Request)...)
		resp = resp.Request.Response
	}
	s := new(secrets)
	for _, text := range found {
		if text = strings.TrimSpace(text); text == "" || text == redact.Mask {
			continue
		}
		if s.many = len(s.all) > maxTexts; s.many {
			return s
		}
		short := len(text) < shortText
		plain := len(text) < plainText && plainWord.MatchString(text)
		for _, spelling := range spellings(text) {
			s.all = append(s.all, secret{lower(spelling), short || plain && spelling == text})
		}
	}
	slices.SortFunc(s.all, func(a, b secret) int {
		if c := cmp.Or(len(b.text)-len(a.text), strings.Compare(a.text, b.text)); c != 0 || a.whole == b.whole {
			return c
		}
		if a.whole { // the stricter one stays
			return 1
		}
		return -1
	})
	s.all = slices.CompactFunc(s.all, func(a, b secret) bool { return a.text == b.text })
	return s
}

// spellings are the ways in which a server may repeat a text.
func spellings(text string) []string {
	quoted, _ := json.Marshal(text)
	quoted = bytes.Trim(quoted, `"`)
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text)
	raw := []byte(text)
	return []string{
		text, string(quoted), strings.Trim(plain.String(), "\"\n"), html.EscapeString(text),
		url.QueryEscape(text), url.PathEscape(text), strings.ReplaceAll(url.QueryEscape(text), "+", "%20"),
		base64.RawStdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
		hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)),
	}
}

// descriptive are headers that don't identify the sender of a request.
var descriptive = map[string]bool{
	"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Cache-Control": true, "Connection": true, "Content-Encoding": true,
	"Content-Length": true, "Content-Type": true, "Date": true, "Expect": true, "Host": true, "Pragma": true, "Traceparent": true,
	"Transfer-Encoding": true, "User-Agent": true,
}

// sent returns the contents of req, except headers and parameters that all requests of the
// kind share.
func sent(req *http.Request) (found []string) {
	for name, values := range req.Header {
		if descriptive[http.CanonicalHeaderKey(name)] {
			continue
		}
		for _, v := range values {
			found = append(found, headerValue(v)...)
		}
	}
	for _, c := range req.Cookies() {
		found = append(found, c.Value)
	}
	if id, secret, ok := req.BasicAuth(); ok {
		found = append(found, id, secret, unescaped(id), unescaped(secret))
	}
	if req.URL != nil {
		found = append(found, urlParts(req.URL)...)
	}
	if req.GetBody == nil {
		return found
	}
	body, err := req.GetBody()
	if err != nil {
		return found
	}
	defer body.Close()
	raw, _ := io.ReadAll(io.LimitReader(body, maxSent))
	return append(found, bodyParts(req.Header.Get("Content-Type"), raw)...)
}

// headerValue returns a header's value, and the text behind the value's scheme.
func headerValue(v string) []string {
	if _, rest, ok := strings.Cut(v, " "); ok {
		return []string{v, rest}
	}
	return []string{v}
}

// unescaped returns text as decoded from a form: RFC 6749 §2.3.1 escapes the parts of
// Basic.
func unescaped(text string) string {
	if raw, err := url.QueryUnescape(text); err == nil {
		return raw
	}
	return text
}

func urlParts(u *url.URL) (found []string) {
	if u.User != nil {
		password, _ := u.User.Password()
		found = append(found, u.User.Username(), password)
	}
	for _, values := range u.Query() {
		found = append(found, values...)
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if looksSecret(segment) {
			found = append(found, segment) // a key may be anywhere in a path
		}
	}
	return found
}

// protocol are the parameters whose values are words of a protocol.
var protocol = map[string]bool{
	"grant_type": true, "response_type": true, "client_assertion_type": true, "token_type_hint": true,
	"requested_token_type": true, "subject_token_type": true, "actor_token_type": true,
}

// bodyParts are the values in a request's body.
func bodyParts(kind string, raw []byte) (found []string) {
	if len(raw) == 0 {
		return nil
	}
	if json.Valid(raw) {
		eachLeaf(raw, func(_ []string, _, _ int, value string) { found = append(found, value) })
		return found
	}
	if form, err := url.ParseQuery(string(raw)); err == nil && strings.Contains(kind, "form-urlencoded") {
		for name, values := range form {
			if !protocol[name] {
				found = append(found, values...)
			}
		}
		return found
	}
	for _, word := range words.FindAllString(string(raw), -1) {
		if len(word) >= shortText {
			found = append(found, word)
		}
	}
	return append(found, string(raw))
}

// mask masks the secrets in text, and words that look like a token.
func (s *secrets) mask(text string) string {
	if s.many && text != "" {
		return redact.Mask
	}
	text = strings.ToValidUTF8(text, "?") // as lower has it: what is found has the same place in both
	for _, secret := range s.all {
		text = replaced(text, secret)
	}
	return words.ReplaceAllStringFunc(text, func(word string) string {
		if looksRandom(word) || s.part(word) {
			return redact.Mask
		}
		return word
	})
}

// replaced is text with a mask in place of each occurrence of secret.
func replaced(text string, secret secret) string {
	low := lower(text)
	var b strings.Builder
	last := 0
	for from, to := secret.next(low, 0); from >= 0; from, to = secret.next(low, to) {
		b.WriteString(text[last:from] + redact.Mask)
		last = to
	}
	return b.String() + text[last:]
}

// next returns where the secret is in low, a text in lower case, from an index on; -1 if
// nowhere.
func (s secret) next(low string, at int) (from, to int) {
	for {
		i := strings.Index(low[at:], s.text)
		if i < 0 {
			return -1, -1
		}
		from, to = at+i, at+i+len(s.text)
		if !s.whole || (from == 0 || !inWord(low[from-1])) && (to == len(low) || !inWord(low[to])) {
			return from, to
		}
		at = from + 1
	}
}

// inWord reports whether c is part of a word of letters, digits and "_".
func inWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || c >= 0x80
}

// lower is text with the letters of ASCII in lower case: as long as text, if that is UTF-8.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// hiddenIn reports whether text holds a secret in a spelling that mask doesn't know.
func (s *secrets) hiddenIn(text string) bool {
	if s.many {
		return false // all of text is masked
	}
	for _, decode := range []func(string) string{html.UnescapeString, unpercent, unbackslash} {
		for range 2 {
			text = decode(text)
			low := lower(text)
			if slices.ContainsFunc(s.all, func(secret secret) bool { from, _ := secret.next(low, 0); return from >= 0 }) {
				return true
			}
		}
	}
	return false
}

var (
	percent   = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	backslash = regexp.MustCompile(`\\(u[0-9A-Fa-f]{4}|.)`)
)

func unpercent(text string) string {
	return percent.ReplaceAllStringFunc(text, func(code string) string {
		raw, _ := hex.DecodeString(code[1:])
		return string(raw)
	})
}

func unbackslash(text string) string {
	return backslash.ReplaceAllStringFunc(text, func(code string) string {
		if n, err := strconv.ParseUint(code[min(2, len(code)):], 16, 32); err == nil && len(code) > 2 {
			return string(rune(n))
		}
		return code[1:]
	})
}

// part reports whether word is a piece of a secret: a server may repeat the beginning of a
// key.
func (s *secrets) part(word string) bool {
	if !looksSecret(word) {
		return false
	}
	return slices.ContainsFunc(s.all, func(secret secret) bool { return strings.Contains(secret.text, lower(word)) })
}

// withoutTail is text, the end of which was cut off, without a secret's beginning there.
func (s *secrets) withoutTail(text string) string {
	cut, low := len(text), lower(text)
	for _, secret := range s.all {
		for n := min(len(secret.text), len(text)); n > 0; n-- {
			if strings.HasSuffix(low, secret.text[:n]) {
				cut = min(cut, len(text)-n)
				break
			}
		}
	}
	return text[:cut]
}

var plainWord = regexp.MustCompile(`^[A-Za-z]+$`)

var (
	words = regexp.MustCompile(`[\pL\pN_](?:[\pL\pN_.~+/=%-]*[\pL\pN_=])?`)
	times = regexp.MustCompile(`^\d{4}-\d\d-\d\d([T ]\d\d:?\d\d[\d:.Z+-]*)?$`)
)

// looksSecret reports whether word may be a secret, or a piece of a secret.
func looksSecret(word string) bool {
	return len(word) >= 6 && strings.ContainsAny(word, "0123456789")
}

// looksRandom reports whether word looks like an unknown token of a server: long, and made
// of letters and digits.
func looksRandom(word string) bool {
	return len(word) >= 16 && strings.ContainsAny(word, "0123456789") && !times.MatchString(word) &&
		strings.ContainsFunc(word, func(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' })
}

// header is h masked.
func (s *secrets) header(h http.Header) http.Header {
	if h == nil {
		return nil
	}
	shown := make(http.Header, len(h))
	for name, values := range h {
		key := s.mask(name)
		if key != name { // a server may say anything, in a name too
			key = redact.Mask
		}
		for _, v := range values {
			if named(name) && !strings.EqualFold(name, "Www-Authenticate") {
				v = redact.Mask
			}
			v = s.mask(v)
			if s.hiddenIn(v) {
				v = redact.Mask
			}
			shown[key] = append(shown[key], v)
		}
	}
	return shown
}

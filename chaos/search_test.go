package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// finding is a secret that was found.
type finding struct{ secret, form, where string }

// search looks for secrets in text, in any of their forms, and returns each
// that is there, once.
func search(text []byte, secrets ...string) []finding {
	// Few secrets begin alike, so that one walk over the text will do.
	type start [6]byte
	byStart := make(map[start][]form)
	for _, secret := range secrets {
		for _, f := range forms(secret) {
			byStart[start([]byte(f.text))] = append(byStart[start([]byte(f.text))], f)
		}
	}
	var found []finding
	seen := make(map[string]bool)
	for i := 0; i+len(start{}) <= len(text); i++ {
		for _, f := range byStart[start(text[i:])] {
			if !seen[f.secret] && bytes.HasPrefix(text[i:], []byte(f.text)) {
				seen[f.secret] = true
				found = append(found, finding{f.secret, f.name, string(text[max(0, i-120):min(len(text), i+len(f.text)+40)])})
			}
		}
	}
	return found
}

// form is a secret as some encoding has it.
type form struct{ name, text, secret string }

func forms(secret string) []form {
	all := []form{
		{name: "raw", text: secret},
		{name: "URL-escaped in a query", text: url.QueryEscape(secret)},
		{name: "URL-escaped in a path", text: url.PathEscape(secret)},
		{name: "URL", text: (&url.URL{Path: secret}).EscapedPath()},
		{name: "quoted", text: inner(strconv.Quote(secret))},
		{name: "quoted in ASCII", text: inner(strconv.QuoteToASCII(secret))},
		{name: "hexadecimal", text: hex.EncodeToString([]byte(secret))},
		{name: "hexadecimal, upper case", text: strings.ToUpper(hex.EncodeToString([]byte(secret)))},
		{name: "hexadecimal, spaced", text: fmt.Sprintf("% x", secret)},
		{name: "bytes", text: strings.Trim(fmt.Sprint([]byte(secret)), "[]")},
	}
	for _, escape := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escape)
		if enc.Encode(secret) == nil {
			escaped := inner(strings.TrimSpace(b.String()))
			all = append(all, form{name: "JSON", text: escaped}, form{name: "JSON in JSON", text: inner(strconv.Quote(escaped))})
		}
	}
	// In base64 the text depends on where in a group of three bytes the
	// secret begins. What its neighbours have a part in is left out.
	for offset := range 3 {
		padded := append(make([]byte, offset), secret...)
		first := (offset*8 + 5) / 6
		last := len(padded) * 8 / 6
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64 for URLs": base64.RawURLEncoding} {
			all = append(all, form{name: fmt.Sprintf("%s at %d", name, offset), text: enc.EncodeToString(padded)[first:last]})
		}
	}
	for i := range all {
		all[i].secret = secret
	}
	return all
}

func inner(quoted string) string { return quoted[1 : len(quoted)-1] }

func TestSearchFindsEveryForm(t *testing.T) {
	const secret = `s+cret/&"<ü>\ ?`
	jsonText, err := json.Marshal(map[string]string{"k": secret})
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{
		"raw":           "a " + secret + " b",
		"query":         "https://h/p?k=" + url.QueryEscape(secret),
		"path":          "https://h/" + url.PathEscape(secret) + "/x",
		"JSON":          string(jsonText),
		"quoted":        fmt.Sprintf("%q", "Bearer "+secret),
		"JSON, quoted":  fmt.Sprintf("%q", jsonText),
		"ASCII":         fmt.Sprintf("%+q", secret),
		"Go syntax":     fmt.Sprintf("%#v", []string{"x", secret}),
		"hex":           fmt.Sprintf("%x", "ab"+secret),
		"HEX":           fmt.Sprintf("%X", secret+"ab"),
		"spaced":        fmt.Sprintf("% x", "ab"+secret),
		"bytes":         fmt.Sprint([]byte("ab" + secret)),
		"nothing there": "",
	}
	for pad := range 4 {
		for tail := range 4 {
			text := []byte(strings.Repeat("u", pad) + secret + strings.Repeat("v", tail))
			for i, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
				texts[fmt.Sprintf("base64 %d, %d before, %d after", i, pad, tail)] = "Basic " + enc.EncodeToString(text)
			}
		}
	}
	for name, text := range texts {
		found := search([]byte(text), "another secret", secret)
		if (len(found) == 1) != (text != "") {
			t.Errorf("%s: found %q in %q", name, found, text)
		}
	}
}

package redact

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Error returns err's text with every URL masked as by [URL]: the URLs of all
// *url.Error values in err's tree, in any form, and URLs with a scheme that a wrapper
// wrote into its text, as http.Client does with a Location that can't be parsed. If a
// URL can't be parsed, even the quoted fragments in the reason ("invalid port
// \":hunter2\"") are masked. The bytes of a server that net/http repeats are masked,
// too.
//
// err itself is unchanged; a nil err gives "".
func Error(err error) string { return errorText(err, Text, written) }

// errorText is Error with show in place of [Text] for the URLs of *url.Error values,
// and inText for the URLs in the text.
func errorText(err error, show, inText func(raw string) string) string {
	if err == nil {
		return ""
	}
	text := serverWords(err.Error())
	raws := appendURLs(nil, err)

	// Longest first: if a URL is the beginning of a longer URL, replacing the short URL
	// inside the longer would leave the longer URL's end visible.
	slices.SortFunc(raws, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var broken []string
	for _, raw := range raws {
		masked := show(raw)
		if Text(raw) == Mask {
			broken = append(broken, raw)
		}
		if masked == raw {
			continue
		}
		text = strings.ReplaceAll(text, quoted(raw), quoted(masked))
		text = strings.ReplaceAll(text, raw, masked)
	}

	if strings.Contains(text, "://") {
		text = eachQuoted(text, func(s string) string {
			// The quotes say where the URL ends, blanks and all.
			if i := strings.Index(s, "://"); i > 0 && schemeStart(s, i) == 0 {
				return maskOne(s, inText, &broken)
			}
			return maskURLs(s, inText, &broken)
		}, func(s string) string {
			return maskURLs(s, inText, &broken)
		})
	}
	if len(broken) > 0 {
		text = eachQuoted(text, func(s string) string {
			for _, raw := range broken {
				if s != "" && strings.Contains(raw, s) {
					return Mask
				}
			}
			return s
		}, func(s string) string { return s })
	}
	return text
}

// appendURLs collects the URL of each *url.Error in err's tree.
func appendURLs(raws []string, err error) []string {
	if e, ok := err.(*url.Error); ok && e.URL != "" {
		raws = append(raws, e.URL)
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			raws = appendURLs(raws, err)
		}
	default:
		if err := errors.Unwrap(err); err != nil {
			raws = appendURLs(raws, err)
		}
	}
	return raws
}

// quoted returns s as %q prints s, without the quotes.
func quoted(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// eachQuoted returns text with f applied to the text in each pair of double quotes, and
// g to the text outside of quotes.
func eachQuoted(text string, f, g func(string) string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '"')
		if i < 0 {
			b.WriteString(g(text))
			return b.String()
		}
		b.WriteString(g(text[:i]))
		text = text[i:]
		q, err := strconv.QuotedPrefix(text)
		if err != nil {
			b.WriteByte('"')
			text = text[1:]
			continue
		}
		s, _ := strconv.Unquote(q) // QuotedPrefix has checked the syntax
		if m := f(s); m != s {
			b.WriteString(strconv.Quote(m))
		} else {
			b.WriteString(q)
		}
		text = text[len(q):]
	}
}

// maskURLs masks the URLs with a scheme in s, each taken to reach as far as
// the next blank or quote.
func maskURLs(s string, show func(raw string) string, broken *[]string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, "://")
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		start := schemeStart(s, i)
		end := len(s)
		if n := strings.IndexAny(s[i:], " \t\r\n\"<>`"); n >= 0 {
			end = i + n
		}
		one := strings.TrimRight(s[start:end], ":,.;)]}'\\")
		if len(one) < i+len("://")-start {
			one = s[start : i+len("://")]
		}
		b.WriteString(s[:start])
		b.WriteString(maskOne(one, show, broken))
		s = s[start+len(one):]
	}
}

// maskOne masks the URL raw, and adds raw to broken if raw can't be parsed.
func maskOne(raw string, show func(raw string) string, broken *[]string) string {
	if _, err := url.Parse(raw); err != nil {
		*broken = append(*broken, raw)
		return Mask
	}
	return show(raw)
}

// written is Text, but returns a URL without secrets unchanged.
func written(raw string) string {
	u, err := url.Parse(raw)
	if err == nil && u.User == nil && !strings.ContainsAny(raw, "@?#") {
		return raw
	}
	return Text(raw)
}

// schemeStart is where the scheme before s[i:], which is "://", begins.
func schemeStart(s string, i int) int {
	for i > 0 {
		switch c := s[i-1]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '+', c == '-', c == '.':
			i--
		default:
			return i
		}
	}
	return i
}

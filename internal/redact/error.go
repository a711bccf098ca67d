package redact

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Error returns err's text with every URL in it masked as by [URL]: those of
// the *url.Error values anywhere in its tree, whatever they look like, and
// those with a scheme that a wrapper wrote into its text, as http.Client does
// with a Location it can't parse. Of a URL that can't be parsed even the
// quoted fragments in the reason ("invalid port \":hunter2\"") are masked.
//
// err itself is untouched; a nil err is "".
func Error(err error) string { return errorText(err, Text) }

// errorText is Error with show in place of [Text] for the URLs of *url.Error
// values.
func errorText(err error, show func(raw string) string) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	raws := appendURLs(nil, err)

	// Longest first: a URL that is the beginning of another one must not
	// be replaced inside it, which would leave the other's end in sight.
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
				return maskOne(s, &broken)
			}
			return maskURLs(s, &broken)
		}, func(s string) string {
			return maskURLs(s, &broken)
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

// quoted is s as %q shows it, without the quotes.
func quoted(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// eachQuoted returns text with f applied to what stands in each pair of
// double quotes, and g to what stands outside of them.
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
		s, _ := strconv.Unquote(q) // QuotedPrefix has seen that it can be
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
func maskURLs(s string, broken *[]string) string {
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
		b.WriteString(maskOne(one, broken))
		s = s[start+len(one):]
	}
}

// maskOne masks the one URL raw, and notes it in broken if it can't be parsed.
func maskOne(raw string, broken *[]string) string {
	u, err := url.Parse(raw)
	if err != nil {
		*broken = append(*broken, raw)
		return Mask
	}
	if u.User == nil && !strings.ContainsAny(raw, "@?#") {
		return raw // as it was written, not as URL would write it
	}
	return URL(u)
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

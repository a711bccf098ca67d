package redact

import (
	"net/http"
	"slices"
	"strings"
)

// harmless are the headers whose values may be logged: they describe a
// message or its delivery and nobody is let in for knowing them.
var harmless = map[string]bool{
	"Accept":                true,
	"Accept-Encoding":       true,
	"Accept-Language":       true,
	"Accept-Ranges":         true,
	"Age":                   true,
	"Allow":                 true,
	"Cache-Control":         true,
	"Connection":            true,
	"Content-Encoding":      true,
	"Content-Language":      true,
	"Content-Length":        true,
	"Content-Range":         true,
	"Content-Type":          true,
	"Date":                  true,
	"Deprecation":           true,
	"Etag":                  true,
	"Expires":               true,
	"If-Match":              true,
	"If-Modified-Since":     true,
	"If-None-Match":         true,
	"If-Unmodified-Since":   true,
	"Last-Modified":         true,
	"Range":                 true,
	"Ratelimit-Limit":       true,
	"Ratelimit-Remaining":   true,
	"Ratelimit-Reset":       true,
	"Retry-After":           true,
	"Server":                true,
	"Sunset":                true,
	"Traceparent":           true,
	"Transfer-Encoding":     true,
	"User-Agent":            true,
	"Vary":                  true,
	"Via":                   true,
	"X-Correlation-Id":      true,
	"X-Ratelimit-Limit":     true,
	"X-Ratelimit-Remaining": true,
	"X-Ratelimit-Reset":     true,
	"X-Request-Id":          true,
}

// urlHeaders are those whose value is a URL: shown as by Text.
var urlHeaders = map[string]bool{
	"Content-Location": true,
	"Location":         true,
	"Origin":           true,
	"Referer":          true,
}

// schemes are the authentication schemes whose name may be shown. Anything
// else where a scheme should stand may as well be a secret.
var schemes = []string{"Basic", "Bearer", "Digest", "DPoP", "GNAP", "HOBA", "Mutual", "Negotiate", "NTLM"}

// Header returns the part of h that may be logged: every name, but a value
// only if the name is on a list of harmless ones. URLs are masked as by
// [Text]. Of a challenge (WWW-Authenticate) the first scheme is shown and the
// rest masked, for its parameters can hold nonces and tickets. Anything else
// is one Mask, however many values there are.
//
// The result shares nothing with h, so it may be logged later; nil gives nil.
func Header(h http.Header) http.Header {
	if h == nil {
		return nil
	}
	out := make(http.Header, len(h))
	for name, values := range h {
		switch key := http.CanonicalHeaderKey(name); {
		case harmless[key]:
			out[name] = slices.Clone(values)
		case urlHeaders[key]:
			out[name] = mapped(values, Text)
		case key == "Www-Authenticate" || key == "Proxy-Authenticate":
			out[name] = mapped(values, challenge)
		default:
			out[name] = []string{Mask}
		}
	}
	return out
}

func mapped(values []string, f func(string) string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = f(v)
	}
	return out
}

func challenge(v string) string {
	scheme, params, _ := strings.Cut(v, " ")
	for _, s := range schemes {
		if strings.EqualFold(s, scheme) {
			if params == "" {
				return s
			}
			return s + " " + Mask
		}
	}
	return Mask
}

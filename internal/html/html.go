// Package html tells HTML pages from other answers: firewalls, captive portals and
// login forms send pages in place of JSON.
package html

import "bytes"

// Begins reports whether body begins like an HTML page: after white space, a byte order
// mark, comments and XML's <?…?>, with a doctype of html or an element that begins
// pages. Other XML isn't a page.
func Begins(body []byte) bool {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	for {
		body = bytes.TrimLeft(body, " \t\r\n\f")
		switch {
		case bytes.HasPrefix(body, []byte("<!--")):
			body = after(body, "-->")
		case bytes.HasPrefix(body, []byte("<?")):
			body = after(body, "?>")
		default:
			return opens(body, "<!doctype html") || opens(body, "<html") || opens(body, "<head") || opens(body, "<body")
		}
	}
}

// after returns the rest of body behind end, or nothing if end is missing.
func after(body []byte, end string) []byte {
	_, rest, _ := bytes.Cut(body, []byte(end))
	return rest
}

// opens reports whether body begins with tag, in upper or lower case, and no longer
// name.
func opens(body []byte, tag string) bool {
	if len(body) < len(tag) || !bytes.EqualFold(body[:len(tag)], []byte(tag)) {
		return false
	}
	return len(body) == len(tag) || bytes.IndexByte([]byte(" \t\r\n\f/>"), body[len(tag)]) >= 0
}

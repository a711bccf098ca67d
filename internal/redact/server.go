package redact

import "regexp"

// serverWords returns the text of an error without the server's bytes that net/http
// repeats. The bytes may contain the token, since some servers echo a request.
func serverWords(text string) string {
	text = afterPhrase.ReplaceAllString(text, `${1}"`+Mask+`"`)
	return restOfLine.ReplaceAllString(text, "${1}"+Mask)
}

// afterPhrase matches the phrases of net/http, net/textproto, crypto/tls and HTTP/2
// that quote a server's bytes, and the quoted strings behind the phrases. An error of
// this package, whose quotes stay, may have such an error as its cause.
var afterPhrase = regexp.MustCompile(`(` +
	`(?:` +
	`malformed HTTP (?:response|version|status code)|malformed MIME header[a-z :]*|` +
	`(?:bad|invalid empty) Content-Length|multiple Content-Length headers; got|` +
	`(?:unsupported|too many) transfer encodings?:|bad trailer key|invalid Trailer key|` +
	`failed to parse Location header|` +
	`(?:invalid|duplicate) pseudo-header|invalid header field (?:name|value for)|debug=|` +
	`unexpected ALPN protocol|unadvertised ALPN protocol|` +
	`short response:|invalid response code:|unexpected multi-line response:` +
	`)[ (]*)` +
	`\[?"(?:[^"\\]|\\.)*"(?: "(?:[^"\\]|\\.)*")*\]?`)

// restOfLine matches the server's bytes that some versions of net/textproto repeat
// without quotes.
var restOfLine = regexp.MustCompile(`(?s)(malformed MIME header(?: initial)? line: )([^"].*)`)

// Which answers mean that a token is bad, and the body that a predicate of the
// user's may look into. What follows from a refusal is auth_transport.go's.

package requestforge

import (
	"io"
	"net/http"

	"github.com/requestforge/requestforge/internal/challenge"
)

// refused reports whether resp means that tok is bad, and notes on tok if resp
// means the opposite. ask is AuthTransport.Refused.
func refused(ask func(*http.Response) bool, tok *Token, resp *http.Response) bool {
	var bad bool
	if ask != nil {
		bad = askRefused(ask, resp)
	} else {
		bad = resp.StatusCode == http.StatusUnauthorized && !insufficientScope(resp)
	}
	if !bad && accepts(resp) {
		tok.accept()
	}
	return bad
}

// accepts reports whether resp shows that its token was good.
func accepts(resp *http.Response) bool {
	return resp.StatusCode < 400 || insufficientScope(resp)
}

// insufficientScope reports whether resp says that the token is good but not
// for this (RFC 6750 §3.1).
func insufficientScope(resp *http.Response) bool {
	return (resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden) &&
		challenge.HasBearerError(resp.Header, "insufficient_scope")
}

// maxPeek is how much of a body a Refused predicate may read.
const maxPeek = 64 << 10

// askRefused asks the predicate, and puts back what it read of the body.
func askRefused(refused func(*http.Response) bool, resp *http.Response) bool {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return refused(&http.Response{Status: resp.Status, StatusCode: resp.StatusCode, Header: resp.Header, Body: http.NoBody, Request: resp.Request})
	}
	body := resp.Body
	peek := &peek{src: body}
	resp.Body = peek
	answer := refused(resp)
	if len(peek.kept) == 0 && peek.err == nil {
		resp.Body = body
	} else {
		resp.Body = &putBack{peek.kept, peek.err, body}
	}
	return answer
}

// peek keeps what is read through it, up to maxPeek bytes, where it ends. Its
// Close does nothing.
type peek struct {
	src  io.Reader
	kept []byte
	err  error // of src
}

func (p *peek) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	room := maxPeek - len(p.kept)
	if room == 0 {
		return 0, io.EOF
	}
	n, err := p.src.Read(b[:min(len(b), room)])
	p.kept = append(p.kept, b[:n]...)
	p.err = err
	return n, err
}

func (p *peek) Close() error { return nil }

// putBack is a body of which the beginning was read already.
type putBack struct {
	kept []byte
	err  error // what came after kept, if src has nothing more
	io.ReadCloser
}

func (p *putBack) Read(b []byte) (int, error) {
	if len(p.kept) > 0 {
		n := copy(b, p.kept)
		p.kept = p.kept[n:]
		return n, nil
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.ReadCloser.Read(b)
}

// Where a request went, if the URL isn't the URL that the layers above sent: the effect of
// Config.BaseURLFrom, and how the layers above learn of the new URL.

package requestforge

import (
	"context"
	"net/http"
	"net/url"
)

// movement is a URL that was sent in place of the request's URL.
type movement struct {
	url url.URL
	by  any       // the layer that moved the request; nil: a layer below a foreign RoundTripper
	up  *movement // the movement of a layer above by; nil: no movement

	// shown is a copy of the request for a response that goes up, and shownURL the copy's
	// URL. The transport below may still use url, so url isn't shared.
	shown    http.Request
	shownURL url.URL
	context  shownContext
	of       *http.Request // the request that shown is a copy of
}

// shownContext is the context of a request in a response that goes up. A layer above a
// foreign RoundTripper recognizes such a request by the type of the context, and so knows
// that the request has no credentials.
type shownContext struct {
	context.Context
	m *movement
}

// movementOf returns the movement in back, the request of a response; nil if back isn't a
// copy made here.
func movementOf(back *http.Request) *movement {
	if back == nil {
		return nil
	}
	c, ok := back.Context().(*shownContext)
	if !ok || back.URL != &c.m.shownURL { // a foreign request with our context
		return nil
	}
	return c.m
}

// seen returns req with the URL that was sent, but with the query of req: a layer below may
// have added a secret to the query.
func (m *movement) seen(req *http.Request) *http.Request {
	if m.of == req {
		return &m.shown
	}
	if m.of != nil {
		m = &movement{url: m.url}
	}
	m.context.Context, m.context.m = req.Context(), m
	if c, ok := req.Context().(*shownContext); ok {
		m.context.Context = c.Context
	}
	m.of, m.shown, m.shownURL = req, *req.WithContext(&m.context), m.url
	m.shownURL.User, m.shownURL.RawQuery, m.shownURL.ForceQuery = req.URL.User, req.URL.RawQuery, req.URL.ForceQuery
	m.shown.URL = &m.shownURL
	return &m.shown
}

package requestforge_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	rf "github.com/requestforge/requestforge"
)

// refusing is an HTTP/2 server that reads the whole of each request, and refuses the
// first as a protocol error has it that says "not processed".
type refusing struct {
	refuse func(fr *http2.Framer, stream uint32)
	seen   atomic.Int32
	bodies chan string // of the others
}

func (s *refusing) serve(_ *http.Server, c *tls.Conn, _ http.Handler) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	fr.WriteSettings()
	data := map[uint32]*bytes.Buffer{}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		ended := false
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				fr.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			data[f.StreamID], ended = new(bytes.Buffer), f.StreamEnded()
		case *http2.DataFrame:
			data[f.StreamID].Write(f.Data())
			ended = f.StreamEnded()
		}
		if !ended {
			continue
		}
		id := f.Header().StreamID
		if s.seen.Add(1) == 1 {
			s.refuse(fr, id)
			continue
		}
		s.bodies <- data[id].String()
		var head bytes.Buffer
		hpack.NewEncoder(&head).WriteField(hpack.HeaderField{Name: ":status", Value: "201"})
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true})
	}
}

// REFUSED_STREAM, and a GOAWAY below the stream, say that a request was not processed
// (RFC 9113 §8.7): net/http repeats it, whatever the method, if the body can be had
// again. A body that is kept can.
func TestRetryHTTP2RepeatsAKeptBody(t *testing.T) {
	for name, refuse := range map[string]func(fr *http2.Framer, id uint32){
		"REFUSED_STREAM": func(fr *http2.Framer, id uint32) { fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
		"GOAWAY":         func(fr *http2.Framer, id uint32) { fr.WriteGoAway(0, http2.ErrCodeNo, nil) },
	} {
		for layers, over := range map[string]func(base http.RoundTripper, url string) http.RoundTripper{
			"retry": func(base http.RoundTripper, _ string) http.RoundTripper { return retryOver(base, retryFast(3)) },
			"auth": func(base http.RoundTripper, url string) http.RoundTripper {
				return &rf.AuthTransport{Base: base, Source: static("t"), Origins: []string{url}}
			},
			"retry, auth": func(base http.RoundTripper, url string) http.RoundTripper {
				return retryOver(&rf.AuthTransport{Base: base, Source: static("t"), Origins: []string{url}}, retryFast(3))
			},
		} {
			for kind, body := range map[string]io.Reader{"GetBody": strings.NewReader("pay"), "plain": io.MultiReader(strings.NewReader("pay"))} {
				t.Run(name+"/"+layers+"/"+kind, func(t *testing.T) {
					s := &refusing{refuse: refuse, bodies: make(chan string, 10)}
					srv := httptest.NewUnstartedServer(nil)
					srv.TLS = &tls.Config{NextProtos: []string{"h2"}}
					srv.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": s.serve}
					srv.StartTLS()
					defer srv.Close()
					base := srv.Client().Transport.(*http.Transport).Clone()
					base.ForceAttemptHTTP2 = true
					defer base.CloseIdleConnections()
					req, _ := http.NewRequest("POST", srv.URL, body)
					resp, err := over(base, srv.URL).RoundTrip(req)
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, 201, resp.StatusCode)
					require.Equal(t, "pay", <-s.bodies)
					require.EqualValues(t, 2, s.seen.Load())
				})
			}
		}
	}
}

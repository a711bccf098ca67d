package requestforge_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// No encoding of the standard library shows a secret, of a value or a pointer, alone
// or inside another value.
func TestNoEncodingShowsASecret(t *testing.T) {
	const secret = "hunter2hunter2"
	tok := rf.Token{AccessToken: secret, RefreshToken: secret, Extra: map[string]any{"id_token": secret}}
	auth := rf.ClientAuth{ID: "shop", Secret: secret}
	body := rf.HTTPFetcher{URL: "https://auth.example.com", Form: url.Values{"password": {secret}}, Header: http.Header{"X-Key": {secret}}, ClientAuth: &auth}
	header := rf.HTTPFetcher{URL: "https://auth.example.com", TokenHeader: "X-Token", ClientAuth: &auth, JSON: map[string]string{"pin": secret}}
	step := rf.Step{Name: "user", Fetcher: &body}
	for name, v := range map[string]any{
		"Token": tok, "*Token": &tok, "Input": rf.Input{Previous: &tok, Parents: map[string]*rf.Token{"app": &tok}}, "*Input": &rf.Input{Previous: &tok},
		"ClientAuth": auth, "*ClientAuth": &auth, "HTTPFetcher": body, "*HTTPFetcher": &body, "HTTPFetcher of a header": header, "*HTTPFetcher of a header": &header,
		"Step": step, "*Step": &step, "PipelineConfig": rf.PipelineConfig{Steps: []rf.Step{step}},
		"[]Token": []rf.Token{tok}, "map of ClientAuth": map[string]rf.ClientAuth{"a": auth},
		"struct": struct {
			T *rf.Token
			A rf.ClientAuth
		}{&tok, auth},
		"TokenSource": rf.StaticToken(&tok),
	} {
		var g, x, tmpl bytes.Buffer
		_ = gob.NewEncoder(&g).Encode(v)
		_ = xml.NewEncoder(&x).Encode(v)
		_ = template.Must(template.New("").Parse("{{.}}")).Execute(&tmpl, v)
		j, _ := json.Marshal(v)
		for how, out := range map[string]string{"gob": g.String(), "xml": x.String(), "json": string(j), "text/template": tmpl.String()} {
			require.NotContains(t, out, secret, "%s of a %s", how, name)
		}
	}
	text, err := tok.MarshalText()
	require.NoError(t, err)
	require.Equal(t, tok.String(), string(text))
	require.ErrorContains(t, gob.NewEncoder(new(bytes.Buffer)).Encode(tok), "MarshalBinary")
}

// leaving is a storage in which a peer has left a failure.
type leaving struct {
	*rf.MemoryStorage
	f     rf.Failure
	saved chan string // the fingerprint of one
}

func (s *leaving) LoadFailure(context.Context, string) (rf.Failure, error) { return s.f, nil }

func (s *leaving) SaveFailure(_ context.Context, _ string, f rf.Failure) error {
	s.saved <- f.Fingerprint
	return nil
}

// What another process has left in the storage is checked like a server's answer.
func TestSharedFailureIsCheckedLikeAnAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		left rf.Failure
		code string
		stat int
	}{
		"sane":              {rf.Failure{StatusCode: 401, Code: "invalid_client", Permanent: true, Left: time.Minute}, "invalid_client", 401},
		"a code of its own": {rf.Failure{StatusCode: 400, Code: "hunter2\nlevel=ERROR", Left: time.Minute}, "", 400},
		"no status":         {rf.Failure{StatusCode: -867530912345, Left: time.Minute}, "", 0},
		"a large status":    {rf.Failure{StatusCode: 867530912345, Left: time.Minute}, "", 0},
		"a long time":       {rf.Failure{StatusCode: 503, Left: 1<<63 - 1}, "", 503},
	} {
		t.Run(name, func(t *testing.T) {
			storage := &leaving{MemoryStorage: rf.NewMemoryStorage(), saved: make(chan string, 1)}
			var logged bytes.Buffer
			asked := 0
			step := rf.Step{Name: "user", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				asked++
				return nil, &rf.AuthError{StatusCode: 400}
			})}
			cfg := rf.PipelineConfig{Storage: storage, Steps: []rf.Step{step}}
			first := pipeline(t, cfg)
			first.Token(t.Context())
			storage.f = c.left
			storage.f.Fingerprint = <-storage.saved
			cfg.Logger = slog.New(slog.NewJSONHandler(&logged, nil))
			_, err := pipeline(t, cfg).Token(t.Context())
			var auth *rf.AuthError
			require.ErrorAs(t, err, &auth)
			require.Equal(t, 1, asked, "the failure wasn't taken over")
			require.Equal(t, c.code, auth.Code)
			require.Equal(t, c.stat, auth.StatusCode)
			require.LessOrEqual(t, auth.RetryAfter, 5*time.Minute)
			for _, word := range []string{"hunter2", "867530912345"} {
				require.False(t, strings.Contains(err.Error()+logged.String(), word), "%v %s", err, logged.String())
			}
		})
	}
}

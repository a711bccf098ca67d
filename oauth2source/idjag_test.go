package oauth2source_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

// TestIDJAGInTwoLegs takes two users' ID tokens through a token exchange, whose token is
// none to send as a bearer's ("N_A"), and JWT bearer, in one pipeline.
func TestIDJAGInTwoLegs(t *testing.T) {
	idp := newEndpoint(t, func(_ int, form url.Values) (int, string) {
		return http.StatusOK, fmt.Sprintf(`{"access_token":"jag of %s","issued_token_type":%q,"token_type":"N_A","expires_in":300}`,
			form.Get("subject_token"), oauth2source.IDJAGType)
	})
	next := newEndpoint(t, func(_ int, form url.Values) (int, string) {
		return http.StatusOK, fmt.Sprintf(`{"access_token":"token by %s","token_type":"Bearer","expires_in":300}`, form.Get("assertion"))
	})
	client := &requestforge.ClientAuth{ID: "agent", Secret: "s3cret"}
	first := oauth2source.TokenExchange(oauth2source.Config{TokenURL: idp.URL, ClientAuth: client}, oauth2source.Exchange{
		Subject: oauth2source.FromStep("inbound"), SubjectType: oauth2source.IDTokenType,
		RequestedType: oauth2source.IDJAGType, Audience: []string{"https://next.example"},
	})
	second := oauth2source.JWTBearer(oauth2source.Config{TokenURL: next.URL, ClientAuth: client}, oauth2source.FromStep("idjag"))
	type user struct{}
	name := func(ctx context.Context) string { s, _ := ctx.Value(user{}).(string); return s }
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Subject: func(ctx context.Context) (string, error) { return name(ctx), nil },
		Steps: []requestforge.Step{
			{Name: "inbound", Given: func(ctx context.Context) (*requestforge.Token, error) { return bearer("id-" + name(ctx)), nil }},
			{Name: "idjag", DependsOn: []string{"inbound"}, Fetcher: first},
			{Name: "user", DependsOn: []string{"idjag"}, Fetcher: second},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 2 {
		for _, who := range []string{"ann", "bob"} {
			tok, err := p.Token(context.WithValue(t.Context(), user{}, who))
			if err != nil {
				t.Fatal(err)
			}
			if want := "token by jag of id-" + who; tok.AccessToken != want {
				t.Errorf("%s got %q, not %q", who, tok.AccessToken, want)
			}
		}
	}
	if idp.requests() != 2 || next.requests() != 2 {
		t.Errorf("%d exchanges and %d assertions were sent, for two users", idp.requests(), next.requests())
	}
	form, _ := idp.last()
	for field, want := range map[string]string{
		"requested_token_type": oauth2source.IDJAGType,
		"subject_token_type":   oauth2source.IDTokenType,
		"audience":             "https://next.example",
	} {
		if got := form.Get(field); got != want {
			t.Errorf("%s is %q, not %q", field, got, want)
		}
	}
	// Neither a secret nor a user is part of who the grants are for.
	for _, g := range []*oauth2source.Grant{first, second} {
		id := g.Identity()
		if id == "" || slices.ContainsFunc([]string{"s3cret", "ann", "bob", "jag of"}, func(s string) bool { return strings.Contains(id, s) }) {
			t.Errorf("identity %q", id)
		}
	}
}

func TestAssertionThatIsTakenOnceIsMadeAnew(t *testing.T) {
	for from, refused := range map[string]int{"": 1, "idjag": 0} {
		t.Run("RefreshFrom="+from, func(t *testing.T) {
			idp := newEndpoint(t, func(n int, _ url.Values) (int, string) {
				return http.StatusOK, fmt.Sprintf(`{"access_token":"jag-%d","token_type":"N_A","expires_in":300}`, n)
			})
			taken := map[string]bool{}
			next := newEndpoint(t, func(n int, form url.Values) (int, string) {
				if jag := form.Get("assertion"); !taken[jag] {
					taken[jag] = true
					return http.StatusOK, fmt.Sprintf(`{"access_token":"token-%d","token_type":"Bearer","expires_in":300}`, n)
				}
				return http.StatusBadRequest, `{"error":"invalid_grant"}`
			})
			p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
				RefreshFrom: from,
				Steps: []requestforge.Step{
					{Name: "idjag", Fetcher: oauth2source.TokenExchange(oauth2source.Config{TokenURL: idp.URL}, oauth2source.Exchange{
						Subject: oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) { return "id", nil }),
					})},
					{Name: "user", DependsOn: []string{"idjag"}, Fetcher: oauth2source.JWTBearer(oauth2source.Config{TokenURL: next.URL}, oauth2source.FromStep("idjag"))},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			first, err := p.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Invalidate(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			if second, err := p.Token(t.Context()); err != nil || second.AccessToken == first.AccessToken {
				t.Fatal(second, err)
			}
			if got := next.requests() - 2; idp.requests() != 2 || got != refused {
				t.Errorf("%d exchanges, %d assertions refused; want 2 and %d", idp.requests(), got, refused)
			}
		})
	}
}

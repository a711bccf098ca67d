// What zitadel's server doesn't know of ID-JAG: to issue one, and to take one of
// another server. Clients, tokens, keys and checks of a JWT are its own.

package servers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// idJAGLife is how long an ID-JAG lives.
const idJAGLife = 5 * time.Minute

// zitadelGrants is zitadel's server, with the two legs of ID-JAG.
type zitadelGrants struct {
	*op.Provider
	store  *zitadelStorage
	server *Server
	idp    *Server // whose ID-JAGs are taken; nil: nobody's
	taken  *op.JWTProfileVerifier
}

func newZitadelGrants(p *op.Provider, store *zitadelStorage, s, idp *Server) *zitadelGrants {
	z := &zitadelGrants{Provider: p, store: store, server: s, idp: idp}
	if idp != nil {
		z.taken = op.NewJWTProfileVerifierKeySet(rp.NewRemoteKeySet(http.DefaultClient, idp.Issuer+"/keys"), s.Issuer, time.Hour, 0,
			op.SubjectCheck(func(req *oidc.JWTTokenRequest) error {
				if req.Issuer != idp.Issuer || req.Subject == "" || req.GetCustomClaim("client_id") != s.ClientID {
					return errors.New("not an ID-JAG of our identity provider for this client")
				}
				return nil
			}))
	}
	return z
}

func (z *zitadelGrants) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/oauth/token" || r.ParseForm() != nil {
		z.Provider.ServeHTTP(w, r)
		return
	}
	r = r.WithContext(op.ContextWithIssuer(r.Context(), z.server.Issuer))
	var answer any
	var err error
	switch {
	case r.Form.Get("requested_token_type") == idJAGType:
		answer, err = z.issue(r)
	case z.idp != nil && r.Form.Get("grant_type") == string(oidc.GrantTypeBearer):
		answer, err = z.take(r)
	default:
		z.Provider.ServeHTTP(w, r)
		return
	}
	if err != nil {
		op.RequestError(w, r, err, nil)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer)
}

// issue is the first leg: an ID token is exchanged for an ID-JAG.
func (z *zitadelGrants) issue(r *http.Request) (*oidc.TokenExchangeResponse, error) {
	req, id, secret, err := op.ParseTokenExchangeRequest(r, z.Decoder())
	if err != nil {
		return nil, err
	}
	if _, err := op.AuthorizeTokenExchangeClient(r.Context(), id, secret, z); err != nil {
		return nil, err
	}
	// The verifier of a hint leaves the audience to its caller. The client's own tells
	// an ID token from an ID-JAG, too, which has the same issuer and key.
	claims, err := op.VerifyIDTokenHint[*oidc.IDTokenClaims](r.Context(), req.SubjectToken, z.IDTokenHintVerifier(r.Context()))
	if err != nil || req.SubjectTokenType != oidc.IDTokenType || !slices.Contains(claims.Audience, id) || z.store.isLocked(claims.Subject) {
		return nil, oidc.ErrInvalidRequest().WithDescription("subject_token is invalid") // RFC 8693 §2.2.2
	}
	if len(req.Audience) != 1 {
		return nil, oidc.ErrInvalidRequest().WithDescription("audience: the issuer of one server")
	}
	key, err := z.store.SigningKey(r.Context())
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: key.SignatureAlgorithm(), Key: key.Key()},
		new(jose.SignerOptions).WithType(idJAGHeader).WithHeader("kid", key.ID()))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	text, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": z.server.Issuer, "sub": claims.Subject, "aud": req.Audience[0], "client_id": id,
		"iat": now.Unix(), "exp": now.Add(idJAGLife).Unix(), "jti": rand.Text(), "scope": strings.Join(req.Scopes, " "),
	}).Serialize()
	return &oidc.TokenExchangeResponse{
		AccessToken: text, IssuedTokenType: idJAGType, TokenType: "N_A",
		ExpiresIn: uint64(idJAGLife.Seconds()), Scopes: req.Scopes,
	}, err
}

// take is the second leg: an ID-JAG of the identity provider is a JWT bearer
// assertion, of the client that it was issued to.
func (z *zitadelGrants) take(r *http.Request) (*oidc.AccessTokenResponse, error) {
	id, secret, _ := r.BasicAuth()
	if err := op.AuthorizeClientIDSecret(r.Context(), id, secret, z.store); err != nil {
		return nil, oidc.ErrInvalidClient().WithParent(err)
	}
	req, err := op.ParseJWTProfileGrantRequest(r, z.Decoder())
	if err != nil {
		return nil, err
	}
	sig, err := jose.ParseSignedCompact(req.Assertion, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || sig.Signatures[0].Header.ExtraHeaders[jose.HeaderType] != idJAGHeader {
		return nil, oidc.ErrInvalidGrant().WithDescription("the assertion is no ID-JAG")
	}
	user, err := op.VerifyJWTAssertion(r.Context(), req.Assertion, z.taken)
	if err != nil {
		return nil, oidc.ErrInvalidGrant().WithParent(err) // RFC 7521 §4.1.1
	}
	if user.Scopes, err = z.store.ValidateJWTProfileScopes(r.Context(), user.Subject, req.Scope); err != nil {
		return nil, err
	}
	return op.CreateJWTTokenResponse(r.Context(), user, z)
}

func (z *zitadelGrants) users() *Users {
	return &Users{
		Names: slices.Clone(userNames),
		Login: z.login,
		Lock: func(_ context.Context, user string) error {
			z.store.lock(user)
			return nil
		},
		StartNext: func(context.Context) (*Server, error) { return newZitadel(z.server) },
	}
}

// login is what the server does at the end of a login in a browser.
func (z *zitadelGrants) login(ctx context.Context, user string) (access, id string, err error) {
	client, err := z.store.GetClientByClientID(ctx, z.server.ClientID)
	if err != nil {
		return "", "", err
	}
	req := &storage.AuthRequest{ApplicationID: z.server.ClientID, UserID: user, Scopes: []string{oidc.ScopeOpenID}, Nonce: rand.Text()}
	access, _, _, err = op.CreateAccessToken(ctx, req, op.AccessTokenTypeBearer, z, client, "")
	if err != nil {
		return "", "", err
	}
	id, err = op.CreateIDToken(ctx, z.server.Issuer, req, time.Hour, "", "", z.store, client)
	return access, id, err
}

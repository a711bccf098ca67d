// github.com/zitadel/oidc: its OpenID Connect server, with the in-memory
// storage of its example. The resource is the server's own userinfo, which has
// a bare 403 for a revoked token. What the server has to say of a bad request, it
// says to slog's default logger.

package servers

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func init() { starters["zitadel"] = startZitadel }

func startZitadel(context.Context) (*Server, error) { return newZitadel(nil) }

// newZitadel starts one that takes the ID-JAGs of idp, if that isn't nil.
func newZitadel(idp *Server) (*Server, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Name: "zitadel",
		Refused: func(resp *http.Response) bool {
			return resp.StatusCode == http.StatusUnauthorized ||
				resp.StatusCode == http.StatusForbidden && resp.Header.Get("WWW-Authenticate") == ""
		},
		ClientID: "sid1", ClientSecret: "verysecret", // the storage's own for client credentials
		Scopes: []string{oidc.ScopeOpenID},
		Key:    key, KeyID: "key-1", Subject: "sid1",
	}
	s.Exchange = &Exchange{
		ClientID: s.ClientID, ClientSecret: s.ClientSecret,
		SubjectTokenType: string(oidc.AccessTokenType),
		Scopes:           []string{oidc.ScopeOpenID, storage.CustomScopeImpersonatePrefix + zitadelUser},
	}
	s.close, err = serve(func(origin string) (http.Handler, error) {
		s.Issuer = origin
		s.TokenURL = origin + "/oauth/token"
		s.RevokeURL = origin + "/revoke"
		s.ResourceURL = origin + "/userinfo"
		s.Audience = origin
		store := newZitadelStorage(s, &key.PublicKey)
		provider, err := op.NewProvider(&op.Config{GrantTypeRefreshToken: true}, store, op.StaticIssuer(origin),
			op.WithAllowInsecure()) // an issuer without TLS
		if err != nil {
			return nil, err
		}
		grants := newZitadelGrants(provider, store, s, idp)
		s.Users = grants.users()
		return oneByOne(grants), nil
	})
	return s, err
}

// zitadelUser is whom the client impersonates in a token exchange.
const zitadelUser = "ann"

// zitadelStorage is the example's storage, with a key of our own and what makes
// userinfo and revocation work for all its tokens.
type zitadelStorage struct {
	*storage.Storage
	client, keyID string
	key           *rsa.PublicKey

	mu     sync.Mutex
	locked map[string]bool // users
}

func newZitadelStorage(s *Server, key *rsa.PublicKey) *zitadelStorage {
	// Its clients for client credentials are another list, where it has
	// the same one already.
	clients := map[string]*storage.Client{s.ClientID: storage.WebClient(s.ClientID, s.ClientSecret)}
	users := zitadelUsers{
		// Userinfo asks for the user that a token is about, and token
		// exchange whether that may be somebody else. For a client that
		// has got a token for itself, the user is the client.
		s.ClientID: {ID: s.ClientID, Username: s.ClientID, IsAdmin: true},
	}
	for _, name := range userNames {
		users[name] = &storage.User{ID: name, Username: name}
	}
	return &zitadelStorage{
		Storage: storage.NewStorageWithClients(users, clients),
		client:  s.ClientID, keyID: s.KeyID, key: key,
		locked: map[string]bool{},
	}
}

// GetKeyByIDAndClientID returns the key of JWT bearer's assertions.
func (z *zitadelStorage) GetKeyByIDAndClientID(_ context.Context, keyID, clientID string) (*jose.JSONWebKey, error) {
	if keyID != z.keyID || clientID != z.client {
		return nil, errors.New("no such key")
	}
	return &jose.JSONWebKey{KeyID: keyID, Use: "sig", Key: z.key}, nil
}

// CreateAccessToken adds whose token it is where the example's storage forgets
// it, in client credentials and JWT bearer: nobody could revoke it.
func (z *zitadelStorage) CreateAccessToken(ctx context.Context, req op.TokenRequest) (string, time.Time, error) {
	if _, ok := req.(*oidc.JWTTokenRequest); ok {
		req = &storage.AuthRequest{ApplicationID: z.client, UserID: req.GetSubject(), Scopes: req.GetScopes()}
	}
	return z.Storage.CreateAccessToken(ctx, req)
}

// ValidateTokenExchangeRequest adds what the example's storage leaves out: the
// tokens have to be live, as nobody has asked yet, and their user not locked.
func (z *zitadelStorage) ValidateTokenExchangeRequest(ctx context.Context, req op.TokenExchangeRequest) error {
	if !z.live(ctx, req.GetExchangeSubjectTokenIDOrToken(), req.GetExchangeSubject()) {
		return oidc.ErrInvalidRequest().WithDescription("subject_token is invalid") // RFC 8693 §2.2.2
	}
	if actor := req.GetExchangeActor(); actor != "" && !z.live(ctx, req.GetExchangeActorTokenIDOrToken(), actor) {
		return oidc.ErrInvalidRequest().WithDescription("actor_token is invalid")
	}
	return z.Storage.ValidateTokenExchangeRequest(ctx, req)
}

// live reports whether an access token is one, and its user may use it.
func (z *zitadelStorage) live(ctx context.Context, tokenID, user string) bool {
	return !z.isLocked(user) && z.SetUserinfoFromToken(ctx, new(oidc.UserInfo), tokenID, user, "") == nil
}

func (z *zitadelStorage) isLocked(user string) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.locked[user]
}

func (z *zitadelStorage) lock(user string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.locked[user] = true
}

// zitadelUsers is a storage.UserStore.
type zitadelUsers map[string]*storage.User

func (u zitadelUsers) GetUserByID(id string) *storage.User         { return u[id] }
func (u zitadelUsers) GetUserByUsername(name string) *storage.User { return u[name] }
func (u zitadelUsers) ExampleClientID() string                     { return "" } // of a key that the world knows

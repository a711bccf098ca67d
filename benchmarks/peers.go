// The candidates, each built as its own documentation says. They differ in
// nothing else: the transport below, the auth server and the request are the
// same, and a retry layer sends three more times at most.

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/httptransport"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	azruntime "github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/aws/smithy-go/auth/bearer"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/gophercloud/gophercloud/v2"
	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	orasauth "oras.land/oras-go/v2/registry/remote/auth"

	"github.com/requestforge/requestforge"
)

// setting is what a candidate is built on.
type setting struct {
	base   http.RoundTripper
	origin string // of the API
	auth   *authServer
	logger *slog.Logger // for those that log; nil: none
}

// A peer is a candidate that sends requests.
type peer struct {
	impl  string
	build func(setting) (client, error)

	// withoutAuth means that it knows nothing of tokens. Its requests come
	// with one, so that the same goes over the wire.
	withoutAuth bool
}

// The names of the candidates, in the samples.
const (
	bare          = "bare"                      // the transport below, alone
	copied        = "copy"                      // a copy of the request and its header map, with a token that is at hand
	recorded      = "record"                    // one common log record a request, and nothing else
	xoauth2       = "oauth2"                    // golang.org/x/oauth2
	retryable     = "retryablehttp"             // go-retryablehttp, without a token
	assembled     = "slog+retryablehttp+oauth2" // what people assemble today
	cloud         = "cloud-auth"                // cloud.google.com/go/auth
	failsafe      = "failsafe+oauth2"           // failsafe-go over x/oauth2
	azure         = "azcore"                    // azcore's pipeline with its bearer policy
	smithy        = "smithy"                    // smithy-go's token cache and signer
	openstack     = "gophercloud"               // gophercloud's ProviderClient with UseTokenLock
	oras          = "oras"                      // oras-go's registry client
	authLayer     = "auth"                      // requestforge's AuthTransport alone
	stack         = "stack"                     // requestforge's whole stack
	stackUnlogged = "stack-nil-logger"          // the same, without a logging layer
)

var peers = map[string]peer{
	bare:          {impl: bare, build: buildBare, withoutAuth: true},
	copied:        {impl: copied, build: buildCopy},
	recorded:      {impl: recorded, build: buildRecord, withoutAuth: true},
	xoauth2:       {impl: xoauth2, build: buildOAuth2},
	retryable:     {impl: retryable, build: buildRetryable, withoutAuth: true},
	assembled:     {impl: assembled, build: buildAssembled},
	cloud:         {impl: cloud, build: buildCloud},
	failsafe:      {impl: failsafe, build: buildFailsafe},
	azure:         {impl: azure, build: buildAzure},
	smithy:        {impl: smithy, build: buildSmithy},
	openstack:     {impl: openstack, build: buildGophercloud},
	oras:          {impl: oras, build: buildOras},
	authLayer:     {impl: authLayer, build: buildAuthLayer},
	stack:         {impl: stack, build: buildStack},
	stackUnlogged: {impl: stackUnlogged, build: buildStackUnlogged},
}

// retries is how often each retry layer sends again, at most.
const retries = 3

func buildBare(s setting) (client, error) { return s.base.RoundTrip, nil }

// A transport may not change the request that it is given, so this is the
// least that any auth layer does.
func buildCopy(s setting) (client, error) {
	token, _, err := s.auth.fetch(context.Background(), "token", "")
	if err != nil {
		return nil, err
	}
	value := []string{"Bearer " + token}
	return func(req *http.Request) (*http.Response, error) {
		sent := new(http.Request)
		*sent = *req
		sent.Header = make(http.Header, len(req.Header)+1)
		for name, values := range req.Header {
			sent.Header[name] = values
		}
		sent.Header["Authorization"] = value
		return s.base.RoundTrip(sent)
	}, nil
}

func buildRecord(s setting) (client, error) {
	return (&logging{next: s.base, logger: s.logger}).RoundTrip, nil
}

// logging is the logging layer that people write: one record a request.
type logging struct {
	next   http.RoundTripper
	logger *slog.Logger
}

func (l *logging) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := l.next.RoundTrip(req)
	if err != nil {
		l.logger.LogAttrs(req.Context(), slog.LevelError, "request",
			slog.String("method", req.Method), slog.String("url", req.URL.String()),
			slog.Any("error", err), slog.Duration("duration", time.Since(start)))
		return nil, err
	}
	l.logger.LogAttrs(req.Context(), slog.LevelInfo, "request",
		slog.String("method", req.Method), slog.String("url", req.URL.String()),
		slog.Int("status", resp.StatusCode), slog.Duration("duration", time.Since(start)))
	return resp, nil
}

func oauth2Transport(s setting) http.RoundTripper {
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, s.auth.Client)
	return &oauth2.Transport{Base: s.base, Source: oauth2Source(ctx, s.auth.URL+"/token")}
}

// oauth2Source keeps its token, as all sources do that x/oauth2 makes.
func oauth2Source(ctx context.Context, tokenURL string) oauth2.TokenSource {
	return (&clientcredentials.Config{
		ClientID: clientID, ClientSecret: clientSecret,
		TokenURL: tokenURL, AuthStyle: oauth2.AuthStyleInHeader,
	}).TokenSource(ctx)
}

func buildOAuth2(s setting) (client, error) { return oauth2Transport(s).RoundTrip, nil }

func retryableTransport(next http.RoundTripper) http.RoundTripper {
	c := retryablehttp.NewClient()
	c.HTTPClient = &http.Client{Transport: next}
	c.RetryMax = retries
	c.Logger = nil // the default writes to stderr
	return &retryablehttp.RoundTripper{Client: c}
}

func buildRetryable(s setting) (client, error) { return retryableTransport(s.base).RoundTrip, nil }

func buildAssembled(s setting) (client, error) {
	logger := s.logger
	if logger == nil {
		logger = silent()
	}
	return (&logging{next: retryableTransport(oauth2Transport(s)), logger: logger}).RoundTrip, nil
}

func buildFailsafe(s setting) (client, error) {
	policy := failsafehttp.NewRetryPolicyBuilder().WithMaxRetries(retries).Build()
	return failsafehttp.NewRoundTripper(oauth2Transport(s), policy).RoundTrip, nil
}

// provider is the login for cloud.google.com/go/auth.
type provider struct{ auth *authServer }

func (p provider) Token(ctx context.Context) (*auth.Token, error) {
	token, expiry, err := p.auth.fetch(ctx, "token", "")
	if err != nil {
		return nil, err
	}
	return &auth.Token{Value: token, Type: "Bearer", Expiry: expiry}, nil
}

func buildCloud(s setting) (client, error) {
	c, err := httptransport.NewClient(&httptransport.Options{
		BaseRoundTripper: s.base,
		DisableTelemetry: true, // nobody else here has any
		Credentials: auth.NewCredentials(&auth.CredentialsOptions{
			TokenProvider: auth.NewCachedTokenProvider(provider{s.auth}, nil),
		}),
	})
	if err != nil {
		return nil, err
	}
	return c.Transport.RoundTrip, nil
}

// credential is the login for azcore.
type credential struct{ auth *authServer }

func (c credential) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, expiry, err := c.auth.fetch(ctx, "token", "")
	return azcore.AccessToken{Token: token, ExpiresOn: expiry}, err
}

// doer is a transport as azcore wants it.
type doer struct{ http.RoundTripper }

func (d doer) Do(req *http.Request) (*http.Response, error) { return d.RoundTrip(req) }

// Without a handler of challenges the policy gives a refusal back to its
// caller, and gets a new token for the next request.
func buildAzure(s setting) (client, error) {
	scopes := []string{"https://api.example.com/.default"}
	bearer := azruntime.NewBearerTokenPolicy(credential{s.auth}, scopes, &policy.BearerTokenOptions{
		InsecureAllowCredentialWithHTTP: true, // for loopback
		AuthorizationHandler: policy.AuthorizationHandler{
			OnChallenge: func(_ *policy.Request, _ *http.Response, authorize func(policy.TokenRequestOptions) error) error {
				return authorize(policy.TokenRequestOptions{Scopes: scopes})
			},
		},
	})
	pipeline := azruntime.NewPipeline("benchmarks", "v1.0.0", azruntime.PipelineOptions{PerRetry: []policy.Policy{bearer}}, &policy.ClientOptions{
		Transport: doer{s.base},
		Retry:     policy.RetryOptions{MaxRetries: retries},
		Telemetry: policy.TelemetryOptions{Disabled: true}, // it would change the caller's User-Agent
	})
	return func(req *http.Request) (*http.Response, error) {
		r, err := azruntime.NewRequestFromRequest(req)
		if err != nil {
			return nil, err
		}
		return pipeline.Do(r)
	}, nil
}

// The cache and the signer are what the middleware of a generated client
// calls; the rest of that middleware isn't here.
func buildSmithy(s setting) (client, error) {
	cache := bearer.NewTokenCache(bearer.TokenProviderFunc(func(ctx context.Context) (bearer.Token, error) {
		token, expiry, err := s.auth.fetch(ctx, "token", "")
		return bearer.Token{Value: token, CanExpire: true, Expires: expiry}, err
	}))
	signer := bearer.NewSignHTTPSMessage()
	return func(req *http.Request) (*http.Response, error) {
		token, err := cache.RetrieveBearerToken(req.Context())
		if err != nil {
			return nil, err
		}
		signed, err := signer.SignWithBearerToken(req.Context(), token, &smithyhttp.Request{Request: req})
		if err != nil {
			return nil, err
		}
		return s.base.RoundTrip(signed.(*smithyhttp.Request).Build(req.Context()))
	}, nil
}

// A ProviderClient makes its requests itself, so that only method, URL and
// headers are taken from the one that is given.
func buildGophercloud(s setting) (client, error) {
	p := &gophercloud.ProviderClient{HTTPClient: http.Client{Transport: s.base}}
	p.UseTokenLock()
	p.ReauthFunc = func(ctx context.Context) error {
		token, _, err := s.auth.fetch(ctx, "token", "")
		if err == nil {
			p.SetToken(token)
		}
		return err
	}
	return func(req *http.Request) (*http.Response, error) {
		headers := make(map[string]string, len(req.Header))
		for name := range req.Header {
			headers[name] = req.Header.Get(name)
		}
		resp, err := p.Request(req.Context(), req.Method, req.URL.String(), &gophercloud.RequestOpts{
			MoreHeaders: headers, KeepResponseBody: true,
		})
		if gophercloud.ResponseCodeIs(err, http.StatusUnauthorized) {
			return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody, Request: req}, nil
		}
		return resp, err
	}, nil
}

// oras-go asks for a token where a challenge says. It takes only https there
// if the API is at https, so the way to the auth server begins at the API's
// own host.
func buildOras(s setting) (client, error) {
	c := &orasauth.Client{
		Client: &http.Client{Transport: realm{s}},
		Cache:  orasauth.NewCache(),
		Credential: orasauth.StaticCredential(strings.TrimPrefix(s.origin, "https://"),
			orasauth.Credential{Username: clientID, Password: clientSecret}),
	}
	return c.Do, nil
}

// realmPath is where a challenge says that tokens are.
const realmPath = "/token"

type realm struct{ setting }

func (r realm) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path != realmPath {
		return r.base.RoundTrip(req)
	}
	u, err := url.Parse(r.auth.URL + realmPath)
	if err != nil {
		return nil, err
	}
	sent := req.Clone(req.Context())
	sent.URL, sent.Host = u, ""
	return r.auth.Client.Transport.RoundTrip(sent)
}

// step is a step of a pipeline that logs in at s, with the tokens of parents.
func step(s *authServer, name string, parents ...string) requestforge.Step {
	f := &requestforge.HTTPFetcher{
		URL:        s.URL + "/" + name,
		Form:       url.Values{"grant_type": {"client_credentials"}},
		ClientAuth: &requestforge.ClientAuth{ID: clientID, Secret: clientSecret},
		Client:     s.Client,
	}
	for i, p := range parents {
		if f.HeaderFrom == nil {
			f.HeaderFrom = make(map[string]string)
		}
		f.HeaderFrom[fmt.Sprintf("X-Parent-%d", i+1)] = p
	}
	return requestforge.Step{Name: name, DependsOn: parents, Fetcher: f}
}

func buildAuthLayer(s setting) (client, error) {
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{step(s.auth, "token")}})
	if err != nil {
		return nil, err
	}
	return (&requestforge.AuthTransport{Base: s.base, Source: p, Origins: []string{s.origin}}).RoundTrip, nil
}

func buildStack(s setting) (client, error) {
	return stackOver(s, step(s.auth, "token"))
}

func buildStackUnlogged(s setting) (client, error) {
	s.logger = nil
	return buildStack(s)
}

// stackOver is the whole stack with a login of these steps.
func stackOver(s setting, steps ...requestforge.Step) (client, error) {
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
	if err != nil {
		return nil, err
	}
	t, err := requestforge.NewTransport(requestforge.Config{
		Base: s.base, Source: p, Origins: []string{s.origin},
		Retry:  requestforge.RetryPolicy{RetryMax: retries},
		Logger: s.logger,
	})
	if err != nil {
		return nil, err
	}
	return t.RoundTrip, nil
}

// silent is a logger that isn't enabled for anything.
func silent() *slog.Logger {
	return slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 4}))
}

// verbose is a logger that writes JSON, nowhere.
func verbose() *slog.Logger { return slog.New(slog.NewJSONHandler(io.Discard, nil)) }

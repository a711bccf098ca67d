// oidc-provider: a certified OpenID Connect server on node, as a process. What
// is set up in it is in oidcprovider/op.mjs.

package servers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

func init() {
	starters["oidc-provider"] = func(ctx context.Context) (*Server, error) {
		return StartOIDCProvider(ctx, 5*time.Minute)
	}
}

// StartOIDCProvider is Start("oidc-provider") with access tokens that live as
// long as accessTTL says, in whole seconds.
//
// Its resource takes every access token of the server. It asks the server's
// store for it, but checks a signature if it is a JWT, which a client gets that
// asks with the parameter resource=ResourceURL. Such a token can't be revoked;
// it expires.
func StartOIDCProvider(ctx context.Context, accessTTL time.Duration) (*Server, error) {
	return startOIDCProvider(ctx, accessTTL, nil)
}

// startOIDCProvider starts one that takes the ID-JAGs of idp, if that isn't nil.
func startOIDCProvider(ctx context.Context, accessTTL time.Duration, idp *Server) (*Server, error) {
	node, err := lookPath("node")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(folder(), "oidcprovider")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("its modules are not in %s; they are installed by %s", dir, setup)
	}
	s := &Server{
		Name:           "oidc-provider",
		ClientID:       "svc",
		ClientSecret:   rand.Text(),
		Username:       "ann",
		Password:       rand.Text(),
		Scopes:         []string{"api"},
		RefreshScopes:  []string{"api"},
		KillsFamily:    true,
		RevokesRefresh: true,
	}
	s.Exchange = &Exchange{
		ClientID:         s.ClientID,
		ClientSecret:     s.ClientSecret,
		SubjectTokenType: "urn:ietf:params:oauth:token-type:access_token",
		Scopes:           []string{"api"},
		Params:           map[string]string{"user": s.Username},
	}
	settings := map[string]any{
		"clientID": s.ClientID, "clientSecret": s.ClientSecret,
		"users": userNames, "password": s.Password,
		"accessTTL": int(accessTTL.Seconds()),
	}
	if idp != nil {
		settings["idp"] = idp.Issuer
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	s.Issuer, s.close, err = startProcess(ctx, exec.Command(node, filepath.Join(dir, "op.mjs")), string(config)+"\n",
		func(line string) (string, bool) { return strings.CutPrefix(line, "issuer: ") })
	if err != nil {
		return nil, err
	}
	s.TokenURL = s.Issuer + "/token"
	s.RevokeURL = s.Issuer + "/token/revocation"
	s.IntrospectURL = s.Issuer + "/token/introspection"
	s.DeviceURL = s.Issuer + "/device/auth"
	s.ResourceURL = s.Issuer + "/api"
	s.Approve = func(ctx context.Context, userCode string) error {
		return clickThrough(ctx, s.Issuer+"/device", map[string]string{
			"user_code": userCode,
			"login":     s.Username,
			"password":  s.Password,
		})
	}
	s.Users = &Users{
		Names: slices.Clone(userNames),
		Login: func(ctx context.Context, user string) (access, id string, err error) {
			return passwordLogin(ctx, s, user)
		},
		Lock: func(ctx context.Context, user string) error {
			return postForm(ctx, s, s.Issuer+"/lock/"+url.PathEscape(user), nil, nil)
		},
		StartNext: func(ctx context.Context) (*Server, error) { return startOIDCProvider(ctx, accessTTL, s) },
	}
	return s, nil
}

// passwordLogin gets the tokens that a login in a browser would end with.
func passwordLogin(ctx context.Context, s *Server, user string) (access, id string, err error) {
	var answer struct {
		Access string `json:"access_token"`
		ID     string `json:"id_token"`
	}
	err = postForm(ctx, s, s.TokenURL, url.Values{
		"grant_type": {"password"}, "username": {user}, "password": {s.Password}, "scope": {"openid api"},
	}, &answer)
	return answer.Access, answer.ID, err
}

// postForm sends a form as the client of s, and decodes the answer, unless that is nil.
func postForm(ctx context.Context, s *Server, to string, form url.Values, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(s.ClientID), url.QueryEscape(s.ClientSecret))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s to %s", s.Name, resp.Status, req.URL.Path)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// clickThrough is a person with a browser: it opens a page, fills in what it
// knows, and submits the first form of each page until there is none.
func clickThrough(ctx context.Context, page string, known map[string]string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	browser := &http.Client{Jar: jar}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	for range 10 {
		resp, err := browser.Do(req)
		if err != nil {
			return err
		}
		doc, err := html.Parse(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the page %s has status %s", resp.Request.URL.Path, resp.Status)
		}
		form := find(doc, atom.Form)
		if form == nil {
			return nil
		}
		if req, err = submit(resp.Request, form, known); err != nil {
			return err
		}
	}
	return errors.New("the pages have no end; is the user code right?")
}

// find returns the first element of that kind, or nil.
func find(doc *html.Node, kind atom.Atom) *html.Node {
	for n := range doc.Descendants() {
		if n.DataAtom == kind {
			return n
		}
	}
	return nil
}

// submit returns the request that form makes on the page that req got.
func submit(req *http.Request, form *html.Node, known map[string]string) (*http.Request, error) {
	action, err := req.URL.Parse(attr(form, "action"))
	if err != nil {
		return nil, err
	}
	values := url.Values{}
	for n := range form.Descendants() {
		if n.DataAtom != atom.Input {
			continue
		}
		name, value := attr(n, "name"), attr(n, "value")
		if typed, ok := known[name]; ok && attr(n, "type") != "hidden" {
			value = typed
		}
		values.Set(name, value)
	}
	next, err := http.NewRequestWithContext(req.Context(), http.MethodPost, action.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return nil, err
	}
	next.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return next, nil
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

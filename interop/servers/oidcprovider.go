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
	config, err := json.Marshal(map[string]any{
		"clientID": s.ClientID, "clientSecret": s.ClientSecret,
		"username": s.Username, "password": s.Password,
		"accessTTL": int(accessTTL.Seconds()),
	})
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
	return s, nil
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

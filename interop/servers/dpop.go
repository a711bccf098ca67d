// oidc-provider with DPoP required, as a process. What is set up in it is in
// oidcprovider/dpop.mjs.

package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// DPoPServer is an oidc-provider that gives no token out, and takes none, without a proof of
// possession (RFC 9449) that has its newest nonce.
type DPoPServer struct {
	*Server // without a secret: the client is a public one
}

// DPoPSeen is what a DPoPServer has counted, by the path of the endpoint.
type DPoPSeen struct {
	Nonces  int                       // different ones that were given out
	Wanted  map[string]int            // refusals of a proof for its nonce, by path
	Answers map[string]map[string]int // all else, by status and path
}

// StartDPoP starts one whose access tokens live for accessTTL, in whole seconds, and whose
// nonce changes every nonceTTL. Its resource is the userinfo endpoint.
func StartDPoP(ctx context.Context, accessTTL, nonceTTL time.Duration) (*DPoPServer, error) {
	node, err := lookPath("node")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(folder(), "oidcprovider")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("its modules are not in %s; they are installed by %s", dir, setup)
	}
	s := &Server{Name: "oidc-provider with DPoP", ClientID: "cli", Username: "ann", Scopes: []string{"openid"}}
	config, err := json.Marshal(map[string]any{
		"clientID": s.ClientID, "user": s.Username, "accessTTL": int(accessTTL.Seconds()), "nonceMillis": nonceTTL.Milliseconds(),
	})
	if err != nil {
		return nil, err
	}
	s.Issuer, s.close, err = startProcess(ctx, exec.Command(node, filepath.Join(dir, "dpop.mjs")), string(config)+"\n",
		func(line string) (string, bool) { return strings.CutPrefix(line, "issuer: ") })
	if err != nil {
		return nil, err
	}
	s.TokenURL = s.Issuer + "/token"
	s.DeviceURL = s.Issuer + "/device/auth"
	s.ResourceURL = s.Issuer + "/me"
	s.Approve = func(ctx context.Context, userCode string) error {
		return clickThrough(ctx, s.Issuer+"/device", map[string]string{"user_code": userCode, "login": s.Username, "password": "any"})
	}
	return &DPoPServer{s}, nil
}

// Seen returns what the server has counted.
func (s *DPoPServer) Seen(ctx context.Context) (seen DPoPSeen, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Issuer+"/seen", nil)
	if err != nil {
		return seen, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return seen, err
	}
	defer resp.Body.Close()
	return seen, json.NewDecoder(resp.Body).Decode(&seen)
}

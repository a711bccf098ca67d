// The device code grant: a person approves the login on another device, while
// the step polls.

package oauth2source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/requestforge/requestforge"
	"golang.org/x/oauth2"
)

// tooShort is too short for a person to log in: the default of PipelineConfig.FetchTimeout.
const tooShort = 30 * time.Second

// The defaults for members that the server leaves out.
const (
	defaultCodeLife = 30 * time.Minute // RFC 8628 requires expires_in
	defaultInterval = 5 * time.Second  // RFC 8628 §3.2
	maxInterval     = time.Minute      // bounds the interval after failures

	// pollTimeout bounds a poll. If a connection dies while the program waits, the person
	// must not be asked a second time.
	pollTimeout = 30 * time.Second
)

// DeviceCode is the device authorization grant (RFC 8628), for programs without a browser:
// prompt shows a code and a URL, a person enters the code there on another device, and the
// step polls until the login is approved or denied, or the code expires. authURL is the
// device authorization endpoint.
//
// prompt gets the server's response without the device code, which is the program's secret.
// prompt shows the code and the URL, and returns; then polling begins. The ctx of prompt
// ends with the login, approved or not. The URLs are absolute http or https URLs, and no
// text in the response holds control characters. An error of prompt ends the fetch.
//
// A login takes a person minutes, so a pipeline with a DeviceCode step
//
//   - needs a Step.Timeout of minutes, 15 say, or a negative Timeout: the server's
//     expires_in bounds the login anyway. With a Timeout of 30 s, the default, or less,
//     Fetch returns an error instead of showing a code that no person has the time to enter.
//   - should have a Step.Refresh made by [Refresh]. Otherwise the person is asked again
//     whenever the token expires, and, unless PipelineConfig.RefreshAhead is negative, some
//     minutes before.
//   - should be asked for a token while the person is there: call Pipeline.Token at the
//     program's start. A caller may give up when its own context ends; the login goes on,
//     and the next caller waits for the same login.
//
// Polling keeps the server's interval, with five seconds more after each slow_down. The
// interval doubles, up to a minute, when the network or the server fails, or doesn't answer
// within 30 s. Such a failure doesn't end the login before the code expires. A denial is an
// AuthError with Code "access_denied", an expired code an AuthError with Code
// "expired_token". After either, the next fetch after the step's cool-down asks the person
// again.
func DeviceCode(cfg Config, authURL string, prompt func(ctx context.Context, code *oauth2.DeviceAuthResponse) error) *Grant {
	g := newGrant("DeviceCode", cfg)
	g.requireClient()
	g.url("authURL", authURL)
	g.is("device_authorization_endpoint", authURL)
	if prompt == nil {
		g.mistake("prompt is nil: nobody would see the code")
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Params)) {
		if len(cfg.Params[name]) > 1 {
			g.mistake("Config.Params has several values of %q, which the device authorization request can't carry", name)
		}
	}
	g.run = func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
		if end, ok := ctx.Deadline(); ok && time.Until(end) <= tooShort {
			return nil, &requestforge.AuthError{Permanent: true, Err: fmt.Errorf(
				"%v are too short for a person to log in; set Step.Timeout to 15 minutes, say", time.Until(end).Round(time.Second))}
		}
		code, err := g.deviceAuth(ctx, in, authURL)
		if err != nil {
			return nil, err
		}
		shown := *code
		shown.DeviceCode = ""
		life := time.Until(code.Expiry)
		ctx, cancel := context.WithDeadlineCause(ctx, code.Expiry, errCodeExpired)
		defer cancel()
		if err := prompt(ctx, &shown); err != nil {
			return nil, unsent(failed("prompt", err))
		}
		tok, err := g.poll(ctx, in, code)
		if err != nil && ctx.Err() != nil {
			if context.Cause(ctx) == errCodeExpired {
				return nil, &requestforge.AuthError{Code: "expired_token", Permanent: true, Err: fmt.Errorf("nobody approved the login within %v", life.Round(time.Second))}
			}
			return nil, &requestforge.AuthError{Err: context.Cause(ctx)}
		}
		return tok, err
	}
	return g
}

var errNoAnswer = fmt.Errorf("no answer within %v", pollTimeout)

var errCodeExpired = errors.New("the device code expired")

// deviceAuth asks for the codes.
func (g *Grant) deviceAuth(ctx context.Context, in requestforge.Input, authURL string) (*oauth2.DeviceAuthResponse, error) {
	form := make(url.Values)
	scopes, err := g.cfg.scopes(in)
	if err != nil {
		return nil, unsent(err)
	}
	if err := g.complete(ctx, in, form); err != nil {
		return nil, unsent(err)
	}
	w := g.wire(ctx, authURL)
	// x/oauth2 sends only the client's id here, but a client with a secret has to
	// authenticate, too (RFC 8628 §3.1).
	client, err := g.client(ctx)
	if err != nil {
		return nil, unsent(err)
	}
	authenticate(client, w.header, form)
	conf := oauth2.Config{ClientID: client.ID, Scopes: scopes, Endpoint: oauth2.Endpoint{DeviceAuthURL: authURL}}
	code, err := conf.DeviceAuth(w.context(), params(form)...)
	if err == nil {
		err = checkCode(code)
	}
	if err != nil {
		return nil, w.fail(translate(err))
	}
	if code.Expiry.IsZero() {
		code.Expiry = time.Now().Add(defaultCodeLife)
	}
	return code, nil
}

// poll asks for the token until the server returns a token or a final refusal.
func (g *Grant) poll(ctx context.Context, in requestforge.Input, code *oauth2.DeviceAuthResponse) (*requestforge.Token, error) {
	interval := defaultInterval
	if code.Interval > 0 {
		interval = time.Duration(min(code.Interval, 3600)) * time.Second
	}
	wait := interval
	for {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		once, cancel := context.WithTimeoutCause(ctx, pollTimeout, errNoAnswer)
		tok, err := g.post(g.reread(once), in, url.Values{
			"grant_type":  {"urn:ietf:params:oauth:grant-type:device_code"},
			"device_code": {code.DeviceCode},
		})
		cancel()
		if err == nil {
			return tok, nil
		}
		refusal, ok := errors.AsType[*requestforge.AuthError](err)
		switch {
		case !ok || ctx.Err() != nil:
			return nil, err
		case refusal.Code == "authorization_pending":
		case refusal.Code == "slow_down":
			interval += 5 * time.Second
		case passes(refusal):
			interval = max(interval, min(2*interval, maxInterval))
		default:
			return nil, err
		}
		wait = max(interval, refusal.RetryAfter)
	}
}

// passes reports whether err is a bad day of the network or the server, not
// an answer. A second fetch would ask the person a second time.
func passes(err *requestforge.AuthError) bool {
	switch status := err.StatusCode; {
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return true
	case status/100 == 3:
		return false // a redirect to elsewhere
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	_, ok := errors.AsType[*url.Error](err)
	return ok
}

// checkCode returns an error if code can't be shown to a person. The texts of code end up
// in a terminal or a browser.
func checkCode(code *oauth2.DeviceAuthResponse) error {
	switch {
	case code.DeviceCode == "":
		return errors.New("the response has no device_code")
	case code.UserCode == "":
		return errors.New("the response has no user_code")
	case strings.ContainsFunc(code.UserCode+code.VerificationURI+code.VerificationURIComplete, unicode.IsControl):
		return errors.New("the response has control characters in what is to be shown")
	case !isPage(code.VerificationURI), code.VerificationURIComplete != "" && !isPage(code.VerificationURIComplete):
		return errors.New("the response has no absolute http or https URL where to enter the code")
	case !code.Expiry.IsZero() && !code.Expiry.After(time.Now()):
		return errors.New("the response has a code that expired already")
	}
	return nil
}

func isPage(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

// params returns form as options of x/oauth2, which take a single value for each name.
func params(form url.Values) []oauth2.AuthCodeOption {
	var opts []oauth2.AuthCodeOption
	for name := range form {
		opts = append(opts, oauth2.SetAuthURLParam(name, form.Get(name)))
	}
	return opts
}

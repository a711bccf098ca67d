// How a step grants a token: the client's credentials, the parent tokens, and
// refresh tokens. The configuration is in server.go.

package authtest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxAsk bounds the body of a request for a token.
const maxAsk = 1 << 20

const grantRefresh = "refresh_token"

// token is an access or refresh token. Reports name a token by its label.
type token struct {
	step    *step
	label   string // "user-3", "user-refresh-3"
	value   string // the label and a random part
	refresh bool
	begun   time.Time
	expires time.Time // zero: never
	revoked bool
	ended   bool     // revoked by a login beyond MaxSessions
	spent   bool     // a rotated refresh token that was used
	parents []*token // the tokens used for the login; a refreshed token has the login's parents
	family  *family

	values   map[string][]string // by name, the valid values, newest first
	instance string              // the only valid place; "": anywhere
}

// family is the tokens that descend from a login of a step.
type family struct {
	tokens []*token
	killed bool
}

// dead returns the reason why t is invalid, or "" if t is live. The caller holds
// s.mu.
func (s *Simulator) dead(t *token, now time.Time) string {
	switch {
	case t.ended:
		return t.label + " was ended by a later login"
	case t.revoked:
		return t.label + " is revoked"
	case !t.expires.IsZero() && !now.Before(t.expires):
		return t.label + " is expired"
	case s.cfg.Cascade:
		for _, p := range t.parents {
			if a := revokedAncestor(p); a != nil {
				return t.label + " was made from " + a.label + ", which is revoked"
			}
		}
	}
	return ""
}

func revokedAncestor(t *token) *token {
	if t.revoked {
		return t
	}
	for _, p := range t.parents {
		if a := revokedAncestor(p); a != nil {
			return a
		}
	}
	return nil
}

// issue makes an access or refresh token. The caller holds s.mu.
func (s *Simulator) issue(st *step, refresh bool, parents []*token, fam *family, now time.Time) *token {
	t := &token{step: st, begun: now, refresh: refresh, parents: parents, family: fam}
	ttl := st.TTL
	if refresh {
		st.renewed++
		t.label = fmt.Sprintf("%s-refresh-%d", st.Name, st.renewed)
		ttl = st.RefreshTTL
	} else {
		st.issued++
		t.label = fmt.Sprintf("%s-%d", st.Name, st.issued)
	}
	if ttl > 0 {
		t.expires = now.Add(ttl)
	}
	t.value = t.label + "-" + rand.Text()
	s.tokens[t.value] = t
	fam.tokens = append(fam.tokens, t)
	if !refresh {
		t.instance = st.instance
		t.values = make(map[string][]string, len(st.Values))
		for name := range st.Values {
			s.renew(t, name)
		}
	}
	return t
}

// renew gives t the next value under name, and returns the value. The caller holds
// s.mu.
func (s *Simulator) renew(t *token, name string) string {
	value := t.label + "-" + name + "-" + rand.Text()
	s.values[valueKey{t.step, name, value}] = t
	good := slices.Insert(t.values[name], 0, value)
	t.values[name] = good[:min(len(good), max(1, t.step.Values[name].Rotate))]
	return value
}

// ask is the body of a request for a token.
type ask struct {
	kind    string // "json", "form" or "" if there is no body of either kind
	fields  map[string]any
	refresh bool    // a refresh token is to be redeemed
	refused *answer // for an unreadable request
}

// answer is the response of a step.
type answer struct {
	status  int
	header  http.Header
	body    any          // sent as JSON
	text    string       // sent unchanged, if kind isn't ""
	kind    string       // Content-Type of text
	handler http.Handler // in place of all of the above, if not nil

	outcome Outcome
	token   *token // granted
	reason  string // of a refusal
}

// refuse is an error answer of RFC 6749 §5.2.
func refuse(status int, code, reason string) *answer {
	return &answer{
		status:  status,
		header:  make(http.Header),
		body:    oauthError{Error: code, Description: reason},
		outcome: Refused,
		reason:  reason,
	}
}

type oauthError struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// serveStep answers a request for a token.
func (s *Simulator) serveStep(w http.ResponseWriter, r *http.Request, at route) {
	a := s.readAsk(w, r, at)
	fault, down := s.stepRequest(r, at, a)
	if down {
		panic(http.ErrAbortHandler)
	}
	fault.serve(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.grant(r, at, a).write(w, r)
	}))
}

func (a *answer) write(w http.ResponseWriter, r *http.Request) {
	if a.handler != nil {
		a.handler.ServeHTTP(w, r)
		return
	}
	maps.Copy(w.Header(), a.header)
	if a.kind == "" {
		writeJSON(w, a.status, a.body)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", a.kind)
	w.WriteHeader(a.status)
	io.WriteString(w, a.text)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// v can always be encoded; only the connection can fail, and no caller needs
	// the error.
	json.NewEncoder(w).Encode(v)
}

// readAsk reads the request's body, as far as it can be understood without
// looking at the step.
func (s *Simulator) readAsk(w http.ResponseWriter, r *http.Request, at route) ask {
	a, _ := readFields(w, r)
	a.refresh = at.refresh || at.renew
	if a.fields["grant_type"] == grantRefresh && at.step.want["grant_type"] != grantRefresh {
		a.refresh = true
	}
	return a
}

// readFields reads the body's fields, and returns the body, too.
func readFields(w http.ResponseWriter, r *http.Request) (a ask, body []byte) {
	a.fields = make(map[string]any)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsk))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		a.refused = refuse(http.StatusRequestEntityTooLarge, "invalid_request", "the body is too large")
		return a, body
	} else if err != nil {
		a.refused = refuse(http.StatusBadRequest, "invalid_request", "the body can't be read")
		return a, body
	}
	if len(body) == 0 {
		return a, body
	}
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); {
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		a.kind = "json"
		if a.fields, err = decodeObject(body); err != nil {
			a.refused = refuse(http.StatusBadRequest, "invalid_request", "the body isn't a JSON object")
		}
	case kind == "application/x-www-form-urlencoded":
		a.kind = "form"
		form, err := url.ParseQuery(string(body))
		if err != nil {
			a.refused = refuse(http.StatusBadRequest, "invalid_request", "the body isn't a form")
		}
		for k, v := range form {
			if len(v) > 1 {
				a.refused = refuse(http.StatusBadRequest, "invalid_request", "a parameter is repeated")
			}
			a.fields[k] = v[0]
		}
	default:
		a.refused = refuse(http.StatusUnsupportedMediaType, "invalid_request", "the body is neither JSON nor a form")
	}
	return a, body
}

// decodeObject decodes a JSON object, and keeps the spelling of numbers, so that
// large numbers can be told apart.
func decodeObject(b []byte) (map[string]any, error) {
	var m map[string]any
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&m); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	if m == nil {
		return nil, errors.New("not an object")
	}
	return m, nil
}

// grant decides on a request and records the decision.
func (s *Simulator) grant(r *http.Request, at route, a ask) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	ans := s.decide(r, at, a, time.Now())
	c := s.stats.Steps[at.step.Name]
	c.count(a.refresh).add(ans.outcome)
	s.stats.Steps[at.step.Name] = c
	s.log(r, at.step, a.refresh, ans.outcome, ans.token, ans.reason)
	return ans
}

func (s *Simulator) decide(r *http.Request, at route, a ask, now time.Time) *answer {
	st, method := at.step, at.step.Method
	if at.refresh || at.renew {
		method = http.MethodPost
	}
	if r.Method != method {
		ans := refuse(http.StatusMethodNotAllowed, "invalid_request", "the method is "+method)
		ans.header.Set("Allow", method)
		return ans
	}
	if a.refused != nil {
		return a.refused
	}
	if at.renew {
		return s.extend(r, st, a, now)
	}
	for _, secret := range []string{"client_secret", "refresh_token", "password"} {
		if r.URL.Query().Has(secret) && !slices.ContainsFunc(st.wants, func(p *place) bool { return p.Query == secret }) {
			return refuse(http.StatusBadRequest, "invalid_request", "a secret in the URL")
		}
	}
	if ans := st.checkClient(r, a); ans != nil {
		return st.denied(ans)
	}
	wants := st.wants
	if a.refresh {
		wants = slices.DeleteFunc(slices.Clone(wants), func(p *place) bool { return p.step != nil || p.Field != "" })
	}
	got, flaw := s.present(r, wants, a.fields, now)
	if flaw != nil {
		ans := flaw.answer(st.TokenType)
		ans.handler = st.Refused
		return ans
	}
	if a.refresh {
		return s.redeem(r, at, a, now)
	}
	if ans := st.checkFields(a); ans != nil {
		return st.denied(ans)
	}
	if ans := s.makeRoom(st, now); ans != nil {
		return ans
	}
	var parents []*token
	for _, name := range st.parents {
		parents = append(parents, got.tokens[s.steps[name]])
	}
	fam := new(family)
	t := s.issue(st, false, parents, fam, now)
	var refresh *token
	if st.RefreshTokens {
		refresh = s.issue(st, true, parents, fam, now)
	}
	if st.MaxSessions > 0 {
		st.sessions = append(st.sessions, fam)
	}
	return s.granted(r, t, refresh, now)
}

// extend extends the life of the token in r. The caller holds s.mu.
func (s *Simulator) extend(r *http.Request, st *step, a ask, now time.Time) *answer {
	got, flaw := s.present(r, st.renews, a.fields, now)
	if flaw != nil {
		ans := flaw.answer(st.TokenType)
		ans.handler = st.Refused
		return ans
	}
	t := got.tokens[st]
	t.expires = now.Add(st.TTL)
	if last := t.begun.Add(st.MaxTTL); st.MaxTTL > 0 && last.Before(t.expires) {
		t.expires = last
	}
	return s.granted(r, t, nil, now)
}

// denied returns ans with the step's Denied as handler.
func (st *step) denied(ans *answer) *answer {
	ans.handler = st.Denied
	return ans
}

// makeRoom ends the oldest session if there are as many as there may be, or
// returns the answer that there is no room. The caller holds s.mu.
func (s *Simulator) makeRoom(st *step, now time.Time) *answer {
	if st.MaxSessions == 0 {
		return nil
	}
	st.sessions = slices.DeleteFunc(st.sessions, func(fam *family) bool {
		return !slices.ContainsFunc(fam.tokens, func(t *token) bool { return !t.spent && s.dead(t, now) == "" })
	})
	if len(st.sessions) < st.MaxSessions {
		return nil
	}
	if st.KeepSessions {
		return refuse(http.StatusTooManyRequests, "too_many_sessions", "as many sessions are live as there may be")
	}
	for _, t := range st.sessions[0].tokens {
		t.revoked, t.ended = true, true
	}
	st.sessions = st.sessions[1:]
	c := s.stats.Steps[st.Name]
	c.Ended++
	s.stats.Steps[st.Name] = c
	return nil
}

// checkClient checks the client's id and secret.
func (st *step) checkClient(r *http.Request, a ask) *answer {
	if st.ClientID == "" {
		return nil
	}
	var id, secret string
	basic, inBody := false, a.fields["client_secret"] != nil || a.fields["client_id"] != nil
	if !st.authorizationTaken() {
		id, secret, basic = r.BasicAuth()
	}
	if basic && a.fields["client_secret"] != nil {
		return refuse(http.StatusBadRequest, "invalid_request", "the client authenticates itself in two ways")
	}
	switch {
	case basic && st.ClientAuth != BodyClientAuth:
		// Both are form-encoded first (RFC 6749 §2.3.1). Text that can't be decoded
		// is wrong.
		var err1, err2 error
		id, err1 = url.QueryUnescape(id)
		secret, err2 = url.QueryUnescape(secret)
		if err1 == nil && err2 == nil && id == st.ClientID && secret == st.ClientSecret {
			return nil
		}
	case inBody && !basic && st.ClientAuth != BasicClientAuth:
		id, _ = a.fields["client_id"].(string)
		secret, _ = a.fields["client_secret"].(string)
		if id == st.ClientID && secret == st.ClientSecret {
			return nil
		}
	}
	ans := refuse(http.StatusUnauthorized, "invalid_client", "the client isn't known, or not by these credentials")
	if st.ClientAuth != BodyClientAuth && !st.authorizationTaken() {
		ans.header.Set("WWW-Authenticate", `Basic realm="authtest"`)
	}
	return ans
}

// authorizationTaken reports whether a parent's token, or a text, comes in the
// header that HTTP Basic would need.
func (st *step) authorizationTaken() bool {
	for _, header := range st.Parents {
		if (Place{Header: header}).authorization() {
			return true
		}
	}
	return slices.ContainsFunc(st.Wants, Place.authorization)
}

// refuseToken returns an error answer of RFC 6750 §3. A request without any token
// gets a challenge without an error.
func refuseToken(status int, scheme, reason string) *answer {
	code := "invalid_token"
	if status == http.StatusBadRequest {
		code = "invalid_request"
	}
	challenge := scheme + ` realm="authtest"`
	if reason == "" {
		reason = "a token is missing"
	} else {
		challenge += fmt.Sprintf(`, error="%s", error_description="%s"`, code, reason)
	}
	ans := refuse(status, code, reason)
	ans.header.Set("WWW-Authenticate", challenge)
	return ans
}

// checkFields compares the request's fields with the fields of the step.
func (st *step) checkFields(a ask) *answer {
	if ans := st.checkKind(a); ans != nil {
		return ans
	}
	for _, field := range slices.Sorted(maps.Keys(st.want)) {
		got, ok := a.fields[field]
		switch {
		case !ok:
			return refuse(http.StatusBadRequest, "invalid_request", "field "+field+" is missing")
		case sameJSON(got, st.want[field]):
		case field == "grant_type":
			return refuse(http.StatusBadRequest, "unsupported_grant_type", "not the grant type of this step")
		case field == "client_id" || field == "client_secret":
			return refuse(http.StatusUnauthorized, "invalid_client", "the client isn't known, or not by these credentials")
		default:
			return refuse(http.StatusBadRequest, "invalid_grant", "field "+field+" is wrong")
		}
	}
	return nil
}

// checkKind checks that the body has the kind that the step wants. RFC 6749 has
// forms only, and status 400 for any other body.
func (st *step) checkKind(a ask) *answer {
	switch {
	case st.JSON != nil && a.kind != "json":
		return refuse(http.StatusUnsupportedMediaType, "invalid_request", "the body has to be JSON")
	case st.Form != nil && a.kind != "form":
		return refuse(http.StatusBadRequest, "invalid_request", "the body has to be a form")
	}
	return nil
}

// sameJSON compares two values that decodeObject has decoded.
func sameJSON(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// redeem takes a refresh token.
func (s *Simulator) redeem(r *http.Request, at route, a ask, now time.Time) *answer {
	st := at.step
	t, next, ans := s.spend(st, at, a, now)
	if ans != nil {
		return st.denied(ans)
	}
	return s.granted(r, t, next, now)
}

// spend makes an access token of a refresh token, and the next refresh token
// where they rotate. The caller holds s.mu.
func (s *Simulator) spend(st *step, at route, a ask, now time.Time) (t, next *token, ans *answer) {
	grant, named := a.fields["grant_type"]
	if !st.RefreshTokens || grant != grantRefresh && (named || !at.refresh) {
		return nil, nil, refuse(http.StatusBadRequest, "unsupported_grant_type", "not a grant type of this path")
	}
	if ans := st.checkKind(a); ans != nil {
		return nil, nil, ans
	}
	value, _ := a.fields["refresh_token"].(string)
	if value == "" {
		return nil, nil, refuse(http.StatusBadRequest, "invalid_request", "field refresh_token is missing")
	}
	old := s.tokens[value]
	if old == nil || old.step != st || !old.refresh {
		return nil, nil, refuse(http.StatusBadRequest, "invalid_grant", "not a refresh token of step "+st.Name)
	}
	if old.spent && !old.family.killed {
		old.family.killed = true
		for _, t := range old.family.tokens {
			t.revoked = true
		}
		s.stats.FamiliesKilled++
		return nil, nil, refuse(http.StatusBadRequest, "invalid_grant", old.label+" was used before; its whole family is revoked")
	}
	if why := s.dead(old, now); why != "" {
		return nil, nil, refuse(http.StatusBadRequest, "invalid_grant", why)
	}
	t = s.issue(st, false, old.parents, old.family, now)
	if st.Rotate {
		old.spent = true
		next = s.issue(st, true, old.parents, old.family, now)
	}
	return t, next, nil
}

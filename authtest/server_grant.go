// How a step grants a token: who asks, with what credentials and which parent
// tokens, and what becomes of a refresh token. server.go is the front.

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
	"strconv"
	"strings"
	"time"
)

// maxAsk bounds the body of a request for a token.
const maxAsk = 1 << 20

const grantRefresh = "refresh_token"

// token is one access or refresh token. It is known by its label wherever
// something is reported.
type token struct {
	step    *step
	label   string // "user-3", "user-refresh-3"
	value   string // the label and a random part
	refresh bool
	expires time.Time // zero: never
	revoked bool
	spent   bool     // a rotated refresh token that was used
	parents []*token // made from these; a refreshed token has those of the login
	family  *family
}

// family is all that goes back to one login of a step.
type family struct {
	tokens []*token
	killed bool
}

// dead says why t is no good any more; "" if it still is. The caller holds
// s.mu.
func (s *Simulator) dead(t *token, now time.Time) string {
	switch {
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

// find looks an access token of st up by its value. It returns why there is
// no live one. The caller holds s.mu.
func (s *Simulator) find(st *step, value string, now time.Time) (*token, string) {
	t := s.tokens[value]
	if t == nil || t.step != st || t.refresh {
		return nil, "not a token of step " + st.Name
	}
	if why := s.dead(t, now); why != "" {
		return nil, why
	}
	return t, ""
}

// issue makes an access or refresh token. The caller holds s.mu.
func (s *Simulator) issue(st *step, refresh bool, parents []*token, fam *family, now time.Time) *token {
	t := &token{step: st, refresh: refresh, parents: parents, family: fam}
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
	return t
}

// ask is the body of a request for a token.
type ask struct {
	kind    string // "json", "form" or "" if there is no body of either kind
	fields  map[string]any
	refresh bool    // a refresh token is to be redeemed
	refused *answer // it can't be read
}

// answer is what a step says.
type answer struct {
	status  int
	header  http.Header
	body    any          // sent as JSON
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
		ans := s.grant(r, at, a)
		if ans.handler != nil {
			ans.handler.ServeHTTP(w, r)
			return
		}
		maps.Copy(w.Header(), ans.header)
		writeJSON(w, ans.status, ans.body)
	}))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The values are ours; what fails is the connection, and it is nobody's to report.
	json.NewEncoder(w).Encode(v)
}

// readAsk reads the request's body, as far as it can be understood without
// looking at the step.
func (s *Simulator) readAsk(w http.ResponseWriter, r *http.Request, at route) ask {
	a := ask{fields: make(map[string]any), refresh: at.refresh}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsk))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		a.refused = refuse(http.StatusRequestEntityTooLarge, "invalid_request", "the body is too large")
		return a
	} else if err != nil {
		a.refused = refuse(http.StatusBadRequest, "invalid_request", "the body can't be read")
		return a
	}
	if len(body) == 0 {
		return a
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
	if a.fields["grant_type"] == grantRefresh && at.step.want["grant_type"] != grantRefresh {
		a.refresh = true
	}
	return a
}

// decodeObject decodes one JSON object, with numbers as they are spelled, so
// that large ones can be told apart.
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

// grant decides, and takes note of what it decided.
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
	if at.refresh {
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
	for _, secret := range []string{"client_secret", "refresh_token", "password"} {
		if r.URL.Query().Has(secret) {
			return refuse(http.StatusBadRequest, "invalid_request", "a secret in the URL")
		}
	}
	if ans := st.checkClient(r, a); ans != nil {
		return ans
	}
	if a.refresh {
		return s.redeem(at, a, now)
	}
	parents, ans := s.checkParents(r, st, now)
	if ans != nil {
		return ans
	}
	if ans := st.checkFields(a); ans != nil {
		return ans
	}
	fam := new(family)
	t := s.issue(st, false, parents, fam, now)
	var refresh *token
	if st.RefreshTokens {
		refresh = s.issue(st, true, parents, fam, now)
	}
	return s.granted(t, refresh)
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
		// Both are form-encoded first (RFC 6749 §2.3.1). What can't be
		// decoded is wrong.
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

// authorizationTaken reports whether a parent's token comes in the header
// that HTTP Basic would need.
func (st *step) authorizationTaken() bool {
	for _, header := range st.Parents {
		if http.CanonicalHeaderKey(header) == "Authorization" {
			return true
		}
	}
	return false
}

// checkParents looks for a live token of each parent.
func (s *Simulator) checkParents(r *http.Request, st *step, now time.Time) ([]*token, *answer) {
	var parents []*token
	for _, name := range st.parents {
		t, reason, status := s.present(r, st.Parents[name], s.steps[name], now)
		if t == nil {
			ans := refuseToken(status, s.steps[name].TokenType, reason)
			ans.handler = st.Refused
			return nil, ans
		}
		parents = append(parents, t)
	}
	return parents, nil
}

// present finds the token of st that r brings in header, or says why there is
// none. A reason of "" is that the header is missing.
func (s *Simulator) present(r *http.Request, header string, st *step, now time.Time) (t *token, reason string, status int) {
	values := r.Header.Values(header)
	if len(values) > 1 {
		return nil, "more than one " + header + " header", http.StatusBadRequest
	}
	value := ""
	if len(values) == 1 {
		value = values[0]
	}
	if http.CanonicalHeaderKey(header) == "Authorization" {
		scheme, rest, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, st.TokenType) {
			// Another scheme is as good as none (RFC 6750 §3.1).
			return nil, "", http.StatusUnauthorized
		}
		value = rest
	} else if value == "" {
		return nil, "", http.StatusUnauthorized
	}
	t, reason = s.find(st, value, now)
	return t, reason, http.StatusUnauthorized
}

// refuseToken is an error answer of RFC 6750 §3. A request that brought no
// token at all isn't told an error.
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

// checkFields compares the request's fields with what the step wants.
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

// checkKind checks that the body is of the kind that the step wants. RFC 6749
// knows forms only, and no status but 400 for anything else.
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
func (s *Simulator) redeem(at route, a ask, now time.Time) *answer {
	st := at.step
	grant, named := a.fields["grant_type"]
	if !st.RefreshTokens || grant != grantRefresh && (named || !at.refresh) {
		return refuse(http.StatusBadRequest, "unsupported_grant_type", "not a grant type of this path")
	}
	if ans := st.checkKind(a); ans != nil {
		return ans
	}
	value, _ := a.fields["refresh_token"].(string)
	if value == "" {
		return refuse(http.StatusBadRequest, "invalid_request", "field refresh_token is missing")
	}
	old := s.tokens[value]
	if old == nil || old.step != st || !old.refresh {
		return refuse(http.StatusBadRequest, "invalid_grant", "not a refresh token of step "+st.Name)
	}
	if old.spent && !old.family.killed {
		old.family.killed = true
		for _, t := range old.family.tokens {
			t.revoked = true
		}
		s.stats.FamiliesKilled++
		return refuse(http.StatusBadRequest, "invalid_grant", old.label+" was used before; its whole family is revoked")
	}
	if why := s.dead(old, now); why != "" {
		return refuse(http.StatusBadRequest, "invalid_grant", why)
	}
	t := s.issue(st, false, old.parents, old.family, now)
	var next *token
	if st.Rotate {
		old.spent = true
		next = s.issue(st, true, old.parents, old.family, now)
	}
	return s.granted(t, next)
}

// granted is the answer that hands t out, and the refresh token if there is
// one.
func (s *Simulator) granted(t, refresh *token) *answer {
	st := t.step
	ans := &answer{status: st.Status, header: make(http.Header), outcome: Granted, token: t}
	body := make(map[string]any)
	if st.extra != nil {
		// compileFields has encoded it.
		body, _ = decodeObject(st.extra)
	}
	ans.body = body
	if st.TokenHeader != "" {
		ans.header.Set(st.TokenHeader, t.value)
		return ans
	}
	set := func(field string, v any) { put(body, strings.Split(field, "."), v) }
	set(st.TokenField, t.value)
	set(st.TypeField, st.TokenType)
	if refresh != nil {
		set(st.RefreshField, refresh.value)
	}
	if st.TTL == 0 {
		return ans
	}
	seconds := int64(st.TTL / time.Second)
	expires := t.expires.Add(s.cfg.ClockOffset)
	switch st.Expiry {
	case ExpiresInNumber:
		set(st.ExpiryField, seconds)
	case ExpiresInString:
		set(st.ExpiryField, strconv.FormatInt(seconds, 10))
	case ExpiresInFloat:
		f := strconv.FormatFloat(st.TTL.Seconds(), 'f', -1, 64)
		if !strings.Contains(f, ".") {
			f += ".0"
		}
		set(st.ExpiryField, json.RawMessage(f))
	case ExpiresAtRFC3339:
		set(st.ExpiryField, expires.UTC().Format(time.RFC3339))
	case ExpiresAtUnix:
		set(st.ExpiryField, expires.Unix())
	}
	return ans
}

// put stores v in a tree of objects and arrays, and returns the tree. A
// number leads into an array, unless there is an object already.
func put(tree any, path []string, v any) any {
	if len(path) == 0 {
		return v
	}
	object, isObject := tree.(map[string]any)
	if i, err := strconv.Atoi(path[0]); err == nil && !isObject {
		array, _ := tree.([]any)
		for len(array) <= i {
			array = append(array, nil)
		}
		array[i] = put(array[i], path[1:], v)
		return array
	}
	if !isObject {
		object = make(map[string]any)
	}
	object[path[0]] = put(object[path[0]], path[1:], v)
	return object
}

// The compilation of a configuration: checks and defaults. The configuration is in
// server.go.

package authtest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// compile checks the configuration and fills in its defaults.
func (s *Simulator) compile() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if len(s.cfg.Steps) == 0 {
		fail("no steps")
	}
	for _, conf := range s.cfg.Steps {
		st, err := compileStep(conf)
		if err != nil {
			errs = append(errs, err)
		}
		if s.steps[st.Name] != nil {
			fail("step %q: there are two of that name", st.Name)
		}
		s.steps[st.Name] = st
		s.stats.Steps[st.Name] = StepStats{}
		for path, at := range st.routes() {
			if other, ok := s.routes[path]; ok {
				fail("step %q: path %s is taken by step %q", st.Name, path, other.step.Name)
			}
			s.routes[path] = at
		}
	}
	if err := s.compileGraph(); err != nil {
		errs = append(errs, err)
	}
	for _, conf := range s.cfg.Steps {
		if err := s.compileWants(s.steps[conf.Name]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.compileAPI())...)
}

// compileWants resolves the values that a step wants of its parents.
func (s *Simulator) compileWants(st *step) error {
	var wants []Place
	for _, parent := range slices.Sorted(maps.Keys(st.Parents)) {
		if st.Parents[parent] != "" { // compileStep reports ""
			wants = append(wants, Place{Header: st.Parents[parent], Step: parent})
		}
	}
	places, errs := s.compilePlaces(append(wants, st.Wants...), st)
	st.wants = places
	for i, err := range errs {
		errs[i] = fmt.Errorf("step %q: %w", st.Name, err)
	}
	return errors.Join(errs...)
}

// compileAPI checks what the API wants.
func (s *Simulator) compileAPI() error {
	api := s.cfg.API
	wants := api.Wants
	if len(wants) == 0 {
		wants = []Place{{Header: "Authorization"}}
	}
	var errs []error
	s.wants, errs = s.compilePlaces(wants, nil)
	if len(errs) == 0 && !slices.ContainsFunc(s.wants, func(p *place) bool { return p.step != nil }) {
		errs = append(errs, errors.New("Wants has nothing that a login gave out"))
	}
	for _, st := range s.steps {
		if st.renews = slices.DeleteFunc(slices.Clone(s.wants), func(p *place) bool { return p.step != st }); len(st.renews) == 0 {
			st.renews = []*place{{Place: Place{Header: "Authorization"}, step: st, scheme: st.TokenType}}
		}
	}
	if p := api.Prefix; p != "" && p[0] != '/' {
		errs = append(errs, fmt.Errorf("prefix %q doesn't begin with a slash", p))
	}
	if sign := api.Signature; sign != nil && sign.MaxAge < 0 {
		errs = append(errs, errors.New("Signature: a negative MaxAge"))
	}
	for i, err := range errs {
		errs[i] = fmt.Errorf("API: %w", err)
	}
	return errors.Join(errs...)
}

func compileStep(conf Step) (*step, error) {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("step %q: "+format, append([]any{conf.Name}, args...)...))
	}

	st := &step{Step: conf, parents: slices.Collect(maps.Keys(conf.Parents))}
	for _, p := range conf.Wants {
		if p.Step != "" {
			st.parents = append(st.parents, p.Step)
		}
	}
	slices.Sort(st.parents)
	st.parents = slices.Compact(st.parents)
	if st.Name == "" || strings.Trim(st.Name, tokenChars) != "" {
		fail("the name needs to be letters, digits and -._~")
	}
	st.Path = cmp.Or(st.Path, "/"+st.Name)
	st.Method = cmp.Or(st.Method, http.MethodPost)
	st.TokenType = cmp.Or(st.TokenType, "Bearer")
	st.Status = cmp.Or(st.Status, http.StatusOK)
	st.defaultFields()
	if st.RefreshTokens {
		st.RefreshPath = cmp.Or(st.RefreshPath, st.Path)
	}

	for _, path := range []string{st.Path, cmp.Or(st.RefreshPath, "/"), cmp.Or(st.RenewPath, "/")} {
		if path[0] != '/' {
			fail("path %q doesn't begin with a slash", path)
		}
	}
	if st.Status < 200 || st.Status > 299 {
		fail("status %d isn't one of success", st.Status)
	}
	if st.TTL < 0 || st.RefreshTTL < 0 {
		fail("a negative TTL")
	}
	if st.TTL > 0 && st.TTL < time.Second && (st.Expiry == ExpiresInNumber || st.Expiry == ExpiresInString) && st.expiry {
		fail("a TTL of %v can't be told in whole seconds; set Expiry", st.TTL)
	}
	if st.Expiry < ExpiresInNumber || st.Expiry > ExpiryHidden {
		fail("no such ExpiryFormat: %d", st.Expiry)
	}
	if st.ClientAuth < AnyClientAuth || st.ClientAuth > BodyClientAuth {
		fail("no such ClientAuthMethod: %d", st.ClientAuth)
	}
	if st.ClientID == "" && st.ClientSecret != "" {
		fail("a client secret without an id")
	}
	if !st.RefreshTokens && (st.Rotate || st.RefreshPath != "" || st.RefreshTTL != 0) {
		fail("Rotate, RefreshPath and RefreshTTL need RefreshTokens")
	}
	if st.RefreshTokens && (st.TokenHeader != "" || st.TokenCookie != "" || st.Body == TextBody || st.Body == JSONStringBody) {
		fail("a refresh token has no place in a response whose token is in a header, a cookie or the whole body")
	}
	for parent, header := range conf.Parents {
		if header == "" {
			fail("no header for the token of parent %q", parent)
		}
	}
	if st.ClientID != "" && st.ClientAuth == BasicClientAuth && st.authorizationTaken() {
		fail("HTTP Basic and a parent or text both want the Authorization header")
	}
	if st.RenewPath != "" && (st.RenewPath == st.Path || st.RenewPath == st.RefreshPath || st.TTL == 0) {
		fail("RenewPath needs a path of its own, and a TTL")
	}
	if st.MaxTTL != 0 && (st.RenewPath == "" || st.MaxTTL < st.TTL) {
		fail("MaxTTL is for RenewPath, and no less than TTL")
	}
	if st.MaxSessions < 0 || st.KeepSessions && st.MaxSessions == 0 {
		fail("MaxSessions is negative, or KeepSessions is without it")
	}
	for _, err := range []error{st.compileFields(), st.compileAnswer(), st.compileInstances()} {
		if err != nil {
			fail("%w", err)
		}
	}
	return st, errors.Join(errs...)
}

// defaultFields fills in the names of the response's fields. A name that is still
// "" leaves the field out.
func (st *step) defaultFields() {
	st.expiry = st.TTL > 0 && st.Expiry != ExpiryHidden
	switch {
	case st.Body == TextBody, st.Body == JSONStringBody:
		st.expiry = false
	case st.Body == XMLBody, st.Body == HTMLBody, st.TokenHeader != "", st.TokenCookie != "":
		st.expiry = st.expiry && st.ExpiryField != ""
		if st.TypeField == "-" {
			st.TypeField = ""
		}
	default:
		st.TokenField = cmp.Or(st.TokenField, "access_token")
		st.TypeField = cmp.Or(st.TypeField, "token_type")
		st.RefreshField = cmp.Or(st.RefreshField, "refresh_token")
		if st.TypeField == "-" {
			st.TypeField = ""
		}
		if st.ExpiryField == "" && (st.Expiry == ExpiresAtRFC3339 || st.Expiry == ExpiresAtUnix) {
			st.ExpiryField = "expires_at"
		}
		st.ExpiryField = cmp.Or(st.ExpiryField, "expires_in")
	}
}

// compileAnswer checks the places of the token and the values in the response.
func (st *step) compileAnswer() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	beside := st.TokenHeader != "" || st.TokenCookie != ""
	whole := st.Body == TextBody || st.Body == JSONStringBody
	if st.Body < JSONBody || st.Body > HTMLBody {
		fail("no such BodyFormat: %d", st.Body)
	}
	if st.TokenHeader != "" && st.TokenCookie != "" {
		fail("both TokenHeader and TokenCookie are set")
	}
	if beside && (whole || st.TokenField != "" || st.TypeField != "") {
		fail("a token in a header or cookie isn't in the body, too: Body, TokenField or TypeField says so")
	}
	if whole && (st.TokenField != "" || st.TypeField != "" || st.ExpiryField != "" || st.RefreshField != "" || st.Extra != nil || st.InstanceField != "") {
		fail("a body that is the token has no fields")
	}
	named := st.Body == XMLBody || st.Body == HTMLBody
	if named && st.TokenField == "" && !beside {
		fail("XML and HTML need a TokenField")
	}
	if named && st.RefreshTokens && st.RefreshField == "" {
		fail("XML and HTML need a RefreshField")
	}
	taken := make(map[string]bool)
	header := func(name string) {
		name = http.CanonicalHeaderKey(name)
		switch {
		case name == "":
		case !isName(name) || name == "Set-Cookie":
			fail("header %q can't be set; for a cookie there is a field of its own", name)
		case taken[name]:
			fail("two values share the header %s", name)
		}
		taken[name] = true
	}
	cookie := func(name string) {
		switch {
		case name == "":
		case !isName(name):
			fail("cookie %q can't be set", name)
		case taken["cookie "+name]:
			fail("two values share the cookie %s", name)
		}
		taken["cookie "+name] = true
	}
	header(st.TokenHeader)
	cookie(st.TokenCookie)
	fields := []string{st.TokenField, st.TypeField, st.ExpiryField, st.InstanceField}
	if st.RefreshTokens {
		fields = append(fields, st.RefreshField)
	}
	for _, name := range slices.Sorted(maps.Keys(st.Values)) {
		v := st.Values[name]
		header(v.Header)
		cookie(v.Cookie)
		fields = append(fields, v.Field)
		set := 0
		for _, where := range []string{v.Field, v.Header, v.Cookie} {
			if where != "" {
				set++
			}
		}
		switch {
		case name == "" || strings.Trim(name, tokenChars) != "":
			fail("value %q: the name needs to be letters, digits and -._~", name)
		case set != 1:
			fail("value %q needs exactly one of Field, Header and Cookie", name)
		case v.Rotate < 0 || v.Rotate > 0 && v.Field != "":
			fail("value %q: Rotate is negative, or a response of the API has no place for the next one", name)
		case whole && v.Field != "":
			fail("value %q: a body that is the token has no fields", name)
		}
	}
	return errors.Join(append(errs, st.compilePaths(fields))...)
}

// compilePaths checks the fields of the response.
func (st *step) compilePaths(fields []string) error {
	var errs []error
	taken := make(map[string]bool)
	root := ""
	for name := range st.Extra {
		root = name
	}
	for _, field := range fields {
		if field == "" {
			continue
		}
		if taken[field] {
			errs = append(errs, fmt.Errorf("two values share the field %q", field))
		}
		taken[field] = true
		parts := strings.Split(field, ".")
		for _, part := range parts {
			i, err := strconv.Atoi(part)
			if part == "" || err == nil && (i < 0 || i > maxIndex) || st.Body == XMLBody && !isElement(part) {
				errs = append(errs, fmt.Errorf("field %q can't be reached", field))
			}
		}
		if root == "" {
			root = parts[0]
		}
		if st.Body == XMLBody && (parts[0] != root || len(st.Extra) > 1) {
			errs = append(errs, fmt.Errorf("field %q: XML has one root, with which every field begins", field))
		}
	}
	return errors.Join(errs...)
}

// isElement reports whether name is a valid name of an XML element.
func isElement(name string) bool {
	return isName(name) && strings.IndexByte("-0123456789", name[0]) < 0 && strings.Trim(name, tokenChars) == "" && !strings.Contains(name, "~")
}

// isName reports whether name is a token of HTTP (RFC 9110 §5.6.2), as the
// names of headers and cookies are.
func isName(name string) bool {
	return name != "" && strings.Trim(name, tokenChars+"!#$%&'*+^`|") == ""
}

// compileInstances checks where the step's tokens are good.
func (st *step) compileInstances() error {
	if (len(st.Instances) > 0) != (st.InstanceField != "") {
		return errors.New("Instances and InstanceField go together")
	}
	for _, instance := range st.Instances {
		u, err := url.Parse(instance)
		switch {
		case err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.HasSuffix(instance, "/"),
			u.Host == "" && (u.Scheme != "" || !strings.HasPrefix(instance, "/")),
			u.Host != "" && u.Scheme != "https" && u.Scheme != "http":
			return fmt.Errorf("instance %q is neither an absolute URL nor a path, without a slash at its end", instance)
		}
	}
	if len(st.Instances) > 0 {
		st.instance = st.Instances[0]
	}
	return nil
}

// maxIndex bounds the arrays that a field name like "data.0.token" makes.
const maxIndex = 99

// tokenChars are the characters of a token, which need no quoting anywhere
// (unreserved in RFC 3986).
const tokenChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

// compileFields brings the wanted fields into the form that a request's
// fields are decoded to.
func (st *step) compileFields() error {
	if st.JSON != nil && st.Form != nil {
		return errors.New("both JSON and Form are set")
	}
	if st.JSON != nil {
		b, err := json.Marshal(st.JSON)
		if err != nil {
			// The error may quote a value, so leave the error out.
			return errors.New("JSON can't be encoded")
		}
		if st.want, err = decodeObject(b); err != nil {
			return errors.New("JSON can't be decoded again")
		}
	}
	if st.Form != nil {
		st.want = make(map[string]any, len(st.Form))
		for k, v := range st.Form {
			st.want[k] = v
		}
	}
	if st.RefreshTokens && st.RefreshPath == st.Path && st.want["grant_type"] == grantRefresh {
		return errors.New("a login by refresh token needs a RefreshPath, to be told from a refresh")
	}
	extra, err := json.Marshal(st.Extra)
	if err != nil {
		return errors.New("Extra can't be encoded")
	}
	if st.Extra != nil {
		st.extra = extra
	}
	return nil
}

// routes are the paths that lead to the step.
func (st *step) routes() map[string]route {
	m := map[string]route{st.Path: {step: st}}
	if st.RefreshTokens && st.RefreshPath != st.Path {
		m[st.RefreshPath] = route{step: st, refresh: true}
	}
	if st.RenewPath != "" {
		m[st.RenewPath] = route{step: st, renew: true}
	}
	return m
}

// compileGraph finds the leaf.
func (s *Simulator) compileGraph() error {
	var errs []error
	isParent := make(map[string]bool)
	for _, conf := range s.cfg.Steps {
		for _, parent := range s.steps[conf.Name].parents {
			if s.steps[parent] == nil {
				errs = append(errs, fmt.Errorf("step %q: unknown parent %q", conf.Name, parent))
			}
			isParent[parent] = true
		}
	}
	var leaves []string
	for _, conf := range s.cfg.Steps {
		if !isParent[conf.Name] {
			leaves = append(leaves, strconv.Quote(conf.Name))
			s.leaf = s.steps[conf.Name]
		}
	}
	if len(leaves) > 1 {
		s.leaf = nil
	}
	if len(leaves) > 1 && slices.ContainsFunc(s.cfg.Steps, func(conf Step) bool { return !isParent[conf.Name] && !s.wanted(conf.Name) }) {
		errs = append(errs, fmt.Errorf("more than one leaf: %s", strings.Join(leaves, ", ")))
	}

	// Remove steps whose parents are all removed, until only a cycle and its
	// descendants are left, or no step.
	left := maps.Clone(s.steps)
	for range s.steps {
		maps.DeleteFunc(left, func(_ string, st *step) bool {
			return !slices.ContainsFunc(st.parents, func(p string) bool { return left[p] != nil })
		})
	}
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("a cycle among the steps %q", slices.Sorted(maps.Keys(left))))
	}
	return errors.Join(errs...)
}

// wanted reports whether the API names the step in its Wants.
func (s *Simulator) wanted(step string) bool {
	return slices.ContainsFunc(s.cfg.API.Wants, func(p Place) bool { return p.Step == step })
}

// The steps of a requestforge.Pipeline that logs in at a simulator, and the places
// of the simulator's tokens. The configuration is in server.go.

package authtest

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
)

// Steps returns the steps of a pipeline that logs in at the simulator: with the
// right URLs, credentials and places, and a client that reaches the simulator. Each
// call returns new values, which the caller may change, to make a mistake for
// example. The steps fetch new tokens instead of renewing leases.
func (s *Simulator) Steps() []requestforge.Step {
	steps := make([]requestforge.Step, 0, len(s.cfg.Steps))
	for _, conf := range s.cfg.Steps {
		steps = append(steps, s.forgeStep(s.steps[conf.Name]))
	}
	return steps
}

// Attach returns the value for the field Attach of a requestforge.Config whose source
// is a pipeline made of Steps: the places where the API wants the token and Values of
// the step name. "" means the leaf, of which there must be exactly one. A Text goes
// with the first step of API.Wants. Some values have no requestforge.Place: a Field of
// the body, a Signature, a Value that is replaced, and an instance. For such values a
// client needs its own hooks, as with real APIs of this kind.
func (s *Simulator) Attach(name string) []requestforge.Place {
	st := s.leaf
	if name != "" || st == nil {
		st = s.step(name)
	}
	var first *step
	var out []requestforge.Place
	for _, p := range s.wants {
		if first == nil {
			first = p.step
		}
	}
	for _, p := range s.wants {
		if p.Field != "" || p.step != st && (p.step != nil || st != first) {
			continue
		}
		place := requestforge.Place{Header: p.Header, Query: p.Query, Cookie: p.Cookie, Text: p.Text, Scheme: p.scheme, Bare: p.Bare}
		if p.Value != "" {
			place.Value = st.valuePath(p.Value)
		}
		out = append(out, place)
	}
	return out
}

// valuePath is where a token of Steps has a Value.
func (st *step) valuePath(name string) string {
	v := st.Values[name]
	switch {
	case v.Field != "":
		return v.Field
	case v.Header != "":
		return http.CanonicalHeaderKey(v.Header)
	}
	return name // by readAll
}

func (s *Simulator) forgeStep(st *step) requestforge.Step {
	out := requestforge.Step{Name: st.Name, DependsOn: append([]string(nil), st.parents...)}
	if !st.expiry {
		// The response has no expiry, so the client has to know the TTL.
		out.TTL = st.TTL
	}
	login := s.forgeFetcher(st)
	out.Fetcher = login
	if st.RefreshTokens {
		refresh := *login
		refresh.URL = s.URL + st.RefreshPath
		if st.RefreshPath != st.Path {
			refresh.Method = http.MethodPost
		}
		refresh.JSON, refresh.Form, refresh.HeaderFrom = nil, nil, nil
		refresh.URLFrom, refresh.Origins = nil, nil
		refresh.BodyFrom = st.refreshBody
		if refresh.Prepare != nil {
			refresh.Prepare = st.bringTexts
		}
		out.Refresh = &refresh
	}
	return out
}

// forgeFetcher is a login of the step.
func (s *Simulator) forgeFetcher(st *step) *requestforge.HTTPFetcher {
	f := &requestforge.HTTPFetcher{
		URL: s.URL + st.Path, Method: st.Method, ClientAuth: st.forgeAuth(), Client: s.client,
		TokenHeader: st.TokenHeader, TokenCookie: st.TokenCookie, TokenField: st.TokenField,
		TypeField: st.TypeField, TokenType: st.TokenType,
	}
	if st.Body == TextBody || st.Body == JSONStringBody {
		f.TokenField = "."
	}
	if st.RefreshTokens {
		f.RefreshField = st.RefreshField
	}
	if st.expiry && (st.Expiry == ExpiresAtRFC3339 || st.Expiry == ExpiresAtUnix) {
		f.ExpiresAtField = st.ExpiryField
	} else if st.expiry {
		f.ExpiresInField = st.ExpiryField
	}
	st.forgeBody(f)
	if len(st.Parents) > 0 {
		f.HeaderFrom = make(map[string]string)
	}
	for parent, header := range st.Parents {
		f.HeaderFrom[header] = parent
	}
	if len(st.Wants) > 0 {
		f.Prepare = st.bring
	}
	for _, parent := range st.parents {
		if p := s.steps[parent]; len(p.Instances) > 0 {
			f.URL, f.URLFrom = "", func(in requestforge.Input) (string, error) {
				u, err := url.Parse(in.Parents[p.Name].Value(p.InstanceField))
				if err != nil {
					return "", err
				}
				return u.Scheme + "://" + u.Host + st.Path, nil
			}
			for _, instance := range p.Instances {
				if u, err := url.Parse(s.absolute(instance)); err == nil {
					f.Origins = append(f.Origins, u.Scheme+"://"+u.Host)
				}
			}
		}
	}
	for name, v := range st.Values {
		if v.Header != "" {
			f.KeepHeaders = append(f.KeepHeaders, st.valuePath(name))
		}
	}
	inCookie := false
	for _, v := range st.Values {
		inCookie = inCookie || v.Cookie != ""
	}
	if inCookie || st.Body == XMLBody || st.Body == HTMLBody {
		st.readAll(f)
	}
	return f
}

// forgeBody sets the body of a login.
func (st *step) forgeBody(f *requestforge.HTTPFetcher) {
	switch {
	case st.JSON != nil:
		f.JSON = st.withClient(st.JSON)
	case st.Form != nil || f.ClientAuth != nil && f.ClientAuth.InBody:
		f.Form = make(url.Values)
		for k, v := range st.Form {
			f.Form.Set(k, v)
		}
	}
	var places []*place
	for _, p := range st.wants {
		if p.Field != "" {
			places = append(places, p)
		}
	}
	if len(places) == 0 {
		return
	}
	asJSON, form := f.JSON, f.Form
	f.JSON, f.Form = nil, nil
	f.BodyFrom = func(in requestforge.Input) (any, error) {
		if object, ok := asJSON.(map[string]any); ok {
			object = maps.Clone(object)
			for _, p := range places {
				object[p.Field] = p.forged(in)
			}
			return object, nil
		}
		fields := maps.Clone(form)
		if fields == nil {
			fields = make(url.Values)
		}
		for _, p := range places {
			fields.Set(p.Field, p.forged(in))
		}
		return fields, nil
	}
}

// forged returns the value that a client of Steps puts into the place.
func (p *place) forged(in requestforge.Input) string {
	switch {
	case p.step == nil:
		return p.Text
	case p.Value == "":
		return in.Parents[p.step.Name].AccessToken
	}
	return in.Parents[p.step.Name].Value(p.step.valuePath(p.Value))
}

// bring puts the values that the step Wants outside the body onto the request of a
// login.
func (st *step) bring(req *http.Request, in requestforge.Input) error {
	return st.put(req, in, func(p *place) bool { return st.Parents[p.Step] == "" || p.Header != st.Parents[p.Step] })
}

// bringTexts puts the texts onto the request of a refresh.
func (st *step) bringTexts(req *http.Request, in requestforge.Input) error {
	return st.put(req, in, func(p *place) bool { return p.step == nil })
}

func (st *step) put(req *http.Request, in requestforge.Input, which func(*place) bool) error {
	query := req.URL.Query()
	for _, p := range st.wants {
		if !which(p) {
			continue
		}
		value := p.forged(in)
		switch {
		case p.Header != "" && p.scheme != "":
			req.Header.Set(p.Header, p.scheme+" "+value)
		case p.Header != "":
			req.Header.Set(p.Header, value)
		case p.Query != "":
			query.Set(p.Query, value)
		case p.Cookie != "":
			req.AddCookie(&http.Cookie{Name: p.Cookie, Value: value})
		}
	}
	req.URL.RawQuery = query.Encode()
	return nil
}

// readAll makes f read values without a field in HTTPFetcher: XML, and values in
// cookies.
func (st *step) readAll(f *requestforge.HTTPFetcher) {
	token, kind, refresh, expiry := f.TokenField, f.TypeField, f.RefreshField, st.ExpiryField
	f.TokenField, f.TokenHeader, f.TokenCookie, f.TypeField, f.RefreshField, f.ExpiresInField, f.ExpiresAtField = "", "", "", "", "", "", ""
	f.KeepHeaders = nil
	f.Read = func(_ requestforge.Input, resp *http.Response, body []byte) (*requestforge.Token, error) {
		tree, err := decodeTree(st.Body, body)
		if err != nil {
			return nil, err
		}
		all := &requestforge.Token{Extra: tree}
		tok := &requestforge.Token{AccessToken: all.Value(token), TokenType: all.Value(kind), RefreshToken: all.Value(refresh), Extra: tree}
		cookies := make(map[string]string)
		for _, c := range resp.Cookies() {
			cookies[c.Name] = c.Value
		}
		switch {
		case st.TokenHeader != "":
			tok.AccessToken = resp.Header.Get(st.TokenHeader)
		case st.TokenCookie != "":
			tok.AccessToken = cookies[st.TokenCookie]
		case st.Body == TextBody || st.Body == JSONStringBody:
			tok.AccessToken = strings.Trim(string(body), "\"")
		}
		if tok.TokenType == "" {
			tok.TokenType = st.TokenType
		}
		for name, v := range st.Values {
			switch {
			case v.Header != "":
				tree[st.valuePath(name)] = resp.Header.Get(v.Header)
			case v.Cookie != "":
				tree[name] = cookies[v.Cookie]
			}
		}
		if st.expiry {
			tok.Expiry, err = st.readExpiry(all.Value(expiry))
		}
		return tok, err
	}
}

// readExpiry is when a token expires of which the response says text.
func (st *step) readExpiry(text string) (time.Time, error) {
	switch st.Expiry {
	case ExpiresAtRFC3339:
		return time.Parse(time.RFC3339, text)
	case ExpiresAtUnix:
		n, err := strconv.ParseInt(text, 10, 64)
		return time.Unix(n, 0), err
	}
	seconds, err := strconv.ParseFloat(text, 64)
	return time.Now().Add(time.Duration(seconds * float64(time.Second))), err
}

// decodeTree decodes a body into the tree that put has made. If XML has several
// elements of the same name, the last element counts.
func decodeTree(format BodyFormat, body []byte) (map[string]any, error) {
	switch format {
	case JSONBody:
		return decodeObject(body)
	case HTMLBody:
		tree := make(map[string]any)
		for _, m := range inputs.FindAllSubmatch(body, -1) {
			put(tree, strings.Split(html.UnescapeString(string(m[1])), "."), html.UnescapeString(string(m[2])))
		}
		return tree, nil
	case XMLBody:
		tree, err := decodeElements(xml.NewDecoder(bytes.NewReader(body)))
		if object, ok := tree.(map[string]any); ok {
			return object, err
		}
		return nil, errors.Join(err, errors.New("no element"))
	}
	return make(map[string]any), nil
}

// inputs matches the inputs that writeInputs writes.
var inputs = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// decodeElements decodes the content before the next end of an element.
func decodeElements(dec *xml.Decoder) (any, error) {
	var text strings.Builder
	var object map[string]any
	for {
		tok, err := dec.Token()
		switch tok := tok.(type) {
		case xml.StartElement:
			if object == nil {
				object = make(map[string]any)
			}
			if object[tok.Name.Local], err = decodeElements(dec); err != nil {
				return nil, err
			}
		case xml.CharData:
			text.Write(tok)
		}
		if _, end := tok.(xml.EndElement); !end && err == nil {
			continue
		}
		switch {
		case err != nil && err != io.EOF:
			return nil, fmt.Errorf("not XML: %w", err)
		case object != nil:
			return object, nil
		}
		return text.String(), nil
	}
}

// refreshBody is the request that redeems in's refresh token.
func (st *step) refreshBody(in requestforge.Input) (any, error) {
	if st.JSON != nil {
		return st.withClient(map[string]any{"grant_type": grantRefresh, "refresh_token": in.Previous.RefreshToken}), nil
	}
	return url.Values{"grant_type": {grantRefresh}, "refresh_token": {in.Previous.RefreshToken}}, nil
}

// clientInBody reports whether the client authenticates itself in the body, as it
// does where the header is taken, and where the client has no secret.
func (st *step) clientInBody() bool {
	return st.ClientAuth == BodyClientAuth ||
		st.ClientAuth == AnyClientAuth && (st.authorizationTaken() || st.ClientSecret == "")
}

// forgeAuth returns the client's authentication, or nil if the credentials are
// fields of a JSON object.
func (st *step) forgeAuth() *requestforge.ClientAuth {
	if st.ClientID == "" || st.JSON != nil && st.clientInBody() {
		return nil
	}
	return &requestforge.ClientAuth{ID: st.ClientID, Secret: st.ClientSecret, InBody: st.clientInBody()}
}

// withClient returns a copy of fields that has the client's id and secret,
// where they belong in a JSON object.
func (st *step) withClient(fields map[string]any) map[string]any {
	out := make(map[string]any, len(fields)+2)
	for k, v := range fields {
		out[k] = v
	}
	if st.ClientID != "" && st.clientInBody() {
		out["client_id"], out["client_secret"] = st.ClientID, st.ClientSecret
	}
	return out
}

// The simulator: the server of one row, derived from the facts of the row. It takes
// what the row says and refuses everything else. The facts are rows_a_test.go's and
// rows_b_test.go's, the programs that log in are clients_a_test.go's and
// clients_b_test.go's.

package shapes_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A shape is one row: the calls of a login, and what goes on API requests.
type shape struct {
	row, name string
	calls     []call // a call stands after those whose values it needs
	api       api
	life      time.Duration // of a session; 0: until it is revoked
	idle      bool          // life is without a request

	impossible string // why no program can do it; "": one can
}

// A call is one request of a login, and its answer.
type call struct {
	name   string
	method string // "": POST
	url    string // a template, with the query
	facts  facts

	from   string // the state whose values the call needs; "": none
	to     string // the state that the answer makes; "": none, it only tells something
	gives  []string
	public bool // the values are no secrets and don't die

	once    bool // the state it comes from is used up: good for one call
	renewal bool // not part of a login
	spends  bool // it needs, and uses up, the refresh token of the state it comes from
	extends bool // the life of the state that it comes from begins anew
	single  bool // the login ends the other sessions

	answers []answer // one after another, then from the first again
	dead    answer   // to values that are dead; zero: 401
	wrong   answer   // to anything else; zero: 401
}

// An api is what takes the token.
type api struct {
	base     string // a template
	entry    string // where the program asks, and is sent on to base; "": it asks base
	state    string // whose values go on requests: what the last call makes, see newSim
	facts    facts  // of each request
	requests []request
	ok       string   // the answer; "": okay
	refusals []answer // of a dead session, one after another; none: 401
	renews   []string // values that a response replaces, each second time
	renewal  answer   // how it says so: header and cookies
	busy     int      // the status of each third answer, "try again"; 0: never
}

const okay = `{"ok":true}`

// A request is one that the program makes, without any credential. The row is called
// with each of them.
type request struct {
	method, path string
	ctype, body  string
	facts        facts // beside those of the API
	// other is an answer that looks like a refusal and is none, for want of a right.
	other string
}

// facts say where values are. A want is a template, or a check.
type facts struct {
	header, query, cookie map[string]any
	body                  body // nil: none, or the program's own
}

type answer struct {
	status  int // 0: 200
	header  map[string]string
	cookies []string // templates: "name=$value; Path=/"
	body    string   // a template
}

// vals are what the $names of a template stand for.
type vals map[string]string

var dollar = regexp.MustCompile(`\$[a-z][a-z0-9]*`)

func (v vals) in(template string) string {
	return dollar.ReplaceAllStringFunc(template, func(name string) string {
		if value, ok := v[name[1:]]; ok {
			return value
		}
		return name
	})
}

// at is a request at the server, and the values it should carry.
type at struct {
	*sim
	r    *http.Request // its Body is read
	body []byte
	own  request // what the program made; zero in a login
	v    vals

	first []string // values that have to come for the first time
}

// check is a want that is computed.
type check func(got string, at *at) error

var errValue = errors.New("not the value of the row")

func (a *at) holds(want any, got string) error {
	switch want := want.(type) {
	case string:
		if got != a.v.in(want) {
			return errValue
		}
		return nil
	case check:
		return want(got, a)
	}
	panic(fmt.Sprintf("a want of type %T", want))
}

// scheme is a header's value with a scheme, whose case doesn't matter.
func scheme(name, want string) check {
	return func(got string, at *at) error {
		typ, value, ok := strings.Cut(got, " ")
		if !ok || !strings.EqualFold(typ, name) {
			return errors.New("not the scheme of the row")
		}
		return at.holds(want, value)
	}
}

func bearer(want string) check { return scheme("Bearer", want) }

// basic is HTTP Basic of user and password as they are.
func basic(text string) check {
	return scheme64("Basic", text, false)
}

// basicClient is HTTP Basic of a client's id and secret, each form-encoded (RFC 6749 §2.3.1).
func basicClient(id, secret string) check {
	return scheme64("Basic", id+":"+secret, true)
}

// scheme64 is a header's value with a scheme, and text in Base64.
func scheme64(name, text string, escaped bool) check {
	return func(got string, at *at) error {
		typ, value, _ := strings.Cut(got, " ")
		plain, err := base64.StdEncoding.DecodeString(value)
		if !strings.EqualFold(typ, name) || err != nil {
			return errors.New("not the scheme of the row")
		}
		said := string(plain)
		if escaped {
			id, pass, _ := strings.Cut(said, ":")
			id, err1 := url.QueryUnescape(id)
			pass, err2 := url.QueryUnescape(pass)
			if err1 != nil || err2 != nil {
				return errValue
			}
			said = id + ":" + pass
		}
		if said != at.v.in(text) {
			return errValue
		}
		return nil
	}
}

// A body is what the body of a request has to be.
type body interface{ match(a *at) error }

// nothing is a body that says nothing.
type nothing struct{}

func (nothing) match(a *at) error {
	if len(a.body) > 0 {
		return errors.New("there is a body")
	}
	return nil
}

// form is a form of exactly these fields.
type form map[string]any

func (f form) match(a *at) error {
	got, err := a.form()
	if err != nil {
		return err
	}
	return a.values("form field", got, f, nil)
}

// J is a JSON object, or a part of one, whose strings are wants.
type J map[string]any

func (j J) match(a *at) error {
	got, err := a.json()
	if err != nil {
		return err
	}
	return a.same("", j, got)
}

// checked is a body that a function looks at.
type checked func(a *at) error

func (c checked) match(a *at) error { return c(a) }

// besides is the program's own body and something that has been put into it.
type besides struct {
	form map[string]any
	json map[string]any
}

func (b besides) match(a *at) error {
	if b.form != nil {
		own, err := url.ParseQuery(a.own.body)
		if err != nil {
			panic(err)
		}
		got, err := a.form()
		if err != nil {
			return err
		}
		return a.values("form field", got, b.form, own)
	}
	var own map[string]any
	dec := json.NewDecoder(strings.NewReader(a.own.body))
	dec.UseNumber()
	if err := dec.Decode(&own); err != nil {
		panic(err)
	}
	maps.Copy(own, b.json)
	got, err := a.json()
	if err != nil {
		return err
	}
	return a.same("", own, got)
}

// unchanged is the program's own body.
type unchanged struct{}

func (unchanged) match(a *at) error {
	if string(a.body) != a.own.body || a.r.Header.Get("Content-Type") != a.own.ctype {
		return errors.New("not the body that the program made")
	}
	return nil
}

func (a *at) form() (url.Values, error) {
	if typ := a.r.Header.Get("Content-Type"); typ != "application/x-www-form-urlencoded" {
		return nil, fmt.Errorf("a form of type %q", typ)
	}
	return url.ParseQuery(string(a.body))
}

func (a *at) json() (any, error) {
	if typ, _, _ := strings.Cut(a.r.Header.Get("Content-Type"), ";"); typ != "application/json" {
		return nil, fmt.Errorf("JSON of type %q", typ)
	}
	var got any
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.UseNumber()
	if err := dec.Decode(&got); err != nil {
		return nil, err
	}
	return got, nil
}

// same compares JSON values.
func (a *at) same(path string, want, got any) error {
	wrong := fmt.Errorf("JSON%s: %w", path, errValue)
	switch want := want.(type) {
	case string, check:
		text, ok := got.(string)
		if !ok {
			return wrong
		}
		if err := a.holds(want, text); err != nil {
			return fmt.Errorf("JSON%s: %w", path, err)
		}
		return nil
	case J:
		return a.same(path, map[string]any(want), got)
	case map[string]any:
		m, ok := got.(map[string]any)
		if !ok || len(m) != len(want) {
			return fmt.Errorf("JSON%s: not the members of the row", path)
		}
		for name, w := range want {
			g, ok := m[name]
			if !ok {
				return fmt.Errorf("JSON%s: no %q", path, name)
			}
			if err := a.same(path+"."+name, w, g); err != nil {
				return err
			}
		}
		return nil
	case []any:
		l, ok := got.([]any)
		if !ok || len(l) != len(want) {
			return wrong
		}
		for i := range want {
			if err := a.same(path+"."+strconv.Itoa(i), want[i], l[i]); err != nil {
				return err
			}
		}
		return nil
	case int:
		if n, ok := got.(json.Number); !ok || n.String() != strconv.Itoa(want) {
			return wrong
		}
		return nil
	default: // bool, nil, json.Number
		if got != want {
			return wrong
		}
		return nil
	}
}

// values compares a query or a form with the wants and what is the program's own.
func (a *at) values(what string, got url.Values, want map[string]any, own url.Values) error {
	for name, w := range want {
		values := got[name]
		if len(values) != 1 {
			return fmt.Errorf("%s %q: %d of them", what, name, len(values))
		}
		if err := a.holds(w, values[0]); err != nil {
			return fmt.Errorf("%s %q: %w", what, name, err)
		}
	}
	for name, values := range got {
		if _, ok := want[name]; ok {
			continue
		}
		if !slices.Equal(values, own[name]) {
			return fmt.Errorf("%s %q is not the row's", what, name)
		}
	}
	for name := range own {
		if _, ok := got[name]; !ok {
			return fmt.Errorf("%s %q of the program is lost", what, name)
		}
	}
	return nil
}

// match reports why the request isn't what the facts say.
func (f facts) match(a *at, query url.Values) error {
	named := map[string]bool{"Cookie": true}
	for name, want := range f.header {
		key := http.CanonicalHeaderKey(name)
		named[key] = true
		values := a.r.Header[key]
		if len(values) != 1 {
			return fmt.Errorf("header %q: %d of them", name, len(values))
		}
		if err := a.holds(want, values[0]); err != nil {
			return fmt.Errorf("header %q: %w", name, err)
		}
	}
	for name, values := range a.r.Header {
		if !named[name] && (name == "Authorization" || a.secret(strings.Join(values, "\n"))) {
			return fmt.Errorf("header %q is not the row's", name)
		}
	}
	cookies := make(map[string]string)
	for _, c := range a.r.Cookies() {
		if _, ok := f.cookie[c.Name]; !ok {
			return fmt.Errorf("cookie %q is not the row's", c.Name)
		}
		if _, ok := cookies[c.Name]; ok {
			return fmt.Errorf("cookie %q: two of them", c.Name)
		}
		cookies[c.Name] = c.Value
	}
	for name, want := range f.cookie {
		got, ok := cookies[name]
		if !ok {
			return fmt.Errorf("cookie %q: none", name)
		}
		if err := a.holds(want, got); err != nil {
			return fmt.Errorf("cookie %q: %w", name, err)
		}
	}
	if err := a.values("query", a.r.URL.Query(), f.query, query); err != nil {
		return err
	}
	if f.body == nil {
		return nothing{}.match(a)
	}
	return f.body.match(a)
}

// secret reports whether text holds a value of the session, or of the settings.
func (a *at) secret(text string) bool {
	for name, value := range a.v {
		if !clock[name] && len(value) > 5 && strings.Contains(text, value) {
			return true
		}
	}
	for _, value := range secrets {
		if strings.Contains(text, value) {
			return true
		}
	}
	return false
}

// plus is f and g together; a body of g's counts.
func (f facts) plus(g facts) facts {
	join := func(x, y map[string]any) map[string]any {
		out := maps.Clone(x)
		if out == nil {
			out = make(map[string]any)
		}
		maps.Copy(out, y)
		return out
	}
	out := facts{join(f.header, g.header), join(f.query, g.query), join(f.cookie, g.cookie), f.body}
	if g.body != nil {
		out.body = g.body
	}
	return out
}

// A grant is the values of one state.
type grant struct {
	state  string
	vals   vals
	dead   bool // the access token; with spent the refresh token
	spent  bool
	public bool
	ends   time.Time // zero: never
	parent *grant
}

func (g *grant) living(now time.Time) bool {
	return !g.dead && (g.ends.IsZero() || now.Before(g.ends))
}

// sim serves one row.
type sim struct {
	shape *shape

	mu       sync.Mutex
	grants   []*grant
	answered map[string]int  // calls of logins, by their names
	denied   []string        // those that were refused
	asked    int             // requests of the API
	refused  int             // those that were refused
	refusal  int             // which of the API's refusals a dead session gets
	renewed  int             // requests that might have replaced a value
	seen     map[string]bool // values that are good once
	deny     bool            // every login is a wrong one
	tried    map[string]bool // see mutants
	faults   []string

	before        map[string]int // answered and refused when the phase began
	refusedBefore int
}

func newSim(s *shape) *sim {
	if s.api.requests == nil {
		s.api.requests = things
	}
	for _, c := range s.calls {
		if c.to != "" && !c.renewal {
			s.api.state = c.to
		}
	}
	return &sim{shape: s, answered: map[string]int{}, seen: map[string]bool{}, tried: map[string]bool{}}
}

// once reports whether value comes for the first time. It has come once the request is
// taken.
func (a *at) once(value string) error {
	if a.seen[value] {
		return errors.New("a value that is good once comes again")
	}
	a.first = append(a.first, value)
	return nil
}

// clock are the names that stand for times, which can be guessed.
var clock = map[string]bool{"life": true, "millis": true, "minutes": true, "expires": true, "unix": true, "unixms": true, "unixus": true, "created": true, "hms": true, "dhm": true, "today7": true}

func (s *sim) times() vals {
	now, life := time.Now().UTC(), s.shape.life
	ends := now.Add(life)
	return vals{
		"life":    strconv.Itoa(int(life.Seconds())),
		"millis":  strconv.Itoa(int(life.Milliseconds())),
		"minutes": strconv.Itoa(int(life.Minutes())),
		"expires": ends.Format(time.RFC3339),
		"unix":    strconv.FormatInt(ends.Unix(), 10),
		"unixms":  strconv.FormatInt(ends.UnixMilli(), 10),
		"unixus":  strconv.FormatInt(ends.UnixMicro(), 10),
		"created": strconv.FormatInt(now.Unix(), 10),
		"hms":     fmt.Sprintf("%d:%02d:%02d", int(life.Hours()), int(life.Minutes())%60, int(life.Seconds())%60),
		"dhm":     fmt.Sprintf("%d:%02d:%02d", int(life.Hours())/24, int(life.Hours())%24, int(life.Minutes())%60),
		"today7":  now.AddDate(0, 0, 7).Format(time.DateOnly),
	}
}

// mint makes a value that a login gives out.
func (s *sim) mint(name string) string {
	switch name {
	case "jwt": // nobody but the server can verify it
		enc := base64.RawURLEncoding.EncodeToString
		claims := fmt.Sprintf(`{"sub":"ada","jti":%q,"exp":%d}`, rand.Text(), time.Now().Add(s.shape.life).Unix())
		return enc([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte(rand.Text()))
	case "account":
		return strconv.FormatInt(time.Now().UnixNano()%1e9+int64(len(s.grants))+1e9, 10)
	case "instance":
		return "na" + strconv.Itoa(len(s.grants)+10)
	case "endpoint":
		return "r" + strconv.Itoa(len(s.grants)+10)
	}
	return name + "-" + rand.Text()
}

func (s *sim) fault(format string, args ...any) {
	s.faults = append(s.faults, fmt.Sprintf(format, args...))
}

// ServeHTTP takes what the row says, and refuses anything else.
func (s *sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.fault("body: %v", err)
	}
	r.URL.Scheme, r.URL.Host = "https", r.Host
	if s.call(w, r, body) || s.request(w, r, body) {
		return
	}
	if entry := s.shape.api.entry; entry != "" && strings.HasPrefix(r.URL.String(), entry+"/") {
		http.Redirect(w, r, s.shape.api.base+strings.TrimPrefix(r.URL.String(), entry), http.StatusTemporaryRedirect)
		return
	}
	s.fault("%s %s: there is nothing", r.Method, r.URL)
	w.WriteHeader(http.StatusNotFound)
}

// found is how far a request fits.
type found struct {
	at    *at
	call  *call
	from  *grant
	want  facts
	query url.Values
	own   *request
	err   error
}

// candidates are the grants of a state, the newest first.
func (s *sim) candidates(state string) []*grant {
	if state == "" {
		return []*grant{nil}
	}
	var out []*grant
	for _, g := range slices.Backward(s.grants) {
		if g.state == state {
			out = append(out, g)
		}
	}
	return out
}

// valuesOf are the values of g, and the times.
func (s *sim) valuesOf(g *grant) vals {
	v := s.times()
	if g != nil {
		maps.Copy(v, g.vals)
	}
	return v
}

// lookCall returns the call that the request is, with the grant that the call comes from;
// else the best guess with an error, or nil.
func (s *sim) lookCall(r *http.Request, body []byte) (best *found) {
	for i := range s.shape.calls {
		c := &s.shape.calls[i]
		method := c.method
		if method == "" {
			method = http.MethodPost
		}
		for _, g := range s.candidates(c.from) {
			f := &found{call: c, from: g, want: c.facts}
			f.at = &at{sim: s, r: r, body: body, v: s.valuesOf(g)}
			u, err := url.Parse(f.at.v.in(c.url))
			if err != nil {
				panic(err)
			}
			if r.Method != method || r.URL.Host != u.Host || r.URL.EscapedPath() != u.EscapedPath() {
				continue
			}
			f.query = u.Query()
			if f.err = f.match(); f.err == nil {
				return f
			}
			if best == nil {
				best = f
			}
		}
	}
	return best
}

func (f *found) match() error { return f.want.match(f.at, f.query) }

// call answers a request of a login, if it is one.
func (s *sim) call(w http.ResponseWriter, r *http.Request, body []byte) bool {
	f := s.lookCall(r, body)
	if f == nil {
		return false
	}
	if s.isAPI(r, body) && f.err != nil {
		return false // JSON-RPC: all goes to one URL
	}
	c, g, now := f.call, f.from, time.Now()
	if f.err != nil {
		s.fault("%s %s %s: %v", c.name, r.Method, r.URL, f.err)
		s.denied = append(s.denied, c.name)
		s.write(w, c.wrong, f.at.v, 401)
		return true
	}
	s.mutants(f)
	switch {
	case g != nil && !c.spends && !g.living(now), g != nil && c.spends && g.spent:
		s.denied = append(s.denied, c.name)
		s.write(w, c.dead, f.at.v, 401)
		return true
	case s.deny && !c.public:
		s.denied = append(s.denied, c.name)
		s.write(w, c.wrong, f.at.v, 401)
		return true
	}
	s.note(f.at)
	if g != nil {
		g.dead = g.dead || c.once || c.spends
		g.spent = g.spent || c.spends
	}
	if g != nil && (c.extends || s.shape.idle) {
		g.ends = now.Add(s.shape.life)
	}
	if c.single {
		for _, other := range s.grants {
			other.dead = other.dead || other.state == c.to
		}
	}
	v := f.at.v
	if c.to != "" {
		made := &grant{state: c.to, vals: make(vals), public: c.public, parent: g}
		if g != nil {
			maps.Copy(made.vals, g.vals)
		}
		for _, name := range c.gives {
			made.vals[name] = s.mint(name)
		}
		if s.shape.life > 0 && !c.public {
			made.ends = now.Add(s.shape.life)
		}
		s.grants = append(s.grants, made)
		v = s.valuesOf(made)
	} else if len(c.gives) > 0 {
		for _, name := range c.gives {
			v[name] = s.mint(name)
		}
	}
	n := s.answered[c.name]
	s.answered[c.name]++
	a := c.answers[n%len(c.answers)]
	s.write(w, a, v, 200)
	return true
}

// note remembers the values that are good once.
func (s *sim) note(a *at) {
	for _, value := range a.first {
		s.seen[value] = true
	}
}

// lookAPI is lookCall for the API's requests. A session that is dead is found only if no
// living one fits.
func (s *sim) lookAPI(r *http.Request, body []byte) (best *found) {
	now := time.Now()
	for _, g := range s.candidates(s.shape.api.state) {
		v := s.valuesOf(g)
		for i := range s.shape.api.requests {
			own := &s.shape.api.requests[i]
			u, err := url.Parse(v.in(s.shape.api.base) + own.path)
			if err != nil {
				panic(err)
			}
			if r.Method != own.method || r.URL.Host != u.Host || r.URL.EscapedPath() != u.EscapedPath() {
				continue
			}
			f := &found{from: g, query: u.Query(), own: own, want: s.shape.api.facts.plus(own.facts)}
			if f.want.body == nil && own.body != "" {
				f.want.body = unchanged{}
			}
			f.at = &at{sim: s, r: r, body: body, v: v, own: *own}
			f.err = f.match()
			switch {
			case f.err == nil && g.living(now):
				return f
			case best == nil, f.err == nil && best.err != nil:
				best = f
			}
		}
	}
	return best
}

// isAPI reports whether the request goes where the API is.
func (s *sim) isAPI(r *http.Request, body []byte) bool { return s.lookAPI(r, body) != nil }

// request answers a request of the API, if it is one.
func (s *sim) request(w http.ResponseWriter, r *http.Request, body []byte) bool {
	f := s.lookAPI(r, body)
	if f == nil {
		return false
	}
	a := &s.shape.api
	if f.err == nil {
		s.mutants(f)
		if s.asked++; a.busy != 0 && s.asked%3 == 0 {
			s.write(w, answer{status: a.busy}, f.at.v, 200)
			return true
		}
	}
	if f.err != nil || !f.from.living(time.Now()) {
		if f.err != nil {
			s.fault("API %s %s: %v", r.Method, r.URL, f.err)
		}
		s.refused++
		no := answer{status: 401}
		if len(a.refusals) > 0 {
			no = a.refusals[s.refusal%len(a.refusals)]
		}
		s.write(w, no, f.at.v, 200)
		return true
	}
	s.note(f.at)
	if s.shape.idle {
		f.from.ends = time.Now().Add(s.shape.life)
	}
	out := answer{body: a.ok}
	if f.own.other != "" {
		out.body = f.own.other
	}
	if out.body == "" {
		out.body = okay
	}
	if a.renews != nil {
		if s.renewed++; s.renewed%2 == 1 {
			for _, name := range a.renews {
				f.from.vals[name] = s.mint(name)
			}
			out.header, out.cookies = a.renewal.header, a.renewal.cookies
		}
	}
	s.write(w, out, s.valuesOf(f.from), 200)
	return true
}

func (s *sim) write(w http.ResponseWriter, a answer, v vals, status int) {
	for name, value := range a.header {
		w.Header()[http.CanonicalHeaderKey(name)] = []string{v.in(value)}
	}
	for _, c := range a.cookies {
		w.Header().Add("Set-Cookie", v.in(c))
	}
	if a.body != "" && w.Header().Get("Content-Type") == "" {
		typ := "text/plain"
		switch a.body[0] {
		case '{', '[', '"':
			typ = "application/json"
		case '<':
			typ = "text/xml"
		}
		w.Header().Set("Content-Type", typ)
	}
	if a.status != 0 {
		status = a.status
	}
	w.WriteHeader(status)
	io.WriteString(w, v.in(a.body))
}

// revoke ends the sessions that requests carry, or with all everything that a login has
// given out.
func (s *sim) revoke(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.grants {
		if g.state == s.shape.api.state || all && !g.public {
			g.dead, g.spent = true, g.spent || all
		}
	}
}

func (s *sim) setRefusal(i int) { s.mu.Lock(); s.refusal = i; s.mu.Unlock() }

func (s *sim) setDeny(deny bool) { s.mu.Lock(); s.deny = deny; s.mu.Unlock() }

// denials are the names of the calls of logins that were refused.
func (s *sim) denials() []string { s.mu.Lock(); defer s.mu.Unlock(); return s.denied }

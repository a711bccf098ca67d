package oracle

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	ms    = time.Millisecond
	home  = "http://home"
	other = "http://other"
)

// well is a run in which all is well. A POST (request 1) is refused, sent
// again with a new token and done; a GET (request 2) goes through after a
// reset.
func well() *Run {
	return &Run{
		Rules: Rules{
			Origins: []string{home}, Steps: []string{"device", "app", "user"}, RetryMax: 2, AuthReplays: 2,
			BucketSize: 3, BucketEvery: 10 * time.Second, Memory: 400 * ms, Grace: 10 * time.Second, Slack: 500 * ms,
		},
		Took: time.Minute,
		Requests: []*Request{
			{ID: 1, Method: "POST", Body: KeptBody, BodyHash: "h1", Began: 1 * ms, Due: 5000 * ms, Ended: 50 * ms, Status: 200, Closes: []int{1}, LastRead: 5 * ms},
			{ID: 2, Method: "GET", Body: NoBody, BodyHash: "h0", Began: 60 * ms, Due: 5000 * ms, Ended: 90 * ms, Status: 200},
		},
		Hops: []*Hop{
			{ID: 1, Hop: 1, Began: 1 * ms, Ended: 49 * ms, Status: 200},
			{ID: 2, Hop: 1, Began: 61 * ms, Ended: 89 * ms, Status: 200},
		},
		Sends: []*Send{
			{ID: 1, Hop: 1, N: 1, Origin: home, Path: "/api/x", Token: "user-1", Began: 2 * ms, Ended: 10 * ms, Status: 401, Opened: true, Closes: 1},
			{ID: 1, Hop: 1, N: 2, Origin: home, Path: "/api/x", Token: "user-2", Began: 20 * ms, Ended: 40 * ms, Status: 200, Opened: true, Closes: 1},
			{ID: 2, Hop: 1, N: 1, Origin: home, Path: "/api/y", Token: "user-2", Began: 62 * ms, Ended: 70 * ms},
			{ID: 2, Hop: 1, N: 2, Origin: home, Path: "/api/y", Token: "user-2", Began: 75 * ms, Ended: 85 * ms, Status: 200, Opened: true, Closes: 2},
		},
		Visits: []*Visit{
			{ID: 1, Hop: 1, N: 1, Origin: home, Method: "POST", Path: "/api/x", At: 4 * ms, Tokens: []string{"user-1"}, Status: 401},
			{ID: 1, Hop: 1, N: 2, Origin: home, Method: "POST", Path: "/api/x", At: 25 * ms, Tokens: []string{"user-2"}, Live: true, Ran: true, BodyHash: "h1", Status: 200},
			{ID: 2, Hop: 1, N: 1, Origin: home, Method: "GET", Path: "/api/y", At: 65 * ms, Tokens: []string{"user-2"}, Live: true, Reset: true},
			{ID: 2, Hop: 1, N: 2, Origin: home, Method: "GET", Path: "/api/y", At: 80 * ms, Tokens: []string{"user-2"}, Live: true, Ran: true, BodyHash: "h0", Status: 200},
		},
		AuthCalls:   []*AuthCall{{Step: "user", Began: 12 * ms, Ended: 15 * ms, Outcome: Granted, Status: 200}},
		Revocations: []Revocation{{At: 3 * ms, Step: "user"}},
		Notes:       []Note{{ID: 1, At: 11 * ms, Kind: Invalidated}},
	}
}

// refusedOnce makes request 1 end with its first answer.
func refusedOnce(r *Run) {
	r.Requests[0].Status, r.Hops[0].Status = 401, 401
	r.Sends = slices.Delete(r.Sends, 1, 2)
	r.Visits = slices.Delete(r.Visits, 1, 2)
}

// spare makes the pipeline spare the token of request 1, which has used drops
// before.
func spare(r *Run, drops int) {
	refusedOnce(r)
	r.Spared = 1
	r.Notes = []Note{{ID: 1, At: 11 * ms, Kind: Spared}}
	for i := range drops {
		id := 10 + i
		r.Requests = append(r.Requests, &Request{ID: id, Due: time.Second, Ended: ms})
		r.Notes = append(r.Notes, Note{ID: id, At: 5 * ms, Kind: Invalidated})
	}
}

func TestAGoodRunHasNoViolation(t *testing.T) {
	v := Judge(well())
	for _, x := range v.Violations {
		t.Errorf("%s: %s", x.Rule, x.Text)
	}
	if v.Fetches != 1 || v.Tokens != 1 || v.MostFetches != 12 || v.MostTokens != 2 || v.Duplicate != 1 {
		t.Errorf("%+v", v)
	}
}

func TestEachRuleCanBeBroken(t *testing.T) {
	for name, c := range map[string]struct {
		rule string
		do   func(r *Run)
	}{
		"a 401 without any reason":                 {RuleUnauthorized, refusedOnce},
		"a 401 without a token":                    {RuleUnauthorized, func(r *Run) { refusedOnce(r); r.Sends[0].Token = "" }},
		"a 401 for a live token":                   {RuleUnauthorized, func(r *Run) { refusedOnce(r); r.Visits[0].Live = true }},
		"spared with drops left":                   {RuleUnauthorized, func(r *Run) { spare(r, 2) }},
		"spared for a token already replaced":      {RuleUnauthorized, func(r *Run) { spare(r, 3); r.Sends[1].Began = 8 * ms }},
		"trouble at the auth server long before":   {RuleUnauthorized, func(r *Run) { refusedOnce(r); late(r, 3*time.Second); spoil(r, ms) }},
		"replayed with the token that was refused": {RuleUnauthorized, func(r *Run) { again(r, "user-1", "user-2", "user-2") }},
		"an error for want of a token":             {RuleUnserved, func(r *Run) { r.Requests[1].Failure = NoToken }},
		"a network error of no fault":              {RuleUnexplained, func(r *Run) { r.Requests[0].Failure = BrokenNetwork }},
		"a context that has not ended":             {RuleUnexplained, func(r *Run) { r.Requests[0].Failure = EndedContext }},
		"a dead token long after":                  {RuleStale, func(r *Run) { r.Sends[3].Token, r.Sends[3].Began = "user-1", 700*ms }},
		"a token at another origin":                {RulePlace, func(r *Run) { r.Visits[0].Origin = other }},
		"a token on an excluded path":              {RulePlace, func(r *Run) { r.Visits[0].Path = "/public/x" }},
		"another step's token":                     {RulePlace, func(r *Run) { r.Visits[0].Tokens = []string{"app-1"} }},
		"a refresh token":                          {RulePlace, func(r *Run) { r.Visits[0].Tokens = []string{"user-refresh-1"} }},
		"two tokens":                               {RulePlace, func(r *Run) { r.Visits[0].Tokens = []string{"user-1", "user-2"} }},
		"a sixth send":                             {RuleBudget, func(r *Run) { more(r, 4) }},
		"a POST after a reset":                     {RuleDuplicate, func(r *Run) { r.Visits[0].Status, r.Visits[0].Reset = 0, true }},
		"a POST after a 500":                       {RuleDuplicate, func(r *Run) { r.Visits[0].Status = 500 }},
		"a POST after a 503 without Retry-After":   {RuleDuplicate, func(r *Run) { r.Visits[0].Status = 503 }},
		"a POST done twice":                        {RuleDuplicate, func(r *Run) { r.Visits[0].Ran = true }},
		"one send of a POST that arrives twice":    {RuleDuplicate, func(r *Run) { r.Visits = append(r.Visits, r.Visits[1]) }},
		"too many fetches":                         {RuleFetches, func(r *Run) { fetch(r, "app", 12) }},
		"too many tokens":                          {RuleTokens, func(r *Run) { fetch(r, "user", 2) }},
		"a caller that never came back":            {RuleStuck, func(r *Run) { r.Requests[1].Ended = 0 }},
		"a caller 10 s late":                       {RuleStuck, func(r *Run) { r.Requests[1].Ended = 15001 * ms }},
		"a request body not closed":                {RuleBodies, func(r *Run) { r.Requests[0].Closes[0] = 0 }},
		"a request body closed twice":              {RuleBodies, func(r *Run) { r.Requests[0].Closes[0] = 2 }},
		"a response body not closed":               {RuleBodies, func(r *Run) { r.Sends[3].Closes = 0 }},
		"work on another body":                     {RuleIntegrity, func(r *Run) { r.Visits[1].BodyHash = "h2" }},
		"another request's answer":                 {RuleIntegrity, func(r *Run) { r.Requests[1].Failure = WrongBody }},
		"a refresh token spent twice":              {RuleFamilies, func(r *Run) { r.FamiliesKilled = 1 }},
		"goroutines left":                          {RuleGoroutines, func(r *Run) { r.Leaked = "one" }},
		"a visit that nobody sent":                 {RuleLedger, func(r *Run) { r.Visits[0].N = 9 }},
		"a send of no call":                        {RuleLedger, func(r *Run) { r.Sends[0].Hop = 2 }},
		"an answer that is not the last":           {RuleLedger, func(r *Run) { r.Hops[1].Status = 404 }},
		"spared by the counter and not by the log": {RuleLedger, func(r *Run) { r.Spared = 1 }},
	} {
		r := well()
		c.do(r)
		v := Judge(r)
		if !slices.ContainsFunc(v.Violations, func(x Violation) bool { return x.Rule == c.rule }) {
			t.Errorf("%s: %q isn't among %v", name, c.rule, v.Violations)
		}
	}
}

func TestEachReasonIsCountedApart(t *testing.T) {
	for reason, do := range map[string]func(r *Run){
		ApartRefusing: func(r *Run) { r.Visits[0].Refusing, r.Visits[0].Live = true, true },
		ApartBucket:   func(r *Run) { *r = *well(); spare(r, 3) },
		ApartAuth:     func(r *Run) { spoil(r, 10*ms) },
		ApartOneShot:  func(r *Run) { r.Requests[0].Body = LargeBody },
		ApartReading:  func(r *Run) { r.Requests[0].LastRead = 11 * ms },
		ApartGone:     func(r *Run) { r.Requests[0].Due = 45 * ms },
		ApartAgain:    func(r *Run) { *r = *well(); again(r, "user-1", "user-2", "user-3") },
	} {
		r := well()
		refusedOnce(r)
		do(r)
		v := Judge(r)
		if v.Apart[reason] != 1 {
			t.Errorf("%s: %v", reason, v.Apart)
		}
		for _, x := range v.Violations {
			t.Errorf("%s: %s: %s", reason, x.Rule, x.Text)
		}
	}
}

// late puts off all of request 1.
func late(r *Run, by time.Duration) {
	q, h, s, v := r.Requests[0], r.Hops[0], r.Sends[0], r.Visits[0]
	for _, at := range []*time.Duration{&q.Began, &q.Ended, &q.Due, &h.Began, &h.Ended, &s.Began, &s.Ended, &v.At} {
		*at += by
	}
}

// spoil lets a fetch fail.
func spoil(r *Run, at time.Duration) {
	r.AuthCalls = append(r.AuthCalls, &AuthCall{Step: "user", Began: at, Ended: at, Status: 500, Outcome: Spoilt})
}

// fetch lets n fetches of a step succeed.
func fetch(r *Run, step string, n int) {
	for range n {
		r.AuthCalls = append(r.AuthCalls, &AuthCall{Step: step, Began: ms, Ended: ms, Status: 200, Outcome: Granted})
	}
}

// again lets request 1 be refused with one token after the other.
func again(r *Run, tokens ...string) {
	refusedOnce(r)
	s, v := *r.Sends[0], *r.Visits[0]
	for i, tok := range tokens[1:] {
		s, v := s, v
		s.N, s.Token, s.Began, s.Ended = i+2, tok, time.Duration(12+2*i)*ms, time.Duration(13+2*i)*ms
		v.N, v.Tokens, v.At = s.N, []string{tok}, s.Began
		r.Sends, r.Visits = append(r.Sends, &s), append(r.Visits, &v)
	}
}

// more adds sends to request 2.
func more(r *Run, n int) {
	last := *r.Sends[3]
	for range n {
		last.N++
		s := last
		r.Sends = append(r.Sends, &s)
	}
}

func TestHistoryTellsWhatHappenedInOrder(t *testing.T) {
	lines := Judge(well()).History(1)
	text := strings.Join(lines, "\n")
	at := 0
	for _, want := range []string{"call    POST", "hop 1   begins", `send    1.1`, "server  1.1", "answer  1.1 is 401", "note    a token", "send    1.2", "server  1.2", "work done", "result  200"} {
		i := strings.Index(text[at:], want)
		if i < 0 {
			t.Fatalf("no %q after the first %d bytes of\n%s", want, at, text)
		}
		at += i
	}
	if slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "/api/y") }) {
		t.Error("another request's history is in it")
	}
}

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
			BucketSize: 3, BucketEvery: 10 * time.Second, RetryBudget: 80, Memory: 400 * ms, Grace: 10 * time.Second, Slack: 500 * ms,
		},
		Took:      time.Minute,
		Processes: []*Process{{Identity: "ann"}},
		Requests: []*Request{
			{ID: 1, Method: "POST", Body: KeptBody, BodyHash: "h1", Began: 1 * ms, Due: 5000 * ms, Ended: 50 * ms, Status: 200, Closes: []int{1}, LastRead: 5 * ms},
			{ID: 2, Method: "GET", Body: NoBody, BodyHash: "h0", Began: 60 * ms, Due: 5000 * ms, Ended: 90 * ms, Status: 200},
		},
		Hops: []*Hop{
			{ID: 1, Hop: 1, Began: 1 * ms, Ended: 49 * ms, Status: 200},
			{ID: 2, Hop: 1, Began: 61 * ms, Ended: 89 * ms, Status: 200},
		},
		Sends: []*Send{
			{ID: 1, Hop: 1, N: 1, Number: 1, Origin: home, Path: "/api/x", Token: "user-1", Began: 2 * ms, Ended: 10 * ms, Freed: 11 * ms, Status: 401, Opened: true, Closes: 1},
			{ID: 1, Hop: 1, N: 2, Number: 2, Origin: home, Path: "/api/x", Token: "user-2", Began: 20 * ms, Ended: 40 * ms, Status: 200, Opened: true, Closes: 1},
			{ID: 2, Hop: 1, N: 1, Number: 1, Origin: home, Path: "/api/y", Token: "user-2", Began: 62 * ms, Ended: 70 * ms},
			{ID: 2, Hop: 1, N: 2, Number: 2, Origin: home, Path: "/api/y", Token: "user-2", Began: 75 * ms, Ended: 85 * ms, Status: 200, Opened: true, Closes: 2},
		},
		Visits: []*Visit{
			{ID: 1, Hop: 1, N: 1, Origin: home, Method: "POST", Path: "/api/x", At: 4 * ms, Tokens: []string{"user-1"}, Status: 401},
			{ID: 1, Hop: 1, N: 2, Origin: home, Method: "POST", Path: "/api/x", At: 25 * ms, Tokens: []string{"user-2"}, Live: true, Ran: true, BodyHash: "h1", Status: 200},
			{ID: 2, Hop: 1, N: 1, Origin: home, Method: "GET", Path: "/api/y", At: 65 * ms, Tokens: []string{"user-2"}, Live: true, Reset: true},
			{ID: 2, Hop: 1, N: 2, Origin: home, Method: "GET", Path: "/api/y", At: 80 * ms, Tokens: []string{"user-2"}, Live: true, Ran: true, BodyHash: "h0", Status: 200},
		},
		AuthCalls: []*AuthCall{
			grant(0, 1, "user-1", "user-refresh-1"),
			grant(0, 12*ms, "user-2", "user-refresh-2"),
		},
		Revocations: []Revocation{{At: 3 * ms, Step: "user"}},
		Notes:       []Note{{ID: 1, At: 11 * ms, Kind: Invalidated}},
	}
}

// grant is a login of the last step that took a millisecond.
func grant(process int, at time.Duration, labels ...string) *AuthCall {
	return &AuthCall{Step: "user", Process: process, Sent: at, Began: at, Ended: at + ms, Left: at + ms, Heard: true, Outcome: Granted, Status: 200, Gave: labels}
}

// present lets a process send a refresh token, to which the answer is the outcome.
func present(r *Run, process int, label string, at time.Duration, outcome AuthOutcome, gave ...string) {
	c := grant(process, at, gave...)
	c.Refresh, c.Brought, c.Outcome = true, []string{label}, outcome
	if outcome == Spoilt {
		c.Heard, c.Status = false, 0
	}
	r.AuthCalls = append(r.AuthCalls, c)
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
	r.Processes[0].Spared = 1
	r.Notes = []Note{{ID: 1, At: 11 * ms, Kind: Spared}}
	for i := range drops {
		id := 10 + i
		r.Requests = append(r.Requests, &Request{ID: id, Due: time.Second, Ended: ms})
		r.Notes = append(r.Notes, Note{ID: id, At: 5 * ms, Kind: Invalidated})
	}
}

// loggedOut adds a logout that the storage knows of, by process 0.
func loggedOut(r *Run) {
	r.Logouts = []Logout{{Window: Window{100 * ms, 101 * ms}, Identity: "ann", Told: true}}
}

// after lets request 1 be refused in a process that began after a logout.
func after(r *Run) {
	refusedOnce(r)
	late(r, 650*ms)
	another(r, "ann", 105*ms)
	r.Requests[0].Process, r.Sends[0].Process, r.Notes[0].Process = 1, 1, 1
}

func TestAGoodRunHasNoViolation(t *testing.T) {
	v := Judge(well())
	for _, x := range v.Violations {
		t.Errorf("%s: %s", x.Rule, x.Text)
	}
	if v.Fetches != 2 || v.Tokens != 2 || v.MostFetches != 12 || v.MostTokens != 2 || v.Duplicate != 1 {
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
		"spared by the drops of another process":   {RuleUnauthorized, func(r *Run) { another(r, "ann", 0); spare(r, 3); r.Requests[4].Process, r.Notes[3].Process = 1, 1 }},
		"another one's trouble at the auth server": {RuleUnauthorized, func(r *Run) { another(r, "bob", 0); refusedOnce(r); spoil(r, 10*ms); r.AuthCalls[2].Process = 1 }},
		"another one's logout":                     {RuleUnauthorized, func(r *Run) { another(r, "bob", 0); refusedOnce(r); loggedOut(r); r.Logouts[0].Identity = "bob" }},
		"a logout elsewhere that it has heard of": {RuleUnauthorized, func(r *Run) {
			refusedOnce(r)
			late(r, 2*time.Second)
			loggedOut(r)
			r.Logouts[0].Process = -1
			r.AuthCalls = append(r.AuthCalls, grant(0, 700*ms))
		}},
		"a logout before the process began": {RuleUnauthorized, func(r *Run) { after(r); loggedOut(r); r.Logouts[0].Process = -1 }},
		"a token that a server knew": {RuleUnauthorized, func(r *Run) {
			young(r)
			r.Sends[1].Token, r.Sends[1].Status, r.Sends[1].Ended = "user-1", 200, 9*ms
		}},
		"replayed with the token that was refused": {RuleUnauthorized, func(r *Run) { again(r, "user-1", "user-2", "user-2") }},
		"a login that was left at once":            {RuleUnserved, func(r *Run) { unheard(r, 100*ms) }},
		"a login that was heard":                   {RuleUnserved, func(r *Run) { unheard(r, 499*ms); r.AuthCalls[2].Heard = true }},
		"an error for want of a token":             {RuleUnserved, func(r *Run) { r.Requests[1].Failure = NoToken }},
		"a network error of no fault":              {RuleUnexplained, func(r *Run) { r.Requests[0].Failure = BrokenNetwork }},
		"a context of another host's caller":       {RuleUnexplained, func(r *Run) { inherit(r); r.Sends[3].Origin = other }},
		"a context of a caller who came back":      {RuleUnexplained, func(r *Run) { inherit(r); r.Requests[2].Due = 700 * ms }},
		"a context that has not ended":             {RuleUnexplained, func(r *Run) { r.Requests[0].Failure = EndedContext }},
		"a dead token long after":                  {RuleStale, func(r *Run) { r.Sends[3].Token, r.Sends[3].Began = "user-1", 700*ms }},
		"a dead token, its caller gone, after 3 s": {RuleStale, func(r *Run) { gone(r, 4*time.Second) }},
		"a dead token half a minute after":         {RuleStale, func(r *Run) { another(r, "ann", 0); elsewhere(r, 40*time.Second) }},
		"a token that was dead before it began":    {RuleStale, func(r *Run) { another(r, "ann", 600*ms); elsewhere(r, 700*ms) }},
		"a token at another origin":                {RulePlace, func(r *Run) { r.Visits[0].Origin = other }},
		"a token on an excluded path":              {RulePlace, func(r *Run) { r.Visits[0].Path = "/public/x" }},
		"another step's token":                     {RulePlace, func(r *Run) { r.Visits[0].Tokens = []string{"app-1"} }},
		"a refresh token":                          {RulePlace, func(r *Run) { r.Visits[0].Tokens = []string{"user-refresh-1"} }},
		"two tokens":                               {RulePlace, func(r *Run) { r.Visits[0].Tokens = []string{"user-1", "user-2"} }},
		"a sixth send":                             {RuleBudget, func(r *Run) { more(r, 4) }},
		"a fifth try of a young token":             {RuleBudget, func(r *Run) { r.Sends[3].Status = 401; more(r, 8) }},
		"a POST after a reset":                     {RuleDuplicate, func(r *Run) { r.Visits[0].Status, r.Visits[0].Reset = 0, true }},
		"a POST after a 500":                       {RuleDuplicate, func(r *Run) { r.Visits[0].Status = 500 }},
		"a POST after a 503 without Retry-After":   {RuleDuplicate, func(r *Run) { r.Visits[0].Status = 503 }},
		"a POST done twice":                        {RuleDuplicate, func(r *Run) { r.Visits[0].Ran = true }},
		"one send of a POST that arrives twice":    {RuleDuplicate, func(r *Run) { r.Visits = append(r.Visits, r.Visits[1]) }},
		"too many fetches":                         {RuleFetches, func(r *Run) { fetch(r, "app", 12, 0) }},
		"too many fetches of one process":          {RuleFetches, func(r *Run) { another(r, "bob", time.Second); fetch(r, "app", 10, 1) }},
		"too many tokens of one process":           {RuleTokens, func(r *Run) { another(r, "bob", time.Second); fetch(r, "user", 2, 1) }},
		"too many tokens":                          {RuleTokens, func(r *Run) { fetch(r, "user", 2, 0) }},
		"a caller that never came back":            {RuleStuck, func(r *Run) { r.Requests[1].Ended = 0 }},
		"a caller 10 s late":                       {RuleStuck, func(r *Run) { r.Requests[1].Ended = 15001 * ms }},
		"a request body not closed":                {RuleBodies, func(r *Run) { r.Requests[0].Closes[0] = 0 }},
		"a request body closed twice":              {RuleBodies, func(r *Run) { r.Requests[0].Closes[0] = 2 }},
		"a response body not closed":               {RuleBodies, func(r *Run) { r.Sends[3].Closes = 0 }},
		"work on another body":                     {RuleIntegrity, func(r *Run) { r.Visits[1].BodyHash = "h2" }},
		"another request's answer":                 {RuleIntegrity, func(r *Run) { r.Requests[1].Failure = WrongBody }},
		"a refresh token spent twice":              {RuleFamilies, func(r *Run) { twice(r, Spoilt, 0); r.FamiliesKilled = 2 }},
		"a refresh token sent after a logout":      {RuleLogout, func(r *Run) { loggedOut(r); present(r, 0, "user-refresh-2", 102*ms, Refused) }},
		"one by another process, which looks":      {RuleLogout, func(r *Run) { another(r, "ann", 0); loggedOut(r); present(r, 1, "user-refresh-2", 602*ms, Refused) }},
		"a token sent after a logout":              {RuleLogout, func(r *Run) { loggedOut(r); r.Logouts[0].Window = Window{58 * ms, 59 * ms} }},
		"one half a minute later":                  {RuleLogout, func(r *Run) { another(r, "ann", 0); elsewhere(r, 32*time.Second); loggedOut(r) }},
		"a token of another identity":              {RuleIdentity, func(r *Run) { another(r, "bob", 0); elsewhere(r, 60*ms) }},
		"a parent's token of another identity":     {RuleIdentity, func(r *Run) { another(r, "bob", 0); fetch(r, "app", 1, 1); r.AuthCalls[2].Brought = []string{"user-1"} }},
		"a refresh token of another identity":      {RuleIdentity, func(r *Run) { another(r, "bob", 0); present(r, 1, "user-refresh-2", 20*ms, Refused) }},
		"a token that was granted to nobody":       {RuleLedger, func(r *Run) { r.AuthCalls[1].Gave = nil }},
		"a refresh token sent after it was used":   {RuleRefresh, func(r *Run) { twice(r, Granted, 0) }},
		"a refresh token sent after its refusal":   {RuleRefresh, func(r *Run) { twice(r, Refused, 0) }},
		"a refresh token sent twice at a time":     {RuleRefresh, func(r *Run) { twice(r, Spoilt, 0); r.AuthCalls[2].Left = 45 * ms }},
		"a refresh token after a newer one":        {RuleRefresh, func(r *Run) { present(r, 0, "user-refresh-1", 30*ms, Refused) }},
		"a login for a rotated secret":             {RuleTakeover, func(r *Run) { takeOver(r, 40*time.Second) }},
		"a retry more than the budget":             {RuleRetries, func(r *Run) { retry(r, 83, 0) }},
		"a retry more than one process's budget":   {RuleRetries, func(r *Run) { another(r, "ann", 0); retry(r, 83, 1) }},
		"a connection held":                        {RuleHeld, func(r *Run) { wait(r, 1, 1600*ms, 1501*ms) }},
		"a connection never let go":                {RuleHeld, func(r *Run) { wait(r, 1, 1600*ms, 0) }},
		"connections held for most of the wait":    {RuleHeld, func(r *Run) { wait(r, 20, 100*ms, 60*ms) }},
		"a send that counts itself alone":          {RuleNumber, func(r *Run) { r.Sends[1].Number = 1 }},
		"a send that counts one too many":          {RuleNumber, func(r *Run) { r.Sends[0].Number, r.Sends[1].Number = 2, 3 }},
		"a send that counts too many unsent tries": {RuleNumber, func(r *Run) { spoil(r, ms); r.Sends[1].Number = 5 }},
		"goroutines left":                          {RuleGoroutines, func(r *Run) { r.Leaked = "one" }},
		"a visit that nobody sent":                 {RuleLedger, func(r *Run) { r.Visits[0].N = 9 }},
		"a send of no call":                        {RuleLedger, func(r *Run) { r.Sends[0].Hop = 2 }},
		"an answer that is not the last":           {RuleLedger, func(r *Run) { r.Hops[1].Status = 404 }},
		"a send of another process":                {RuleLedger, func(r *Run) { another(r, "ann", 0); r.Sends[0].Process = 1 }},
		"a note of another process":                {RuleLedger, func(r *Run) { another(r, "ann", 0); r.Notes[0].Process = 1 }},
		"a call of no process":                     {RuleLedger, func(r *Run) { r.Requests[0].Process, r.Sends[0].Process, r.Sends[1].Process = 7, 7, 7 }},
		"a token for nobody":                       {RuleLedger, func(r *Run) { r.AuthCalls[0].Process = -1 }},
		"spared by the counter and not by the log": {RuleLedger, func(r *Run) { r.Processes[0].Spared = 1 }},
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
		ApartYoung:    func(r *Run) { *r = *well(); young(r) },
		ApartGone:     func(r *Run) { r.Requests[0].Due = 45 * ms },
		ApartLogout:   func(r *Run) { loggedOut(r); r.Logouts[0].Window = Window{3 * ms, 4 * ms} },
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

func TestAnotherProcessIsNoneOfItsBusiness(t *testing.T) {
	for name, do := range map[string]func(r *Run){
		"another process had a newer token": func(r *Run) {
			spare(r, 3)
			r.Requests = append(r.Requests, &Request{ID: 20, Process: 1, Due: time.Second, Ended: ms, Closes: []int{1}})
			r.Hops = append(r.Hops, &Hop{ID: 20, Hop: 1})
			r.AuthCalls = append(r.AuthCalls, grant(1, ms, "user-9"))
			r.Sends = append(r.Sends, &Send{ID: 20, Hop: 1, N: 1, Number: 1, Process: 1, Token: "user-9", Began: 5 * ms, Status: 200})
		},
		"another process knows that a token is dead":   func(r *Run) { elsewhere(r, 20*time.Second) },
		"a token may be tried for those who wait":      func(r *Run) { gone(r, 3*time.Second) },
		"a refresh token after an open outcome":        func(r *Run) { twice(r, Spoilt, 0); r.FamiliesKilled = 1 },
		"a refresh token that another one had refused": func(r *Run) { twice(r, Refused, 1) },
		"a refresh token that the storage lacks":       func(r *Run) { twice(r, Granted, 1); r.SpoiltSaves = []time.Duration{32 * ms} },
		"an older one, and the newer isn't stored": func(r *Run) {
			r.AuthCalls[0].Process = 1
			r.SpoiltSaves = []time.Duration{14 * ms}
			present(r, 0, "user-refresh-1", 30*ms, Refused)
		},
		"a young token and trouble at the server": func(r *Run) { again(r, "user-1", "user-2", "user-2"); spoil(r, 40*ms) },
		"a login after a revocation":              func(r *Run) { takeOver(r, 2*time.Second) },
		"another process hears of a logout later": func(r *Run) { elsewhere(r, 30*time.Second); loggedOut(r) },
		"another process never found out": func(r *Run) {
			gone(r, 40*time.Second)
			r.Processes[1].Began = 30 * time.Second
			r.Requests[1].Process, r.Sends[1].Process = 1, 1
		},
		"as many retries as the budget, each":    func(r *Run) { retry(r, 80, 0); retry(r, 80, 1) },
		"connections that are let go":            func(r *Run) { wait(r, 30, 200*ms, 20*ms) },
		"a few that aren't yet":                  func(r *Run) { wait(r, 19, 1400*ms, 1400*ms) },
		"a send after a try without a token":     func(r *Run) { spoil(r, ms); r.Sends[0].Number, r.Sends[1].Number = 2, 3 },
		"a login that came too late to be heard": func(r *Run) { unheard(r, 200*ms) },
		"a login that took long":                 func(r *Run) { unheard(r, 500*ms); r.AuthCalls[2].Heard = true },
		"a login that was refused too late":      func(r *Run) { unheard(r, 200*ms); r.AuthCalls[2].Outcome = Refused },
		"a connection of a caller who has left":  inherit,
		"a process that has nothing to do":       func(r *Run) { another(r, "ann", 40*time.Second); r.RenewEvery = []time.Duration{time.Second} },
		"a login of each process":                func(r *Run) { fetch(r, "user", 1, 1) },
	} {
		r := well()
		another(r, "ann", 0)
		do(r)
		for _, x := range Judge(r).Violations {
			t.Errorf("%s: %s: %s", name, x.Rule, x.Text)
		}
	}
}

// gone lets the caller of request 1 go with its first answer, and process 0 send the
// token again.
func gone(r *Run, at time.Duration) {
	elsewhere(r, at)
	refusedOnce(r)
	r.Requests[0].Body, r.Requests[0].Due, r.Notes = LargeBody, 20*ms, nil
	r.Requests[1].Process, r.Sends[1].Process = 0, 0
}

// twice sends a refresh token that had an outcome before once more, by a process.
func twice(r *Run, outcome AuthOutcome, process int) {
	present(r, 0, "user-refresh-2", 30*ms, outcome)
	present(r, process, "user-refresh-2", 40*ms, Refused)
}

// retry adds a request of a process that was sent n times again, after a failure each.
func retry(r *Run, n, process int) {
	for i := range n {
		id, at := 2000+1000*process+i, 2*time.Second
		r.Requests = append(r.Requests, &Request{ID: id, Process: process, Method: "GET", Began: at, Due: at + 5*time.Second, Ended: at + 4*ms, Status: 200})
		r.Hops = append(r.Hops, &Hop{ID: id, Hop: 1, Began: at, Ended: at + 4*ms, Status: 200})
		for n := range 2 {
			began := at + time.Duration(2*n)*ms
			r.Sends = append(r.Sends, &Send{ID: id, Hop: 1, N: n + 1, Number: n + 1, Process: process, Origin: home, Path: "/public/z", Began: began, Ended: began + ms, Status: 503 - 303*n, Opened: true, Closes: 1, Freed: began + ms})
		}
	}
}

// wait adds n requests that wait between their first and their second send, the first
// of which holds its connection for a time; 0: for ever.
func wait(r *Run, n int, wait, held time.Duration) {
	for i := range n {
		id := 1000 + i
		at := 3*time.Second + time.Duration(i)*10*time.Second/1000
		end := at + 2*ms + wait
		first := &Send{ID: id, Hop: 1, N: 1, Number: 1, Origin: home, Path: "/public/z", Began: at, Ended: at + ms, Status: 503, Opened: true, Closes: 1}
		if held > 0 {
			first.Freed = first.Ended + held
		}
		r.Requests = append(r.Requests, &Request{ID: id, Method: "GET", Began: at, Due: at + 5*time.Second, Ended: end, Status: 200})
		r.Hops = append(r.Hops, &Hop{ID: id, Hop: 1, Began: at, Ended: end, Status: 200})
		r.Sends = append(r.Sends, first, &Send{ID: id, Hop: 1, N: 2, Number: 2, Origin: home, Path: "/public/z", Began: first.Ended + wait, Ended: end, Status: 200, Opened: true, Closes: 1})
	}
}

// young lets request 1 be refused twice with one token, and end before the next try, for
// which its caller has no time.
func young(r *Run) {
	again(r, "user-1", "user-1")
	r.AuthCalls[1].Gave = []string{"user-2"}
	r.Requests[0].Due, r.Requests[0].Ended, r.Hops[0].Ended = 1700*ms, 850*ms, 849*ms
	s := r.Sends[len(r.Sends)-1]
	s.Began, s.Ended = 799*ms, 800*ms
}

// inherit lets request 2 end with the context of request 3, which its caller left.
func inherit(r *Run) {
	q, h := r.Requests[1], r.Hops[1]
	q.Status, q.Failure, h.Status = 0, EndedContext, 0
	r.Sends, r.Visits = r.Sends[:3], r.Visits[:2]
	r.Requests = append(r.Requests, &Request{ID: 3, Method: "GET", Began: 50 * ms, Due: 60 * ms, Ended: 61 * ms, Failure: EndedContext})
	r.Hops = append(r.Hops, &Hop{ID: 3, Hop: 1, Began: 50 * ms, Ended: 61 * ms})
	r.Sends = append(r.Sends, &Send{ID: 3, Hop: 1, N: 1, Number: 1, Origin: home, Path: "/public/z", Began: 51 * ms, Ended: 60 * ms})
}

// unheard lets request 2 end without a token, since the client gave a login up that had
// been granted.
func unheard(r *Run, after time.Duration) {
	r.Requests[1].Failure = NoToken
	c := grant(0, 63*ms)
	c.Step, c.Heard, c.Left = "app", false, c.Sent+after
	r.AuthCalls = append(r.AuthCalls, c)
}

// takeOver lets a process with another secret begin, and log in.
func takeOver(r *Run, at time.Duration) {
	r.Processes = append(r.Processes, &Process{Identity: "ann", Rotated: true, Began: at})
	first, again := grant(0, 2), grant(len(r.Processes)-1, at+ms)
	first.Step, again.Step = "device", "device"
	r.AuthCalls = append(r.AuthCalls, first, again)
}

// another adds a process.
func another(r *Run, identity string, began time.Duration) {
	r.Processes = append(r.Processes, &Process{Identity: identity, Began: began})
}

// elsewhere lets process 1 send the token that process 0 has seen refused.
func elsewhere(r *Run, at time.Duration) {
	q, h := r.Requests[1], r.Hops[1]
	q.Process, q.Began, q.Due, q.Ended = 1, at, at+time.Second, at+ms
	h.Began, h.Ended, h.Status = at, at, 0
	q.Status, q.Failure = 0, BrokenNetwork
	r.Sends, r.Visits = r.Sends[:3], r.Visits[:3]
	s := r.Sends[2]
	s.Process, s.Token, s.Began, s.Ended, s.Status = 1, "user-1", at, at, 0
	r.Visits[2].Tokens = []string{"user-1"}
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

// fetch lets n fetches of a step by a process succeed.
func fetch(r *Run, step string, n, process int) {
	for range n {
		r.AuthCalls = append(r.AuthCalls, &AuthCall{Step: step, Process: process, Began: ms, Ended: ms, Status: 200, Outcome: Granted})
	}
}

// again lets request 1 be refused with one token after the other.
func again(r *Run, tokens ...string) {
	refusedOnce(r)
	s, v := *r.Sends[0], *r.Visits[0]
	r.AuthCalls[1].Gave = tokens[1:]
	for i, tok := range tokens[1:] {
		s, v := s, v
		s.N, s.Number, s.Token, s.Began, s.Ended = i+2, i+2, tok, time.Duration(12+2*i)*ms, time.Duration(13+2*i)*ms
		v.N, v.Tokens, v.At = s.N, []string{tok}, s.Began
		r.Sends, r.Visits = append(r.Sends, &s), append(r.Visits, &v)
	}
}

// more adds sends to request 2.
func more(r *Run, n int) {
	last := *r.Sends[3]
	for range n {
		last.N++
		last.Number++
		s := last
		r.Sends = append(r.Sends, &s)
	}
}

func TestHistoryTellsWhatHappenedInOrder(t *testing.T) {
	lines := Judge(well()).History(1)
	text := strings.Join(lines, "\n")
	at := 0
	for _, want := range []string{"call    by process 0, POST", "hop 1   begins", `send    1.1`, "server  1.1", "answer  1.1 is 401", "note    a token", "send    1.2", "server  1.2", "work done", "result  200"} {
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

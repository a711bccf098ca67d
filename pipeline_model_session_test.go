// The auth server of the model (pipeline_model_test.go): whose tokens it gives out,
// in which session, and which refresh tokens it should never see.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	rf "github.com/requestforge/requestforge"
)

// modelRefreshed are the steps whose tokens come with refresh tokens. Each is of use
// once.
var modelRefreshed = []string{"a", "leaf"}

// grant is a token as the auth server knows it, and the refresh token beside it.
type grant struct {
	access string
	step   string
	whose  string    // see world.whose
	login  time.Time // when the session began: with a fetch from scratch
	from   *grant    // whose refresh token was sent for it; nil: a login

	// Of the refresh token.
	stored   time.Time            // zero: it isn't in the storage yet
	replaced time.Time            // when a newer record or a tombstone took its place there; zero: it is still the newest, or never was
	open     time.Time            // the first outcome that left open whether it is spent; zero: none
	answered map[*model]time.Time // the processes with a definite answer
	sends    []*refreshing        // under way
}

// refreshing is one refresh under way.
type refreshing struct {
	m     *model
	lease *modelLease
}

func refreshToken(access string) string { return "refresh " + access }

// whose returns whose the token of a step is, with an identity for the step that
// differs: that identity, if the step is the one or is made from its token.
func (w *world) whose(step, identity string) string {
	if step == w.differs || slices.ContainsFunc(modelParents[step], func(p string) bool { return w.whose(p, identity) != "" }) {
		return identity
	}
	return ""
}

// everLost reports whether no logout of a step is certain any more. The storage has lost
// the step's content, so that stamps begin anew, below those that peers still hold; or a
// process has found a tombstone while one of its own was due.
func (w *world) everLost(step, whose string) bool {
	of := func(key string) bool { return stepOf(key) == step && w.keys[key] == whose }
	for key := range w.lost {
		if of(key) {
			return true
		}
	}
	for key := range w.unsure {
		if of(key) {
			return true
		}
	}
	return false
}

// mine holds a token that the process has got to whose it is and to logouts.
func (m *model) mine(access, step, what string) {
	m.settle()
	g := m.w.grants[access]
	if want := m.w.whose(step, m.identity); g.step != step || g.whose != want {
		m.w.fault("%s, with %q: %s %s, of %q", m.name, want, what, access, g.whose)
	}
	if over := m.overThen[step]; g.login.Before(over) && !m.w.everLost(step, g.whose) {
		m.w.fault("%s: %s %s, from a login at %v, but the logout was at %v", m.name, what, access, g.login.Sub(epoch2000), over.Sub(epoch2000))
	}
}

// replaced notes that the record of access is now the one under key; "": none is.
func (w *world) replaced(key, access string) {
	if slices.Contains(modelRefreshed, stepOf(key)) && access != "" {
		if g := w.grants[access]; g.stored.IsZero() {
			g.stored = time.Now()
		}
	}
	for _, g := range w.grants {
		if g.step == stepOf(key) && g.whose == w.keys[key] && g.access != access && !g.stored.IsZero() && g.replaced.IsZero() {
			g.replaced = time.Now()
		}
	}
}

// mayRefresh holds the refresh token that m is about to send to the rules: whose it
// is, not from before a logout, under the lease, by nobody else at the same time,
// not after a newer one, and not again after a definite answer.
func (m *model) mayRefresh(step string, g *grant) *refreshing {
	w, l, now := m.w, m.leases[step], time.Now()
	m.mine(g.access, step, "sends the refresh token of")
	if !l.held() {
		w.fault("%s: sends the refresh token of %s without a lease", m.name, g.access)
	}
	for _, s := range g.sends {
		if s.lease.held() {
			w.fault("%s: sends the refresh token of %s while %s does", m.name, g.access, s.m.name)
		}
	}
	if at, ok := g.answered[m]; ok && at.Before(now) {
		w.fault("%s: sends the refresh token of %s again, after a definite answer", m.name, g.access)
	}
	if !g.replaced.IsZero() && l != nil && g.replaced.Before(l.since) && !w.lost[l.key] && !m.owes[step] {
		w.fault("%s: sends the refresh token of %s, but there was a newer one", m.name, g.access)
	}
	for access, known := range m.tokens {
		if m.owes[step] {
			break // whose the record is, this process can't know then
		}
		if newer := w.grants[access]; newer.comesFrom(g) && slices.ContainsFunc(known, func(t modelToken) bool { return t.heard.Before(now) }) {
			w.fault("%s: sends the refresh token of %s, but knows of %s", m.name, g.access, access)
		}
	}
	s := &refreshing{m, l}
	g.sends = append(g.sends, s)
	return s
}

func (g *grant) comesFrom(other *grant) bool {
	for g = g.from; g != nil; g = g.from {
		if g == other {
			return true
		}
	}
	return false
}

var errBadDay = errors.New("a bad day")

// refresh answers a refresh. What is open for the process the server may have granted.
func (w *world) refresh(ctx context.Context) error {
	w.mu.Lock()
	answer := "granted"
	if len(w.answers) > 0 {
		answer, w.answers = w.answers[0], w.answers[1:]
	}
	w.mu.Unlock()
	switch answer {
	case "refused":
		return &rf.AuthError{StatusCode: http.StatusBadRequest, Code: "invalid_grant"}
	case "timeout":
		<-ctx.Done()
		return ctx.Err()
	case "busy":
		return &rf.AuthError{StatusCode: http.StatusServiceUnavailable, Err: errBadDay}
	case "gateway":
		return &rf.AuthError{StatusCode: http.StatusBadGateway, Err: errBadDay}
	}
	return nil
}

// fetcher is the auth server of a step, for one process.
func (m *model) fetcher(step string) rf.Fetcher {
	w := m.w
	return rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		w.mu.Lock()
		g := &grant{step: step, whose: w.whose(step, m.identity), login: time.Now(), answered: map[*model]time.Time{}}
		for _, p := range modelParents[step] {
			m.mine(in.Parents[p].AccessToken, p, "fetches with")
		}
		var sent *refreshing
		if in.Previous != nil {
			g.from = w.grants[strings.TrimPrefix(in.Previous.RefreshToken, refreshToken(""))]
			g.login = g.from.login
			sent = m.mayRefresh(step, g.from)
		}
		w.mu.Unlock()
		time.Sleep(300 * time.Millisecond)
		var err error
		if sent != nil {
			err = w.refresh(ctx)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if sent != nil {
			m.answer(g.from, sent, err)
			if err != nil {
				return nil, err
			}
		}
		w.fetches++
		w.n[step]++
		g.access = fmt.Sprintf("%s%s-%d", step, g.whose, w.n[step])
		w.grants[g.access] = g
		for _, p := range modelParents[step] {
			w.made[g.access] = append(w.made[g.access], in.Parents[p].AccessToken)
		}
		w.note("%s: fetched %s from %v", m.name, g.access, w.made[g.access])
		tok := &rf.Token{AccessToken: g.access, Expiry: time.Now().Add(modelLives[step])}
		if slices.Contains(modelRefreshed, step) {
			tok.RefreshToken = refreshToken(g.access)
		}
		return tok, nil
	})
}

// answer notes the answer to a refresh.
func (m *model) answer(g *grant, sent *refreshing, err error) {
	g.sends = slices.DeleteFunc(g.sends, func(s *refreshing) bool { return s == sent })
	m.w.note("%s: refresh of %s: %v", m.name, g.access, err)
	auth, _ := errors.AsType[*rf.AuthError](err)
	switch {
	case err == nil, auth != nil && auth.Code != "":
		g.answered[m] = time.Now()
	case g.open.IsZero() && (auth == nil || auth.StatusCode == http.StatusBadGateway):
		g.open = time.Now()
	}
}

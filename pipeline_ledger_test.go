// The ledger alone: no time but the one that is passed in, no storage, nothing to
// wait for.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// diamond is a graph in which two paths meet: root, a and b made from it, leaf
// made from both.
func diamond(t testing.TB) *graph {
	t.Helper()
	return graphOf(t, Step{Name: "root"}, Step{Name: "a", DependsOn: []string{"root"}}, Step{Name: "b", DependsOn: []string{"root"}}, Step{Name: "leaf", DependsOn: []string{"a", "b"}})
}

// sharedDiamond is a diamond of which only the root is shared.
func sharedDiamond(t testing.TB) *graph {
	t.Helper()
	return graphOf(t, Step{Name: "root"}, Step{Name: "a", DependsOn: []string{"root"}, PerSubject: true}, Step{Name: "b", DependsOn: []string{"root"}, PerSubject: true}, Step{Name: "leaf", DependsOn: []string{"a", "b"}})
}

func graphOf(t testing.TB, steps ...Step) *graph {
	t.Helper()
	cfg := PipelineConfig{Storage: NewMemoryStorage(), CoolDown: time.Second, MaxCoolDown: 30 * time.Second}
	if slices.ContainsFunc(steps, func(s Step) bool { return s.PerSubject }) {
		cfg.Subject = func(context.Context) (string, error) { return "ann", nil }
	}
	for _, s := range steps {
		s.Fetcher = &HTTPFetcher{URL: "https://auth.example.com"}
		cfg.Steps = append(cfg.Steps, s)
	}
	g := newGraph(&cfg, func(format string, args ...any) { t.Fatalf(format, args...) })
	return g
}

// made returns a token of a step, made from parents, that lives for an hour. Its
// stamp is stamp.
func made(l *ledger, name string, stamp uint64, parents ...*held) *held {
	s := l.graph.step(name)
	from := make([]stamps, len(parents))
	for i, p := range parents {
		from[i] = p.stamps
	}
	v := lineage(len(l.graph.steps), from...)
	v[s.index] = stamp
	rs := &records{graph: l.graph, owner: l}
	return rs.hold(s, Token{AccessToken: fmt.Sprintf("%s-%d", name, stamp), Expiry: noon.Add(time.Hour)}, noon, v)
}

// login keeps a token of each step, all with one stamp, and returns the leaf's.
func login(t testing.TB, l *ledger, stamp uint64) (leaf *held) {
	t.Helper()
	root := made(l, "root", stamp)
	a, b := made(l, "a", stamp, root), made(l, "b", stamp, root)
	leaf = made(l, "leaf", stamp, a, b)
	for _, h := range []*held{root, a, b, leaf} {
		if !l.keep(h, l.now()) {
			t.Fatalf("%s was not kept", h.tok.AccessToken)
		}
	}
	return leaf
}

func newTestLedger(t testing.TB) *ledger {
	return newLedger(diamond(t))
}

// newLedgerBelow is that of one more subject.
func newLedgerBelow(up *ledger) *ledger {
	l := &ledger{entries: make([]entry, len(up.graph.steps)-up.graph.shared)}
	l.begin(up.graph, up, subjectKey{1})
	return l
}

// names are the access tokens that l would hand out, by the steps in order.
func names(l *ledger, now time.Time) []string {
	var all []string
	for _, s := range l.graph.steps {
		name := "-"
		if h := l.current(s, nil, now); h != nil {
			name = h.tok.AccessToken
		}
		all = append(all, name)
	}
	return all
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestStampsAnswerBothQuestions(t *testing.T) {
	v := stamps{3, unrelated, 5}
	for _, c := range []struct {
		floor stamps
		want  bool
	}{
		{nil, true}, {stamps{0, 0, 0}, true}, {stamps{2, 9, 4}, true},
		{stamps{3, 0, 0}, false}, {stamps{0, 0, 5}, false}, {stamps{0, maxStamp, 0}, true},
	} {
		want(t, fmt.Sprint(c.floor), v.above(c.floor), c.want)
	}
}

func TestLineageIsTheLowestWherePathsMeet(t *testing.T) {
	got := lineage(4, stamps{7, 2, unrelated, unrelated}, stamps{4, unrelated, 9, unrelated})
	want(t, "lineage", got, stamps{4, 2, 9, unrelated})
}

func TestLedgerRevocationTakesWhatWasMadeFromTheToken(t *testing.T) {
	l := newTestLedger(t)
	leaf := login(t, l, 1)
	want(t, "before", names(l, noon), "[root-1 a-1 b-1 leaf-1]")
	if !l.revoke(l.graph.step("a"), 1) || l.revoke(l.graph.step("a"), 1) {
		t.Error("a revocation is not idempotent")
	}
	want(t, "after", names(l, noon), "[root-1 - b-1 -]")
	if l.ready(leaf.step) != nil {
		t.Error("a dead leaf is served")
	}
	// A newer parent doesn't revive what was made from the old one.
	l.keep(made(l, "a", 2, l.current(l.graph.step("root"), nil, noon)), 0)
	want(t, "with a newer parent", names(l, noon), "[root-1 a-2 b-1 -]")
}

func TestLedgerRevocationsCommute(t *testing.T) {
	type mark struct {
		step  string
		stamp uint64
	}
	marks := []mark{{"root", 1}, {"a", 2}, {"leaf", 1}, {"b", 1}, {"a", 1}}
	var first []string
	for range 5 {
		l := newTestLedger(t)
		login(t, l, 1)
		login(t, l, 2)
		for _, m := range marks {
			l.revoke(l.graph.step(m.step), m.stamp)
		}
		got := append(names(l, noon), fmt.Sprint(*l.marks.Load()))
		if first == nil {
			first = got
		}
		want(t, fmt.Sprint(marks), got, first)
		marks = append(marks[1:], marks[0])
	}
}

func TestLedgerKeepsTheNewestToken(t *testing.T) {
	l := newTestLedger(t)
	newer, older := made(l, "root", 5), made(l, "root", 4)
	l.keep(newer, 0)
	l.keep(older, 0)
	want(t, "root", names(l, noon)[0], "root-5")
	if got := l.tops(); got[newer.step.index] != 5 {
		t.Errorf("top is %v", got)
	}
	// Above the floor that a Refresh wants there is nothing yet.
	if h := l.current(newer.step, l.tops(), noon); h != nil {
		t.Errorf("%s is above the tops", h.tok.AccessToken)
	}
}

func TestLedgerHandsOutNothingExpired(t *testing.T) {
	l := newTestLedger(t)
	leaf := login(t, l, 1)
	end := time.Unix(0, leaf.end)
	want(t, "just before", names(l, end.Add(-1))[3], "leaf-1")
	want(t, "at the end", names(l, end)[3], "-")
}

// One ledger for what is shared, one each for two identities below it.
func TestLedgerBelowAnotherSeesItsMarks(t *testing.T) {
	g := sharedDiamond(t)
	up := newLedger(g)
	root := made(up, "root", 1)
	up.keep(root, 0)
	one, two := newLedgerBelow(up), newLedgerBelow(up)
	below := func(l *ledger, stamp uint64, root *held) *held {
		a, b := made(l, "a", stamp, root), made(l, "b", stamp, root)
		leaf := made(l, "leaf", stamp, a, b)
		for _, h := range []*held{a, b, leaf} {
			l.keep(h, l.now())
		}
		return leaf
	}
	below(one, 1, root)
	leaf := below(two, 1, root)

	// The revocation of one identity's leaf is its own.
	one.revoke(g.leaf, 1)
	if one.ready(g.leaf) != nil || two.ready(g.leaf) != leaf {
		t.Error("a revocation of one identity's leaf is the other's, too, or nobody's")
	}
	below(one, 2, root)

	// A newer shared token leaves alone what was made from the older one.
	newer := made(up, "root", 2)
	up.keep(newer, 0)
	if two.ready(g.leaf) != leaf {
		t.Error("a newer shared token condemned what was made from the older one")
	}

	// A mark in the shared ledger condemns all leaves at once, and touches
	// neither ledger below.
	marks := two.marks.Load()
	up.revoke(g.step("root"), 1)
	for _, l := range []*ledger{one, two} {
		if l.ready(g.leaf) != nil || l.current(g.leaf, nil, noon) != nil {
			t.Error("a leaf lives on after the shared root was revoked")
		}
	}
	if two.marks.Load() != marks || two.servedOf(g.leaf).Load() != leaf {
		t.Error("a ledger below was touched")
	}

	// With the newer root a leaf is made anew, and served. A shared mark that
	// doesn't concern the leaf costs one look under the lock.
	leaf = below(two, 2, newer)
	up.keep(made(up, "root", 3), 0)
	if two.ready(g.leaf) != leaf {
		t.Error("the new leaf isn't served")
	}
	up.forget(noon)
	if two.ready(g.leaf) != nil {
		t.Error("a leaf is served after the shared ledger forgot everything")
	}
	up.keep(made(up, "root", 4), up.now())
	root = made(up, "root", 5)
	up.keep(root, up.now())
	leaf = below(two, 3, root)
	up.revoke(g.step("root"), 4)
	if two.ready(g.leaf) != nil {
		t.Error("the reader doesn't see that the shared marks have changed")
	}
	if two.current(g.leaf, nil, noon) != leaf || two.ready(g.leaf) != leaf {
		t.Error("a leaf that is live by the new marks isn't served again")
	}
}

func TestLedgerEpochs(t *testing.T) {
	l := newTestLedger(t)
	login(t, l, 3)
	epoch := l.now()
	l.fail(l.graph.leaf, &AuthError{}, reading{}, l.now(), noon)
	l.forget(noon)
	want(t, "after forget", names(l, noon), "[- - - -]")
	want(t, "the marks", *l.marks.Load(), "[3 3 3 3]")
	if l.cooling(l.graph.leaf, noon) != nil {
		t.Error("a failure outlives forget")
	}
	if l.now() == epoch {
		t.Error("no new epoch has begun")
	}

	// What was begun before comes to nothing.
	late := made(l, "root", 4)
	if l.keep(late, epoch) {
		t.Error("a token of an earlier epoch was kept")
	}
	if _, ok := l.beginSave(late.step, epoch); ok {
		t.Error("a save of an earlier epoch began")
	}
	if _, _, ok := l.takeOver(epoch, []finding{{step: late.step, mark: 9, tok: late}}); ok {
		t.Error("a load of an earlier epoch was taken over")
	}
	want(t, "the marks after late results", *l.marks.Load(), "[3 3 3 3]")
	for _, s := range l.graph.steps {
		if !l.owes(s) || !l.buried(s, Entry{Gone: 4}) || l.owes(s) {
			t.Errorf("the tombstone of %s isn't due until it is buried", s.Name)
		}
	}
	l.drop(late)
	want(t, "a dropped token's mark", (*l.marks.Load())[0], 4)

	// A new login is as good as any.
	login(t, l, 5)
	want(t, "after a new login", names(l, noon), "[root-5 a-5 b-5 leaf-5]")
}

func TestLedgerForgottenRefreshTokenIsNotSpent(t *testing.T) {
	l := newTestLedger(t)
	h := made(l, "root", 1)
	h.tok.RefreshToken = "rotates"
	l.keep(h, 0)
	if l.refreshable(h.step) != h {
		t.Fatal("the refresh token isn't offered")
	}
	l.spend(h)
	again := made(l, "root", 2) // saved twice, since the first answer was lost
	again.tok.AccessToken, again.tok.RefreshToken, again.loaded = h.tok.AccessToken, "rotates", true
	l.keep(again, l.now())
	if l.newest(h.step) != again || !l.spentRefresh(again) || l.refreshable(h.step) != nil {
		t.Error("a spent refresh token is offered")
	}
	again = made(l, "root", 3)
	again.tok.RefreshToken = "rotates"
	l.keep(again, l.now())
	if l.refreshable(h.step) != again {
		t.Error("a refresh token that the server has given again isn't offered")
	}
	h = made(l, "root", 4)
	h.tok.RefreshToken = "next"
	l.keep(h, 0)
	l.revoke(h.step, 4)
	if l.refreshable(h.step) != h {
		t.Error("a refresh token has died with its access token")
	}
	l.forget(noon)
	l.keep(h, l.now()) // on its way back from the storage
	if l.refreshable(h.step) != nil {
		t.Error("a forgotten refresh token is offered")
	}
}

func TestLedgerTakesOverWhatWasLoaded(t *testing.T) {
	l := newTestLedger(t)
	leaf := login(t, l, 2)
	root := l.graph.step("root")
	l.revoke(root, 1)
	lost, _, ok := l.takeOver(l.now(), []finding{{step: root}, {step: leaf.step, mark: 1}})
	want(t, "marks to be written back", fmt.Sprintf("%v %d %s %d", ok, len(lost), lost[0].step.Name, lost[0].mark), "true 1 root 1")
	want(t, "mark of the leaf", (*l.marks.Load())[leaf.step.index], 1)
	want(t, "after lower marks", names(l, noon), "[root-2 a-2 b-2 leaf-2]")

	// The same token loaded again: the one that is known stays, since it is
	// known whether a server has accepted it.
	again := made(l, "leaf", 2)
	l.takeOver(l.now(), []finding{{step: leaf.step, mark: 1, tok: again}})
	if l.current(leaf.step, nil, noon) != leaf {
		t.Error("the same token was replaced")
	}
}

// A tombstone above what the process knew is a logout by a peer.
func TestLedgerHearsOfALogout(t *testing.T) {
	l := newTestLedger(t)
	login(t, l, 3)
	root := l.graph.step("root")
	parent := l.current(root, nil, noon)
	parent.tok.RefreshToken = "rotates"
	l.fail(root, &AuthError{StatusCode: 503}, reading{}, l.now(), noon)
	begun := l.now()
	lacks, epoch, ok := l.takeOver(begun, []finding{{step: root, gone: 4, version: 4}})
	if !ok || len(lacks) > 0 || epoch == begun {
		t.Errorf("ok %v, lacks %v, epoch %d after %d", ok, lacks, epoch, begun)
	}
	want(t, "after it", names(l, noon), "[- - - -]")
	if l.refreshable(root) != nil || l.cooling(root, noon) != nil {
		t.Error("a refresh token or a cool-down outlives it")
	}
	if l.keep(made(l, "root", 5), begun) {
		t.Error("a fetch from before it was kept")
	}
	if _, again, _ := l.takeOver(l.now(), []finding{{step: root, gone: 4, version: 4}}); again != epoch {
		t.Error("the same tombstone ends an epoch twice")
	}

	// A record from after the logout is as good as any.
	l.takeOver(l.now(), []finding{{step: root, gone: 4, version: 5, tok: made(l, "root", 5)}})
	want(t, "root after a login", names(l, noon)[0], "root-5")

	// A process that knew nothing, and fetches nothing, has nothing to end.
	fresh := newTestLedger(t)
	if _, epoch, _ := fresh.takeOver(0, []finding{{step: root, gone: 4, version: 4}}); epoch != 0 {
		t.Error("a fresh process begins a new epoch")
	}

	// A token whose stamp this process made up was fetched while the storage
	// failed, before or after the logout.
	own := made(l, "root", 0)
	l.stampUnsaved(own)
	l.keep(own, l.now())
	l.takeOver(l.now(), []finding{{step: root, gone: 5, version: 5}})
	want(t, "root after another logout", names(l, noon)[0], "-")
}

func TestLedgerTellsTheStorageWhatItLacks(t *testing.T) {
	root := newTestLedger(t).graph.step("root")
	for name, c := range map[string]struct {
		due  string // "tried": a Delete was sent
		gone uint64 // that the process knows
		f    finding
		want string
	}{
		"nothing":                         {"", 4, finding{gone: 4, version: 4}, "[]"},
		"a tombstone that is due":         {"due", 0, finding{version: 3}, "[bury 3]"},
		"one over a peer's newer record":  {"due", 0, finding{version: 9}, "[bury 9]"},
		"a peer's, never tried":           {"due", 0, finding{gone: 4, version: 4}, "[bury 4]"},
		"one that has landed late":        {"tried", 0, finding{gone: 4, version: 4}, "[]"},
		"a lost tombstone, no record":     {"", 4, finding{}, "[bury 0]"},
		"a lost one, with an old record":  {"", 4, finding{version: 2}, "[bury 2]"},
		"a lost one, with a newer record": {"", 4, finding{version: 5, mark: 4}, "[]"},
		"a lower one":                     {"", 4, finding{gone: 2, version: 2, mark: 4}, "[]"},
	} {
		l := newTestLedger(t)
		if c.gone > 0 {
			l.buried(root, Entry{Gone: c.gone})
		}
		l.entries[root.index].due, l.entries[root.index].tried = c.due != "", c.due == "tried"
		c.f.step = root
		lacks, _, _ := l.takeOver(l.now(), []finding{c.f})
		got := []string{}
		for _, lack := range lacks {
			if lack.bury {
				got = append(got, fmt.Sprintf("bury %d", lack.seen))
			}
		}
		want(t, name, fmt.Sprint(got), c.want)
	}
}

// A storage may answer anything. A stamp that no storage gives must not make a
// token which outlives its parent's revocation, nor lift the top of a step so far
// that nothing can be saved any more.
func TestRecordWithAStampOutOfRangeIsIgnored(t *testing.T) {
	l := newTestLedger(t)
	rs := &records{graph: l.graph, owner: l}
	s := l.graph.step("a")
	for _, c := range []struct {
		stamp, root uint64
		ok          bool
	}{
		{1, 1, true}, {maxStamp, maxStamp, true},
		{0, 1, false}, {1, 0, false}, {maxStamp + 1, 1, false}, {1, maxStamp + 1, false}, {unrelated, 1, false}, {1, unrelated, false},
	} {
		r := &Record{Key: s.key, Token: &Token{AccessToken: "x"}, Stamp: c.stamp, Lineage: map[string]uint64{l.graph.step("root").key: c.root}}
		h, err := rs.read(s, r, noon)
		if (err == nil) != c.ok {
			t.Errorf("stamp %d, root's %d: %v", c.stamp, c.root, err)
		}
		if err == nil {
			l.takeOver(l.now(), []finding{{step: s, tok: h}})
		}
	}
	want(t, "the tops", l.tops(), fmt.Sprint(stamps{maxStamp, maxStamp, 0, 0}))
}

func TestLedgerStampsWhatCouldNotBeSaved(t *testing.T) {
	l := newTestLedger(t)
	root := l.graph.step("root")
	l.revoke(root, 7)
	h := made(l, "root", 0)
	begun, _ := l.beginSave(root, l.now())
	want(t, "floor", begun.floor, 7)
	l.stampUnsaved(h)
	want(t, "own stamp", h.stamp(), 8)
	h2 := made(l, "root", 0)
	l.stampSaved(h2, l.now(), Entry{Mark: 9, Record: &Record{Stamp: 12}})
	l.keep(h2, l.now())
	want(t, "saved stamp", h2.stamp(), 12)
	want(t, "mark beside it", (*l.marks.Load())[0], 9)
	begun, _ = l.beginSave(root, l.now())
	want(t, "the next save", fmt.Sprint(begun.floor, begun.stored, begun.previous == h2), "12 12 true")
}

func TestLedgerCoolDowns(t *testing.T) {
	l := newTestLedger(t)
	s := l.graph.step("a")
	passing := &AuthError{Step: "a", StatusCode: 503}
	for n, wait := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		f, inRow := l.fail(s, passing, reading{}, l.now(), noon)
		if f.until.Sub(f.at) != wait*time.Second || inRow != n+1 {
			t.Errorf("failure %d: %v, %d in a row", n+1, f.until.Sub(f.at), inRow)
		}
	}
	if err := l.cooling(s, noon.Add(29*time.Second)); err == nil || err.until.Sub(noon) != 30*time.Second {
		t.Errorf("a second before the end: %v", err)
	}
	if err := l.cooling(s, noon.Add(30*time.Second)); err != nil {
		t.Errorf("at the end: %v", err)
	}
	l.keep(made(l, "a", 1), 0)
	f, inRow := l.fail(s, passing, reading{}, l.now(), noon)
	want(t, "after a success", fmt.Sprint(f.until.Sub(f.at), inRow), "1s 1")

	for _, c := range []struct {
		err  AuthError
		want time.Duration
	}{
		{AuthError{Permanent: true}, 30 * time.Second},
		{AuthError{RetryAfter: time.Hour}, maxRetryAfter},
	} {
		want(t, fmt.Sprint(c), coolDown(&c.err, 0, time.Second, 30*time.Second), c.want)
	}
	for range 100 {
		if got := coolDown(&AuthError{RetryAfter: time.Minute}, 0, time.Second, 30*time.Second); got < time.Minute || got >= 75*time.Second {
			t.Fatalf("a minute that the auth server asks for became %v", got)
		}
	}
	want(t, "a hundred in a row", coolDown(&AuthError{}, 100, time.Hour, 5*time.Hour), 5*time.Hour)

	// A child fails with its parent, until the parent is due.
	leaf := l.graph.leaf
	l.inherit(leaf, l.cooling(s, noon))
	if err := l.cooling(leaf, noon); err == nil || err.err.Step != "a" {
		t.Errorf("inherited: %v", err)
	}
	if err := l.cooling(leaf, noon.Add(time.Second)); err != nil {
		t.Errorf("inherited, when the parent is due: %v", err)
	}
}

func TestLedgerPeersFailureIsCountedOnce(t *testing.T) {
	l := newTestLedger(t)
	s := l.graph.step("a")
	own, _ := l.fail(s, &AuthError{}, reading{}, l.now(), noon)
	slack := 250 * time.Millisecond
	l.failWith(s, &failure{err: &AuthError{}, at: noon, until: own.until.Add(slack)}, slack)
	want(t, "after its own came back", l.entries[s.index].failures.inRow, 1)
	l.failWith(s, &failure{err: &AuthError{}, at: noon, until: own.until.Add(2*slack + 1)}, slack)
	want(t, "after a peer's", l.entries[s.index].failures.inRow, 2)
}

func TestLedgerBlamesParentsInVainOnceInAWhile(t *testing.T) {
	l := newTestLedger(t)
	s := l.graph.step("a")
	parents := []*held{made(l, "root", 1)}
	want(t, "at first", l.mayBlame(s, parents, noon), true)
	l.blamedInVain(s, noon)
	want(t, "in vain a moment ago", l.mayBlame(s, parents, noon.Add(blameEvery-1)), false)
	want(t, "in vain long ago", l.mayBlame(s, parents, noon.Add(blameEvery)), true)
	parents[0].tok.prov.accepted.Store(true)
	want(t, "a parent that has worked", l.mayBlame(s, parents, noon), true)
	l.parentsWork(s)
	want(t, "after the parents worked", l.mayBlame(s, []*held{made(l, "root", 1)}, noon), true)
}

// blamedNames are the steps that a refusal revoked.
func blamedNames(blamed []blame) (all []string) {
	for _, b := range blamed {
		all = append(all, fmt.Sprint(b.step.Name, " ", b.stamp))
	}
	slices.Sort(all)
	return all
}

func TestLedgerRefusals(t *testing.T) {
	l := newTestLedger(t)
	now := noon
	next := func() time.Time { now = now.Add(time.Minute); return now } // the bucket is full again

	// A token that some server has accepted was revoked, alone.
	leaf := login(t, l, 1)
	leaf.tok.accept()
	_, blamed, _ := l.refuse(l.graph.leaf, leaf.tok, next())
	want(t, "accepted", blamedNames(blamed), "[leaf 1]")
	_, blamed, _ = l.refuse(l.graph.leaf, leaf.tok, next())
	want(t, "dead already", blamedNames(blamed), "[]")

	// With nothing accepted since, each further refusal in a row blames the next
	// distance.
	for i, blame := range []string{"[a 2 b 2]", "[root 3]", "[root 4]"} {
		leaf = login(t, l, uint64(2+i))
		_, blamed, _ = l.refuse(l.graph.leaf, leaf.tok, next())
		want(t, "never accepted", blamedNames(blamed), blame)
	}
	leaf = login(t, l, 5)
	leaf.tok.accept()
	leaf = login(t, l, 6)
	_, blamed, _ = l.refuse(l.graph.leaf, leaf.tok, next())
	want(t, "after an acceptance", blamedNames(blamed), "[leaf 6]")

	// By value, a stranger's token, and none.
	leaf = login(t, l, 7)
	leaf.tok.accept()
	_, blamed, _ = l.refuse(l.graph.leaf, &Token{AccessToken: "leaf-6"}, next())
	want(t, "a stranger's", blamedNames(blamed), "[]")
	_, blamed, _ = l.refuse(l.graph.leaf, &Token{AccessToken: "leaf-7"}, next())
	want(t, "by value", blamedNames(blamed), "[leaf 7]")
}

// A storage that has lost its stamps gives them out again. The refused token's
// stamp is dead all the same, also if the token was replaced by then.
func TestLedgerRefusedTokenStaysDeadAfterItWasReplaced(t *testing.T) {
	l := newTestLedger(t)
	old := login(t, l, 3)
	leaf := login(t, l, 4)
	of, blamed, _ := l.refuse(l.graph.leaf, old.tok, noon)
	if blamed != nil || of != nil {
		t.Errorf("the refusal of a replaced token cost %v %v", blamedNames(blamed), of)
	}
	want(t, "the mark", (*l.marks.Load())[leaf.step.index], 3)
	want(t, "the leaf", names(l, noon)[3], "leaf-4")
	for range unprovenSize {
		if !l.entries[l.graph.leaf.index].refusals.take(noon) {
			t.Fatal("the refusal of a replaced token took from the bucket")
		}
	}
}

// A save whose answer was lost: the process gave the token a stamp of its own, the
// storage another one, and the token is loaded a second time.
func TestLedgerRefusedTokenIsDeadByBothItsStamps(t *testing.T) {
	l := newTestLedger(t)
	login(t, l, 1)
	parents := []*held{l.current(l.graph.step("a"), nil, noon), l.current(l.graph.step("b"), nil, noon)}
	own := made(l, "leaf", 0, parents...)
	l.stampUnsaved(own)
	l.keep(own, l.now())
	own.tok.accept()
	stored := made(l, "leaf", 5, parents...)
	stored.tok.AccessToken = own.tok.AccessToken
	stored.tok.prov.accepted.Store(true)
	l.takeOver(l.now(), []finding{{step: stored.step, tok: stored}})
	if l.current(stored.step, nil, noon) != stored {
		t.Fatal("the loaded token isn't the newer one")
	}
	_, blamed, _ := l.refuse(l.graph.leaf, own.tok, noon)
	want(t, "blamed", blamedNames(blamed), "[leaf 5]")
	want(t, "the leaf", names(l, noon)[3], "-")
}

// Where nobody tells when a server accepts a token, one that has served for a
// minute was accepted.
func TestLedgerTokenThatHasServedWasAccepted(t *testing.T) {
	l := newTestLedger(t)
	now := noon
	refuse := func(stamp uint64, served time.Duration) string {
		leaf := login(t, l, stamp)
		leaf.issued = now
		now = now.Add(served)
		_, blamed, _ := l.refuse(l.graph.leaf, leaf.tok, now)
		return fmt.Sprint(blamedNames(blamed))
	}
	want(t, "at once", refuse(1, 30*time.Second), "[leaf 1]")
	want(t, "just short of a minute", refuse(2, servedLong-1), "[a 2 b 2]")
	want(t, "after a minute", refuse(3, servedLong), "[leaf 3]")
	want(t, "the next one at once", refuse(4, 30*time.Second), "[a 4 b 4]")
	leaf := login(t, l, 5)
	leaf.tok.accept()
	want(t, "once somebody tells", refuse(6, time.Hour), "[leaf 6]")
	want(t, "a minute proves nothing any more", refuse(7, time.Hour), "[a 7 b 7]")
}

// A token that is its parent's own is blamed on the parent, and from there up.
func TestLedgerBlamesTheParentWhoseTokenIsHandedOn(t *testing.T) {
	g := graphOf(t,
		Step{Name: "root"},
		Step{Name: "session", DependsOn: []string{"root"}},
		Step{Name: "middle", DependsOn: []string{"session"}},
		Step{Name: "leaf", DependsOn: []string{"middle"}},
	)
	l := newLedger(g)
	refuse := func(stamp uint64) string {
		var h *held
		for _, s := range g.steps {
			var parents []*held
			if h != nil {
				parents = []*held{h}
			}
			access := fmt.Sprint(s.Name, stamp)
			if s.Name == "middle" || s.Name == "leaf" {
				access = h.tok.AccessToken
			}
			h = made(l, s.Name, stamp, parents...)
			h.tok.AccessToken = access
			h.tok.prov = newProvenance(h.tok)
			h.tok.prov.origin = h
			l.keep(h, l.now())
		}
		_, blamed, _ := l.refuse(l.graph.leaf, h.tok, noon)
		return fmt.Sprint(blamedNames(blamed))
	}
	want(t, "the first", refuse(1), "[session 1]")
	want(t, "the second", refuse(2), "[root 2]")
}

// An API that takes each token once proves each refusal by a replay.
func TestLedgerProvenRefusalsAreBoundedToo(t *testing.T) {
	l := newTestLedger(t)
	n := 0
	for i := range 2000 {
		leaf := login(t, l, uint64(i+1))
		leaf.tok.accept()
		if _, blamed, _ := l.refuse(l.graph.leaf, leaf.tok, noon.Add(time.Duration(i)*5*time.Millisecond)); blamed != nil {
			n++
			l.refund(leaf)
		}
	}
	want(t, "in 10 s", n, allSize+9)
}

func TestLedgerIgnoresTooManyRefusals(t *testing.T) {
	l := newTestLedger(t)
	stamp := uint64(0)
	refuse := func() string {
		stamp++
		leaf := login(t, l, stamp)
		leaf.tok.accept()
		of, blamed, _ := l.refuse(l.graph.leaf, leaf.tok, noon)
		return fmt.Sprint(of.step.Name, " ", len(blamed))
	}
	for range unprovenSize {
		want(t, "affordable", refuse(), "leaf 1")
	}
	want(t, "one too many", refuse(), "leaf 0")
	l.refund(l.newest(l.graph.leaf))
	want(t, "after a refund", refuse(), "leaf 1")
}

func TestLedgerAsksTheStorageOnlyInDoubt(t *testing.T) {
	l := newTestLedger(t)
	leaf := login(t, l, 1)
	want(t, "the leaf alone would die", l.doubt(l.graph.leaf, leaf.tok, false, noon), (*step)(nil))
	l.entries[l.graph.leaf.index].refusals.row = 1
	want(t, "the second in a row", l.doubt(l.graph.leaf, leaf.tok, false, noon), leaf.step)
	for l.entries[l.graph.leaf.index].refusals.take(noon) {
	}
	want(t, "nothing affordable", l.doubt(l.graph.leaf, leaf.tok, false, noon), (*step)(nil))
	want(t, "a stranger's", l.doubt(l.graph.leaf, &Token{AccessToken: "x"}, false, noon.Add(time.Hour)), (*step)(nil))
	root := l.current(l.graph.step("root"), nil, noon)
	want(t, "no ancestors", l.doubt(l.graph.leaf, root.tok, false, noon.Add(time.Hour)), (*step)(nil))
	leaf.tok.accept()
	want(t, "accepted", l.doubt(l.graph.leaf, leaf.tok, false, noon.Add(time.Hour)), (*step)(nil))
}

func TestLedgerFacts(t *testing.T) {
	l := newTestLedger(t)
	leaf := login(t, l, 1)
	l.revoke(l.graph.step("b"), 1)
	l.setFetching(l.graph.step("b"), true)
	bug := &AuthError{Err: errors.New("a bug")}
	l.forgive(l.graph.step("b"), bug, noon)
	l.fail(leaf.step, &AuthError{StatusCode: 503}, reading{}, l.now(), noon)
	all := l.facts(noon)
	want(t, "a", all[1].live, true)
	want(t, "b", fmt.Sprint(all[2].live, all[2].fetching, all[2].failure == nil, all[2].last.err == bug), "false true true true")
	want(t, "leaf", fmt.Sprint(all[3].token == leaf, all[3].live, all[3].failure.until.Sub(noon)), "true false 1s")
	all = l.facts(noon.Add(time.Second))
	want(t, "leaf, when it is due", fmt.Sprint(all[3].failure == nil, all[3].last.err.StatusCode), "true 503")
}

// Whatever happens in whatever order, in a shared ledger and two below it, the
// invariants of the ledger hold.
func TestLedgerKeepsItsInvariants(t *testing.T) {
	g := sharedDiamond(t)
	rapid.Check(t, func(t *rapid.T) {
		up := newLedger(g)
		all := []*ledger{up, newLedgerBelow(up), newLedgerBelow(up)}
		home := func(l *ledger, name string) *ledger { // of a step's tokens
			if name == "root" {
				return up
			}
			return l
		}
		stamp := map[*ledger]map[string]uint64{}
		var tokens []*held
		marks := map[*ledger]stamps{}
		for _, l := range all {
			marks[l], stamp[l] = *l.marks.Load(), map[string]uint64{}
		}
		epochs := map[*ledger]int{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			l := all[rapid.IntRange(1, 2).Draw(t, "ledger")]
			name := rapid.SampledFrom([]string{"root", "a", "b", "leaf"}).Draw(t, "step")
			s := g.step(name)
			h := home(l, name)
			switch rapid.SampledFrom([]string{"keep", "keep", "keep", "keep", "late", "revoke", "revoke all", "refuse", "accept", "forget", "bury", "load"}).Draw(t, "what") {
			case "keep":
				var parents []*held
				for _, p := range s.parents {
					if tok := home(l, p.Name).current(p, nil, noon); tok != nil {
						parents = append(parents, tok)
					}
				}
				if len(parents) < len(s.parents) {
					continue
				}
				begun, _ := h.beginSave(s, h.now())
				stamp[h][name] = max(stamp[h][name], begun.floor) + 1
				tok := made(h, name, stamp[h][name], parents...)
				if !h.keep(tok, h.now()) {
					t.Fatal("not kept")
				}
				tokens = append(tokens, tok)
			case "late":
				if len(tokens) > 0 {
					tok := tokens[rapid.IntRange(0, len(tokens)-1).Draw(t, "which")]
					tok.owner.(*ledger).keep(tok, epochs[tok.owner.(*ledger)])
				}
			case "revoke":
				h.revoke(s, uint64(rapid.IntRange(0, 8).Draw(t, "stamp")))
			case "revoke all":
				h.revokeAll(s)
				if tok := h.current(s, nil, noon); tok != nil {
					t.Fatalf("%s outlived revokeAll", tok.tok.AccessToken)
				}
			case "refuse", "accept":
				if len(tokens) == 0 {
					continue
				}
				tok := tokens[rapid.IntRange(0, len(tokens)-1).Draw(t, "which")]
				if rapid.Bool().Draw(t, "accepted") {
					tok.tok.accept()
					continue
				}
				o := tok.owner.(*ledger)
				of, _, blamed := o.refuse(tok.step, tok.tok, noon.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "at"))*time.Second))
				if c := o.current(tok.step, nil, noon); c == tok && (of == nil || blamed) {
					t.Fatalf("%s is handed out after its refusal", tok.tok.AccessToken)
				}
			case "forget":
				h.forget(noon)
				epochs[h] = h.now()
				for _, s := range h.own() {
					if tok := h.current(s, nil, noon); tok != nil {
						t.Fatalf("%s outlived forget", tok.tok.AccessToken)
					}
				}
			case "bury":
				h.buried(s, Entry{Gone: uint64(rapid.IntRange(0, 8).Draw(t, "tombstone"))})
			case "load":
				f := finding{step: s, mark: uint64(rapid.IntRange(0, 8).Draw(t, "mark")), gone: uint64(rapid.IntRange(0, 8).Draw(t, "gone"))}
				for _, tok := range tokens {
					if tok.owner == owner(h) && tok.step == s && rapid.Bool().Draw(t, "this one") {
						f.tok = tok
					}
				}
				f.version = f.gone
				if f.tok != nil {
					f.version = f.tok.stamp()
				}
				h.takeOver(h.now(), []finding{f})
				epochs[h] = h.now()
				if tok := h.current(s, nil, noon); tok != nil && tok.stamp() <= f.gone {
					t.Fatalf("%s outlived the tombstone %d", tok.tok.AccessToken, f.gone)
				}
			}

			for _, l := range all {
				now := *l.marks.Load()
				for i, s := range g.steps {
					if now[i] < marks[l][i] {
						t.Fatalf("the mark of %s fell from %d to %d", s.Name, marks[l][i], now[i])
					}
					if !l.owns(i) {
						continue
					}
					e := l.entry(i)
					if e.gone > e.spent || e.gone > now[i] {
						t.Fatalf("a tombstone at %d, the mark at %d, spent %d", e.gone, now[i], e.spent)
					}
					if e.top < now[i] || e.token != nil && e.top < e.token.stamp() {
						t.Fatalf("the top of %s is %d, mark %d, token %v", s.Name, e.top, now[i], e.token)
					}
					h := l.ready(s)
					if h == nil {
						continue
					}
					if !h.stamps.above(now) || l.up != nil && !h.stamps.above(*l.up.marks.Load()) {
						t.Fatalf("%s is served, but dead by %v", h.tok.AccessToken, now)
					}
				}
				marks[l] = now
			}
		}
	})
}

// A caller may have looked before a flight failed, and begin the next one.
func TestFlightOfACallerWhoLookedBeforeAFailureAsksNobody(t *testing.T) {
	sent := 0
	p, err := NewPipeline(PipelineConfig{Steps: []Step{{Name: "user", Fetcher: FetcherFunc(func(context.Context, Input) (*Token, error) {
		sent++
		return nil, &AuthError{StatusCode: 401, Permanent: true}
	})}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Token(t.Context()); err == nil {
		t.Fatal("no error")
	}
	late := func(d demand) error {
		_, err := p.flights.flyUnlessCooling(t.Context(), p.graph.leaf, d)
		return err
	}
	if err := late(demand{}); err == nil || sent != 1 {
		t.Errorf("%v after %d requests, want the failure after 1", err, sent)
	}
	if err := late(demand{now: true}); err == nil || sent != 2 {
		t.Errorf("%v after %d requests, want a failure after 2", err, sent)
	}
}

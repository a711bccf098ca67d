// The ledger alone: no time but the one that is passed in, no storage, nothing to
// wait for.

package requestforge

import (
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
	cfg := PipelineConfig{Storage: NewMemoryStorage()}
	for _, s := range []Step{{Name: "root"}, {Name: "a", DependsOn: []string{"root"}}, {Name: "b", DependsOn: []string{"root"}}, {Name: "leaf", DependsOn: []string{"a", "b"}}} {
		s.Fetcher = &BodyFetcher{URL: "https://auth.example.com"}
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
	return newLedger(diamond(t), nil, time.Second, 30*time.Second)
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
	g := diamond(t)
	up := newLedger(g, nil, time.Second, time.Minute)
	root := made(up, "root", 1)
	up.keep(root, 0)
	one, two := newLedger(g, up, time.Second, time.Minute), newLedger(g, up, time.Second, time.Minute)
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
	if two.marks.Load() != marks || two.served[g.leaf.index].Load() != leaf {
		t.Error("a ledger below was touched")
	}

	// With the newer root a leaf is made anew, and served. A shared mark that
	// doesn't concern the leaf costs one look under the lock.
	leaf = below(two, 2, newer)
	up.keep(made(up, "root", 3), 0)
	if two.ready(g.leaf) != leaf {
		t.Error("the new leaf isn't served")
	}
	up.forget()
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
	epoch, begun := l.now(), l.beginLoad()
	l.fail(l.graph.leaf, &AuthError{}, noon)
	l.forget()
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
	if _, ok := l.takeOver(begun, []finding{{step: late.step, mark: 9, tok: late}}); ok {
		t.Error("a load of an earlier epoch was taken over")
	}
	want(t, "the marks after late results", *l.marks.Load(), "[3 3 3 3]")
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
	if l.refreshable(h.step) != nil {
		t.Error("a spent refresh token is offered")
	}
	h = made(l, "root", 2)
	h.tok.RefreshToken = "next"
	l.keep(h, 0)
	l.revoke(h.step, 2)
	if l.refreshable(h.step) != h {
		t.Error("a refresh token has died with its access token")
	}
	l.forget()
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
	lost, ok := l.takeOver(l.beginLoad(), []finding{{step: root}, {step: leaf.step, mark: 1}})
	want(t, "marks to be written back", fmt.Sprintf("%v %d %s %d", ok, len(lost), lost[0].step.Name, lost[0].mark), "true 1 root 1")
	want(t, "mark of the leaf", (*l.marks.Load())[leaf.step.index], 1)
	want(t, "after lower marks", names(l, noon), "[root-2 a-2 b-2 leaf-2]")

	// The same token loaded again: the one that is known stays, since it is
	// known whether a server has accepted it.
	again := made(l, "leaf", 2)
	l.takeOver(l.beginLoad(), []finding{{step: leaf.step, mark: 1, tok: again}})
	if l.current(leaf.step, nil, noon) != leaf {
		t.Error("the same token was replaced")
	}

	// A logout by a peer kills what was known when the load began, and no more.
	begun := l.beginLoad()
	l.keep(made(l, "root", 3), 0)
	if lost, _ := l.takeOver(begun, []finding{{step: root, gone: true}}); lost != nil {
		t.Errorf("the mark of a logout would be written back: %v", lost)
	}
	want(t, "root after a logout", names(l, noon)[0], "root-3")
	want(t, "mark of root", (*l.marks.Load())[0], 2)
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
			l.takeOver(l.beginLoad(), []finding{{step: s, tok: h}})
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
	l.stampSaved(h2, 9, 12)
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
		f, inRow := l.fail(s, passing, noon)
		if f.until.Sub(f.at) != wait*time.Second || inRow != n+1 {
			t.Errorf("failure %d: %v, %d in a row", n+1, f.until.Sub(f.at), inRow)
		}
	}
	if err := l.cooling(s, noon.Add(29*time.Second)); err == nil || err.RetryAfter != time.Second {
		t.Errorf("a second before the end: %v", err)
	}
	if err := l.cooling(s, noon.Add(30*time.Second)); err != nil {
		t.Errorf("at the end: %v", err)
	}
	l.keep(made(l, "a", 1), 0)
	f, inRow := l.fail(s, passing, noon)
	want(t, "after a success", fmt.Sprint(f.until.Sub(f.at), inRow), "1s 1")

	for _, c := range []struct {
		err  AuthError
		want time.Duration
	}{
		{AuthError{Permanent: true}, 30 * time.Second},
		{AuthError{RetryAfter: time.Minute}, time.Minute},
		{AuthError{RetryAfter: time.Hour}, maxRetryAfter},
	} {
		want(t, fmt.Sprint(c), coolDown(&c.err, 0, time.Second, 30*time.Second), c.want)
	}
	want(t, "a hundred in a row", coolDown(&AuthError{}, 100, time.Hour, 5*time.Hour), 5*time.Hour)

	// A child fails with its parent, until the parent is due.
	leaf := l.graph.leaf
	l.inherit(leaf, s, noon)
	if err := l.cooling(leaf, noon); err == nil || err.Step != "a" {
		t.Errorf("inherited: %v", err)
	}
	if err := l.cooling(leaf, noon.Add(time.Second)); err != nil {
		t.Errorf("inherited, when the parent is due: %v", err)
	}
}

func TestLedgerPeersFailureIsCountedOnce(t *testing.T) {
	l := newTestLedger(t)
	s := l.graph.step("a")
	own, _ := l.fail(s, &AuthError{}, noon)
	slack := 250 * time.Millisecond
	l.failWith(s, &failure{&AuthError{}, noon, own.until.Add(slack)}, slack)
	want(t, "after its own came back", l.entries[s.index].failures.inRow, 1)
	l.failWith(s, &failure{&AuthError{}, noon, own.until.Add(2*slack + 1)}, slack)
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
	l.blamedInVain(s, time.Time{})
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
	blamed, _ := l.refuse(leaf.tok, next())
	want(t, "accepted", blamedNames(blamed), "[leaf 1]")
	blamed, _ = l.refuse(leaf.tok, next())
	want(t, "dead already", blamedNames(blamed), "[]")

	// One that nothing ever accepted was bad from the start: the first refusal
	// in a row blames the parents, the next one theirs, and so on.
	for i, blame := range []string{"[a 2 b 2]", "[root 3]", "[root 4]"} {
		leaf = login(t, l, uint64(2+i))
		blamed, _ = l.refuse(leaf.tok, next())
		want(t, "never accepted", blamedNames(blamed), blame)
	}
	leaf = login(t, l, 5)
	leaf.tok.accept()
	leaf = login(t, l, 6)
	blamed, _ = l.refuse(leaf.tok, next())
	want(t, "after an acceptance", blamedNames(blamed), "[a 6 b 6]")

	// By value, a stranger's token, and none.
	leaf = login(t, l, 7)
	leaf.tok.accept()
	blamed, _ = l.refuse(&Token{AccessToken: "leaf-6"}, next())
	want(t, "a stranger's", blamedNames(blamed), "[]")
	blamed, _ = l.refuse(&Token{AccessToken: "leaf-7"}, next())
	want(t, "by value", blamedNames(blamed), "[leaf 7]")
}

// A storage that has lost its stamps gives them out again. The refused token's
// stamp is dead all the same, also if the token was replaced by then.
func TestLedgerRefusedTokenStaysDeadAfterItWasReplaced(t *testing.T) {
	l := newTestLedger(t)
	old := login(t, l, 3)
	leaf := login(t, l, 4)
	blamed, ignored := l.refuse(old.tok, noon)
	if blamed != nil || ignored != nil {
		t.Errorf("the refusal of a replaced token cost %v %v", blamedNames(blamed), ignored)
	}
	want(t, "the mark", (*l.marks.Load())[leaf.step.index], 3)
	want(t, "the leaf", names(l, noon)[3], "leaf-4")
	for range bucketSize {
		if l.bucket.Empty(noon) || !l.bucket.Take(noon) {
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
	l.takeOver(l.beginLoad(), []finding{{step: stored.step, tok: stored}})
	if l.current(stored.step, nil, noon) != stored {
		t.Fatal("the loaded token isn't the newer one")
	}
	blamed, _ := l.refuse(own.tok, noon)
	want(t, "blamed", blamedNames(blamed), "[leaf 5]")
	want(t, "the leaf", names(l, noon)[3], "-")
}

func TestLedgerIgnoresTooManyRefusals(t *testing.T) {
	l := newTestLedger(t)
	stamp := uint64(0)
	refuse := func() (string, *step) {
		stamp++
		leaf := login(t, l, stamp)
		leaf.tok.accept()
		blamed, ignored := l.refuse(leaf.tok, noon)
		return fmt.Sprint(len(blamed)), ignored
	}
	for range bucketSize {
		if n, ignored := refuse(); n != "1" || ignored != nil {
			t.Fatalf("%s revoked, %v ignored", n, ignored)
		}
	}
	if n, ignored := refuse(); n != "0" || ignored != l.graph.leaf {
		t.Errorf("one too many: %s revoked, %v ignored", n, ignored)
	}
	l.refund()
	if n, ignored := refuse(); n != "1" || ignored != nil {
		t.Errorf("after a refund: %s revoked, %v ignored", n, ignored)
	}
}

func TestLedgerAsksTheStorageOnlyInDoubt(t *testing.T) {
	l := newTestLedger(t)
	leaf := login(t, l, 1)
	want(t, "never accepted", l.doubt(leaf.tok, noon), leaf.step)
	for l.bucket.Take(noon) {
	}
	want(t, "nothing affordable", l.doubt(leaf.tok, noon), (*step)(nil))
	want(t, "a stranger's", l.doubt(&Token{AccessToken: "x"}, noon.Add(time.Hour)), (*step)(nil))
	root := l.current(l.graph.step("root"), nil, noon)
	want(t, "no ancestors", l.doubt(root.tok, noon.Add(time.Hour)), (*step)(nil))
	leaf.tok.accept()
	want(t, "accepted", l.doubt(leaf.tok, noon.Add(time.Hour)), (*step)(nil))
}

func TestLedgerFacts(t *testing.T) {
	l := newTestLedger(t)
	leaf := login(t, l, 1)
	l.revoke(l.graph.step("b"), 1)
	l.setFetching(l.graph.step("b"), true)
	bug := &AuthError{Err: errors.New("a bug")}
	l.crashed(l.graph.step("b"), bug, noon)
	l.fail(leaf.step, &AuthError{StatusCode: 503}, noon)
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
	g := diamond(t)
	rapid.Check(t, func(t *rapid.T) {
		up := newLedger(g, nil, time.Second, time.Minute)
		all := []*ledger{up, newLedger(g, up, time.Second, time.Minute), newLedger(g, up, time.Second, time.Minute)}
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
			switch rapid.SampledFrom([]string{"keep", "keep", "keep", "keep", "late", "revoke", "revoke all", "refuse", "accept", "forget", "load"}).Draw(t, "what") {
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
				_, ignored := o.refuse(tok.tok, noon.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "at"))*time.Second))
				if c := o.current(tok.step, nil, noon); c == tok && ignored == nil {
					t.Fatalf("%s is handed out after its refusal", tok.tok.AccessToken)
				}
			case "forget":
				h.forget()
				epochs[h] = h.now()
				for _, s := range g.steps {
					if tok := h.current(s, nil, noon); tok != nil {
						t.Fatalf("%s outlived forget", tok.tok.AccessToken)
					}
				}
			case "load":
				begun := h.beginLoad()
				f := finding{step: s, mark: uint64(rapid.IntRange(0, 8).Draw(t, "mark")), gone: rapid.Bool().Draw(t, "gone")}
				for _, tok := range tokens {
					if tok.owner == owner(h) && tok.step == s && rapid.Bool().Draw(t, "this one") {
						f.tok = tok
					}
				}
				h.takeOver(begun, []finding{f})
			}

			for _, l := range all {
				now := *l.marks.Load()
				for i, s := range g.steps {
					if now[i] < marks[l][i] {
						t.Fatalf("the mark of %s fell from %d to %d", s.Name, marks[l][i], now[i])
					}
					e := l.entries[i]
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

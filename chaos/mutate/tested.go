// Faults that a run of load can't tell from bad luck, each noticed by tests of the
// package that the fault is in.

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// tested is a mutation that tests have to notice.
type tested struct {
	mutation
	module string // below the root module; "": the root itself
	tests  string // a regular expression for their names
}

var testedMutations = []tested{{
	mutation: mutation{
		name: "logout: a tombstone in the storage isn't heard",
		file: "pipeline_ledger.go",
		old:  "	for _, f := range found {\n		l.buryLocked(f.step, f.gone)\n",
		new:  "	for _, f := range found {\n",
	},
	tests: "TestPipelineLogoutHoldsInAllProcesses",
}, {
	mutation: mutation{
		name: "logout: a Save from before it lands",
		file: "storage_memory.go",
		old:  "	return e.gone() == 0 || e.gone() == seen\n",
		new:  "	return true\n",
	},
	tests: "TestPipelineFetchFromBeforeAPeersLogoutComesToNothing",
}, {
	mutation: mutation{
		name: "logout: one that fails is never told again",
		file: "pipeline_entry.go",
		old:  "	if !e.due && !lost {\n",
		new:  "	if !lost {\n",
	},
	tests: "TestPipelineLogoutThatFailsIsToldLater",
}, {
	mutation: mutation{
		name: "logout: a tool that ran on saves what a logout has ended",
		file: "filestorage/file.go",
		old:  "	return it.gone == 0 || it.gone == seen\n",
		new:  "	return true\n",
	},
	module: "filestorage",
	tests:  "TestLogout",
}, {
	mutation: mutation{
		name: "refresh tokens: an outcome that is open spends one",
		file: "pipeline_spent.go",
		old:  "	case auth.page || ambiguous(err):\n		return open\n",
		new:  "	case auth.page || ambiguous(err):\n		return spent\n",
	},
	tests: "TestPipelineRefreshTokenDiesOfItsOwnRefusal",
}, {
	mutation: mutation{
		name: "refresh tokens: one is sent without the lease",
		file: "pipeline_fetch.go",
		old:  "	if prev != nil && f.refreshable() != prev {\n",
		new:  "	if false {\n",
	},
	tests: "TestPipelineRefreshTokenIsNotSentAfterTheLeaseWasLost",
}, {
	mutation: mutation{
		name: "refresh tokens: any 4xx spends one",
		file: "pipeline_spent.go",
		old:  "	case condemns(auth):\n",
		new:  "	case condemns(auth) || auth.StatusCode >= 400 && auth.StatusCode < 500:\n",
	},
	tests: "TestPipelineRefreshTokenDiesOfItsOwnRefusal",
}, {
	mutation: mutation{
		name: "whose token: the key doesn't say",
		file: "pipeline_identity.go",
		old:  "	return key + \"@\" + hex.EncodeToString(h.Sum(nil)[:10])\n",
		new:  "	_ = hex.EncodeToString\n	return key\n",
	},
	tests: "TestAnotherIdentityFindsNothingOfTheOldOnesTokens",
}, {
	mutation: mutation{
		name: "whose token: callers who fail wait for the slow hash",
		file: "pipeline_shared.go",
		old:  "	if s.print.ready(f.read.sum) {\n",
		new:  "	if true {\n",
	},
	tests: "TestOutageMakesNoCallerWaitForASlowHash",
}, {
	mutation: mutation{
		name: "cool-down: it isn't checked inside the flight",
		file: "pipeline_flight.go",
		old:  "	if err := fs.cooling(ctx, s, d); err != nil {\n		return nil, err\n	}\n	if err := fs.mayAnswer",
		new:  "	if err := fs.mayAnswer",
	},
	tests: "TestFlightOfACallerWhoLookedBeforeAFailureAsksNobody",
}, {
	mutation: mutation{
		name: "secrets: a new one doesn't end the cool-down",
		file: "pipeline_flight.go",
		old:  "	if fs.renewed(ctx, f) {\n		return nil\n	}\n",
		new:  "",
	},
	tests: "TestNewSecretEndsTheCoolDown|TestNewSecretEndsTheCoolDownOfEachSubject",
}, {
	mutation: mutation{
		name: "secrets: a refused one isn't replaced",
		file: "pipeline_call.go",
		old:  "case !renewed && in.refused(err) && a.renewed(ctx, s, read, hanging):",
		new:  "case !renewed && in.refused(err) && a == nil:",
	},
	tests: "TestRefusedSecretIsReplacedOnce|TestSecretRotatedUnderLoad",
}, {
	mutation: mutation{
		name: "secrets: the print of a failure leaves them out",
		file: "pipeline_graph.go",
		old:  "return s.print.of(ctx, secrets, ",
		new:  "return s.print.of(ctx, sum{}, ",
	},
	tests: "TestCorrectedSecretEndsTheCoolDownInEveryProcess",
}, {
	mutation: mutation{
		name: "cool-down: every crash is forgiven",
		file: "pipeline_failure.go",
		old:  "	if f.crash {\n",
		new:  "	if false {\n",
	},
	tests: "TestPipelineCrashIsForgivenOnce",
}, {
	mutation: mutation{
		name: "cool-down: tokens that are dead on arrival leave none",
		file: "pipeline_fetch.go",
		old:  "	return nil, f.failed(ctx, &AuthError{Step: s.Name, Err: errChurn})\n",
		new:  "	return nil, &AuthError{Step: s.Name, Err: errChurn}\n",
	},
	tests: "TestPipelineTokenDeadOnArrivalLeavesACoolDown",
}, {
	mutation: mutation{
		name: "blame: it starts above the leaf",
		file: "pipeline_blame.go",
		old:  "	return d, true\n",
		new:  "	return d + 1, true\n",
	},
	tests: "TestPipelineRevocationsOutsideHTTPCostTheLeafAlone",
}, {
	mutation: mutation{
		name: "blame: no bucket",
		file: "pipeline_blame.go",
		old:  "	if !r.take(now) {",
		new:  "	if !r.take(now) && false {",
	},
	tests: "TestAuthRefusingForEverIsBounded|TestLedgerIgnoresTooManyRefusals",
}, {
	mutation: mutation{
		name: "blame: nothing bounds refusals that replays have proven",
		file: "pipeline_blame.go",
		old:  " && r.unproven.Take(now) && r.all.Take(now)\n",
		new:  " && r.unproven.Take(now)\n",
	},
	tests: "TestAuthAPIThatTakesEachTokenOnceIsBounded",
}, {
	mutation: mutation{
		name: "blame: a young token isn't waited for",
		file: "pipeline_blame.go",
		old:  "return !r.vain && h.young(now) }",
		new:  "return false }",
	},
	tests: "TestAuthTokenThatTheAPIDoesntKnowYetIsSentAgain",
}, {
	mutation: mutation{
		name: "blame: an auth server that takes a token speaks for the API",
		file: "pipeline_fetch.go",
		old:  "h.takenAt.Store(time.Now().UnixNano())",
		new:  "h.tok.prov.accepted.Store(true)",
	},
	tests: "TestSourceTokenThatServesAsAParentIsNotAccepted",
}, {
	mutation: mutation{
		name: "any step's token: other processes count for the leaf's alone",
		file: "pipeline_sweep.go",
		old:  "	for _, f := range l.facts(now) {\n",
		new:  "	for i, f := range l.facts(now) {\n		if l.own()[i] != l.graph.leaf {\n			continue\n		}\n",
	},
	tests: "TestSourceSeesWhatOtherProcessesRevoke",
}, {
	mutation: mutation{
		name: "Use: an accepted second call proves nothing",
		file: "use.go",
		old:  "		toRefund.Pay()\n",
		new:  "",
	},
	tests: "TestUseTellsOfAcceptances",
}, {
	mutation: mutation{
		name: "contexts: one kept from a fetch stays marked",
		file: "pipeline_fetch.go",
		old:  "	defer f.mark.over.Store(true)\n",
		new:  "",
	},
	tests: "TestPipelineContextKeptFromAFetchWorksLikeAnyOther",
}, {
	mutation: mutation{
		name: "hooks: one that hangs holds the flight",
		file: "pipeline_log.go",
		old:  "	timer := time.AfterFunc(left, func() {\n",
		new:  "	timer := time.AfterFunc(100*left, func() {\n",
	},
	tests: "TestPipelineHookThatHangsEndsWithTheFlight",
}, {
	mutation: mutation{
		name: "storages: a lease waits for other calls that hang",
		file: "pipeline_store.go",
		old:  "	s.leases.hanging = flight.NewLimit(maxHanging)\n",
		new:  "	s.leases.hanging = s.hanging\n",
	},
	tests: "TestPipelineLeaseIsGivenBack",
}, {
	mutation: mutation{
		name: "hooks: a logger's panic isn't caught",
		file: "pipeline_log.go",
		old:  "	_, _ = flight.Bounded(bound, e.hangs, func(",
		new:  "	run := func(f func(context.Context) (struct{}, error), _ any) { _, _ = f(bound) }\n	run(func(",
	},
	tests: "TestPipelineLoggerThatPanicsEndsNothing",
}, {
	mutation: mutation{
		name: "Close: fetches that nobody waits for go on",
		file: "internal/flight/flight.go",
		old:  "		flights[i].Close()\n",
		new:  "		_ = i\n",
	},
	tests: "TestPipelineCloseEndsFetchesThatNobodyWaitsFor",
}, {
	mutation: mutation{
		name: "subjects: the key says not whose",
		file: "subject_id.go",
		old:  "	h.Write([]byte(id))\n",
		new:  "",
	},
	tests: "TestSubjectsForgetIsTheirOwn",
}, {
	mutation: mutation{
		name: "subjects: parts are joined without their lengths",
		file: "subject_id.go",
		old:  "		b.WriteByte(':')\n",
		new:  "		b.Reset()\n",
	},
	tests: "TestSubjectIDsDoNotCollide",
}, {
	mutation: mutation{
		name: "subjects: a revoked shared token condemns nobody's",
		file: "pipeline_ledger.go",
		old:  "	if h != nil && l.up != nil && l.up.marks.Load() != h.checked.Load() {\n",
		new:  "	if false {\n",
	},
	tests: "TestSubjectsShareTheMarksOfSharedSteps",
}, {
	mutation: mutation{
		name: "subjects: one's refusal by the auth server condemns what all share",
		file: "pipeline_parents.go",
		old:  "		if certain || fs.of(h.step) == fs {\n",
		new:  "		{\n",
	},
	tests: "TestSpuriousRefusalOfOneSubjectsExchangeHarmsNobody",
}, {
	mutation: mutation{
		name: "subjects: a refusal is forgotten with who was dropped",
		file: "pipeline_refusal.go",
		old:  "		p.succeed(ctx, fs, own, h)\n",
		new:  "",
	},
	tests: "TestRefusalOfADroppedSubjectIsRememberedWhereTheStorageDoesNotKnow|TestRefusalsOfADroppedSubjectClimbTheLadder|TestBoundsOfADroppedSubjectStay",
}, {
	mutation: mutation{
		name: "subjects: a request that is sent again keeps nobody in memory",
		file: "pipeline_refusal.go",
		old:  "	defer func() { refund.Hold(ctx, leave) }()\n",
		new:  "	defer leave()\n",
	},
	tests: "TestUseAfterItsSubjectWasDropped",
}, {
	mutation: mutation{
		name: "subjects: the trouble of who is dropped is forgotten",
		file: "pipeline_subject.go",
		old:  "		if s.troubled() {\n",
		new:  "		if false {\n",
	},
	tests: "TestSharedTokenIsReplacedThoughEverybodyIsDroppedInTurn",
}, {
	mutation: mutation{
		name: "a parent that a peer saved before the refusal proves the parents good",
		file: "pipeline_parents.go",
		old:  " && (h.loaded || h.issued.Before(r.at))\n",
		new:  " && false\n",
	},
	tests: "TestReplacedParentThatIsOlderThanTheRefusalProvesNothing",
}, {
	mutation: mutation{
		name: "subjects: one suspects what all share without end",
		file: "pipeline_blame.go",
		old:  "	s.next = now.Add(s.wait)\n",
		new:  "",
	},
	tests: "TestSubjectWhoIsRefusedForEverHarmsNobody",
}, {
	mutation: mutation{
		name: "subjects: one with a fetch under way is dropped",
		file: "pipeline_subject.go",
		old:  "		if s.pinned(ss.own != nil) {\n",
		new:  "		if false {\n",
	},
	tests: "TestSubjectThatCannotBeDroppedStays",
}, {
	mutation: mutation{
		name: "subjects: a shared fetch sees its caller's values",
		file: "pipeline_flight.go",
		old:  "	ctx, stop := fs.carry.context(ctx)\n	defer stop()\n	return",
		new:  "	return",
	},
	tests: "TestSharedStepSeesNoCallersValues",
}, {
	mutation: mutation{
		name: "subjects: a given token doesn't bound what is made from it",
		file: "pipeline_fetch.go",
		old:  ", until: until(parents)}",
		new:  "}",
	},
	tests: "TestGivenTokenBoundsWhatIsMadeFromIt",
}, {
	mutation: mutation{
		name: "subjects: a replay goes on with another's token",
		file: "token.go",
		old:  " && !t.another(next)\n",
		new:  "\n",
	},
	tests: "TestReplayGoesOnWithNobodyElsesToken",
}, {
	mutation: mutation{
		name: "subjects: as many fetches at once as there are",
		file: "pipeline.go",
		old:  "slots: slot.New(cfg.MaxFetches), events",
		new:  "slots: slot.New(0), events",
	},
	tests: "TestMaxFetchesBoundsRequestsAndNothingElse",
}, {
	mutation: mutation{
		name: "words: gob writes a token",
		file: "token.go",
		old:  "func (t Token) GobEncode() ([]byte, error) { return nil, format.ErrGob }\n",
		new:  "var _ = format.ErrGob\n",
	},
	tests: "TestNoEncodingShowsASecret",
}, {
	mutation: mutation{
		name: "words: a peer's failure is believed word by word",
		file: "pipeline_failure.go",
		old:  "	e := (&AuthError{Step: step, Err: errPeer}).withCode(f.Code)\n",
		new:  "	e := &AuthError{Step: step, Err: errPeer, Code: f.Code}\n",
	},
	tests: "TestSharedFailureIsCheckedLikeAnAnswer",
}, {
	mutation: mutation{
		name: "Redis: a Save from before a logout lands",
		file: "redisstorage/scripts.go",
		old:  "  return gone == 0 or gone == seen\n",
		new:  "  return true\n",
	},
	module: "redisstorage",
	tests:  "^TestStorage",
}, {
	mutation: mutation{
		name: "Redis: a value is read whole, however long",
		file: "redisstorage/scripts.go",
		old:  "    if redis.call('HSTRLEN', key, name) > longest then return '' end\n",
		new:  "",
	},
	module: "redisstorage",
	tests:  "TestHugeValuesAreNotRead",
}}

// notice runs the tests of a mutation, first without and then with it, and returns what
// is wrong if they don't notice it.
func (m *mutator) notice(i int, mut tested) (wrong string, err error) {
	overlay, err := m.overlay(fmt.Sprintf("tested%d", i+1), mut.mutation)
	if err != nil {
		return "", err
	}
	if out, err := mut.test(""); err != nil {
		return "", fmt.Errorf("its tests fail without it: %w\n%s", err, out)
	}
	out, err := mut.test(overlay)
	switch {
	case err == nil:
		return "its tests pass:\n" + out, nil
	case strings.Contains(out, "test timed out"):
		return "its tests hang:\n" + out, nil
	case !strings.Contains(out, "--- FAIL: ") && !strings.Contains(out, "panic: "):
		return "", fmt.Errorf("no test has run: %w\n%s", err, out)
	}
	return "", nil
}

// test runs the tests of a mutation with an overlay; "": without one.
func (mut *tested) test(overlay string) (out string, err error) {
	args := []string{"test", "-count=1", "-timeout=5m", "-run", mut.tests}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Dir = filepath.Join("..", mut.module)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

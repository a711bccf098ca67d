# The checks of the repository. They need Go, git, make, a C compiler and
# redis-server, which is installed if that can be done: as root, with apt.
#
#	make test                 everything that must pass
#	make soak                 the tests that take real time: fleets of processes, faults under load
#	make conformance          net/http's own tests, through the whole stack
#	make chaos SEED=7         a minute in which everything goes wrong, judged
#	make mutations            the same, with faults put into the code: each is noticed
#	make fuzz FUZZTIME=1m     every fuzz target, one after another
#	make interop              inside real SDKs, and with real auth servers; needs Node.js and npm, too
#	make browser              the page of forgez in headless Chromium; needs npm, too
#	make release-check        whether a release would work, and strangers could install it
#	make bench                side by side with the peers, on a machine with nothing else to do
#	make nightly              the long forms of all of it
#	make readme               write the Go blocks of the Markdown files anew
#
# Each part of test is a target of its own: make vet, make race, ...

SHELL    := /bin/sh
GO       := go
FUZZTIME := 20s
SEED     := 1

PARTS := servers format vet staticcheck imports rooms tests markdown promises

# git lists what is committed and what will be. The option lets it work in a
# clone that belongs to somebody else, as a mounted one does; make's wildcard
# drops what is deleted but still in the index. What lies below a testdata is
# left out: it may be wrong on purpose.
LIST  := git -c safe.directory=$(CURDIR) ls-files --cached --others --exclude-standard
FILES := $(sort $(wildcard $(shell $(LIST))))
FILES := $(foreach f,$(FILES),$(if $(findstring /testdata/,/$(f)),,$(f)))

# Every go.mod makes its folder a module to be checked. Those in APART take much
# to download and build, or servers that not everybody has, and have a target of
# their own.
APART    := interop forgez/browser
MODULES  := $(patsubst %/,%,$(dir $(filter go.mod %/go.mod,$(FILES))))
MODULES  := $(filter-out $(APART),$(MODULES))
GOFILES  := $(filter %.go,$(FILES))
MARKDOWN := $(filter %.md,$(FILES))

BIN  := $(CURDIR)/.cache/bin
RUNS := $(CURDIR)/.cache/runs

# What is built with the race detector sleeps for a second before its end unless it
# is told not to: a second for each package, and for each process that a test starts.
export GORACE := atexit_sleep_ms=0 $(GORACE)

# Without the path of the clone in them, what was built, vetted and tested in one clone
# needn't be again in the next.
export GOFLAGS := -trimpath $(filter-out -trimpath,$(shell $(GO) env GOFLAGS))

# gotestsum runs go test, prints what it prints and keeps the records that
# promises reads. $(1) is the name of the run, $$m the module.
gotest = $(BIN)/gotestsum --format standard-quiet --hide-summary skipped \
	--jsonfile "$(RUNS)/$(1)-$$(echo $$m | tr / -).json" --

# $(1) at once of the targets $(2).
at-once = @printf '%s\n' $(2) | xargs -n 1 -P $(1) $(MAKE) --no-print-directory

.PHONY: test tests race allocs soak release-check unpublished conformance chaos mutations fuzz interop browser bench nightly readme tools $(PARTS)
.NOTPARALLEL:

test:
	@begin=$$(date +%s); \
	for part in $(PARTS); do \
		echo "== $$part"; \
		start=$$(date +%s); \
		$(MAKE) --no-print-directory $$part || { echo "== $$part failed"; exit 1; }; \
		echo "== $$part: $$(($$(date +%s) - start)) s"; \
	done; \
	echo "== all of $(words $(MODULES)) modules passed in $$(($$(date +%s) - begin)) s"

servers:
	@command -v redis-server >/dev/null || { echo "the tests need redis-server 7.0 or later"; tools/apt-install.sh redis-server; }

format:
	@list=$$(gofmt -l $(GOFILES)) || exit 1; \
	if [ -n "$$list" ]; then echo "not as gofmt would have it:"; echo "$$list"; exit 1; fi

# With the tag they see what test runs, and what soak does.
vet:
	$(call at-once,2,$(MODULES:%=vet/%))

vet/%:
	@cd $* && $(GO) vet -tags soak ./...

staticcheck: tools
	$(call at-once,2,$(MODULES:%=staticcheck/%))

staticcheck/%:
	@cd $* && $(BIN)/staticcheck -tags soak ./...

# Every module but these has releases of its own, and so may not import what is
# internal to the root.
UNPUBLISHED := benchmarks,chaos,conformance,forgez/browser,interop,shapes,tools

imports: tools
	@$(BIN)/imports -unpublished $(UNPUBLISHED) .

# Of the root: which files refer to each other, which lock what, which functions
# have too many branches.
rooms: tools
	@$(BIN)/rooms -max-mutual 5 -max-cycle 4 -max-lockers 1 -max-complexity 15 . >/dev/null

# In CI every test runs, in an order of its own. At home go test leaves out what passed
# before and hasn't changed since, unless it is told not to: make test ANEW=-count=1.
ANEW := $(if $(CI),-count=1 -shuffle=on)

# Tests that are parallel wait for servers and other processes most of the time,
# so that more of them may run than there are cores, and four modules at once. Those
# that take longest begin.
FIRST := . redisstorage chaos benchmarks
ORDER := $(filter $(MODULES),$(FIRST)) $(filter-out $(FIRST),$(MODULES))

race: tools
	@rm -rf $(RUNS) && mkdir -p $(RUNS)
	$(call at-once,4,$(ORDER:%=race/%))

# The tests of module $$m that race leaves out, and go test has with $$flags: go list says
# in which files they are. No other test is run. $$run names the run.
define LEFTOUT
cd $$m || exit 1
ignored='{{$$d := .Dir}}{{range .IgnoredGoFiles}}{{$$d}}/{{.}}{{"\n"}}{{end}}'
race=$$($(GO) list -race -f "$$ignored" ./...) || exit 1
still=$$($(GO) list $$flags -f "$$ignored" ./...) || exit 1
files=$$(echo "$$race" | grep '_test\.go$$' | grep -vxF "$$still")
[ -n "$$files" ] || exit 0
tests=$$(sed -n 's/^func \(Test[A-Za-z0-9_]*\)(.*/\1/p' $$files | sort -u | paste -sd '|' -)
[ -n "$$tests" ] || exit 0
packages=$$(for f in $$files; do echo .$${f#"$$PWD"}; done | xargs -n 1 dirname | sort -u)
$(call gotest,$$run) $$flags $$anew -timeout=20m -run "^($$tests)\$$" $$packages
endef
export LEFTOUT

# The race detector allocates, so that tests which count allocations are built
# without it only, and so are those whose numbers are so large that they would
# take most of the time: their files begin with //go:build !race.
allocs: tools
	@mkdir -p $(RUNS) && rm -f $(RUNS)/allocs-*
	$(call at-once,4,$(ORDER:%=allocs/%))

# Both, so that what is short fills the cores until the longest ends.
tests: tools
	@rm -rf $(RUNS) && mkdir -p $(RUNS)
	$(call at-once,4,$(ORDER:%=race/%) $(ORDER:%=allocs/%))

# One module's part: make race/redisstorage.
race/%:
	@m=$*; cd $$m && $(call gotest,race) -race $(ANEW) -parallel=4 ./...

allocs/%:
	@m=$* run=allocs flags= anew='$(ANEW)' sh -c "$$LEFTOUT"

soak/%:
	@m=$* run=soak flags='-race -tags soak' anew='-count=1 -shuffle=on' sh -c "$$LEFTOUT"

# Those that take many processes, or real time, begin with //go:build soak.
soak: servers tools
	@mkdir -p $(RUNS) && rm -f $(RUNS)/soak-*
	$(call at-once,1,$(ORDER:%=soak/%))
	@$(BIN)/promises SOAK.md $(RUNS)/soak-*.json

markdown: tools
	@$(BIN)/readmecheck $(MARKDOWN)

# promises judges the runs that tests has left behind.
promises: tools
	@$(BIN)/promises PROMISES.md $(RUNS)/race-*.json $(RUNS)/allocs-*.json

readme: tools
	@$(BIN)/readmecheck -w $(MARKDOWN)

# Ours, one after another; the stack is part of .ci/run.
WRAPS := auth query cookie bare retry logging reversed foreign options pipeline default-retry

# In a scratch clone of what is committed: tags, a module proxy of them, and a stranger
# who installs every module.
release-check: tools
	@$(BIN)/release -check -unpublished $(UNPUBLISHED)

unpublished:
	@echo $(UNPUBLISHED)

conformance:
	@CONFORMANCE_CACHE=$(CURDIR)/.cache/conformance conformance/run.sh conformance/wraps/stack

chaos:
	@$(GO) run -C chaos . -seed $(SEED) -for 60s -requests 50000

mutations:
	@$(GO) run -C chaos ./mutate

# What test does for the other modules, after the servers are there. The programs that start
# the servers find them beside their own source, whose path has to be in what is built.
interop: export GOFLAGS := $(filter-out -trimpath,$(GOFLAGS))
interop: tools
	@interop/setup.sh
	@cd interop && $(GO) vet ./... && $(BIN)/staticcheck ./...
	@mkdir -p $(RUNS) && rm -f $(RUNS)/interop-*
	@m=interop; cd interop && $(call gotest,interop) -race -shuffle=on ./...
	@$(BIN)/promises interop/PROMISES.md $(RUNS)/interop-*.json

# Likewise, after Chromium and axe-core are there.
browser: tools
	@forgez/browser/setup.sh
	@cd forgez/browser && $(GO) vet ./... && $(BIN)/staticcheck ./...
	@mkdir -p $(RUNS) && rm -f $(RUNS)/browser-*
	@m=forgez/browser; cd $$m && $(call gotest,browser) -count=1 -shuffle=on -parallel=4 ./...
	@$(BIN)/promises forgez/browser/PROMISES.md $(RUNS)/browser-*.json

bench:
	@$(GO) run -C benchmarks . -rounds 30
	@cd benchmarks && $(GO) tool benchstat -col /impl -filter '.unit:(sec/op OR allocs/op)' samples/live.txt

nightly: test soak conformance chaos mutations interop browser
	@$(MAKE) --no-print-directory chaos SEED=$$(date +%s)
	@CONFORMANCE_CACHE=$(CURDIR)/.cache/conformance conformance/run.sh $(WRAPS:%=conformance/wraps/%)
	@$(MAKE) --no-print-directory fuzz FUZZTIME=5m
	@$(GO) test -run 'ModelOften$$' -rapid.checks=5000 -timeout=1h .
	@for m in $(MODULES); do \
		(cd $$m && $(GO) test -race -shuffle=on -count=3 -timeout=2h ./...) || exit 1; \
	done

# Up to Go 1.26 a fuzz run now and then takes the end of its time for a failure
# (golang.org/issue/75804). What fails for real has written down an input.
fuzz:
	@mkdir -p $(RUNS)
	@for m in $(MODULES); do ( \
		cd $$m; \
		list=$$($(GO) test -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
		echo "$$list" | awk '/^Fuzz/ { name[++n] = $$1 } /^ok/ { for (i = 1; i <= n; i++) print $$2, name[i]; n = 0 }' | \
		while read -r package target; do \
			echo "== $$package $$target"; \
			if ! $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null >"$(RUNS)/fuzz.log" 2>&1; then \
				cat "$(RUNS)/fuzz.log"; \
				grep -q 'context deadline exceeded' "$(RUNS)/fuzz.log" && ! grep -q 'Failing input' "$(RUNS)/fuzz.log" || exit 1; \
				echo "no input failed: this is the end of -fuzztime, golang.org/issue/75804"; \
			fi; \
			tail -n 3 "$(RUNS)/fuzz.log"; \
		done \
	) || exit 1; done

# Each at the version that tools/go.mod names; go install rebuilds only what
# has changed.
tools:
	@cd tools && GOBIN=$(BIN) $(GO) install -buildvcs=false tool ./...

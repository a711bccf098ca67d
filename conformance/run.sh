#!/usr/bin/env bash
# usage: run.sh WRAPDIR... [-j N] [-strict] [-refresh] [-v] [go test flags]
# Exit status: 0 as it should be, 1 regressions or stale explanations, 2 the
# harness could not do its work (go run alone would make 1 of every failure).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
GOWORK=off go build -C "$here" -o "$bin/conformance" .
status=0
"$bin/conformance" "$@" || status=$?
exit "$status"

#!/bin/sh
# Installs what the servers of this module need and Go doesn't bring: the
# modules of oidc-provider, by npm, and Debian's docker-registry, by apt. What is
# there already is left alone. Node has to be there.
set -eu
cd "$(dirname "$0")"

fail() {
	echo "interop: $*" >&2
	exit 1
}

node=$(node --version 2>/dev/null) || fail "oidc-provider needs Node.js 20.19 or later, with npm: install them"
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || a === 20 && b >= 19 ? 0 : 1)' ||
	fail "oidc-provider needs Node.js 20.19 or later; this is $node"

# npm leaves a copy of the lock behind when it is done.
(
	cd servers/oidcprovider
	[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --ignore-scripts
)

command -v docker-registry >/dev/null && exit 0
echo "interop: the tests need docker-registry 2.8 or later" >&2
exec ../tools/apt-install.sh docker-registry

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
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	fail "the tests need docker-registry 2.8 or later: apt-get install docker-registry"
fi
# Without a policy that says no, Debian starts what it installs; the tests start
# servers of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends docker-registry >/dev/null

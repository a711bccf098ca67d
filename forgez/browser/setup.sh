#!/bin/sh
# Installs what the tests of this module need and Go doesn't bring: axe-core, by npm, and
# Debian's Chromium, by apt. What is there already is left alone. npm has to be there.
set -eu
cd "$(dirname "$0")"

fail() {
	echo "forgez/browser: $*" >&2
	exit 1
}

# npm leaves a copy of the lock behind when it is done.
if ! [ node_modules/.package-lock.json -nt package-lock.json ]; then
	command -v npm >/dev/null || fail "axe-core comes from npm: install Node.js with npm"
	npm ci --no-audit --no-fund --ignore-scripts
fi

for name in chromium chromium-browser google-chrome; do
	command -v $name >/dev/null && exit 0
done
echo "forgez: the tests need Chromium" >&2
exec ../../tools/apt-install.sh chromium fonts-dejavu-core

#!/bin/sh
# Installs Debian packages: as root, where there is apt. Otherwise it says what to install,
# and fails.
#
#	tools/apt-install.sh PACKAGE...
#
# Nothing that it installs is started: the tests start servers of their own.
set -eu

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "install what is missing, here as root: apt-get install $*" >&2
	exit 1
fi

# Without a policy that says no, Debian starts what it installs.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@" >/dev/null

#!/bin/sh
# Makes sure that Debian packages are installed.
#
# Usage: need.sh PACKAGE...
#
# As root it installs what is missing; as anyone else it prints the one line to run and fails.
# Plain sh: on a fresh machine this is what installs python3.
set -eu

missing=
for package in "$@"; do
  # The query prints "install ok installed" for an installed package, and fails for an unknown one.
  case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || :) in
    *" ok installed") ;;
    *) missing="$missing $package" ;;
  esac
done
if [ -z "$missing" ]; then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "need.sh: no apt-get here; install by other means:$missing" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "sudo apt-get install -y --no-install-recommends$missing" >&2
  exit 1
fi

# redis-server's package starts a daemon when it is installed. A policy-rc.d that answers 101
# forbids that; one that is there already is the administrator's and stays as it is.
policy=/usr/sbin/policy-rc.d
policy_is_ours=
log=$(mktemp)
cleanup() {
  rm -f "$log"
  if [ -n "$policy_is_ours" ]; then
    rm -f "$policy"
  fi
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$policy" ]; then
  policy_is_ours=1
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
echo "installing:$missing"
# A failed update is not yet a failure: one broken source in the list must not stop the others.
apt-get -q -o DPkg::Lock::Timeout=300 update >"$log" 2>&1 || cat "$log" >&2
# shellcheck disable=SC2086  # one word a package
if ! apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $missing \
    </dev/null >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi

#!/usr/bin/env bash
# usage: tests/setup.sh [demo|tests]
#
# Installs what the demo (default) or the tests need on a fresh Debian 12, as root. Run it as often as you like: what
# is there already is left alone. Nothing is started, and no system service is left running.
#
#   demo   Debian packages: redis-server and redis-tools (7.0), a C compiler, curl
#   tests  also: Ceph's radosgw (the S3 server of the tests) and, where they can be had, Redis 8 and Valkey 9, unpacked
#          from a later Debian suite into $BACKUPD_SERVERS_DIR (default target/servers), where they disturb nothing;
#          and cargo-deny
set -euo pipefail
PART=setup
. "$(dirname "$0")/lib.sh"
WANT=${1:-demo}
case $WANT in demo | tests) ;; *) die "usage: tests/setup.sh [demo|tests]" ;; esac

# Suite that the servers of the tests come from, and the number to raise when a recipe below changes.
SUITE=forky
RECIPE=1
CARGO_DENY=0.20.2

PACKAGES=(redis-server redis-tools gcc libc6-dev make curl ca-certificates)
[ "$WANT" = tests ] && PACKAGES+=(patchelf python3 debian-archive-keyring)

missing_packages() {
  local package
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || echo "$package"
  done
}

# Debian starts a service when its package is installed, unless policy-rc.d says no.
install_packages() {
  local policy=/usr/sbin/policy-rc.d status=0
  apt-get -q update || echo "apt-get update had errors; going on with what it could read"
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  else
    policy=
  fi
  DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@" || status=$?
  [ -z "$policy" ] || rm -f "$policy"
  case " $* " in
    *" redis-server "*)
      if [ -d /run/systemd/system ]; then systemctl disable --now redis-server || true; fi ;;
  esac
  return "$status"
}

# stamped NAME COMMAND...: runs the command unless it succeeded before with this recipe.
stamped() {
  local stamp=$SERVERS/.done-$1-$RECIPE
  shift
  [ -e "$stamp" ] || { "$@" && touch "$stamp"; }
}

unpack_ceph() {
  run_step setup-ceph "Ceph radosgw of Debian $SUITE, unpacked into $SERVERS/ceph (about 0.6 GB)" \
    "$REPO/tests/servers/unpack.sh" $SUITE "$SERVERS/ceph" radosgw ceph-mon ceph-osd \
    -- radosgw radosgw-admin ceph-mon ceph-osd monmaptool ceph-authtool python3
}

# The other engines are a bonus: where the suite no longer has one, that is recorded and the tests of it say so.
unpack_engine() {
  local name=$1 package=$2 cli=$3
  rm -f "$SERVERS/not-installed-$name"
  if ! run_step "setup-$name" "$name of Debian $SUITE, unpacked into $SERVERS/$name" \
    "$REPO/tests/servers/unpack.sh" $SUITE "$SERVERS/$name" "$package" -- "$package" "$cli"; then
    say "$name cannot be had here: its tests are left out, and say so"
    date -u +%FT%TZ >"$SERVERS/not-installed-$name"
  fi
}

cargo_deny() {
  if ! cargo deny --version >/dev/null 2>&1 && [ ! -x "$SERVERS/bin/cargo-deny" ]; then
    # without optimisation it builds in a fraction of the time and still checks in a second
    run_step setup-cargo-deny "cargo-deny $CARGO_DENY, built from the registry" \
      env CARGO_TARGET_DIR="$SERVERS/cargo-deny-build" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
      CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
      cargo install cargo-deny --locked --version "$CARGO_DENY" --no-default-features --root "$SERVERS"
    rm -rf "$SERVERS/cargo-deny-build"
  fi
}

command -v cargo >/dev/null || die "cargo is not there: install Rust 1.95 or later (rustup), then run this again"
mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -gt 0 ]; then
  [ "$(id -u)" -eq 0 ] || die "run as root, or install these yourself: apt-get install ${missing[*]}"
  run_step setup-apt "Debian packages: ${missing[*]}" install_packages "${missing[@]}"
fi
say "redis-server $(redis-server --version | sed -n 's/.*v=\([^ ]*\).*/\1/p')"
if [ "$WANT" = tests ]; then
  [ -e "$SERVERS/.done-ceph-$RECIPE" ] || unpack_ceph || die "without radosgw there is no S3 server for the tests"
  touch "$SERVERS/.done-ceph-$RECIPE"
  stamped redis-8 unpack_engine redis-8 redis-server redis-cli
  stamped valkey-9 unpack_engine valkey-9 valkey-server valkey-cli
  cargo_deny
fi
say "ready for: $WANT"

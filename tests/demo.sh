#!/usr/bin/env bash
# usage: tests/demo.sh [--keys N] [--s3] [--profile release|dev] [--keep]
#
# Installs what it needs (as root, on Debian 12), builds, and shows the whole way once: a cluster of 3 primaries and 3
# replicas with N keys (default 1000000) is snapshotted while a client keeps writing to it, and restored into a new
# cluster of 5 shards; then every key that was not being written is compared: value, type, expiry. Exits non-zero on
# any difference. With --s3 the snapshot goes to a real S3 server instead of a folder. Everything is stopped and
# removed at the end, unless --keep, which leaves the new cluster and the repository (target/demo) for a look.
set -euo pipefail
PART=demo
. "$(dirname "$0")/lib.sh"
cd "$REPO"

KEYS=1000000 PROFILE=release WANT=demo KEEP=
ARGS=()
while [ $# -gt 0 ]; do
  case $1 in
    --keys) KEYS=${2:?--keys wants a number}; shift ;;
    --profile) PROFILE=${2:?--profile wants release or dev}; shift ;;
    --s3) WANT=tests; ARGS+=(--s3) ;;
    --keep) KEEP=1; ARGS+=(--keep) ;;
    *) die "usage: tests/demo.sh [--keys N] [--s3] [--profile release|dev] [--keep]" ;;
  esac
  shift
done
# with dev as tests/run.sh has built it already: with the features that all packages want together
case $PROFILE in
  release) OUT=release PACKAGES=(-p backupd) ;;
  dev) OUT=debug PACKAGES=(--workspace) ;;
  *) die "--profile is release or dev" ;;
esac

"$REPO/tests/setup.sh" "$WANT"
run_step "build-$PROFILE" "build ($PROFILE; the first time takes minutes)" \
  cargo build --locked --profile "$PROFILE" "${PACKAGES[@]}" --bin backupd --example demo

DIR=$REPO/target/demo S3=$SERVERS/run/radosgw OWN_S3=
remove_demo() {
  [ ! -x "$DIR/restored/stop.sh" ] || "$DIR/restored/stop.sh" >/dev/null 2>&1 || true
  rm -rf "$DIR"
}
stop_all() {
  [ -n "$KEEP" ] || remove_demo
  [ -z "$OWN_S3" ] || "$REPO/tests/servers/radosgw.sh" stop "$S3"
}
trap stop_all EXIT
remove_demo
# the new cluster outlives its restore by design, so somebody must see to it if this script is killed
[ -n "$KEEP" ] || setsid bash -c 'while kill -0 "$1" 2>/dev/null; do sleep 1; done
  if [ -x "$2" ]; then exec "$2"; fi' - $$ "$DIR/restored/stop.sh" >/dev/null 2>&1 </dev/null &
if [ "$WANT" = tests ]; then
  "$REPO/tests/servers/radosgw.sh" env "$S3" >/dev/null 2>&1 || OWN_S3=1
  run_step s3 "S3 server: radosgw" "$REPO/tests/servers/radosgw.sh" start "$S3" --while $$
  . "$S3/env"
fi
"${CARGO_TARGET_DIR:-$REPO/target}/$OUT/examples/demo" --dir "$DIR" --keys "$KEYS" "${ARGS[@]}"

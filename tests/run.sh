#!/usr/bin/env bash
# usage: tests/run.sh
#
# Everything that says whether this tree is good: installs what the tests need (as root, on Debian 12), then checks
# form, lints, documentation and dependencies, runs all tests against real servers, and runs the demo twice with few
# keys. Logs of quiet steps are in target/logs. Nothing that it starts stays behind.
set -euo pipefail
PART=tests
. "$(dirname "$0")/lib.sh"
cd "$REPO"
# a machine that builds once and throws all away needs no files for the next build: gigabytes, and time
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

"$REPO/tests/setup.sh" tests
export PATH=$SERVERS/bin:$PATH

run_step fmt "form: cargo fmt" cargo fmt --all --check
run_step clippy "lints: cargo clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
run_step doc "documentation: cargo doc" \
  env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
run_step deny "dependencies: cargo deny" cargo deny --locked --config .config/deny.toml check bans licenses sources

S3=$SERVERS/run/radosgw
if ! "$REPO/tests/servers/radosgw.sh" env "$S3" 2>/dev/null | grep -q _ENDPOINT_2; then
  trap '"$REPO/tests/servers/radosgw.sh" stop "$S3"' EXIT
fi
run_step s3 "S3 server: radosgw" "$REPO/tests/servers/radosgw.sh" start "$S3" --while $$ us-east-1 eu-west-1
. "$S3/env"

run_step build "build" cargo build --workspace --all-targets --locked
if command -v cargo-nextest >/dev/null; then
  cargo nextest run --workspace --locked
  # which nextest does not run
  cargo test --workspace --doc --locked
else
  cargo test --workspace --locked -- --test-threads 4
fi

"$REPO/tests/demo.sh" --keys 20000 --profile dev
"$REPO/tests/demo.sh" --keys 20000 --profile dev --s3
say "all passed in $SECONDS s"

#!/usr/bin/env bash
# usage: garage.sh start DIR [--while PID] [REGION...]   one Garage of one node per region
#        garage.sh stop DIR
#        garage.sh env DIR                               prints the variables the tests read
#
# A second S3 server for the tests, on 127.0.0.1 only, with its data in DIR. It is strict about regions and ignores If-None-Match.
# It is $GARAGE_BIN, or `garage` from the path; nothing installs it unasked, since it builds for twenty minutes on one core:
#
#   cargo install garage --version 2.5.0 --locked --no-default-features --features bundled-libs,lmdb --root DIR
#
# `start` does nothing where it already answers for as many regions. With --while the servers go when that process is gone,
# however it ended. Data is thrown away by `stop`.
set -euo pipefail
PART=garage
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/daemons.sh"
WAIT_SECONDS=60
MARK=garage

usage() { die "usage: garage.sh start DIR [--while PID] [REGION...] | stop DIR | env DIR"; }
[ $# -ge 2 ] || usage
ACTION=$1 DIR=$2
shift 2

GARAGE=${GARAGE_BIN:-$(command -v garage || true)}
ACCESS_KEY=GK$(printf '1%.0s' {1..24})
SECRET_KEY=$(printf 'a%.0s' {1..64})

write_config() {
  cat >"$1" <<C
metadata_dir = "$2/meta"
data_dir = "$2/data"
db_engine = "lmdb"
metadata_fsync = false
data_fsync = false
replication_factor = 1
compression_level = 'none'
rpc_bind_addr = "127.0.0.1:$3"
rpc_public_addr = "127.0.0.1:$3"
rpc_secret = "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
[s3_api]
s3_region = "$5"
api_bind_addr = "127.0.0.1:$4"
C
}

# start_region REGION SUFFIX
start_region() {
  local region=$1 suffix=$2 rpc port node
  local config=$DIR/garage-$region.toml
  free_port && rpc=$REPLY
  free_port && port=$REPLY
  write_config "$config" "$DIR/$region" "$rpc" "$port" "$region"
  daemon "$region" "$GARAGE" -c "$config" server
  wait_for "Garage of $region" "$GARAGE" -c "$config" status
  node=$("$GARAGE" -c "$config" node id -q | cut -c1-16)
  "$GARAGE" -c "$config" layout assign -z here -c 10G "$node"
  "$GARAGE" -c "$config" layout apply --version 1
  "$GARAGE" -c "$config" key import --yes -n tests "$ACCESS_KEY" "$SECRET_KEY"
  "$GARAGE" -c "$config" key allow --create-bucket tests
  echo "export BACKUPD_TEST_GARAGE_ENDPOINT$suffix=http://127.0.0.1:$port BACKUPD_TEST_GARAGE_REGION$suffix=$region" >>"$DIR/env.new"
}

installed() {
  [ -x "$GARAGE" ] || die "no garage in the path, and GARAGE_BIN does not name one: the head of $0 says how it is installed"
}

prepare() {
  echo "export BACKUPD_TEST_GARAGE_ACCESS_KEY=$ACCESS_KEY BACKUPD_TEST_GARAGE_SECRET_KEY=$SECRET_KEY" >"$DIR/env.new"
}

dispatch "$@"

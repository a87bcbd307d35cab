#!/usr/bin/env bash
# usage: tests/bench/copy.sh [MEGABYTES [ROUNDS]]
#
# Copies a snapshot between two S3 servers with `backupd snapshot copy --transfer stream`, and the same object between the
# same servers with `rclone copyto`, by turns. Prints the seconds of each and the ratio of the medians. It needs rclone
# (apt-get install rclone), redis-server, two regions of radosgw (tests/servers/radosgw.sh start DIR us-east-1 eu-west-1, and its env
# sourced), and a built backupd ($BACKUPD_BIN, else target/release/backupd).
set -euo pipefail
cd "$(dirname "$0")/../.."
megabytes=${1:-256} rounds=${2:-5}
backupd=${BACKUPD_BIN:-target/release/backupd}
dir=$(mktemp -d)
# rclone 1.60 refuses to start with it
unset AWS_CA_BUNDLE
export AWS_ACCESS_KEY_ID=$BACKUPD_TEST_S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$BACKUPD_TEST_S3_SECRET_KEY
for n in 1 2; do
  s=$([ $n = 1 ] || echo _2) endpoint=BACKUPD_TEST_S3_ENDPOINT$s region=BACKUPD_TEST_S3_REGION$s
  printf '[r%d]\ntype = s3\nprovider = Ceph\nenv_auth = true\nendpoint = %s\nregion = %s\nforce_path_style = true\n' \
    $n "${!endpoint}" "${!region}" >>"$dir/rclone.conf"
done
clone() { rclone --config "$dir/rclone.conf" "$@"; }
port=$((20000 + RANDOM % 10000)) name=bench-copy-$(date +%s)
redis-server --port $port --save '' --dir "$dir" --daemonize yes --pidfile "$dir/pid" >/dev/null
trap 'kill "$(cat "$dir/pid")"; rm -rf "$dir"' EXIT
until redis-cli -p $port PING >/dev/null 2>&1; do sleep 0.1; done
for ((i = 0; i < megabytes; i++)); do head -c 1000000 /dev/urandom | redis-cli -p $port -x SET $i >/dev/null; done
clone mkdir r1:$name-from
clone mkdir r2:$name-to
from="s3://$name-from/r?endpoint=$BACKUPD_TEST_S3_ENDPOINT&region=$BACKUPD_TEST_S3_REGION"
"$backupd" key generate "$dir/key" >/dev/null
"$backupd" snapshot create --source redis://127.0.0.1:$port --name one --repository "$from" --key-file "$dir/key" >/dev/null 2>&1
object=$(clone lsf -R --files-only r1:$name-from | grep '\.bkd$')
seconds() { local begin end; begin=$(date +%s.%N); "$@" >/dev/null 2>&1; end=$(date +%s.%N); echo "$end - $begin" | bc; }
ours=() theirs=()
for ((i = 0; i < rounds; i++)); do
  to="s3://$name-to/c$i?endpoint=$BACKUPD_TEST_S3_ENDPOINT_2&region=$BACKUPD_TEST_S3_REGION_2"
  theirs+=("$(seconds rclone --config "$dir/rclone.conf" copyto r1:$name-from/$object r2:$name-to/rclone-$i)")
  ours+=("$(seconds "$backupd" snapshot copy one --transfer stream --to "$to" --repository "$from" --key-file "$dir/key")")
done
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }
bytes=$(clone size --json r1:$name-from | sed 's/.*"bytes":\([0-9]*\).*/\1/')
echo "$bytes bytes; rclone: ${theirs[*]} s; backupd: ${ours[*]} s"
echo "medians $(median "${theirs[@]}") and $(median "${ours[@]}") s; throughput of backupd by that of rclone: $(echo "scale=2; $(median "${theirs[@]}") / $(median "${ours[@]}")" | bc)"

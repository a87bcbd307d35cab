#!/usr/bin/env bash
# usage: radosgw.sh start DIR [--while PID] [REGION...]   one Ceph monitor, one OSD and one radosgw per region
#        radosgw.sh stop DIR
#        radosgw.sh env DIR                               prints the variables the tests read
#
# A real S3 server for the tests, on 127.0.0.1 only, with its data in DIR; `tests/setup.sh tests` installs it. `start`
# does nothing where it already answers for as many regions. Regions (default us-east-1) are realms of their own: own users, own buckets.
# With --while the servers go when that process is gone, however it ended. Data is thrown away by `stop`.
set -euo pipefail
PART=radosgw
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/daemons.sh"
ROOT=$SERVERS/ceph
WAIT_SECONDS=120
MARK=ceph.conf

usage() { die "usage: radosgw.sh start DIR [--while PID] [REGION...] | stop DIR | env DIR"; }
[ $# -ge 2 ] || usage
ACTION=$1 DIR=$2
shift 2

library=$ROOT/usr/lib/x86_64-linux-gnu
# For these commands only: programs of this machine must not see the other suite's libc.
ceph_env=(env "LD_LIBRARY_PATH=$library:$library/ceph")
tool() { "${ceph_env[@]}" "$ROOT/usr/bin/$1" -c "$DIR/ceph.conf" "${@:2}" </dev/null; }
ceph_cli() {
  "${ceph_env[@]}" PYTHONHOME="$ROOT/usr" PYTHONDONTWRITEBYTECODE=1 "$ROOT/usr/bin/python3" "$ROOT/usr/bin/ceph" \
    -c "$DIR/ceph.conf" --connect-timeout 20 "$@" </dev/null
}

# ceph_daemon NAME PROGRAM ARGUMENTS...
ceph_daemon() { daemon "$1" "${ceph_env[@]}" "$ROOT/usr/bin/$2" -f -c "$DIR/ceph.conf" "${@:3}"; }

osd_up() { ceph_cli osd stat | grep -q '1 up'; }

write_config() {
  cat >"$DIR/ceph.conf" <<C
[global]
fsid = $1
mon_host = [v2:127.0.0.1:$2]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
# without this a client cannot talk to a monitor that wants no authentication
ms_mon_client_mode = crc
run_dir = $DIR
# the path of a socket may have 107 bytes, and nobody asks through it
admin_socket =
log_file = $DIR/\$name.log
crash_dir = $DIR
keyring = $DIR/keyring
plugin_dir = $library/ceph
erasure_code_dir = $library/ceph/erasure-code
osd_class_dir = $library/rados-classes
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 2
mon_data_avail_crit = 1
[mon]
mon_data = $DIR/mon
[osd]
osd_data = $DIR/osd
osd_objectstore = bluestore
# a sparse file
bluestore_block_size = 21474836480
osd_memory_target = 1073741824
osd_mclock_skip_benchmark = true
osd_fast_shutdown = true
[client]
rgw_data = $DIR/rgw
rgw_crypt_require_ssl = false
rgw_s3_auth_use_sts = true
rgw_sts_key = 0123456789abcdef
rgw_crypt_s3_kms_backend = testing
rgw_crypt_s3_kms_encryption_keys = testkey-1=YmluCmJvb3N0CmJvb3N0LWJ1aWxkCmNlcGguY29uZgo=
C
}

start_storage() {
  local mon_port fsid osd
  free_port && mon_port=$REPLY
  fsid=$(cat /proc/sys/kernel/random/uuid) osd=$(cat /proc/sys/kernel/random/uuid)
  write_config "$fsid" "$mon_port"
  tool ceph-authtool --create-keyring "$DIR/keyring" --gen-key -n mon. --cap mon 'allow *'
  tool monmaptool --create --addv a "[v2:127.0.0.1:$mon_port]" --fsid "$fsid" "$DIR/monmap" --clobber
  tool ceph-mon --mkfs -i a --monmap "$DIR/monmap" --keyring "$DIR/keyring"
  ceph_daemon mon ceph-mon -i a
  ceph_cli osd new "$osd" 0
  tool ceph-osd -i 0 --mkfs --osd-uuid "$osd"
  ceph_daemon osd ceph-osd -i 0
  wait_for "the OSD" osd_up
}

# start_region REGION SUFFIX: two accounts in each, their root users with the keys AK1/SK1 and AK2/SK2.
start_region() {
  local region=$1 suffix=$2 port n account
  local zone=(--rgw-realm="$region" --rgw-zonegroup="$region" --rgw-zone="$region")
  free_port && port=$REPLY
  tool radosgw-admin realm create "${zone[@]}"
  tool radosgw-admin zonegroup create --master "${zone[@]}"
  tool radosgw-admin zone create --master "${zone[@]}"
  tool radosgw-admin period update --commit "${zone[@]}"
  for n in 1 2; do
    account=RGW$(printf "$n%.0s" {1..17})
    tool radosgw-admin account create --account-id="$account" --account-name="account$n" "${zone[@]}"
    tool radosgw-admin user create --uid="root$n" --display-name="root$n" --account-id="$account" --account-root \
      --access-key="AK$n" --secret="SK$n" "${zone[@]}"
  done
  # without nodelay an answer of two segments waits 40 ms for the client's acknowledgement of the first
  ceph_daemon "rgw-$region" radosgw -n "client.rgw.$region" "${zone[@]}" --rgw-frontends="beast endpoint=127.0.0.1:$port tcp_nodelay=1"
  wait_for "radosgw of $region" answers "$port"
  echo "export BACKUPD_TEST_S3_ENDPOINT$suffix=http://127.0.0.1:$port BACKUPD_TEST_S3_REGION$suffix=$region" >>"$DIR/env.new"
}

installed() { [ -x "$ROOT/usr/bin/radosgw" ] || die "no radosgw in $ROOT: run tests/setup.sh tests"; }

prepare() {
  mkdir "$DIR"/mon "$DIR"/osd "$DIR"/rgw
  start_storage
  echo "export BACKUPD_TEST_S3_ACCESS_KEY=AK1 BACKUPD_TEST_S3_SECRET_KEY=SK1" >"$DIR/env.new"
  echo "export BACKUPD_TEST_S3_ACCESS_KEY_OTHER=AK2 BACKUPD_TEST_S3_SECRET_KEY_OTHER=SK2" >>"$DIR/env.new"
}

dispatch "$@"

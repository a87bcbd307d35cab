#!/usr/bin/env bash
# What users of ElastiCache do with snapshots, done by the AWS CLI against the endpoint of backupd.
# usage: story.sh ENDPOINT GROUP BUCKET WINDOW     with credentials in the usual AWS variables, and a window that is not open now
set -euo pipefail
trap 'echo "failed: $BASH_COMMAND"' ERR
endpoint=$1 group=$2 bucket=$3 window=$4

say() { aws --endpoint-url "$endpoint" --output text elasticache "$@"; }

# refused CODE WORDS...: the command must fail with this code
refused() {
  local code=$1 out
  shift
  if out=$(say "$@" 2>&1); then echo "not refused: $*: $out"; exit 1; fi
  case $out in *"($code)"*) ;; *) echo "wanted $code: $out"; exit 1 ;; esac
}

# until_is STATUS NAME
until_is() {
  local status=
  for _ in $(seq 300); do
    status=$(say describe-snapshots --snapshot-name "$2" --query 'Snapshots[0].SnapshotStatus')
    [ "$status" != "$1" ] || return 0
    sleep 0.1
  done
  echo "$2 is $status"
  exit 1
}

aws --endpoint-url "$endpoint" sts get-caller-identity --query Account --output text | grep -x 000000000000 >/dev/null
[ "$(say create-snapshot --replication-group-id "$group" --snapshot-name cli-1 --tags Key=by,Value=cli --query Snapshot.SnapshotStatus)" = creating ]
until_is available cli-1
slots=$(say describe-snapshots --snapshot-name cli-1 --show-node-group-config --query 'Snapshots[0].NodeSnapshots[].NodeGroupConfiguration.Slots')
[ "$(wc -w <<<"$slots")" = 3 ]
refused SnapshotAlreadyExistsFault create-snapshot --replication-group-id "$group" --snapshot-name cli-1
refused SnapshotNotFoundFault describe-snapshots --snapshot-name none
arn=$(say describe-snapshots --snapshot-name cli-1 --query 'Snapshots[0].ARN')
[ "$(say list-tags-for-resource --resource-name "$arn" --query "TagList[?Key=='by'].Value")" = cli ]
say copy-snapshot --source-snapshot-name cli-1 --target-snapshot-name cli-2 >/dev/null
until_is available cli-2
say copy-snapshot --source-snapshot-name cli-1 --target-snapshot-name cli-out --target-bucket "$bucket" >/dev/null
until_is available cli-1
say modify-replication-group --replication-group-id "$group" --snapshot-window "$window" --snapshot-retention-limit 3 --apply-immediately >/dev/null
[ "$(say describe-replication-groups --replication-group-id "$group" --query 'ReplicationGroups[0].[SnapshotWindow,SnapshotRetentionLimit]')" = "$(printf '%s\t3' "$window")" ]
create() { say create-replication-group --replication-group-description new --snapshot-name cli-1 --replication-group-id "$@" >/dev/null; }
slots_of() { say describe-replication-groups --replication-group-id "$1" --query 'ReplicationGroups[0].NodeGroups[].Slots' | tr '\t' '\n' | sort | tr '\n' ' '; }
create cli-new --num-node-groups 2
create cli-slots --node-group-configuration '[{"Slots":"0-99,200-9999"},{"Slots":"100-199,10000-16383"}]'
refused ReplicationGroupAlreadyExists create-replication-group --replication-group-description new --snapshot-name cli-1 --replication-group-id cli-new
# waits ask every 15 s: one after the other they are seldom needed twice
say wait replication-group-available --replication-group-id cli-new
say wait replication-group-available --replication-group-id cli-slots
[ "$(slots_of cli-new)" = "0-8191 8192-16383 " ]
[ "$(slots_of cli-slots)" = "0-99,200-9999 100-199,10000-16383 " ]
[ "$(say describe-cache-clusters --cache-cluster-id cli-new-0002-001 --query 'CacheClusters[0].[CacheNodeType,ReplicationGroupId]')" = "$(printf 'cache.backupd.external\tcli-new')" ]
say delete-replication-group --replication-group-id cli-new --final-snapshot-identifier cli-last >/dev/null
say delete-replication-group --replication-group-id cli-slots >/dev/null
say wait replication-group-deleted --replication-group-id cli-new
say wait replication-group-deleted --replication-group-id cli-slots
refused ReplicationGroupNotFoundFault describe-replication-groups --replication-group-id cli-new
until_is available cli-last
say describe-events --duration 60 --query 'Events[].Message' | grep "Snapshot succeeded for snapshot with ID 'cli-1'" >/dev/null
# more than one page
say describe-snapshots --page-size 20 --query 'length(Snapshots[])' | awk '{ all += $1 } END { exit all != 123 || NR != 7 }'
[ "$(say delete-snapshot --snapshot-name cli-2 --query Snapshot.SnapshotStatus)" = deleting ]
echo "ok: story of the command line"

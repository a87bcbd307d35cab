#!/usr/bin/env bash
# What Ansible's modules do, against the endpoint of backupd: look at a cluster, make a snapshot, make it again, export, remove, remove again.
# They have no more: no tags, no restore.
# usage: story-ansible.sh ENDPOINT GROUP BUCKET     with credentials in the usual AWS variables
set -euo pipefail
trap 'echo "failed: $BASH_COMMAND"' ERR
endpoint=$1 group=$2 bucket=$3
python=$(command -v python3)
export LC_ALL=C.UTF-8 ANSIBLE_PYTHON_INTERPRETER=$python ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_INVENTORY_UNPARSED_WARNING=false

module() { ansible localhost -m "community.aws.$1" -a "region=$AWS_DEFAULT_REGION endpoint_url=$endpoint ${*:2}" 2>&1; }

# shows WORDS ARGUMENTS...: the module succeeds and says this
shows() {
  local out wanted=$1
  shift
  out=$(module "$@") || { echo "$*: $out"; exit 1; }
  case $out in *"$wanted"*) ;; *) echo "wanted $wanted of $*: $out"; exit 1 ;; esac
}

# fails WORDS ARGUMENTS...: the module fails and says this
fails() {
  local out wanted=$1
  shift
  if out=$(module "$@"); then echo "$* did not fail: $out"; exit 1; fi
  case $out in *"$wanted"*) ;; *) echo "wanted $wanted of $*: $out"; exit 1 ;; esac
}

# until_is STATUS: asks for the snapshot until it has this status; "gone" when there is none
until_is() {
  "$python" - "$endpoint" "$1" <<'EOF'
import boto3, sys, time
client = boto3.client("elasticache", endpoint_url=sys.argv[1])
for _ in range(600):
    try:
        status = client.describe_snapshots(SnapshotName="an-1")["Snapshots"][0]["SnapshotStatus"]
    except client.exceptions.SnapshotNotFoundFault:
        status = "gone"
    if status == sys.argv[2]:
        sys.exit()
    time.sleep(0.1)
sys.exit(f"an-1 is {status}, not {sys.argv[2]}")
EOF
}

shows "\"replication_group_id\": \"$group\"" elasticache_info "name=$group-0001-001"
# it always names the group and one of its nodes
make="state=present name=an-1 replication_id=$group cluster_id=$group-0001-001"
shows '"snapshot_status": "creating"' elasticache_snapshot "$make"
shows '"changed": false' elasticache_snapshot "$make"
until_is available
fails ReplicationGroupNotFoundFault elasticache_snapshot state=present name=an-2 replication_id=none cluster_id=none-0001-001
shows '"changed": true' elasticache_snapshot state=copy name=an-1 target=an-out "bucket=$bucket"
until_is available
fails SnapshotNotFoundFault elasticache_snapshot state=copy name=none target=an-out "bucket=$bucket"
shows '"changed": true' elasticache_snapshot state=absent name=an-1
until_is gone
shows '"changed": false' elasticache_snapshot state=absent name=an-1
echo "ok: story of Ansible"

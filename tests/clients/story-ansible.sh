#!/usr/bin/env bash
# What Ansible's module for snapshots does, against the endpoint of backupd: make, make again, export, remove, remove again.
# usage: story-ansible.sh ENDPOINT GROUP BUCKET     with credentials in the usual AWS variables
set -euo pipefail
trap 'echo "failed: $BASH_COMMAND"' ERR
endpoint=$1 group=$2 bucket=$3
python=$(command -v python3)
export LC_ALL=C.UTF-8 ANSIBLE_PYTHON_INTERPRETER=$python ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_INVENTORY_UNPARSED_WARNING=false

# is CHANGED ARGUMENTS...: the module says whether it changed something
is() {
  local out wanted=$1
  shift
  out=$(ansible localhost -m community.aws.elasticache_snapshot -a "region=$AWS_DEFAULT_REGION endpoint_url=$endpoint name=an-1 $*" 2>&1) ||
    { echo "$*: $out"; exit 1; }
  case $out in *"\"changed\": $wanted"*) ;; *) echo "$*: $out"; exit 1 ;; esac
}

until_available() {
  local code="import boto3,sys; print(boto3.client('elasticache', endpoint_url='$endpoint').describe_snapshots(SnapshotName='an-1')['Snapshots'][0]['SnapshotStatus'])"
  for _ in $(seq 100); do
    [ "$("$python" -c "$code")" != available ] || return 0
  done
  echo "an-1 is not available"
  exit 1
}

# it always names the group and one of its nodes
is true state=present "replication_id=$group" "cluster_id=$group-0001-001"
is false state=present "replication_id=$group" "cluster_id=$group-0001-001"
until_available
is true state=copy target=an-out "bucket=$bucket"
until_available
is true state=absent
echo "ok: story of Ansible"

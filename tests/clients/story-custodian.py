"""What policies of Cloud Custodian do, against the endpoint of backupd: a snapshot of each cluster that bears a tag, and snapshots deleted
by their tags and their age.

usage: story-custodian.py ENDPOINT GROUP BUCKET     with credentials in the usual AWS variables
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import boto3

ENDPOINT, GROUP, BUCKET = sys.argv[1:4]
os.environ["AWS_ENDPOINT_URL"] = ENDPOINT
client = boto3.client("elasticache")


def wait_for(what, probe):
    """Asks until there is an answer."""
    until = time.monotonic() + 90
    while not (found := probe()):
        assert time.monotonic() < until, what
        time.sleep(0.1)
    return found


def snapshots():
    """The names of all of them, when all are there."""
    found = client.describe_snapshots()["Snapshots"]
    return sorted(it["SnapshotName"] for it in found) if all(it["SnapshotStatus"] == "available" for it in found) else None


def policy(resource, filters, *actions):
    """Carries out a policy, and gives what it found."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "policy.json")
        with open(file, "w", encoding="utf-8") as out:
            json.dump({"policies": [{"name": "story", "resource": resource, "filters": filters, "actions": list(actions)}]}, out)
        command = ["custodian", "run", "--region", os.environ["AWS_DEFAULT_REGION"], "--cache-period", "0", "-s", folder, file]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        # what goes wrong with one resource is only said
        assert done.returncode == 0 and "ERROR" not in done.stdout and "Exception" not in done.stdout, done.stdout
        with open(os.path.join(folder, "story", "resources.json"), encoding="utf-8") as found:
            return json.load(found)


def prepare():
    """Two snapshots of the group, one of which bears a tag, and a cluster without cluster mode: only those have snapshots by a node."""
    client.create_snapshot(ReplicationGroupId=GROUP, SnapshotName="kept", Tags=[{"Key": "keep", "Value": "yes"}])
    wait_for("kept", lambda: snapshots() == ["kept"])
    client.create_snapshot(ReplicationGroupId=GROUP, SnapshotName="old")
    wait_for("old", lambda: snapshots() == ["kept", "old"])
    client.copy_snapshot(SourceSnapshotName="old", TargetSnapshotName="cc-out", TargetBucket=BUCKET)
    wait_for("the export", snapshots)
    tags = [{"Key": "backup", "Value": "daily"}]
    client.create_cache_cluster(CacheClusterId="single", SnapshotArns=[f"arn:aws:s3:::{BUCKET}/cc-out-0001.rdb"], NumCacheNodes=1, Tags=tags)
    client.get_waiter("cache_cluster_available").wait(CacheClusterId="single", WaiterConfig={"Delay": 1, "MaxAttempts": 90})


prepare()
found = policy("aws.cache-cluster", [{"tag:backup": "daily"}, {"CacheClusterStatus": "available"}], "snapshot")
assert [it["CacheClusterId"] for it in found] == ["single"], found
three = wait_for("the snapshot of the policy", lambda: (names := snapshots()) and len(names) == 3 and names)
assert three[0].startswith("backup-single-"), three

aged = {"type": "age", "op": "greater-than", "days": 0}
found = policy("aws.cache-snapshot", [aged, {"tag:keep": "absent"}, {"ReplicationGroupId": GROUP}], "delete")
assert [it["SnapshotName"] for it in found] == ["old"], found
wait_for("the deletion", lambda: snapshots() == [three[0], "kept"])
aged["days"] = 1
assert policy("aws.cache-snapshot", [aged]) == []
assert [it["ReplicationGroupId"] for it in policy("aws.elasticache-group", [{"tag:backup": "absent"}])] == [GROUP]
print("ok: story of Cloud Custodian")

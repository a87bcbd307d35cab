"""What users of ElastiCache do with snapshots, done by boto3 against the endpoint of backupd.

usage: story.py ENDPOINT GROUP BUCKET WINDOW     with credentials in the usual AWS variables, and a window that is not open now
"""

import os
import sys
import time

import boto3
from botocore.exceptions import ClientError

ENDPOINT, GROUP, BUCKET, WINDOW = sys.argv[1:5]
client = boto3.client("elasticache", endpoint_url=ENDPOINT)
WAITER = {"Delay": 1, "MaxAttempts": 90}


def wait_for(what, probe):
    """Asks until there is an answer."""
    until = time.monotonic() + 90
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < until, what
        time.sleep(0.1)


def snapshot(name, **more):
    found = client.describe_snapshots(SnapshotName=name, **more)["Snapshots"]
    assert len(found) == 1, found
    return found[0]


def available(name):
    def probe():
        found = snapshot(name)
        assert found["SnapshotStatus"] != "failed", found
        return found["SnapshotStatus"] == "available" and found

    return wait_for(f"snapshot {name}", probe)


def refused(error, call, **arguments):
    """The call must end with this fault, by the class that boto3 has for it."""
    try:
        call(**arguments)
    except error as caught:
        return caught.response["Error"]
    raise AssertionError(f"{call.__name__} {arguments} was not refused")


def code(call, **arguments):
    return refused(ClientError, call, **arguments)["Code"]


def message(call, **arguments):
    return refused(ClientError, call, **arguments)["Message"]


def looks():
    identity = boto3.client("sts", endpoint_url=ENDPOINT).get_caller_identity()
    assert identity["Account"] == "000000000000" and identity["Arn"].endswith("user/key/ops"), identity
    group = client.describe_replication_groups(ReplicationGroupId=GROUP)["ReplicationGroups"][0]
    assert group["Status"] == "available" and group["ClusterEnabled"] and len(group["NodeGroups"]) == 3, group
    assert group["ConfigurationEndpoint"]["Port"] > 0 and group["ARN"].endswith(f":replicationgroup:{GROUP}"), group
    assert group["MemberClusters"][0] == f"{GROUP}-0001-001", group
    member = client.describe_cache_clusters(CacheClusterId=f"{GROUP}-0001-001", ShowCacheNodeInfo=True)["CacheClusters"][0]
    assert member["ReplicationGroupId"] == GROUP and member["CacheNodes"][0]["Endpoint"]["Port"] > 0, member
    assert GROUP in [it["ReplicationGroupId"] for it in client.describe_replication_groups()["ReplicationGroups"]]


def makes():
    tags = [{"Key": "team", "Value": "shop & co"}, {"Key": "empty", "Value": ""}]
    made = client.create_snapshot(ReplicationGroupId=GROUP, SnapshotName="First-1", Tags=tags)["Snapshot"]
    assert made["SnapshotName"] == "first-1" and made["SnapshotStatus"] == "creating", made
    assert made["SnapshotSource"] == "manual" and len(made["NodeSnapshots"]) == 3, made
    refused(client.exceptions.SnapshotAlreadyExistsFault, client.create_snapshot, ReplicationGroupId=GROUP, SnapshotName="first-1")
    found = available("first-1")
    refused(client.exceptions.SnapshotAlreadyExistsFault, client.create_snapshot, ReplicationGroupId=GROUP, SnapshotName="first-1")
    assert "NodeGroupConfiguration" not in found["NodeSnapshots"][0], found
    nodes = snapshot("first-1", ShowNodeGroupConfig=True)["NodeSnapshots"]
    assert [node["NodeGroupId"] for node in nodes] == ["0001", "0002", "0003"], nodes
    slots = [node["NodeGroupConfiguration"]["Slots"].split("-") for node in nodes]
    assert sum(int(last) - int(first) + 1 for first, last in slots) == 16384, slots
    assert all(node["CacheSize"].endswith(" MB") and node["SnapshotCreateTime"] for node in nodes), nodes
    assert found["CacheNodeType"].startswith("cache.") and found["NumNodeGroups"] == 3, found
    listed = client.list_tags_for_resource(ResourceName=found["ARN"])["TagList"]
    assert {"Key": "team", "Value": "shop & co"} in listed and {"Key": "empty", "Value": ""} in listed, listed
    client.add_tags_to_resource(ResourceName=found["ARN"], Tags=[{"Key": "more", "Value": "<1>"}])
    left = client.remove_tags_from_resource(ResourceName=found["ARN"], TagKeys=["empty"])["TagList"]
    assert {"Key": "more", "Value": "<1>"} in left and "empty" not in [tag["Key"] for tag in left], left
    refused(client.exceptions.TagNotFoundFault, client.remove_tags_from_resource, ResourceName=found["ARN"], TagKeys=["empty"])
    # as who judges by tags asks for them: not for what is not there, or has none
    tagging = boto3.client("resourcegroupstaggingapi", endpoint_url=ENDPOINT)
    absent = found["ARN"].replace("first-1", "none")
    group = client.describe_replication_groups(ReplicationGroupId=GROUP)["ReplicationGroups"][0]["ARN"]
    mapped = tagging.get_resources(ResourceARNList=[absent, group, found["ARN"]])["ResourceTagMappingList"]
    assert mapped == [{"ResourceARN": found["ARN"], "Tags": sorted(left, key=lambda tag: tag["Key"])}], mapped
    refused(tagging.exceptions.InvalidParameterException, tagging.get_resources)
    refused(tagging.exceptions.InvalidParameterException, tagging.get_resources, ResourceARNList=["arn:aws:s3:::b"])
    assert code(tagging.get_tag_keys) == "UnknownOperationException"
    # as Ansible asks for it: with the group and one of its nodes
    both = dict(ReplicationGroupId=GROUP, CacheClusterId=f"{GROUP}-0001-001", SnapshotName="both")
    client.create_snapshot(**both)
    available("both")


def is_refused():
    faults = client.exceptions
    refused(faults.SnapshotNotFoundFault, client.describe_snapshots, SnapshotName="none")
    refused(faults.SnapshotNotFoundFault, client.delete_snapshot, SnapshotName="none")
    refused(faults.SnapshotNotFoundFault, client.copy_snapshot, SourceSnapshotName="none", TargetSnapshotName="other")
    refused(faults.ReplicationGroupNotFoundFault, client.describe_replication_groups, ReplicationGroupId="none")
    refused(faults.ReplicationGroupNotFoundFault, client.create_snapshot, ReplicationGroupId="none", SnapshotName="s")
    refused(faults.CacheClusterNotFoundFault, client.describe_cache_clusters, CacheClusterId="none-001")
    refused(faults.CacheClusterNotFoundFault, client.create_snapshot, CacheClusterId="none-001", SnapshotName="s")
    refused(faults.InvalidARNFault, client.list_tags_for_resource, ResourceName="arn:aws:s3:::b")
    refused(faults.InvalidParameterValueException, client.describe_snapshots, MaxRecords=5)
    refused(faults.InvalidParameterValueException, client.create_snapshot, ReplicationGroupId=GROUP, SnapshotName="a--b")
    refused(faults.InvalidParameterCombinationException, client.create_snapshot, SnapshotName="s")
    one_node = dict(CacheClusterId=f"{GROUP}-0001-001", SnapshotName="s")
    refused(faults.InvalidParameterCombinationException, client.create_snapshot, **one_node)
    key = dict(ReplicationGroupId=GROUP, SnapshotName="s", KmsKeyId="none")
    assert message(client.create_snapshot, **key) == "KMS key does not exist with key id: none"
    assert code(client.describe_users) == "InvalidAction"
    other = boto3.client("elasticache", endpoint_url=ENDPOINT, aws_secret_access_key="wrong", aws_access_key_id="AKIDOFTHESTORY00")
    assert code(other.describe_snapshots) == "SignatureDoesNotMatch"
    other = boto3.client("elasticache", endpoint_url=ENDPOINT, aws_secret_access_key="wrong", aws_access_key_id="AKIDOFNOBODY0000")
    assert code(other.describe_snapshots) == "InvalidClientTokenId"


def is_narrowed():
    """Roles and scopes: who may only look, and who sees other clusters only."""
    secret = dict(endpoint_url=ENDPOINT, aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"])
    reader = boto3.client("elasticache", aws_access_key_id="AKIDOFTHEREADER0", **secret)
    assert reader.describe_snapshots(SnapshotName="first-1")["Snapshots"]
    assert code(reader.create_snapshot, ReplicationGroupId=GROUP, SnapshotName="by-reader") == "AccessDenied"
    assert code(reader.delete_snapshot, SnapshotName="first-1") == "AccessDenied"
    assert code(reader.modify_replication_group, ReplicationGroupId=GROUP, SnapshotRetentionLimit=1) == "AccessDenied"
    foreign = boto3.client("elasticache", aws_access_key_id="AKIDOFTHEFOREIGN", **secret)
    assert foreign.describe_replication_groups()["ReplicationGroups"] == []
    assert foreign.describe_snapshots()["Snapshots"] == [] and foreign.describe_events()["Events"] == []
    assert code(foreign.describe_snapshots, SnapshotName="first-1") == "SnapshotNotFoundFault"
    assert code(foreign.create_snapshot, ReplicationGroupId=GROUP, SnapshotName="s") == "ReplicationGroupNotFoundFault"
    assert code(foreign.delete_replication_group, ReplicationGroupId=GROUP) == "ReplicationGroupNotFoundFault"
    arn = snapshot("first-1")["ARN"]
    assert code(foreign.list_tags_for_resource, ResourceName=arn) == "SnapshotNotFoundFault"
    tagging = boto3.client("resourcegroupstaggingapi", aws_access_key_id="AKIDOFTHEFOREIGN", **secret)
    assert tagging.get_resources(ResourceARNList=[arn])["ResourceTagMappingList"] == []


def copies():
    client.copy_snapshot(SourceSnapshotName="first-1", TargetSnapshotName="second")
    assert available("second")["SnapshotSource"] == "manual"
    exported = client.copy_snapshot(SourceSnapshotName="first-1", TargetSnapshotName="out", TargetBucket=BUCKET)
    assert exported["Snapshot"]["SnapshotStatus"] in ("copying", "available"), exported
    available("first-1")
    where = dict(SourceSnapshotName="first-1", TargetSnapshotName="out", TargetBucket="not-ours")
    refused(client.exceptions.InvalidParameterValueException, client.copy_snapshot, **where)


def changes():
    def modify(**what):
        return client.modify_replication_group(ReplicationGroupId=GROUP, **what)

    assert message(modify, SnapshotWindow="03:00-03:30") == "Snapshot window must be at least 60 minutes."
    assert message(modify, SnapshotRetentionLimit=36) == "Invalid snapshot retention limit: 36. Retention limit must be between 0 and 35."
    assert message(modify) == "No modifications were requested"
    changed = modify(SnapshotWindow="23:30-00:30")
    assert changed["ReplicationGroup"]["SnapshotWindow"] == "23:30-00:30", changed
    modify(SnapshotWindow=WINDOW, SnapshotRetentionLimit=9, SnapshottingClusterId=f"{GROUP}-001", ApplyImmediately=True)
    group = client.describe_replication_groups(ReplicationGroupId=GROUP)["ReplicationGroups"][0]
    assert (group["SnapshotWindow"], group["SnapshotRetentionLimit"]) == (WINDOW, 9), group
    modify(SnapshotRetentionLimit=0)
    group = client.describe_replication_groups(ReplicationGroupId=GROUP)["ReplicationGroups"][0]
    assert group["SnapshotRetentionLimit"] == 0, group


def restores():
    def create(name, **more):
        return client.create_replication_group(ReplicationGroupId=name, ReplicationGroupDescription="restored", **more)

    made = create("two", SnapshotName="first-1", NumNodeGroups=2, SnapshotRetentionLimit=1, SnapshotWindow=WINDOW, Tags=[{"Key": "a", "Value": "b"}])
    assert made["ReplicationGroup"]["Status"] == "creating", made
    faults = client.exceptions
    refused(faults.ReplicationGroupAlreadyExistsFault, create, name="two", SnapshotName="first-1")
    refused(faults.ReplicationGroupAlreadyExistsFault, create, name=GROUP, SnapshotName="first-1")
    client.get_waiter("replication_group_available").wait(ReplicationGroupId="two", WaiterConfig=WAITER)
    group = client.describe_replication_groups(ReplicationGroupId="two")["ReplicationGroups"][0]
    assert [it["Slots"] for it in group["NodeGroups"]] == ["0-8191", "8192-16383"], group
    assert group["Description"] == "restored" and group["SnapshotRetentionLimit"] == 1, group
    assert client.list_tags_for_resource(ResourceName=group["ARN"])["TagList"] == [{"Key": "a", "Value": "b"}]

    slots = ["0-99,200-9999", "100-199,10000-16383"]
    refused(faults.InvalidParameterValueException, create, name="bad", SnapshotName="first-1", NodeGroupConfiguration=[{"Slots": slots[0]}])
    without = dict(name="bad", SnapshotName="first-1", NumNodeGroups=2, TransitEncryptionEnabled=True)
    assert message(create, **without).endswith("nodes of the target pool do not speak TLS.")
    create("uneven", SnapshotName="first-1", NodeGroupConfiguration=[{"Slots": it} for it in slots])
    client.get_waiter("replication_group_available").wait(ReplicationGroupId="uneven", WaiterConfig=WAITER)
    group = client.describe_replication_groups(ReplicationGroupId="uneven")["ReplicationGroups"][0]
    assert sorted(it["Slots"] for it in group["NodeGroups"]) == sorted(slots), group

    # no node is left
    create("late", SnapshotName="first-1", NumNodeGroups=2)
    wait_for("the failure", lambda: client.describe_replication_groups(ReplicationGroupId="late")["ReplicationGroups"][0]["Status"] == "restore-failed")
    client.delete_replication_group(ReplicationGroupId="late")
    refused(faults.ReplicationGroupNotFoundFault, client.describe_replication_groups, ReplicationGroupId="late")

    seed = f"arn:aws:s3:::{BUCKET}/out-0001.rdb"
    client.create_cache_cluster(CacheClusterId="single", SnapshotArns=[seed], NumCacheNodes=1, Engine="redis")
    client.get_waiter("cache_cluster_available").wait(CacheClusterId="single", WaiterConfig=WAITER)
    found = client.describe_cache_clusters(CacheClusterId="single", ShowCacheNodeInfo=True)["CacheClusters"][0]
    assert "ReplicationGroupId" not in found and found["CacheNodes"][0]["Endpoint"]["Port"] > 0, found
    alone = client.describe_cache_clusters(ShowCacheClustersNotInReplicationGroups=True)["CacheClusters"]
    assert [it["CacheClusterId"] for it in alone] == ["single"], alone
    client.create_snapshot(CacheClusterId="single", SnapshotName="of-single")
    assert available("of-single")["CacheClusterId"] == "single"


def ends():
    client.delete_replication_group(ReplicationGroupId="two", FinalSnapshotIdentifier="last")
    client.get_waiter("replication_group_deleted").wait(ReplicationGroupId="two", WaiterConfig=WAITER)
    assert available("last")["NumNodeGroups"] == 2
    client.delete_cache_cluster(CacheClusterId="single")
    client.get_waiter("cache_cluster_deleted").wait(CacheClusterId="single", WaiterConfig=WAITER)
    deleted = client.delete_snapshot(SnapshotName="both")["Snapshot"]
    assert deleted["SnapshotStatus"] == "deleting", deleted

    def gone():
        try:
            client.describe_snapshots(SnapshotName="both")
        except client.exceptions.SnapshotNotFoundFault:
            return True

    wait_for("the deletion", gone)
    # a name that was given free can be used again, and a copy is deleted like any other
    client.create_snapshot(ReplicationGroupId=GROUP, SnapshotName="both")
    available("both")
    client.delete_snapshot(SnapshotName="second")
    events = client.describe_events(Duration=60)["Events"]
    told = "Snapshot succeeded for snapshot with ID 'first-1' of replication group with ID"
    assert any(event["Message"].startswith(told) for event in events), events
    of_late = client.describe_events(SourceType="replication-group", SourceIdentifier="late")["Events"]
    assert of_late and all(event["SourceIdentifier"] == "late" for event in of_late), of_late


def pages():
    pages = list(client.get_paginator("describe_snapshots").paginate(PaginationConfig={"PageSize": 20}))
    names = [it["SnapshotName"] for page in pages for it in page["Snapshots"]]
    seeded = [name for name in names if name.startswith("seeded-")]
    assert seeded == sorted(seeded) and len(seeded) == 120 and len(names) == len(set(names)), names
    assert all(len(page["Snapshots"]) == 20 for page in pages[:-1]) and len(pages) == -(-len(names) // 20), len(pages)
    automated = client.describe_snapshots(SnapshotSource="system")["Snapshots"]
    assert all(it["SnapshotSource"] == "automated" for it in automated), automated


for part in (looks, makes, is_refused, is_narrowed, copies, changes, restores, ends, pages):
    part()
    print("ok:", part.__name__, flush=True)

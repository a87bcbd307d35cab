// What users of ElastiCache do with snapshots, done by the AWS SDK for JavaScript against the endpoint of backupd.
// usage: node story.mjs ENDPOINT GROUP BUCKET WINDOW     with credentials in the usual AWS variables, a window that is not open now,
// and NODE_PROJECT, the folder of node_modules
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

const sdk = createRequire(process.env.NODE_PROJECT + "/")("@aws-sdk/client-elasticache");
const [endpoint, group, bucket, window] = process.argv.slice(2);
const client = new sdk.ElastiCacheClient({ endpoint, region: process.env.AWS_DEFAULT_REGION, maxAttempts: 1 });
const send = (name, input) => client.send(new sdk[name + "Command"](input));

async function refused(code, name, input) {
  await assert.rejects(send(name, input), (error) => error.name === code || assert.fail(`${name}: ${error.name} ${error.message}`));
}

async function available(name) {
  for (let n = 0; n < 600; n++) {
    const { Snapshots: [found] } = await send("DescribeSnapshots", { SnapshotName: name });
    if (found.SnapshotStatus === "available") return found;
    assert.notEqual(found.SnapshotStatus, "failed");
    await pause(100);
  }
  assert.fail(`${name} is not available`);
}

const groupOf = async (id) => (await send("DescribeReplicationGroups", { ReplicationGroupId: id })).ReplicationGroups[0];

const tags = [{ Key: "by", Value: "js & co" }];
const made = await send("CreateSnapshot", { ReplicationGroupId: group, SnapshotName: "js-1", Tags: tags });
assert.equal(made.Snapshot.SnapshotStatus, "creating");
const found = await available("js-1");
const shown = await send("DescribeSnapshots", { SnapshotName: "js-1", ShowNodeGroupConfig: true });
assert.deepEqual(shown.Snapshots[0].NodeSnapshots.map((node) => node.NodeGroupConfiguration.NodeGroupId), ["0001", "0002", "0003"]);
assert.ok(shown.Snapshots[0].NodeSnapshots.every((node) => node.NodeGroupConfiguration.Slots && node.SnapshotCreateTime instanceof Date));
assert.ok(found.CacheNodeType.startsWith("cache.") && found.SnapshotSource === "manual");
assert.deepEqual((await send("ListTagsForResource", { ResourceName: found.ARN })).TagList, tags);
await refused("SnapshotAlreadyExistsFault", "CreateSnapshot", { ReplicationGroupId: group, SnapshotName: "js-1" });
await refused("SnapshotNotFoundFault", "DescribeSnapshots", { SnapshotName: "none" });
await refused("SnapshotNotFoundFault", "DeleteSnapshot", { SnapshotName: "none" });
await refused("CacheClusterNotFoundFault", "DescribeCacheClusters", { CacheClusterId: "none-001" });
await refused("ReplicationGroupNotFoundFault", "DescribeReplicationGroups", { ReplicationGroupId: "none" });
await send("CopySnapshot", { SourceSnapshotName: "js-1", TargetSnapshotName: "js-2" });
await available("js-2");
await send("CopySnapshot", { SourceSnapshotName: "js-1", TargetSnapshotName: "js-out", TargetBucket: bucket });
await available("js-1");
await send("ModifyReplicationGroup", { ReplicationGroupId: group, SnapshotWindow: window, SnapshotRetentionLimit: 3, ApplyImmediately: true });
const changed = await groupOf(group);
assert.deepEqual([changed.SnapshotWindow, changed.SnapshotRetentionLimit], [window, 3]);

const uneven = ["0-99,200-9999", "100-199,10000-16383"];
const create = (id, more) =>
  send("CreateReplicationGroup", { ReplicationGroupId: id, ReplicationGroupDescription: "new", SnapshotName: "js-1", ...more });
assert.equal((await create("js-even", { NumNodeGroups: 2, Tags: tags })).ReplicationGroup.Status, "creating");
await refused("ReplicationGroupAlreadyExistsFault", "CreateReplicationGroup", { ReplicationGroupId: "js-even", ReplicationGroupDescription: "new", SnapshotName: "js-1" });
await create("js-slots", { NodeGroupConfiguration: uneven.map((Slots) => ({ Slots })) });
const waiting = { client, maxWaitTime: 90, minDelay: 1, maxDelay: 1 };
for (const [id, slots] of [["js-even", ["0-8191", "8192-16383"]], ["js-slots", uneven]]) {
  await sdk.waitUntilReplicationGroupAvailable(waiting, { ReplicationGroupId: id });
  assert.deepEqual((await groupOf(id)).NodeGroups.map((it) => it.Slots).sort(), slots);
}
assert.deepEqual((await send("ListTagsForResource", { ResourceName: (await groupOf("js-even")).ARN })).TagList, tags);
const { CacheClusters: [member] } = await send("DescribeCacheClusters", { CacheClusterId: "js-even-0002-001", ShowCacheNodeInfo: true });
assert.ok(member.CacheNodeType.startsWith("cache.") && member.CacheNodes[0].Endpoint.Port > 0);

await send("DeleteReplicationGroup", { ReplicationGroupId: "js-even", FinalSnapshotIdentifier: "js-last" });
await send("DeleteReplicationGroup", { ReplicationGroupId: "js-slots" });
for (const id of ["js-even", "js-slots"]) await sdk.waitUntilReplicationGroupDeleted(waiting, { ReplicationGroupId: id });
assert.equal((await available("js-last")).NumNodeGroups, 2);

const pages = [];
const paging = { client, pageSize: 20, stopOnSameToken: true };
for await (const page of sdk.paginateDescribeSnapshots(paging, {})) pages.push(page.Snapshots.map((it) => it.SnapshotName));
const names = pages.flat();
assert.ok(names.length === 123 && pages.length === 7 && new Set(names).size === names.length, `${pages.length}: ${names}`);
const { Events: events } = await send("DescribeEvents", { Duration: 60 });
assert.ok(events.some((event) => event.Message.startsWith("Snapshot succeeded for snapshot with ID 'js-1'")));
assert.equal((await send("DeleteSnapshot", { SnapshotName: "js-2" })).Snapshot.SnapshotStatus, "deleting");
console.log("ok: story of JavaScript");

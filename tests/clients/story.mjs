// What users of ElastiCache do with snapshots, done by the AWS SDK for JavaScript against the endpoint of backupd.
// usage: node story.mjs ENDPOINT GROUP BUCKET     with credentials in the usual AWS variables, beside node_modules
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

const sdk = createRequire(process.env.NODE_PROJECT + "/")("@aws-sdk/client-elasticache");
const [endpoint, group, bucket] = process.argv.slice(2);
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

const tags = [{ Key: "by", Value: "js" }];
const made = await send("CreateSnapshot", { ReplicationGroupId: group, SnapshotName: "js-1", Tags: tags });
assert.equal(made.Snapshot.SnapshotStatus, "creating");
const found = await available("js-1");
const shown = await send("DescribeSnapshots", { SnapshotName: "js-1", ShowNodeGroupConfig: true });
assert.deepEqual(shown.Snapshots[0].NodeSnapshots.map((node) => node.NodeGroupConfiguration.NodeGroupId), ["0001", "0002", "0003"]);
assert.ok(shown.Snapshots[0].NodeSnapshots[0].SnapshotCreateTime instanceof Date);
assert.deepEqual((await send("ListTagsForResource", { ResourceName: found.ARN })).TagList, tags);
await refused("SnapshotAlreadyExistsFault", "CreateSnapshot", { ReplicationGroupId: group, SnapshotName: "js-1" });
await refused("SnapshotNotFoundFault", "DescribeSnapshots", { SnapshotName: "none" });
await refused("ReplicationGroupNotFoundFault", "DescribeReplicationGroups", { ReplicationGroupId: "none" });
await send("CopySnapshot", { SourceSnapshotName: "js-1", TargetSnapshotName: "js-2" });
await available("js-2");
await send("CopySnapshot", { SourceSnapshotName: "js-1", TargetSnapshotName: "js-out", TargetBucket: bucket });
await available("js-1");
const changed = await send("ModifyReplicationGroup", { ReplicationGroupId: group, SnapshotWindow: "04:00-06:00", SnapshotRetentionLimit: 3 });
assert.equal(changed.ReplicationGroup.SnapshotWindow, "04:00-06:00");
await send("CreateReplicationGroup", {
  ReplicationGroupId: "js-new",
  ReplicationGroupDescription: "new",
  SnapshotName: "js-1",
  NodeGroupConfiguration: [{ Slots: "0-999" }, { Slots: "1000-16383" }],
});
const waiting = { client, maxWaitTime: 90, minDelay: 1, maxDelay: 1 };
await sdk.waitUntilReplicationGroupAvailable(waiting, { ReplicationGroupId: "js-new" });
await send("DeleteReplicationGroup", { ReplicationGroupId: "js-new", FinalSnapshotIdentifier: "js-last" });
await sdk.waitUntilReplicationGroupDeleted(waiting, { ReplicationGroupId: "js-new" });
await available("js-last");
let names = [];
for await (const page of sdk.paginateDescribeSnapshots({ client, pageSize: 20 }, {})) names.push(...page.Snapshots.map((it) => it.SnapshotName));
assert.ok(names.length >= 123 && new Set(names).size === names.length, `${names.length}`);
const { Events: events } = await send("DescribeEvents", { Duration: 60 });
assert.ok(events.some((event) => event.Message.startsWith("Snapshot succeeded for snapshot with ID 'js-1'")));
console.log("ok: story of JavaScript");

// What Terraform's provider asks for while it makes, reads, changes and destroys replication groups that are restored from a snapshot
// (hashicorp/terraform-provider-aws, internal/service/elasticache/replication_group.go), in its order and with the same SDK, against the
// endpoint of backupd; and what users of that SDK do with snapshots besides.
//
// usage: story ENDPOINT GROUP BUCKET WINDOW     with credentials in the usual AWS variables, and a window that is not open now
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/elasticache"
	"github.com/aws/aws-sdk-go-v2/service/elasticache/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// When something that does not come is given up.
const limit = 120 * time.Second

var (
	ctx    = context.Background()
	client *elasticache.Client
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must(is bool, what ...interface{}) {
	if !is {
		panic(fmt.Sprint(what...))
	}
}

func until(what string, probe func() bool) {
	for end := time.Now().Add(limit); !probe(); time.Sleep(200 * time.Millisecond) {
		must(time.Now().Before(end), what)
	}
}

func snapshot(name string) types.Snapshot {
	found, err := client.DescribeSnapshots(ctx, &elasticache.DescribeSnapshotsInput{
		SnapshotName: &name, ShowNodeGroupConfig: aws.Bool(true),
	})
	check(err)
	must(len(found.Snapshots) == 1, name)
	return found.Snapshots[0]
}

func available(name string) types.Snapshot {
	until(name, func() bool {
		status := *snapshot(name).SnapshotStatus
		must(status != "failed", name)
		return status == "available"
	})
	return snapshot(name)
}

// As the provider finds a group: by its id, and in pages.
func find(id string) (*types.ReplicationGroup, error) {
	var found []types.ReplicationGroup
	pages := elasticache.NewDescribeReplicationGroupsPaginator(client, &elasticache.DescribeReplicationGroupsInput{ReplicationGroupId: &id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, page.ReplicationGroups...)
	}
	must(len(found) == 1, id)
	return &found[0], nil
}

// As the provider waits: any other status is an error.
func waitAvailable(id string) *types.ReplicationGroup {
	var found *types.ReplicationGroup
	until("the group "+id, func() bool {
		var err error
		found, err = find(id)
		check(err)
		status := *found.Status
		must(status == "creating" || status == "modifying" || status == "snapshotting" || status == "available", status)
		return status == "available"
	})
	return found
}

func tagsOf(arn *string) map[string]string {
	listed, err := client.ListTagsForResource(ctx, &elasticache.ListTagsForResourceInput{ResourceName: arn})
	check(err)
	tags := map[string]string{}
	for _, tag := range listed.TagList {
		tags[*tag.Key] = *tag.Value
	}
	return tags
}

func makes(group string) {
	tags := []types.Tag{{Key: aws.String("by"), Value: aws.String("go & co")}}
	create := func(name, group string) (*elasticache.CreateSnapshotOutput, error) {
		return client.CreateSnapshot(ctx, &elasticache.CreateSnapshotInput{ReplicationGroupId: &group, SnapshotName: &name, Tags: tags})
	}
	made, err := create("go-1", group)
	check(err)
	must(*made.Snapshot.SnapshotStatus == "creating", *made.Snapshot.SnapshotStatus)
	found := available("go-1")
	must(len(found.NodeSnapshots) == 3 && found.CacheNodeType != nil, "node snapshots")
	for _, node := range found.NodeSnapshots {
		must(node.NodeGroupConfiguration != nil && node.NodeGroupConfiguration.Slots != nil && node.SnapshotCreateTime != nil, "node group")
	}
	must(tagsOf(found.ARN)["by"] == "go & co", "tags of the snapshot")

	var exists *types.SnapshotAlreadyExistsFault
	_, err = create("go-1", group)
	must(errors.As(err, &exists), err)
	var noGroup *types.ReplicationGroupNotFoundFault
	_, err = create("go-2", "none")
	must(errors.As(err, &noGroup), err)
	var noSnapshot *types.SnapshotNotFoundFault
	_, err = client.DeleteSnapshot(ctx, &elasticache.DeleteSnapshotInput{SnapshotName: aws.String("none")})
	must(errors.As(err, &noSnapshot), err)
}

func copies(bucket string) {
	copyOf := func(target string, bucket *string) {
		_, err := client.CopySnapshot(ctx, &elasticache.CopySnapshotInput{
			SourceSnapshotName: aws.String("go-1"), TargetSnapshotName: &target, TargetBucket: bucket,
		})
		check(err)
	}
	copyOf("go-2", nil)
	available("go-2")
	copyOf("go-out", &bucket)
	available("go-1")
}

// What the provider always sends, and what it is given.
func create(id string, more func(*elasticache.CreateReplicationGroupInput)) {
	input := &elasticache.CreateReplicationGroupInput{
		ReplicationGroupId:          &id,
		ReplicationGroupDescription: aws.String("made by terraform"),
		AutomaticFailoverEnabled:    aws.Bool(false),
		CacheNodeType:               aws.String("cache.backupd.external"),
		TransitEncryptionEnabled:    aws.Bool(false),
		Engine:                      aws.String("redis"),
		SnapshotName:                aws.String("go-1"),
		Tags:                        []types.Tag{{Key: aws.String("by"), Value: aws.String("terraform")}},
	}
	more(input)
	made, err := client.CreateReplicationGroup(ctx, input)
	check(err)
	must(*made.ReplicationGroup.ReplicationGroupId == id && *made.ReplicationGroup.Status == "creating", id)
}

// What the provider makes its state of. Some of it is read without asking whether it is there.
func read(id string, slots []string) *types.ReplicationGroup {
	found, err := find(id)
	check(err)
	must(found.AutomaticFailover == "disabled" && found.MultiAZ == "disabled", "modes")
	must(*found.Description == "made by terraform" && found.ARN != nil && *found.ClusterEnabled, "group")
	must(len(found.MemberClusters) == len(slots) && len(found.NodeGroups) == len(slots), "members")
	must(found.ConfigurationEndpoint.Port > 0 && found.ConfigurationEndpoint.Address != nil, "endpoint")
	must(found.SnapshotWindow != nil && found.SnapshotRetentionLimit != nil, "window")
	var got []string
	for _, group := range found.NodeGroups {
		must(group.NodeGroupId != nil && len(group.NodeGroupMembers) == 1, "node group")
		got = append(got, *group.Slots)
	}
	sort.Strings(got)
	must(strings.Join(got, ";") == strings.Join(slots, ";"), got)
	members, err := client.DescribeCacheClusters(ctx, &elasticache.DescribeCacheClustersInput{
		CacheClusterId: found.NodeGroups[0].NodeGroupMembers[0].CacheClusterId, ShowCacheNodeInfo: aws.Bool(true),
	})
	check(err)
	member := members.CacheClusters[0]
	must(member.CacheNodeType != nil && *member.CacheNodeType == "cache.backupd.external", "node type")
	must(*member.Engine == "redis" && len(strings.Split(*member.EngineVersion, ".")) == 3, "engine")
	must(member.CacheParameterGroup != nil && len(member.CacheNodes) == 1 && *member.ReplicationGroupId == id, "member")
	must(!*member.AtRestEncryptionEnabled && !*member.TransitEncryptionEnabled && !*member.AuthTokenEnabled, "security")
	return found
}

// From no retention to some it names a node for snapshots, whatever the mode; tags are changed by themselves.
func update(id string, arn *string, window string) {
	waitAvailable(id)
	_, err := client.ModifyReplicationGroup(ctx, &elasticache.ModifyReplicationGroupInput{
		ReplicationGroupId: &id, ApplyImmediately: true, SnapshotRetentionLimit: aws.Int32(5),
		SnapshotWindow: &window, SnapshottingClusterId: aws.String(id + "-001"),
	})
	check(err)
	found := waitAvailable(id)
	must(*found.SnapshotRetentionLimit == 5 && *found.SnapshotWindow == window, "update")
	_, err = client.ModifyReplicationGroup(ctx, &elasticache.ModifyReplicationGroupInput{ReplicationGroupId: &id, ApplyImmediately: true})
	var nothing *types.InvalidParameterCombinationException
	must(errors.As(err, &nothing) && strings.Contains(err.Error(), "No modifications were requested"), err)
	_, err = client.RemoveTagsFromResource(ctx, &elasticache.RemoveTagsFromResourceInput{ResourceName: arn, TagKeys: []string{"by"}})
	check(err)
	_, err = client.AddTagsToResource(ctx, &elasticache.AddTagsToResourceInput{
		ResourceName: arn, Tags: []types.Tag{{Key: aws.String("of"), Value: aws.String("terraform")}},
	})
	check(err)
	tags := tagsOf(arn)
	must(len(tags) == 1 && tags["of"] == "terraform", tags)
}

func destroy(id string, last *string) {
	var busy *types.InvalidReplicationGroupStateFault
	until("the deletion", func() bool {
		_, err := client.DeleteReplicationGroup(ctx, &elasticache.DeleteReplicationGroupInput{
			ReplicationGroupId: &id, FinalSnapshotIdentifier: last,
		})
		if !errors.As(err, &busy) {
			check(err)
		}
		return err == nil
	})
	until("the end", func() bool {
		found, err := find(id)
		var gone *types.ReplicationGroupNotFoundFault
		if errors.As(err, &gone) {
			return true
		}
		check(err)
		must(*found.Status == "creating" || *found.Status == "available" || *found.Status == "deleting", *found.Status)
		return false
	})
}

func terraform(endpoint string, config aws.Config, window string) {
	identities := sts.NewFromConfig(config, func(o *sts.Options) { o.EndpointResolver = sts.EndpointResolverFromURL(endpoint) })
	identity, err := identities.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	check(err)
	must(*identity.Account == "000000000000", *identity.Account)

	slots := []string{"0-99,200-9999", "100-199,10000-16383"}
	create("tf-slots", func(input *elasticache.CreateReplicationGroupInput) {
		for n, text := range slots {
			group := types.NodeGroupConfiguration{NodeGroupId: aws.String(fmt.Sprintf("%04d", n+1)), Slots: aws.String(text)}
			group.ReplicaCount = aws.Int32(0)
			input.NodeGroupConfiguration = append(input.NodeGroupConfiguration, group)
		}
	})
	waitAvailable("tf-slots")
	create("tf-even", func(input *elasticache.CreateReplicationGroupInput) {
		input.NumNodeGroups, input.ReplicasPerNodeGroup = aws.Int32(2), aws.Int32(0)
		input.EngineVersion, input.SnapshotRetentionLimit = aws.String("7.0"), aws.Int32(0)
	})
	// the provider does without; it is the SDK's own
	waiter := elasticache.NewReplicationGroupAvailableWaiter(client, func(o *elasticache.ReplicationGroupAvailableWaiterOptions) {
		o.MinDelay, o.MaxDelay = time.Second, time.Second
	})
	even := "tf-even"
	check(waiter.Wait(ctx, &elasticache.DescribeReplicationGroupsInput{ReplicationGroupId: &even}, limit))

	read("tf-slots", slots)
	found := read("tf-even", []string{"0-8191", "8192-16383"})
	tags := tagsOf(found.ARN)
	must(len(tags) == 1 && tags["by"] == "terraform", tags)
	update("tf-even", found.ARN, window)
	destroy("tf-even", aws.String("tf-last"))
	must(*snapshot("tf-last").SnapshotStatus == "available", "last snapshot")
	destroy("tf-slots", nil)
}

func lists() {
	pages := elasticache.NewDescribeSnapshotsPaginator(client, &elasticache.DescribeSnapshotsInput{MaxRecords: aws.Int32(20)},
		func(o *elasticache.DescribeSnapshotsPaginatorOptions) { o.StopOnDuplicateToken = true })
	names, count, seeded := map[string]bool{}, 0, 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		check(err)
		for _, found := range page.Snapshots {
			names[*found.SnapshotName] = true
			count++
			if strings.HasPrefix(*found.SnapshotName, "seeded-") {
				seeded++
			}
		}
	}
	must(seeded == 120 && count == 123 && len(names) == count, "snapshots in pages: ", count)
	events, err := client.DescribeEvents(ctx, &elasticache.DescribeEventsInput{Duration: aws.Int32(60)})
	check(err)
	told := false
	for _, event := range events.Events {
		told = told || strings.HasPrefix(*event.Message, "Snapshot succeeded for snapshot with ID 'go-1'")
	}
	must(told, "events")
	deleted, err := client.DeleteSnapshot(ctx, &elasticache.DeleteSnapshotInput{SnapshotName: aws.String("go-2")})
	check(err)
	must(*deleted.Snapshot.SnapshotStatus == "deleting", *deleted.Snapshot.SnapshotStatus)
}

func main() {
	endpoint, group, bucket, window := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	config := aws.Config{
		Region:      os.Getenv("AWS_DEFAULT_REGION"),
		Credentials: credentials.NewStaticCredentialsProvider(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
	}
	client = elasticache.NewFromConfig(config, func(o *elasticache.Options) {
		o.EndpointResolver = elasticache.EndpointResolverFromURL(endpoint)
	})
	makes(group)
	copies(bucket)
	terraform(endpoint, config, window)
	lists()
	fmt.Println("ok: what Terraform asks for")
}

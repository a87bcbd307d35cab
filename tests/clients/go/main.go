// What Terraform's provider asks for while it makes, reads, changes and destroys a replication group that is restored from a snapshot
// (hashicorp/terraform-provider-aws, replication_group.go), with the same SDK, against the endpoint of backupd.
//
// usage: story ENDPOINT GROUP BUCKET     with credentials in the usual AWS variables
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/elasticache"
	"github.com/aws/aws-sdk-go-v2/service/elasticache/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

var ctx = context.Background()

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
	for end := time.Now().Add(120 * time.Second); !probe(); time.Sleep(200 * time.Millisecond) {
		must(time.Now().Before(end), what)
	}
}

func group(client *elasticache.Client, id string) (*types.ReplicationGroup, error) {
	found, err := client.DescribeReplicationGroups(ctx, &elasticache.DescribeReplicationGroupsInput{ReplicationGroupId: &id})
	if err != nil {
		return nil, err
	}
	return &found.ReplicationGroups[0], nil
}

func main() {
	endpoint, source := os.Args[1], os.Args[2]
	config := aws.Config{
		Region:      "eu-central-1",
		Credentials: credentials.NewStaticCredentialsProvider(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
	}
	client := elasticache.NewFromConfig(config, func(o *elasticache.Options) {
		o.EndpointResolver = elasticache.EndpointResolverFromURL(endpoint)
	})
	identities := sts.NewFromConfig(config, func(o *sts.Options) { o.EndpointResolver = sts.EndpointResolverFromURL(endpoint) })

	// what it restores from
	name, id := "tf-1", "tf-new"
	_, err := client.CreateSnapshot(ctx, &elasticache.CreateSnapshotInput{ReplicationGroupId: &source, SnapshotName: &name})
	check(err)
	until("the snapshot", func() bool {
		found, err := client.DescribeSnapshots(ctx, &elasticache.DescribeSnapshotsInput{SnapshotName: &name})
		check(err)
		return *found.Snapshots[0].SnapshotStatus == "available"
	})

	identity, err := identities.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	check(err)
	must(*identity.Account == "000000000000", *identity.Account)

	// create
	made, err := client.CreateReplicationGroup(ctx, &elasticache.CreateReplicationGroupInput{
		ReplicationGroupId:          &id,
		ReplicationGroupDescription: aws.String("made by terraform"),
		SnapshotName:                &name,
		SnapshotRetentionLimit:      aws.Int32(0),
		NodeGroupConfiguration: []types.NodeGroupConfiguration{
			{Slots: aws.String("0-99,200-9999")}, {Slots: aws.String("100-199,10000-16383")},
		},
		Tags: []types.Tag{{Key: aws.String("by"), Value: aws.String("terraform")}},
	})
	check(err)
	must(*made.ReplicationGroup.Status == "creating", *made.ReplicationGroup.Status)
	until("the group", func() bool {
		found, err := group(client, id)
		check(err)
		return *found.Status == "available"
	})

	// read
	found, err := group(client, id)
	check(err)
	must(len(found.NodeGroups) == 2 && len(found.NodeGroups[0].NodeGroupMembers) == 1, "node groups")
	must(*found.ClusterEnabled && found.ConfigurationEndpoint.Port > 0 && found.ARN != nil, "endpoint")
	must(found.AutomaticFailover != "" && found.MultiAZ != "" && found.SnapshotWindow != nil, "modes")
	members, err := client.DescribeCacheClusters(ctx, &elasticache.DescribeCacheClustersInput{
		CacheClusterId: &found.MemberClusters[0], ShowCacheNodeInfo: aws.Bool(true),
	})
	check(err)
	member := members.CacheClusters[0]
	must(member.EngineVersion != nil && member.AtRestEncryptionEnabled != nil && len(member.CacheNodes) == 1, "member")
	must(member.CacheParameterGroup != nil && member.TransitEncryptionEnabled != nil, "member")
	tags, err := client.ListTagsForResource(ctx, &elasticache.ListTagsForResourceInput{ResourceName: found.ARN})
	check(err)
	must(len(tags.TagList) == 1 && *tags.TagList[0].Value == "terraform", "tags")

	// update: from no retention to some it names a node for snapshots, whatever the mode
	_, err = client.ModifyReplicationGroup(ctx, &elasticache.ModifyReplicationGroupInput{
		ReplicationGroupId: &id, ApplyImmediately: true, SnapshotRetentionLimit: aws.Int32(5),
		SnapshotWindow: aws.String("03:00-05:00"), SnapshottingClusterId: aws.String(id + "-001"),
	})
	check(err)
	found, err = group(client, id)
	check(err)
	must(*found.SnapshotRetentionLimit == 5 && *found.SnapshotWindow == "03:00-05:00", "update")
	_, err = client.ModifyReplicationGroup(ctx, &elasticache.ModifyReplicationGroupInput{ReplicationGroupId: &id, ApplyImmediately: true})
	must(err != nil && strings.Contains(err.Error(), "No modifications were requested"), err)

	// delete, after a last snapshot
	last := "tf-last"
	_, err = client.DeleteReplicationGroup(ctx, &elasticache.DeleteReplicationGroupInput{
		ReplicationGroupId: &id, FinalSnapshotIdentifier: &last,
	})
	check(err)
	until("the deletion", func() bool {
		_, err := group(client, id)
		var gone *types.ReplicationGroupNotFoundFault
		if err != nil && !errors.As(err, &gone) {
			panic(err)
		}
		return err != nil
	})
	kept, err := client.DescribeSnapshots(ctx, &elasticache.DescribeSnapshotsInput{SnapshotName: &last})
	check(err)
	must(*kept.Snapshots[0].SnapshotStatus == "available", "last snapshot")
	pages := elasticache.NewDescribeSnapshotsPaginator(client, &elasticache.DescribeSnapshotsInput{MaxRecords: aws.Int32(20)})
	count := 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		check(err)
		count += len(page.Snapshots)
	}
	must(count == 122, "snapshots in pages: ", count)
	fmt.Println("ok: what Terraform asks for")
}

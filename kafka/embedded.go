package kafka

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Embedded is a stand-in for a Kafka broker inside this process, for
// demonstrations and tests: one node on the loopback interface, without
// replication, TLS or authentication, and with its records in memory. It is
// safe for concurrent use.
type Embedded struct {
	cluster *kfake.Cluster
	address string
}

// What a partition of the embedded broker keeps. Old records go as whole
// segments once a second, so it holds at most the sum of both sizes and what is
// produced in between.
const (
	retainBytes    = 16 << 20
	segmentBytes   = 4 << 20
	retainInterval = time.Second
)

// StartEmbedded starts an embedded broker on a port of 127.0.0.1; port 0 takes a
// free one. Whoever started it closes it. It fails if the port is in use.
func StartEmbedded(port int) (*Embedded, error) {
	cluster, err := kfake.NewCluster(
		kfake.Ports(port),
		kfake.ListenFn(listenGuarded),
		kfake.ClusterID("seriatim-embedded"),
		kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": strconv.FormatInt(retainInterval.Milliseconds(), 10)}),
	)
	if err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	return &Embedded{cluster: cluster, address: cluster.ListenAddrs()[0]}, nil
}

// Address is where clients connect: host:port.
func (e *Embedded) Address() string { return e.address }

// Close ends the broker and forgets its records. Clients should be closed first.
func (e *Embedded) Close() { e.cluster.Close() }

// CreateTopics creates topics with the number of partitions given for each.
// Each partition keeps about 16 MiB of its newest records. Topics that exist are
// left as they are.
func (e *Embedded) CreateTopics(ctx context.Context, partitions map[string]int32) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(e.address))
	if err != nil {
		return err
	}
	defer client.Close()
	configs := map[string]*string{
		"retention.bytes": kadm.StringPtr(strconv.Itoa(retainBytes)),
		"segment.bytes":   kadm.StringPtr(strconv.Itoa(segmentBytes)),
	}
	admin := kadm.NewClient(client)
	existing, err := admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	for topic, n := range partitions {
		if existing.Has(topic) {
			continue
		}
		if _, err := admin.CreateTopic(ctx, n, 1, configs, topic); err != nil {
			return fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	return nil
}

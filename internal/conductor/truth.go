package conductor

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ends returns the end of every partition of a topic: that for readers of
// committed records, or that for all.
func (b *bed) ends(ctx context.Context, topic string, partitions int, stable bool) ([]int64, error) {
	list := b.admin.ListEndOffsets
	if stable {
		list = b.admin.ListCommittedOffsets
	}
	listed, err := list(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends := make([]int64, partitions)
	for p := range ends {
		o, ok := listed.Lookup(topic, int32(p))
		if !ok {
			return nil, fmt.Errorf("%s/%d has no end", topic, p)
		}
		if o.Err != nil {
			return nil, o.Err
		}
		ends[p] = o.Offset
	}
	return ends, nil
}

// committed returns what a group has committed, -1 where that is nothing.
func (b *bed) committed(ctx context.Context, group, topic string, partitions int) ([]int64, error) {
	fetched, err := b.admin.FetchOffsets(ctx, group)
	if err != nil {
		return nil, err
	}
	list := make([]int64, partitions)
	for p := range list {
		list[p] = -1
		if o, ok := fetched.Lookup(topic, int32(p)); ok {
			if o.Err != nil {
				return nil, o.Err
			}
			list[p] = o.At
		}
	}
	return list, nil
}

// read calls each for every record of a topic, control records included, those
// of a partition in order.
func (b *bed) read(ctx context.Context, topic string, partitions int, level kgo.IsolationLevel, each func(*kgo.Record) error) error {
	ends, err := b.ends(ctx, topic, partitions, level == kgo.ReadCommitted())
	if err != nil {
		return err
	}
	from := make(map[int32]kgo.Offset)
	for p, end := range ends {
		if end > 0 {
			from[int32(p)] = kgo.NewOffset().AtStart()
		}
	}
	reader, err := b.cluster.Client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(), kgo.FetchMaxWait(200*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer reader.Close()
	for open := len(from); open > 0; {
		fetches := reader.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read %s: %w, %d partitions from their ends", topic, err, open)
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		for iter := fetches.RecordIter(); !iter.Done(); {
			r := iter.Next()
			if err := each(r); err != nil {
				return err
			}
			if r.Offset == ends[r.Partition]-1 {
				open--
			}
		}
	}
	return nil
}

// markers counts transactions by their markers. Every transaction has a producer
// epoch of its own (KIP-890).
type markers map[marker]struct{}

type marker struct {
	producer int64
	epoch    int16
	commit   bool
}

func (m markers) add(r *kgo.Record) {
	if len(r.Key) >= 4 {
		m[marker{r.ProducerID, r.ProducerEpoch, binary.BigEndian.Uint16(r.Key[2:]) == 1}] = struct{}{}
	}
}

func (m markers) counts() (committed, aborted int) {
	for k := range m {
		if k.commit {
			committed++
		} else {
			aborted++
		}
	}
	return committed, aborted
}

// openTransactions returns those that have not ended.
func (b *bed) openTransactions(ctx context.Context) ([]string, error) {
	listed, err := b.admin.ListTransactions(ctx, nil, []string{"Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence"})
	if err != nil {
		return nil, err
	}
	var open []string
	for _, t := range listed.Sorted() {
		open = append(open, fmt.Sprintf("%s (%s)", t.TxnID, t.State))
	}
	return open, nil
}

// moveLeaders makes another replica the leader of every partition: the first
// replica becomes the last.
func (b *bed) moveLeaders(ctx context.Context) error {
	topics, err := b.admin.ListTopicsWithInternal(ctx)
	if err != nil {
		return err
	}
	var req kadm.AlterPartitionAssignmentsReq
	set := make(kadm.TopicsSet)
	topics.EachPartition(func(p kadm.PartitionDetail) {
		if len(p.Replicas) > 1 {
			req.Assign(p.Topic, p.Partition, append(p.Replicas[1:len(p.Replicas):len(p.Replicas)], p.Replicas[0]))
			set.Add(p.Topic, p.Partition)
		}
	})
	if _, err := b.admin.AlterPartitionAssignments(ctx, req); err != nil {
		return err
	}
	_, err = b.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, set)
	return err
}

package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ends returns the end of each partition of a topic at an isolation level.
func ends(ctx context.Context, topic string, isolation kgo.IsolationLevel) (map[int32]int64, error) {
	list := bed.admin.ListEndOffsets
	if isolation == kgo.ReadCommitted() {
		list = bed.admin.ListCommittedOffsets
	}
	listed, err := list(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	found := make(map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) { found[o.Partition] = o.Offset })
	return found, err
}

// committed returns the offsets that a group has committed of a topic.
func committed(ctx context.Context, group, topic string) (map[int32]int64, error) {
	fetched, err := bed.admin.FetchOffsetsForTopics(ctx, group, topic)
	if err == nil {
		err = fetched.Error()
	}
	commits := make(map[int32]int64)
	fetched.Each(func(o kadm.OffsetResponse) {
		if o.At >= 0 {
			commits[o.Partition] = o.At
		}
	})
	return commits, err
}

// lag says where a group has not committed the end of a topic; empty if it has.
// Commits must reach the very end of the log, whatever it ends in.
func lag(ctx context.Context, group, topic string) (state string) {
	end, err := ends(ctx, topic, kgo.ReadUncommitted())
	if err != nil {
		return err.Error()
	}
	commits, err := committed(ctx, group, topic)
	if err != nil {
		return err.Error()
	}
	for p := range int32(len(end)) {
		if at, ok := commits[p]; !ok || at != end[p] {
			state += fmt.Sprintf("partition %d: committed %d (%t) of %d; ", p, at, ok, end[p])
		}
	}
	return state
}

// awaitCaughtUp waits until a group has committed the end of a topic.
func awaitCaughtUp(t *testing.T, allowed time.Duration, group, topic string) {
	t.Helper()
	ctx := within(t, allowed+patience)
	await(t, allowed, fmt.Sprintf("group %s to commit the end of %s", group, topic), func() (bool, string) {
		state := lag(ctx, group, topic)
		return state == "", state
	})
}

// awaitOutput waits until a topic without transactions has at least n records.
func awaitOutput(t *testing.T, topic string, n int64) {
	t.Helper()
	ctx := within(t, 2*patience)
	await(t, patience, fmt.Sprintf("%d records in %s", n, topic), func() (bool, string) {
		end, err := ends(ctx, topic, kgo.ReadUncommitted())
		if err != nil {
			return false, err.Error()
		}
		var have int64
		for _, offset := range end {
			have += offset
		}
		return have >= n, fmt.Sprintf("there are %d", have)
	})
}

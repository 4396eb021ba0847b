package demo

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// read tells see of every record of the topics until ctx ends, and closes the
// client. It knows nothing of
// those who wrote them: it has a client of its own and no group.
func read(ctx context.Context, client *kgo.Client, see func(r *kgo.Record, now time.Time)) {
	defer client.Close()
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		now := time.Now()
		fetches.EachRecord(func(r *kgo.Record) { see(r, now) })
	}
}

// newReader returns the client of [read].
func newReader(client []kgo.Opt, topics []string) (*kgo.Client, error) {
	return kgo.NewClient(append(client, kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
}

package processor

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A sink is an output topic that exists.
type sink struct {
	settings
	id         [16]byte
	partitions int
	lanes      []*lane // of its partitions, one at least for each; filled in by the loop
}

// settings are those of a topic that say what it takes.
type settings struct {
	maxBytes  int  // of one batch: max.message.bytes
	compacted bool // takes no record without a key
	expires   bool // deletes what is old, compacted or not
	told      bool // by the cluster; else the defaults
}

// sinks asks what the output topics that exist take. What was told once counts until it is told
// anew. A cluster that never tells (DESCRIBE_CONFIGS is not granted) has the defaults; one that does not
// answer is asked again, as records would be given up that are too large for these alone.
func (w *watcher) sinks(ctx context.Context, admin *kadm.Client, metadata kadm.Metadata, topics []string) (map[string]*sink, error) {
	sinks := make(map[string]*sink, len(topics))
	for _, topic := range topics {
		if detail := metadata.Topics[topic]; detail.Err == nil && len(detail.Partitions) > 0 {
			sinks[topic] = &sink{id: detail.ID, partitions: len(detail.Partitions), settings: settings{maxBytes: defaultBatch}}
		}
	}
	if len(sinks) == 0 {
		return nil, nil
	}
	configs, err := admin.DescribeTopicConfigs(ctx, slices.Collect(maps.Keys(sinks))...)
	for _, c := range configs {
		if c.Err != nil {
			err = errors.Join(err, c.Err)
			continue
		}
		s := settings{maxBytes: defaultBatch, told: true}
		for _, entry := range c.Configs {
			switch value := entry.MaybeValue(); entry.Key {
			case "max.message.bytes":
				if n, err := strconv.Atoi(value); err == nil {
					s.maxBytes = min(max(n, leastBatch), mostBatch)
				}
			case "cleanup.policy":
				s.compacted, s.expires = strings.Contains(value, "compact"), strings.Contains(value, "delete")
			}
		}
		w.told[c.Name] = s
	}
	_, broken := errors.AsType[net.Error](err)
	unanswered := broken || ctx.Err() != nil || kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err)
	for topic, s := range sinks {
		if told, known := w.told[topic]; known {
			s.settings = told
		} else if unanswered {
			delete(sinks, topic)
		}
	}
	return sinks, err
}

// batchLimit is the largest batch that a topic takes. The client asks for it when
// it meets a topic, which is after the watcher has seen it.
func (l *loop) batchLimit(topic string) int32 {
	if limits := l.batchLimits.Load(); limits != nil {
		if n, ok := (*limits)[topic]; ok {
			return n
		}
	}
	return defaultBatch
}

// defaultBatch is the broker's own default of max.message.bytes, for clusters
// that do not tell theirs.
const defaultBatch = 1048588

// leastBatch and mostBatch are the limits that the client accepts.
const leastBatch, mostBatch = 512, 1 << 30

package integration

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestTickOfANewGroup has the very first record of a new group stuck: where it
// stands is committed on every tick nevertheless, or a lag monitor would know
// nothing of the group.
func TestTickOfANewGroup(t *testing.T) {
	t.Parallel()
	in := newInput(t, 1)
	in.produce(t, 10)
	const first = 5 // offset at which the log starts
	var before kadm.Offsets
	before.AddOffset(in.topic, 0, first, -1)
	if _, err := bed.admin.DeleteRecords(within(t, patience), before); err != nil {
		t.Fatal(err)
	}
	name := unique(t, "")
	start(t, process(pipeline(name, in.topic, newTopic(t, ".out", 1)).with(settings{
		"transform": settings{"simulate": settings{"latency": "1h", "sigma": 0}},
	})))
	ticks := awaitCommits(t, group(name), 10, func(commit) bool { return true })
	mustRun(t)
	checkTicks(t, ticks, first)
}

// TestTickOfAFrozenHead has a record stuck on the way: its position is committed
// again and again, unchanged.
func TestTickOfAFrozenHead(t *testing.T) {
	t.Parallel()
	const stuck = 300
	in := newInput(t, 1)
	in.produce(t, 1000)
	worker := newWorker(t)
	worker.hold(in.topic + fmt.Sprintf("/0/%d", stuck))
	name := unique(t, "")
	out := newTopic(t, ".out", 1)
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"transform": settings{"http": settings{"urls": []string{worker.url}, "timeout": "5m"}},
	})))
	ticks := awaitCommits(t, group(name), 10, func(c commit) bool { return c.offset == stuck })
	mustRun(t)
	checkTicks(t, ticks, stuck)

	worker.release()
	i.finish(t, name, in.topic, out)
}

// checkTicks checks commits with an interval of 0.5 s.
func checkTicks(t *testing.T, ticks []commit, offset int64) {
	t.Helper()
	var gaps []time.Duration
	for n, c := range ticks {
		if c.offset != offset {
			t.Errorf("commit %d is of offset %d, want %d", n, c.offset, offset)
		}
		if c.metadata != "" {
			t.Errorf("commit %d has the metadata %q, want none", n, c.metadata)
		}
		if n > 0 {
			gaps = append(gaps, c.at.Sub(ticks[n-1].at))
		}
	}
	slices.Sort(gaps)
	if median := gaps[len(gaps)/2]; median < 400*time.Millisecond || median > 700*time.Millisecond {
		t.Errorf("the ticks are %v apart, want 500ms: %v", median, gaps)
	}
}

// A commit is one that the broker has written down.
type commit struct {
	offset   int64
	metadata string
	at       time.Time
}

// awaitCommits reads the broker's own topic of offsets until it holds n commits
// of a group, which has one partition, that are wanted, and returns these.
func awaitCommits(t *testing.T, group string, n int, wanted func(commit) bool) []commit {
	t.Helper()
	ctx := within(t, patience)
	reader, err := bed.cluster.Client(
		kgo.ConsumeTopics("__consumer_offsets"),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var found []commit
	for len(found) < n {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("waited %v for %d commits of %s: %v; there are %+v", patience, n, group, err, found)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			c, ok, err := readCommit(r, group)
			if err != nil {
				t.Fatal(err)
			}
			if ok && wanted(c) {
				found = append(found, c)
			}
		})
	}
	return found
}

// readCommit reads a record of the broker's topic of offsets. It reports false if
// the record is something else.
func readCommit(r *kgo.Record, group string) (c commit, ok bool, err error) {
	if len(r.Key) < 2 || binary.BigEndian.Uint16(r.Key) > 1 || r.Value == nil {
		return commit{}, false, nil
	}
	key := kmsg.NewOffsetCommitKey()
	if err := key.ReadFrom(r.Key); err != nil {
		return commit{}, false, fmt.Errorf("a key in __consumer_offsets: %w", err)
	}
	if key.Group != group {
		return commit{}, false, nil
	}
	value := kmsg.NewOffsetCommitValue()
	if err := value.ReadFrom(r.Value); err != nil {
		return commit{}, false, fmt.Errorf("a value in __consumer_offsets: %w", err)
	}
	return commit{value.Offset, value.Metadata, time.UnixMilli(value.CommitTimestamp)}, true, nil
}

// TestTransactionalInput reads what transactions wrote: aborted records do not
// appear, and commits reach the end of a log that ends in markers.
func TestTransactionalInput(t *testing.T) {
	t.Parallel()
	const partitions = 3
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out)))
	i.awaitPartitions(t, name, partitions)
	chance := random(t)
	client := newProducer(t, kgo.TransactionalID(unique(t, "-producer")))
	for n := range 40 {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		answers := newAnswers(t)
		for range 1 + chance.IntN(5) {
			for p := range partitions {
				client.Produce(t.Context(), in.record(p), answers.note)
			}
		}
		answers.flush(client)
		end := kgo.TransactionEndTry(n%3 > 0) // the last one, of number 39, is aborted
		if err := client.EndTransaction(within(t, patience), end); err != nil {
			t.Fatal(err)
		}
	}
	awaitCaughtUp(t, patience, group(name), in.topic)
	await(t, patience, "the lag to be told as 0", func() (bool, string) {
		behind := i.metric(t, "seriatim_lag_records", name)
		return behind == 0, fmt.Sprint(behind)
	})
	i.drain(t)
	v := compareExact(t, in.topic, out)
	if produced := in.next[0] + in.next[1] + in.next[2]; v.records == 0 || v.records >= produced {
		t.Errorf("%v; want some of the %d that were produced", v, produced)
	}
}

// TestStart begins with the first record since a moment, and with the next one.
func TestStart(t *testing.T) {
	t.Parallel()
	in := newInput(t, 2)
	in.produce(t, 100)
	var moment time.Time
	await(t, patience, "the clock to go on", func() (bool, string) {
		now := time.Now().UTC().Truncate(time.Millisecond)
		defer func() { moment = now }()
		return !moment.IsZero(), ""
	})
	in.produce(t, 50)

	tests := []struct {
		start string
		skips int // records of each partition
	}{
		{moment.Format(time.RFC3339Nano), 100},
		{"latest", 150},
	}
	outs := make([]string, len(tests))
	groups := make([]string, len(tests))
	for n, test := range tests {
		name := unique(t, "")
		outs[n], groups[n] = newTopic(t, ".out", 2), group(name)
		start(t, process(pipeline(name, in.topic, outs[n]).with(settings{"input": settings{"start": test.start}})))
		awaitCaughtUp(t, patience, groups[n], in.topic)
	}
	in.produce(t, 25)
	source := read(t, in.topic, kgo.ReadCommitted())
	for n, test := range tests {
		awaitCaughtUp(t, patience, groups[n], in.topic)
		var since [][]sighting
		for p := range source {
			since = append(since, source[p][test.skips:])
		}
		if v := judge(since, read(t, outs[n], kgo.ReadUncommitted())); v.faults > 0 || v.repeats > 0 {
			t.Errorf("start: %s: %v", test.start, v)
		}
	}
}

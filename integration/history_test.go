package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A sighting is one record as the tests' own reader saw it.
type sighting struct {
	offset int64
	seq    int    // that its value tells
	from   string // topic/partition that its value tells
	source string // header seriatim.source
	key    string
}

// read returns the records of a topic by partition, from the beginning to the end
// that the topic has now.
func read(t *testing.T, topic string, isolation kgo.IsolationLevel) [][]sighting {
	t.Helper()
	ctx := within(t, 2*patience)
	end, err := ends(ctx, topic, isolation)
	if err != nil {
		t.Fatalf("the ends of %s: %v", topic, err)
	}
	if isolation == kgo.ReadCommitted() {
		// The end of a transaction reaches the group and each of its partitions apart: what
		// a group has committed may be invisible for some time yet (seen: 50 ms).
		await(t, patience, "the transactions of "+topic+" to be over", func() (bool, string) {
			all, err := ends(ctx, topic, kgo.ReadUncommitted())
			if err != nil {
				return false, err.Error()
			}
			if end, err = ends(ctx, topic, isolation); err != nil {
				return false, err.Error()
			}
			return maps.Equal(end, all), fmt.Sprintf("committed up to %v of %v", end, all)
		})
	}
	seen := make([][]sighting, len(end))
	from := make(map[int32]kgo.Offset)
	open := 0
	for p, offset := range end {
		if offset > 0 {
			from[p] = kgo.NewOffset().AtStart()
			open++
		}
	}
	reader, err := bed.cluster.Client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(isolation),
		kgo.KeepControlRecords(), // so that a log that ends in a marker is read to its end
	)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for open > 0 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v, %d partitions from their end", topic, err, open)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset >= end[r.Partition] {
				return // produced since
			}
			if !r.Attrs.IsControl() {
				s, err := sight(r)
				if err != nil {
					t.Fatalf("%s/%d@%d: %v", topic, r.Partition, r.Offset, err)
				}
				seen[r.Partition] = append(seen[r.Partition], s)
			}
			if r.Offset == end[r.Partition]-1 {
				open--
			}
		})
	}
	return seen
}

// sight reads what a record tells.
func sight(r *kgo.Record) (sighting, error) {
	value := string(r.Value)
	if strings.HasPrefix(value, "{") {
		var order struct{ Who string }
		if err := json.Unmarshal(r.Value, &order); err != nil {
			return sighting{}, err
		}
		value = order.Who
	}
	i := strings.LastIndexByte(value, '/')
	seq, err := strconv.Atoi(value[i+1:])
	if err != nil || i < 0 {
		return sighting{}, fmt.Errorf("%q is no value of a test", value)
	}
	s := sighting{offset: r.Offset, seq: seq, from: value[:i], key: string(r.Key)}
	for _, h := range r.Headers {
		if h.Key == "seriatim.source" {
			s.source = string(h.Value)
		}
	}
	return s, nil
}

// A verdict compares outputs with their input.
type verdict struct {
	records int // of the input
	lost    int
	repeats int
	// longest is the longest step back: from the newest output to an older one.
	longest int
	// jumps are gaps among repeats, as when two instances repeat at once. All that
	// they leave out has appeared before.
	jumps  int
	faults int
	first  []string // faults in words
}

// judge compares what was put out with what was put in, partition by partition.
// First appearances must follow the input without a gap.
func judge(in, out [][]sighting) verdict {
	var v verdict
	if len(out) < len(in) {
		v.fault("there are %d output partitions for %d", len(out), len(in))
		return v
	}
	for p := range in {
		v.partition(p, in[p], out[p])
	}
	for p := len(in); p < len(out); p++ {
		if len(out[p]) > 0 {
			v.fault("output partition %d has no source, and %d records", p, len(out[p]))
		}
	}
	return v
}

func (v *verdict) partition(p int, in, out []sighting) {
	v.records += len(in)
	position := make(map[int]int, len(in)) // of a sequence number in the input
	for i := range in {
		position[in[i].seq] = i
	}
	prev, newest := -1, -1
	seen := make([]bool, len(in))
	for i := range out {
		o := &out[i]
		pos, ok := position[o.seq]
		if !ok || o.from != in[pos].from {
			v.fault("partition %d, output offset %d: %s/%d was not in the input", p, o.offset, o.from, o.seq)
			continue
		}
		if want := fmt.Sprintf("%s/%d", in[pos].from, in[pos].offset); o.source != want && o.source != "" {
			v.fault("partition %d, output offset %d: the header says %q, want %q", p, o.offset, o.source, want)
		}
		if o.key != in[pos].key {
			v.fault("partition %d, output offset %d: the key is %q, want %q", p, o.offset, o.key, in[pos].key)
		}
		if pos > newest+1 {
			v.fault("partition %d, output offset %d: record %d comes before %d", p, o.offset, pos, newest+1)
		} else if pos > prev+1 {
			v.jumps++
		}
		if seen[pos] {
			v.repeats++
			v.longest = max(v.longest, newest-pos+1)
		}
		seen[pos] = true
		prev, newest = pos, max(newest, pos)
	}
	for pos, ok := range seen {
		if !ok {
			v.lost++
			v.fault("partition %d: record %d of %d, at input offset %d, is lost", p, pos, len(in), in[pos].offset)
		}
	}
}

func (v *verdict) fault(format string, args ...any) {
	v.faults++
	if len(v.first) < 5 {
		v.first = append(v.first, fmt.Sprintf(format, args...))
	}
}

func (v verdict) String() string {
	text := fmt.Sprintf("%d records, %d lost, %d repeated, longest step back %d", v.records, v.lost, v.repeats, v.longest)
	if v.jumps > 0 {
		text += fmt.Sprintf(", %d jumps among repeats", v.jumps)
	}
	if v.faults > 0 {
		text += fmt.Sprintf("; %d faults, the first:\n\t%s", v.faults, strings.Join(v.first, "\n\t"))
	}
	return text
}

// compare reads input and output of a finished pipeline at both isolation levels
// and returns the verdict, which has no faults.
func compare(t *testing.T, in, out string) verdict {
	t.Helper()
	source := read(t, in, kgo.ReadCommitted())
	committed := judge(source, read(t, out, kgo.ReadCommitted()))
	all := judge(source, read(t, out, kgo.ReadUncommitted()))
	if committed.faults > 0 {
		t.Fatalf("%s → %s (seed %d): %v", in, out, *seed, committed)
	}
	if all.String() != committed.String() {
		t.Errorf("%s: read_uncommitted differs from read_committed: %v; %v", out, all, committed)
	}
	return all
}

// compareSteps is compare for outputs that repeat nothing but whole runs: after a
// step back they follow the input again.
func compareSteps(t *testing.T, in, out string) verdict {
	t.Helper()
	v := compare(t, in, out)
	if v.jumps > 0 {
		t.Errorf("%s → %s (seed %d): %v; want none", in, out, *seed, v)
	}
	return v
}

// compareExact is compare for outputs that must not repeat anything.
func compareExact(t *testing.T, in, out string) verdict {
	t.Helper()
	v := compare(t, in, out)
	if v.repeats > 0 {
		t.Errorf("%s → %s (seed %d): %v; want no repeats", in, out, *seed, v)
	}
	return v
}

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/testkafka"
)

// A bed is the broker that everything is measured on, in a process of its own, and the program
// where that is what is measured.
type bed struct {
	brokers []string
	pid     int // of the broker
	end     func() error
	admin   *kadm.Client
	built   *build // see program
	lies    topic  // the input that lies there; see input
	// profiles is the directory where jobs write theirs; empty profiles nothing.
	profiles string
}

// newBed starts a Kafka of one node, or a broker in memory.
func newBed(ctx context.Context, inMemory bool) (*bed, error) {
	b := new(bed)
	if inMemory {
		address, pid, end, err := startSelf(ctx, brokerCommand)
		if err != nil {
			return nil, err
		}
		b.brokers, b.pid, b.end = []string{address}, pid, func() error { end(); return nil }
	} else {
		cluster, err := testkafka.Start(ctx, testkafka.Options{})
		if err != nil {
			return nil, err
		}
		b.brokers, b.pid, b.end = cluster.Brokers(), cluster.Nodes[0].Pid(), cluster.Close
	}
	client, err := b.client()
	if err != nil {
		return nil, errors.Join(err, b.end())
	}
	b.admin = kadm.NewClient(client)
	return b, nil
}

// client returns a client of the broker.
func (b *bed) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.brokers...)}, opts...)...)
}

// program returns the program, which is built once. What was started from it ends with the bed.
func (b *bed) program(ctx context.Context) (*build, error) {
	if b.built == nil {
		var err error
		if b.built, err = newBuild(ctx); err != nil {
			return nil, err
		}
	}
	return b.built, nil
}

func (b *bed) close() {
	if b.built != nil {
		b.built.end()
	}
	b.admin.Close()
	if err := b.end(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// A topic is an input. The first 8 bytes of a record's value are its place in the
// partition, half of the rest are random.
type topic struct {
	name       string
	partitions int32
	records    int64   // of each partition, in the mean
	size       int     // bytes of a value
	hot        float64 // the share of all records that is in partition 0; 0 is that of any other
	codec      string  // of the batches; empty is the client's own, snappy
}

// codecs are what the batches of a topic may be compressed with.
var codecs = map[string]kgo.CompressionCodec{
	"":     kgo.SnappyCompression(),
	"none": kgo.NoCompression(),
	"lz4":  kgo.Lz4Compression(),
	"zstd": kgo.ZstdCompression(),
}

// counts returns how many records each partition holds.
func (t topic) counts() []int64 {
	counts := slices.Repeat([]int64{t.records}, int(t.partitions))
	if t.hot > 0 {
		all := t.records * int64(t.partitions)
		counts[0] = int64(t.hot * float64(all))
		for p := range counts[1:] {
			counts[p+1] = (all - counts[0]) / int64(t.partitions-1)
		}
	}
	return counts
}

// create makes an empty topic.
func (b *bed) create(ctx context.Context, name string, partitions int32) error {
	_, err := b.admin.CreateTopic(ctx, partitions, 1, nil, name)
	return err
}

// input returns the name of a topic that is filled like t. It lies there until another one is
// asked for: what is measured one after the other often reads the same.
func (b *bed) input(ctx context.Context, t topic) (string, error) {
	if lies := b.lies; lies.name != "" {
		if t.name = lies.name; t == lies {
			return lies.name, nil
		}
		b.lies = topic{}
		if err := b.remove(ctx, lies.name); err != nil {
			return "", err
		}
	}
	t.name = fmt.Sprintf("in-%d", time.Now().UnixNano())
	progress("  filling %d partitions with %d records of %d B each\n", t.partitions, t.records, t.size)
	if err := b.fill(ctx, t); err != nil {
		return "", err
	}
	b.lies = t
	return t.name, nil
}

// fill makes the topic.
func (b *bed) fill(ctx context.Context, t topic) error {
	if err := b.create(ctx, t.name, t.partitions); err != nil {
		return err
	}
	return b.refill(ctx, t)
}

// refill fills the topic, which is there.
func (b *bed) refill(ctx context.Context, t topic) error {
	client, err := b.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(t.name), kgo.ProducerBatchCompression(codecs[t.codec]))
	if err != nil {
		return err
	}
	defer client.Close()
	var failed error
	promise := func(_ *kgo.Record, err error) { failed = errors.Join(failed, err) }
	// Those of a hot partition lie between the others all the way.
	counts := t.counts()
	made := make([]int64, len(counts))
	for round := int64(1); !slices.Equal(made, counts); round++ {
		for p := range counts {
			for due := min(counts[p], (round*counts[p]+t.records-1)/t.records); made[p] < due; made[p]++ {
				client.Produce(ctx, &kgo.Record{Partition: int32(p), Value: value(made[p], t.size)}, promise)
			}
		}
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	return failed
}

// value makes the value of record i of a partition.
func value(i int64, size int) []byte {
	v := make([]byte, size)
	binary.BigEndian.PutUint64(v, uint64(i))
	half := (size - 8) / 2
	copy(v[size-half:], noise[rand.IntN(len(noise)-half):])
	return v
}

// noise is what the random halves are cut from.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}()

// remove deletes topics. The broker frees their files a second later.
func (b *bed) remove(ctx context.Context, names ...string) error {
	return remove(ctx, b.admin, names...)
}

func remove(ctx context.Context, admin *kadm.Client, names ...string) error {
	_, err := admin.DeleteTopics(ctx, names...)
	return err
}

// verify reads an output with a client of its own and checks that each partition
// holds as many records as are wanted, in order, each once. Partitions of which
// none is wanted are not looked at. The marks of transactions have offsets too.
func (b *bed) verify(ctx context.Context, output string, want []int64, transactions bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	start := make(map[int32]kgo.Offset)
	var left int64
	for p, n := range want {
		if n > 0 {
			start[int32(p)] = kgo.NewOffset().AtStart()
			left += n
		}
	}
	client, err := b.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{output: start}), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer client.Close()
	next := make([]int64, len(want))
	var inversions int64
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("%d records of %s are missing: %w", left, output, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			place := int64(binary.BigEndian.Uint64(r.Value))
			if place != next[r.Partition] {
				inversions++
			}
			next[r.Partition] = place + 1
			left--
		})
	}
	if inversions > 0 {
		return fmt.Errorf("%d records of %s are out of order", inversions, output)
	}
	ends, err := b.ends(ctx, output, len(want))
	if err != nil {
		return err
	}
	for p := range start {
		if ends[p] != want[p] && !transactions {
			return fmt.Errorf("%s/%d holds %d records, want %d", output, p, ends[p], want[p])
		}
	}
	return nil
}

// ends returns how many records each partition of a topic holds.
func (b *bed) ends(ctx context.Context, topic string, partitions int) ([]int64, error) {
	listed, err := b.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends := make([]int64, partitions)
	for p := range ends {
		o, ok := listed.Lookup(topic, int32(p))
		if !ok || o.Err != nil {
			return nil, fmt.Errorf("the end of %s/%d is not known: %w", topic, p, o.Err)
		}
		ends[p] = o.Offset
	}
	return ends, nil
}

// brokerCPU is the CPU time that the broker has used.
func (b *bed) brokerCPU() (time.Duration, error) { return processCPU(b.pid) }

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The arrival that Seriatim was made for: a record each 250 ms, which takes 750 ms.
// Many partitions make many of them in little time; each waits for its own alone.
const (
	hangingIn, hangingOut = "hanging.in", "hanging.out"
	hangingPartitions     = 12
	hangingEvery          = 250 * time.Millisecond
	hangingBar            = 3500 * time.Millisecond
	hangingExtra          = 0.05
)

const hangingConfig = `kafka: {brokers: [%q]}
admin: {listen: none}
pipelines:
  - name: hanging
    input: {topics: [` + hangingIn + `], start: earliest}
    transform: {http: {urls: [%q], timeout: 30s}}
    hedge: {after: 2s}
    output: {topic: ` + hangingOut + `}
`

// hanging measures the time from a record to its output, with a worker that never
// answers one call in a hundred, and how many calls hedging adds.
func hanging(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("hanging", flag.ExitOnError)
	length := flags.Duration("for", 2*time.Minute, "how long records are sent")
	if err := flags.Parse(args); err != nil {
		return err
	}
	bed, err := newBed(ctx, false)
	if err != nil {
		return err
	}
	defer bed.close()
	for _, topic := range []string{hangingIn, hangingOut} {
		if err := bed.create(ctx, topic, hangingPartitions); err != nil {
			return err
		}
	}
	worker, err := startHanging(ctx)
	if err != nil {
		return err
	}
	defer worker.end()
	_, stop, err := startProgram(ctx, fmt.Sprintf(hangingConfig, bed.brokers[0], worker.url))
	if err != nil {
		return err
	}
	stop = sync.OnceFunc(stop)
	defer stop()

	before := readLoad()
	latencies, err := bed.arrivals(ctx, *length)
	if err != nil {
		return err
	}
	stop() // so that nothing is open at the worker
	calls, err := worker.end()
	if err != nil {
		return err
	}
	n := len(latencies)
	extra := float64(calls-n) / float64(n)
	slices.Sort(latencies)
	p99 := latencies[(n*99+99)/100-1]
	verdict := "PASS"
	if p99 >= hangingBar || extra > hangingExtra {
		verdict = "MISS"
	}
	fmt.Fprintf(os.Stdout, "%d records in order; from record to output p50 %v, p99 %v (less than %v), worst %v; %.1f %% extra calls (at most %.0f %%); others used %s of the machine: %s\n",
		n, latencies[n/2], p99, hangingBar, latencies[n-1], extra*100, hangingExtra*100, percent(readLoad().foreign(before)), verdict)
	if verdict != "PASS" {
		return errors.New("a bar was missed")
	}
	return nil
}

// A hangingWorker is a process in Node.
type hangingWorker struct {
	url string
	end func() (calls int, err error) // may be called again
}

func startHanging(ctx context.Context) (*hangingWorker, error) {
	cmd := exec.CommandContext(ctx, "node", "../integration/testdata/hanging.mjs")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the worker needs Node 20: %w", err)
	}
	lines := bufio.NewScanner(out)
	w := &hangingWorker{end: sync.OnceValues(func() (calls int, err error) {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		for lines.Scan() {
			_, err = fmt.Sscanf(lines.Text(), "%d calls", &calls)
		}
		return calls, errors.Join(err, cmd.Wait())
	})}
	if !lines.Scan() {
		_, err := w.end()
		return nil, fmt.Errorf("the worker has ended without a word: %w", err)
	}
	w.url = strings.TrimPrefix(lines.Text(), "listening on ")
	return w, nil
}

// arrivals sends records at a steady rate, and returns how long each took until it
// was read from the output. They must come in order.
func (b *bed) arrivals(ctx context.Context, length time.Duration) ([]time.Duration, error) {
	client, err := b.client(
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(hangingIn), kgo.ProducerLinger(0),
		kgo.ConsumeTopics(hangingOut), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	each := int64(length / hangingEvery) // records of a partition
	ctx, cancel := context.WithTimeout(ctx, length+time.Minute)
	defer cancel()
	var lanes sync.WaitGroup
	defer lanes.Wait()
	for p := range int32(hangingPartitions) {
		lanes.Go(func() {
			begin := time.Now().Add(hangingEvery * time.Duration(p) / hangingPartitions)
			for i := range each {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(begin.Add(time.Duration(i) * hangingEvery))):
				}
				client.Produce(ctx, &kgo.Record{Partition: p, Value: value(i, 100)}, nil) // what is missing is seen below
			}
		})
	}
	var latencies []time.Duration
	var failed error
	next := make([]int64, hangingPartitions)
	for int64(len(latencies)) < each*hangingPartitions && failed == nil {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("%d records came out: %w", len(latencies), err)
		}
		now := time.Now()
		fetches.EachRecord(func(r *kgo.Record) {
			if place := int64(binary.BigEndian.Uint64(r.Value)); place != next[r.Partition] {
				failed = fmt.Errorf("partition %d: record %d came where %d was due", r.Partition, place, next[r.Partition])
			}
			next[r.Partition]++
			latencies = append(latencies, now.Sub(r.Timestamp).Round(time.Millisecond))
		})
	}
	return latencies, failed
}

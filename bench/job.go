package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// A job is what one process measures: how long it takes to bring the records of
// one topic into another.
type job struct {
	By      string // byBare and so on; empty is Seriatim
	Workers int
	Window  int
	// Latency and Sigma describe the log-normal time of the transform; without a
	// latency it passes records on.
	Latency     time.Duration
	Sigma       float64
	ExactlyOnce bool // in transactions of 100 ms
	// Provenance has each output say where it came from.
	Provenance bool
	// Stuck has one record of partition 0 take for ever, Hanging all of them until they
	// have timed out.
	Stuck, Hanging bool
	// Others waits for the records of the other partitions only.
	Others bool
	// Worker has a worker that answers at once transform the records, over HTTP or over
	// the lines of processes, Batch records a call; 0 is a call for each.
	Worker route
	Batch  int
	// Patient has the bare loop wait for a millisecond after each poll and before each batch.
	Patient bool
	// EachPoll has the session end a transaction after each poll.
	EachPoll bool
	// Timed has each record say how long it takes, as those of a flow do.
	Timed bool
	// Fetch and Produce bound what a broker sends at a time, and a batch that is produced, in
	// bytes; 0 is what the pipeline takes by itself.
	Fetch, Produce int32
	// Most is after how many records it ends; 0 is all.
	Most int64

	Brokers        []string
	In, Out, Group string
	Records        int64  // how many are waited for
	Size           int    // bytes of a value
	Codec          string // of what it writes; see codecs
	URL            string // of the worker over HTTP
	Profile        string // directory; empty profiles nothing
	Program        string // another build of bench that runs the job; empty is this one

	span  *span // of the process that runs it
	hooks []kgo.Hook
}

// A span is what a job with slow transforms, or workers, is measured over, so that its figure
// does not depend on how long the job is: from the first call of the transform until the
// last output is acknowledged.
type span struct {
	first atomic.Int64 // of the wall clock, in nanoseconds
	last  atomic.Int64
}

func (s *span) begin() {
	if s.first.Load() == 0 {
		s.first.CompareAndSwap(0, time.Now().UnixNano())
	}
}

func (s *span) end() { s.last.Store(time.Now().UnixNano()) }

// OnProduceRecordUnbuffered is told of each output that is acknowledged, or given up. Looking
// at the status now and then instead added 5 ms to spans of 4 s.
func (s *span) OnProduceRecordUnbuffered(*kgo.Record, error) { s.end() }

// hangs is after how long a transform that hangs times out.
const hangs = 10 * time.Second

// stuckOffset is the offset of the record that takes for ever.
const stuckOffset = 100

// A result is what a job took.
type result struct {
	Records int64
	Took    time.Duration
	CPU     time.Duration // of the process, system included
	Broker  time.Duration // CPU of the broker meanwhile; 0 is not known
	Allocs  uint64
	Bytes   uint64 // that were allocated
}

func (r result) rate() float64 { return float64(r.Records) / r.Took.Seconds() }

// cpu is the time per record in microseconds, broker that of the broker.
func (r result) cpu() float64    { return float64(r.CPU.Microseconds()) / float64(r.Records) }
func (r result) broker() float64 { return float64(r.Broker.Microseconds()) / float64(r.Records) }

// allocs and bytes are what is allocated per record.
func (r result) allocs() float64 { return float64(r.Allocs) / float64(r.Records) }
func (r result) bytes() float64  { return float64(r.Bytes) / float64(r.Records) }

// spawn runs the job in a process of its own, so that its CPU time is its own.
func (j job) spawn(ctx context.Context) (result, error) {
	program := j.Program
	if program == "" {
		self, err := os.Executable()
		if err != nil {
			return result{}, err
		}
		program = self
	}
	text, err := json.Marshal(j)
	if err != nil {
		return result{}, err
	}
	cmd := exec.CommandContext(ctx, program, childCommand, string(text))
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.Output()
	if err != nil {
		return result{}, err
	}
	var r result
	err = json.NewDecoder(bytes.NewReader(out)).Decode(&r)
	return r, err
}

// run runs the job in this process.
func (j job) run(ctx context.Context) (result, error) {
	stopProfile, err := j.profile()
	if err != nil {
		return result{}, err
	}
	j.span = new(span)
	start := time.Now()
	switch j.By {
	case "":
		err = j.pipeline(ctx)
	case byBare:
		err = j.bare(ctx)
	case bySession:
		err = j.session(ctx)
	case byPlain:
		err = j.plain(ctx)
	default:
		err = j.byHand(ctx)
	}
	r := result{Records: j.Records, Took: time.Since(start), CPU: cpuTime()}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	r.Allocs, r.Bytes = memory.Mallocs, memory.TotalAlloc
	if j.span.first.Load() > 0 {
		r.Took = time.Duration(j.span.last.Load() - j.span.first.Load())
	}
	return r, errors.Join(err, stopProfile())
}

// pipeline is Seriatim, from its first connection to the commit and the end of
// its membership. With a stuck record it ends when the others are settled.
func (j job) pipeline(ctx context.Context) error {
	transform, end, err := j.transform()
	if err != nil {
		return err
	}
	defer end()
	hooks := j.hooks
	if j.Latency > 0 || j.Worker != nobody {
		hooks = append(hooks, j.span)
	}
	client := []kgo.Opt{kgo.SeedBrokers(j.Brokers...), kgo.WithHooks(hooks...), kgo.ProducerBatchCompression(codecs[j.Codec])}
	if j.Fetch > 0 {
		client = append(client, kgo.FetchMaxBytes(j.Fetch), kgo.FetchMaxPartitionBytes(j.Fetch))
	}
	if j.Produce > 0 {
		client = append(client, kgo.ProducerBatchMaxBytes(j.Produce))
	}
	pipeline, err := processor.New(processor.Options{
		Name:         "bench",
		Instance:     "bench",
		Client:       client,
		Source:       processor.Source{Topics: []string{j.In}, Group: j.Group},
		Output:       processor.Output{Topic: j.Out, Provenance: j.Provenance},
		Workers:      j.Workers,
		Window:       processor.Window{Records: j.Window},
		DrainTimeout: time.Second,
		ExactlyOnce:  j.ExactlyOnce,
		Retry:        processor.Retries{Attempts: 100}, // those that hang do so to the end
		Batch:        processor.Batch{Records: j.Batch, Wait: 100 * time.Millisecond},
	}, transform)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- pipeline.Run(ctx) }()

	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for settled := int64(0); settled < j.Records; {
		select {
		case err := <-ended:
			return fmt.Errorf("the pipeline ended with %d of %d records settled: %w", settled, j.Records, err)
		case <-look.C:
		}
		status, err := pipeline.Status(ctx)
		if err != nil {
			return err
		}
		settled = 0
		for _, p := range status.Partitions {
			if !j.Others || p.Partition != 0 {
				settled += int64(p.Settled)
			}
		}
	}
	if j.Stuck || j.Hanging {
		return nil // it would wait for the drain deadline
	}
	stop()
	return <-ended
}

// transform returns the transform, and what ends it.
func (j job) transform() (t processor.Transform, end func(), err error) {
	if j.Worker != nobody {
		return j.ask()
	}
	end = func() {}
	if j.Latency == 0 && !j.Timed && !j.Others { // with a stuck record or without: the same transform
		return passOn, end, nil
	}
	var clock *clock // takes CPU all the time
	if j.Latency > 0 || j.Timed {
		clock = newClock()
	}
	return processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		if j.Latency > 0 {
			j.span.begin()
		}
		if j.Stuck && in.Partition == 0 && in.Offset == stuckOffset {
			<-ctx.Done()
			return ctx.Err()
		}
		if j.Hanging && in.Partition == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(hangs):
				return context.DeadlineExceeded
			}
		}
		var takes time.Duration
		switch {
		case j.Timed:
			takes = time.Duration(binary.BigEndian.Uint64(in.Value[8:]))
		case j.Latency > 0:
			takes = j.takes(in.Record)
		}
		if takes > 0 {
			if err := clock.sleep(ctx, takes); err != nil {
				return err
			}
		}
		return passOn.Transform(ctx, in, out)
	}), end, nil
}

var passOn = transform.Pass()

// profile starts a profile of the CPU and returns what ends it and adds one of
// the allocations.
func (j job) profile() (stop func() error, err error) {
	if j.Profile == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(j.Profile, 0o755); err != nil {
		return nil, err
	}
	kind := cmp.Or(strings.ReplaceAll(j.By, " ", "-"), "pipeline")
	name := filepath.Join(j.Profile, fmt.Sprintf("%s-%d", kind, os.Getpid()))
	cpu, err := os.Create(name + ".cpu.prof")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		allocs, err := os.Create(name + ".allocs.prof")
		if err != nil {
			return err
		}
		return errors.Join(cpu.Close(), pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
	}, nil
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

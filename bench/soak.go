package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/testkafka"
)

const (
	soakIn, soakOut = "soak.in", "soak.out"
	soakPartitions  = 8
	soakSize        = 1024 // bytes of a value
	soakLead        = 50_000
	windowMiB       = 128
	allowedMiB      = 200 + windowMiB
)

// soakConfig is what the program runs with; the rest is default. The window of a
// partition is smaller than soakLead, and the windows of all together are larger
// than window.bytes: both limits are reached.
const soakConfig = `kafka: {brokers: [%q]}
admin: {listen: none}
pipelines:
  - name: soak
    input: {topics: [` + soakIn + `], start: earliest}
    window: {records: 16384, bytes: %dMiB}
    transform: {http: {urls: [%q], timeout: 1h}}
    output: {topic: ` + soakOut + `}
`

// soak runs the program with more input than it can take and one record of one
// partition stuck, watches its memory, lets the record go, and checks what came
// out.
func soak(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("soak", flag.ExitOnError)
	length := flags.Duration("for", 10*time.Minute, "how long the record is stuck")
	if err := flags.Parse(args); err != nil {
		return err
	}
	bed, err := newBed(ctx, false)
	if err != nil {
		return err
	}
	defer bed.close()
	for _, topic := range []string{soakIn, soakOut} {
		if err := bed.create(ctx, topic, soakPartitions); err != nil {
			return err
		}
	}
	worker, err := startWorker()
	if err != nil {
		return err
	}
	defer worker.server.Close()
	program, stop, err := startProgram(ctx, fmt.Sprintf(soakConfig, bed.brokers[0], windowMiB, worker.url))
	if err != nil {
		return err
	}
	defer stop()

	s := &soaking{bed: bed, program: program, produced: make([]int64, soakPartitions)}
	if err := s.feed(ctx, *length); err != nil {
		return err
	}
	peak, err := memory(program.Pid(), "VmHWM")
	if err != nil {
		return err
	}
	progress("letting the stuck record go\n")
	close(worker.release)
	if err := s.finish(ctx); err != nil {
		return err
	}
	var sum int64
	for _, n := range s.produced {
		sum += n
	}
	fmt.Fprintf(os.Stdout, "%d records, in order and complete; the head was stuck for %v\n", sum, *length)
	fmt.Fprintf(os.Stdout, "max RSS %d MiB, allowed 200 MiB + window.bytes = %d MiB: ", peak, allowedMiB)
	if peak > allowedMiB {
		fmt.Fprintln(os.Stdout, "MISS")
		return errors.New("the program used more memory than is allowed")
	}
	fmt.Fprintln(os.Stdout, "PASS")
	return nil
}

// A worker answers every request with its body, but for one record of partition 0
// whose answer waits for release.
type worker struct {
	server  *http.Server
	url     string
	release chan struct{}
}

func startWorker() (*worker, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &worker{url: "http://" + listener.Addr().String(), release: make(chan struct{})}
	w.server = &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Seriatim-Partition") == "0" && r.Header.Get("Seriatim-Offset") == strconv.Itoa(stuckOffset) {
			select {
			case <-w.release:
			case <-r.Context().Done():
			}
		}
		_, _ = io.Copy(rw, r.Body) // who asked may have gone
	})}
	go w.server.Serve(listener) //nolint:errcheck // it ends with Close
	return w, nil
}

// A soaking is a run in progress.
type soaking struct {
	bed      *bed
	program  *testkafka.Process
	produced []int64
}

// feed keeps every partition soakLead records ahead of its output, and reports
// every ten seconds. It fails when the partitions that are not stuck stop.
func (s *soaking) feed(ctx context.Context, length time.Duration) error {
	client, err := s.bed.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(soakIn))
	if err != nil {
		return err
	}
	defer client.Close()
	const every = 10 * time.Second
	look, begin := time.NewTicker(100*time.Millisecond), time.Now()
	defer look.Stop()
	var last int64
	for report := begin.Add(every); time.Since(begin) < length; {
		done, err := s.bed.ends(ctx, soakOut, soakPartitions)
		if err != nil {
			return err
		}
		var failed error
		for p := range s.produced {
			for ; s.produced[p] < done[p]+soakLead; s.produced[p]++ {
				r := &kgo.Record{Partition: int32(p), Value: value(s.produced[p], soakSize)}
				client.Produce(ctx, r, func(_ *kgo.Record, err error) { failed = errors.Join(failed, err) })
			}
		}
		if err := errors.Join(client.Flush(ctx), failed); err != nil {
			return err
		}
		if now := time.Now(); now.After(report) {
			var others int64
			for _, n := range done[1:] {
				others += n
			}
			if err := s.report(now.Sub(begin), others-last, every); err != nil {
				return err
			}
			last, report = others, now.Add(every)
		}
		select {
		case <-look.C:
		case <-s.program.Exited():
			return fmt.Errorf("the program has ended with exit code %d", s.program.ExitCode())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *soaking) report(since time.Duration, emitted int64, in time.Duration) error {
	now, err := memory(s.program.Pid(), "VmRSS")
	if err != nil {
		return err
	}
	peak, err := memory(s.program.Pid(), "VmHWM")
	if err != nil {
		return err
	}
	progress("%8v  RSS %d MiB, most so far %d MiB; the other partitions emit %.0f/s\n",
		since.Round(time.Second), now, peak, float64(emitted)/in.Seconds())
	if emitted == 0 {
		return errors.New("the partitions that are not stuck have stopped")
	}
	return nil
}

// finish waits for the rest of the output, ends the program and checks that
// nothing is lost, repeated or out of order.
func (s *soaking) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		done, err := s.bed.ends(ctx, soakOut, soakPartitions)
		if err != nil {
			return err
		}
		if slices.Equal(done, s.produced) {
			break
		}
		select {
		case <-look.C:
		case <-s.program.Exited():
			return fmt.Errorf("the program has ended with exit code %d", s.program.ExitCode())
		case <-ctx.Done():
			return fmt.Errorf("the output has %d records, want %d: %w", done, s.produced, ctx.Err())
		}
	}
	if err := s.program.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-s.program.Exited()
	if code := s.program.ExitCode(); code != 0 {
		return fmt.Errorf("the program ended with exit code %d", code)
	}
	return s.bed.verify(ctx, soakOut, s.produced, false)
}

// memory is what /proc says of the memory of a process, in MiB.
func memory(pid int, name string) (int, error) {
	text := field(fmt.Sprintf("/proc/%d/status", pid), name)
	kib, err := strconv.Atoi(strings.TrimSuffix(text, " kB"))
	if err != nil {
		return 0, fmt.Errorf("the memory of process %d is %q (this needs linux)", pid, text)
	}
	return kib >> 10, nil
}

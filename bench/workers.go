package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"seriatim/processor"
	"seriatim/transform"
)

// A route is how a worker that answers at once is asked. The worker is this program again.
type route uint8

const (
	nobody route = iota
	overHTTP
	overLines
)

// workerCommand is the first argument of a process that is a worker; the second one
// says which.
const workerCommand = "worker"

// work is a worker.
func work(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "lines" {
		return workOverLines()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(answerHTTP), ReadHeaderTimeout: time.Minute}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	fmt.Fprintf(os.Stdout, "http://%s/\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// answerHTTP answers a record, or the records of a batch, with themselves.
func answerHTTP(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Header.Get("Seriatim-Batch") != "" {
		w.Header().Set("Content-Type", "application/x-ndjson")
		answers := make([]byte, 0, len(body))
		for line := range bytes.Lines(body) {
			answers = append(appendAnswer(answers, line[len(`{"id":`):]), '\n')
		}
		body = answers
	}
	_, _ = w.Write(body)
}

// appendAnswer answers a record, which begins with its id, with its value. A quote within a
// string is escaped, so that what it looks for can be found nowhere else.
func appendAnswer(dst, record []byte) []byte {
	id := record[:bytes.IndexByte(record, ',')]
	_, value, _ := bytes.Cut(record, []byte(`,"value":`))
	value, _, _ = bytes.Cut(value, []byte(`,"headers":`))
	dst = append(append(dst, `{"id":`...), id...)
	dst = append(append(dst, `,"outputs":[{"value":`...), value...)
	return append(dst, `}]}`...)
}

// workOverLines answers until the input ends.
func workOverLines() error {
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriterSize(os.Stdout, 1<<20)
	fmt.Fprintln(out, `{"seriatim":1}`)
	var answer, longer []byte
	for {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		line, err := in.ReadSlice('\n')
		for longer = longer[:0]; errors.Is(err, bufio.ErrBufferFull); {
			longer = append(longer, line...)
			if line, err = in.ReadSlice('\n'); err == nil {
				line = append(longer, line...)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if call, batch, ok := bytes.Cut(line, []byte(`,"batch":[`)); ok {
			answer = append(append(answer[:0], call...), `,"answers":[`...)
			batch = bytes.TrimPrefix(batch, []byte(`{"id":`))
			for more := true; more; {
				var record []byte
				record, batch, more = bytes.Cut(batch, []byte(`"},{"id":`))
				answer = append(appendAnswer(answer, record), ',')
			}
			answer = append(answer[:len(answer)-1], `]}`...)
		} else {
			answer = appendAnswer(answer[:0], line[len(`{"id":`):])
		}
		if _, err := out.Write(append(answer, '\n')); err != nil {
			return err
		}
	}
}

// startSelf starts this program again, which says in its first line where it listens.
func startSelf(ctx context.Context, args ...string) (address string, pid int, end func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	address, err = bufio.NewReader(out).ReadString('\n')
	end = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
	}
	if err != nil {
		end()
		return "", 0, nil, fmt.Errorf("%q ended without a word: %w", args, err)
	}
	return strings.TrimSpace(address), cmd.Process.Pid, end, nil
}

// ask returns a transform that asks the worker, and what ends it.
func (j job) ask() (t processor.Transform, end func(), err error) {
	if j.Worker == overHTTP {
		client, err := transform.HTTP(transform.HTTPOptions{URLs: []string{j.URL}, Connections: j.Workers})
		if err != nil {
			return nil, nil, err
		}
		return calls{client, j.span}, client.Close, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	pool, err := transform.Exec(transform.ExecOptions{Command: []string{self, workerCommand, "lines"}})
	if err != nil {
		return nil, nil, err
	}
	return calls{pool, j.span}, pool.Close, nil
}

// calls are those of a worker, the first of which begins the span.
type calls struct {
	processor.BatchTransform
	span *span
}

func (c calls) Transform(ctx context.Context, in processor.Input, out *processor.Outputs) error {
	c.span.begin()
	return c.BatchTransform.Transform(ctx, in, out)
}

func (c calls) TransformBatch(ctx context.Context, items []processor.Item) error {
	c.span.begin()
	return c.BatchTransform.TransformBatch(ctx, items)
}

// plainHeader is what the contract has in a request, the same in all of them.
var plainHeader = http.Header{
	"Content-Type":         {"application/octet-stream"},
	"User-Agent":           {"bench"},
	"Idempotency-Key":      {`"bench/AQIDBAUGBwgJCgsMDQ4PEA/3/123456"`},
	"Seriatim-Pipeline":    {"bench"},
	"Seriatim-Topic":       {"in-1700000000123456789"},
	"Seriatim-Partition":   {"3"},
	"Seriatim-Offset":      {"123456"},
	"Seriatim-Timestamp":   {"1700000000123"},
	"Seriatim-Attempt":     {"1"},
	"Seriatim-Deadline-Ms": {"1700000010123"},
	"Traceparent":          {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
}

// plain asks the worker as a program would that has nothing else to do: so many
// requests at a time, each as soon as the one before is answered.
func (j job) plain(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: j.Workers, MaxConnsPerHost: j.Workers, DisableCompression: true}}
	defer client.CloseIdleConnections()
	body := value(0, j.Size)
	var left atomic.Int64
	left.Store(j.Records)
	errs := make([]error, j.Workers)
	var askers sync.WaitGroup
	for i := range j.Workers {
		askers.Go(func() {
			for errs[i] == nil && left.Add(-1) >= 0 {
				errs[i] = ask(ctx, client, j.URL, body)
			}
		})
	}
	askers.Wait()
	return errors.Join(errs...)
}

func ask(ctx context.Context, client *http.Client, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = plainHeader
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(reply, body):
		return fmt.Errorf("the worker answered %d with %d bytes", resp.StatusCode, len(reply))
	}
	return nil
}

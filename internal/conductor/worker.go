package conductor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"seriatim/internal/history"
)

// A Worker answers instances by the class of the record. It answers the same
// every time, as far as the record and the number of the attempt tell.
type Worker struct {
	work   *history.Workload
	server *http.Server
	addr   string

	mu     sync.Mutex
	hangs  int            // of a thousand records, whose first call is answered late or not at all
	busy   map[string]int // calls of each instance that are not answered
	atWork map[int]int    // the same by the process that asks for an instance, 0 included
	hanged int
	late   int
	keys   map[history.Origin]string
	calls  int
	faults []fault
}

type fault struct {
	rule history.Rule
	text string
}

// StartWorker starts a worker on loopback. Of a thousand records the first call at
// hangs hangs.
func StartWorker(work *history.Workload, hangs int) (*Worker, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &Worker{
		work: work, addr: listener.Addr().String(), hangs: hangs,
		busy: make(map[string]int), atWork: make(map[int]int), keys: make(map[history.Origin]string),
	}
	w.server = &http.Server{Handler: w, ReadHeaderTimeout: time.Minute, MaxHeaderBytes: 4 << 20}
	go func() { _ = w.server.Serve(listener) }() // until Close
	return w, nil
}

// Close closes all connections.
func (w *Worker) Close() { _ = w.server.Close() }

// URL returns the address for an instance.
func (w *Worker) URL(instance string) string { return "http://" + w.addr + "/" + instance }

// Busy returns how many calls of an instance are not answered.
func (w *Worker) Busy(instance string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy[instance] + w.busy[everybody]
}

// busyPid returns a process that has a call under way, or 0.
func (w *Worker) busyPid() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for pid, calls := range w.atWork { // any
		if pid != 0 && calls > 0 {
			return pid
		}
	}
	return 0
}

// pids returns all processes that have ever asked.
func (w *Worker) pids() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.atWork))
}

// hung returns how many calls have hung, and how many of them were answered when
// their time was over.
func (w *Worker) hung() (calls, late int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hanged, w.late
}

// ServeHTTP answers one attempt.
func (w *Worker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	instance := strings.TrimPrefix(r.URL.Path, "/")
	pid, _ := strconv.Atoi(r.Header.Get("Worker-Pid"))
	w.mu.Lock()
	w.calls++
	w.busy[instance]++
	w.atWork[pid]++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.busy[instance]--
		w.atWork[pid]--
		w.mu.Unlock()
	}()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the instance is gone
	}
	o, err := w.examine(r, body)
	if err != nil {
		w.fault(history.Intact, "a worker was sent %s/%s@%s: %v", r.Header.Get("Seriatim-Topic"), r.Header.Get("Seriatim-Partition"), r.Header.Get("Seriatim-Offset"), err)
		http.Error(rw, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	first := w.sameKey(o, r.Header.Get("Idempotency-Key"))
	if first && w.hang(r.Context(), o) {
		return
	}
	w.answer(rw, r, o)
}

func (w *Worker) fault(rule history.Rule, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fault{rule, fmt.Sprintf(format, args...)})
}

// examine checks what a worker can see of a record.
func (w *Worker) examine(r *http.Request, body []byte) (history.Origin, error) {
	o, err := w.work.Parse(r.Header.Get("Seriatim-H-" + history.IdentityHeader))
	if err != nil {
		return o, err
	}
	if p := r.Header.Get("Seriatim-Partition"); p != strconv.Itoa(int(o.Partition)) {
		return o, fmt.Errorf("it says partition %s, the record %d", p, o.Partition)
	}
	want := w.work.Record(o)
	if null := r.Header.Get("Seriatim-Value") == "null"; null != (want.Value == nil) || !bytes.Equal(body, want.Value) {
		return o, errors.New("the value is not that of the record")
	}
	if ms := r.Header.Get("Seriatim-Timestamp"); ms != strconv.FormatInt(want.Timestamp.UnixMilli(), 10) {
		return o, fmt.Errorf("the timestamp is %s, want %d", ms, want.Timestamp.UnixMilli())
	}
	return o, nil
}

// hang lets the calls hang that shall. It reports whether nobody waits any more.
func (w *Worker) hang(ctx context.Context, o history.Origin) (gone bool) {
	if (o.Seq*7919+int64(o.Partition)*104729)%1000 >= int64(w.hangs) {
		return false
	}
	w.mu.Lock()
	w.hanged++
	w.mu.Unlock()
	if !wait(ctx, callTimeout+lateBy) {
		return true
	}
	w.mu.Lock()
	w.late++
	w.mu.Unlock()
	return false
}

// sameKey checks that all attempts at a record have the same idempotency key. It
// reports whether this is the first.
func (w *Worker) sameKey(o history.Origin, key string) (isFirst bool) {
	w.mu.Lock()
	first, known := w.keys[o]
	if !known {
		w.keys[o] = key
	}
	w.mu.Unlock()
	if known && first != key || key == "" {
		w.fault(history.SameKey, "record %d of partition %d has the idempotency keys %q and %q", o.Seq, o.Partition, first, key)
	}
	return !known
}

func (w *Worker) answer(rw http.ResponseWriter, r *http.Request, o history.Origin) {
	rec := w.work.Record(o)
	attempt, _ := strconv.Atoi(r.Header.Get("Seriatim-Attempt"))
	switch class := w.work.Class(o); class {
	case history.Filtered:
		rw.WriteHeader(http.StatusNoContent)
	case history.Rejected:
		http.Error(rw, "it can never work", http.StatusUnprocessableEntity)
	case history.Exhausted:
		http.Error(rw, "not now", http.StatusServiceUnavailable)
	case history.Tombstone:
		rw.Header().Set("Seriatim-Value", "null")
	case history.Several:
		rw.Header().Set("Content-Type", "application/x-ndjson")
		n := w.work.Outputs(o)
		for i := range n {
			_, _ = fmt.Fprintf(rw, "%s\n", w.work.Output(rec, i+1, n))
		}
	default:
		if attempt <= w.work.Failures(o) {
			http.Error(rw, "not yet", http.StatusServiceUnavailable)
			return
		}
		if class == history.Slow && !wait(r.Context(), history.SlowTime) {
			return
		}
		rw.Header().Set("Content-Type", "application/octet-stream")
		_, _ = rw.Write(w.work.Output(rec, 1, 1))
	}
}

// wait returns after d. It reports false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

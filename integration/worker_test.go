package integration

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// A worker is an HTTP worker in the test's own process. It passes values on,
// except for those that it was told to treat otherwise.
type worker struct {
	url      string
	released context.Context
	release  context.CancelFunc // lets go of every value that is held

	mu       sync.Mutex
	statuses map[string]int // of answers, by value
	held     map[string]bool
	calls    map[string]int
}

func newWorker(t *testing.T) *worker {
	t.Helper()
	return listen(t, freeAddr(t))
}

// listen starts a worker at an address.
func listen(t *testing.T, addr string) *worker {
	t.Helper()
	w := &worker{url: "http://" + addr, statuses: make(map[string]int), held: make(map[string]bool), calls: make(map[string]int)}
	w.released, w.release = context.WithCancel(context.Background())
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(w)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(func() {
		w.release()
		server.CloseClientConnections()
		server.Close()
	})
	return w
}

// hold keeps the answer for a value back until release.
func (w *worker) hold(value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held[value] = true
}

// answer sets the status of the answers for a value; 0 passes it on again.
func (w *worker) answer(value string, status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.statuses[value] = status
}

// repeats counts the calls for values that it was called for before.
func (w *worker) repeats() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, calls := range w.calls {
		n += calls - 1
	}
	return n
}

// ServeHTTP answers one attempt.
func (w *worker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	value, err := io.ReadAll(r.Body)
	if err != nil {
		return // the attempt was given up
	}
	w.mu.Lock()
	held, status := w.held[string(value)], w.statuses[string(value)]
	w.calls[string(value)]++
	w.mu.Unlock()
	if held {
		select {
		case <-w.released.Done():
		case <-r.Context().Done():
			return
		}
	}
	if status != 0 {
		http.Error(rw, "the test wants it so", status)
		return
	}
	_, _ = rw.Write(value) // the attempt may have been given up
}

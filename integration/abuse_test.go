package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An abuse is what a worker does to one record, and the words of the error that the
// record's dead letter has.
type abuse struct {
	name string
	do   http.HandlerFunc
	says string
}

var block = strings.Repeat("x", 64<<10)

// flood writes until nobody listens any more.
func flood(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, block); err != nil {
			return
		}
	}
}

// raw answers with bytes, and then keeps the connection open or closes it.
func raw(reply string, keep bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, reply)
		if keep {
			awaitEnd(buffered.Reader, conn)
		}
	}
}

// awaitEnd reads until the other side closes.
func awaitEnd(r *bufio.Reader, conn net.Conn) {
	_, _ = io.Copy(io.Discard, io.MultiReader(r, conn))
}

var abuses = []abuse{
	{"a body that never ends", flood, "more than the 1048576 bytes"},
	{"10 GB", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10737418240")
		flood(w, r)
	}, "10737418240 bytes, more than"},
	{"a body that stalls", raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true), "no complete reply within 1s"},
	{"no reply, and no end", raw("", true), "no complete reply within 1s"},
	{"early hints for ever", func(w http.ResponseWriter, r *http.Request) {
		raw(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100000), false)(w, r)
	}, "its reply is malformed"},
	{"redirects in a loop", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/", http.StatusTemporaryRedirect)
	}, "answered 307"},
	{"a redirect to elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
	}, "answered 307"},
	{"closed in mid-reply", raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false), "closed the connection before its reply was complete"},
	{"control characters", raw("HTTP/1.1 200 OK\r\nSeriatim-Key: a\x01b\r\nContent-Length: 0\r\n\r\n", false), "its reply is malformed"},
	{"a year of patience", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "31536000")
		w.WriteHeader(http.StatusTooManyRequests)
	}, "answered 429"},
	{"a great many outputs", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, strings.Repeat("1\n", 1_000_000))
	}, "more than 10000 outputs"},
	{"megabytes of headers", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 1000 {
			w.Header().Set(fmt.Sprintf("Seriatim-H-%d", i), block[:4<<10])
		}
	}, "more than 256 KiB of headers"},
}

// TestAbuse has a worker do something else to one record in each of many partitions. Each
// of these ends as a dead letter with a reason; all other records leave in their order,
// and the instance stays small.
func TestAbuse(t *testing.T) {
	t.Parallel()
	const each, poison = 60, 20
	in := newInput(t, len(abuses)+1)
	out, dead := newTopic(t, ".out", len(abuses)+1), newTopic(t, ".dead", 1)
	in.produce(t, each)
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var partition int
		_, _ = fmt.Sscan(r.Header.Get("Seriatim-Partition"), &partition)
		value, err := io.ReadAll(r.Body)
		switch {
		case err != nil:
		case r.Header.Get("Seriatim-Offset") == fmt.Sprint(poison) && partition < len(abuses):
			abuses[partition].do(w, r)
		default:
			_, _ = w.Write(value)
		}
	}))
	t.Cleanup(worker.Close)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"transform":    settings{"http": settings{"urls": []string{worker.URL + "/"}, "timeout": "1s"}},
		"retry":        settings{"attempts": 2, "initial": "10ms", "max": "100ms"},
		"on_exhausted": "dead_letter",
		"dead_letter":  settings{"topic": dead},
	})))
	awaitCaughtUp(t, patience, group(name), in.topic)
	if most, got := 300<<20, i.residentMemory(t); got > most {
		t.Errorf("it takes %d MiB, want %d at most", got>>20, most>>20)
	}
	i.awaitReady(t)
	i.drain(t)
	for p := range len(abuses) + 1 {
		want := numbers(0, poison, poison+1, each)
		if p == len(abuses) {
			want = numbers(0, each)
		}
		mustBe(t, fmt.Sprintf("partition %d", p), sequences(t, out, p), want)
	}
	reasons := deadReasons(t, dead)
	for p, a := range abuses {
		if len(reasons[p]) != 1 || !strings.Contains(reasons[p][0], a.says) {
			t.Errorf("%s: the dead letters say %q, want one with %q", a.name, reasons[p], a.says)
		}
	}
}

// residentMemory is what the instance takes.
func (i *instance) residentMemory(t *testing.T) (bytes int) {
	t.Helper()
	_, body := i.get(t, "/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, "process_resident_memory_bytes "); ok {
			var x float64
			if _, err := fmt.Sscan(value, &x); err != nil {
				t.Fatal(err)
			}
			return int(x)
		}
	}
	t.Fatal("it does not tell how much memory it takes")
	return 0
}

// deadReasons reads what went wrong, by the partition of the source.
func deadReasons(t *testing.T, topic string) map[int][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reader, err := bed.cluster.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	reasons := make(map[int][]string)
	for left := records(ctx, t, topic); left > 0; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			var partition int
			var reason string
			for _, h := range r.Headers {
				switch h.Key {
				case "__dlq.errors.partition":
					_, _ = fmt.Sscan(string(h.Value), &partition)
				case "__dlq.errors.message":
					reason = string(h.Value)
				}
			}
			reasons[partition] = append(reasons[partition], reason)
		})
	}
	return reasons
}

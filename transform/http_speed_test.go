package transform

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/certs"
	"seriatim/processor"
)

// BenchmarkHTTP is what an attempt costs beside what a plain client takes for it: 64 at a
// time, at a worker in this process that reads as little and writes as little as it can.
func BenchmarkHTTP(b *testing.B) {
	const attempts = 64
	value := bytes.Repeat([]byte("v"), 100)
	ctx, end := context.WithCancel(b.Context())
	defer end()
	url := canned(b, len(value))
	record := &kgo.Record{Topic: "in-1700000000123456789", Partition: 3, Offset: 123456, Timestamp: time.UnixMilli(1700000000123), Value: value}
	in := processor.Input{Record: record, Pipeline: "bench", TopicID: [16]byte{1, 2, 3}, Attempt: 1}
	client, err := HTTP(HTTPOptions{URLs: []string{url}, Connections: attempts})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	plain := &http.Client{Transport: transportOf(HTTPOptions{Timeout: time.Minute}, certs.Files{}, 1, attempts)}
	defer plain.CloseIdleConnections()
	var f fields
	f.ofRecord(in, client.headers, time.Now(), "", "")
	header := f.header()

	for _, by := range []struct {
		name string
		call func() error
	}{
		{"plain", func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(value))
			if err != nil {
				return err
			}
			req.Header = header
			resp, err := plain.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
			return err
		}},
		{"attempt", func() error {
			outputs, err := processor.Call(ctx, client, in)
			if err == nil && len(outputs) != 1 {
				err = fmt.Errorf("there are %d outputs", len(outputs))
			}
			return err
		}},
	} {
		b.Run(by.name, func(b *testing.B) {
			b.ReportAllocs()
			began := cpuTime(b)
			b.SetParallelism(attempts / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := by.call(); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what this process has used: other programs make the time longer, not this.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// canned is a worker that answers every request with a value of that size.
func canned(b *testing.B, size int) (url string) {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	answer := []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 05:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("a", size)))
	Accept(b, listener, func(conn net.Conn, _ int) {
		for in := bufio.NewReader(conn); ; {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) > 2 {
				continue
			}
			if _, err := in.Discard(size); err != nil {
				return
			}
			if _, err := conn.Write(answer); err != nil {
				return
			}
		}
	})
	return "http://" + listener.Addr().String()
}

package kafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/iotest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/kafka"
)

// frame is a request as it goes over the wire.
func frame(request kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, request, 7)
}

// header is the start of a request with the given length, key and version, and
// some bytes of it.
func header(length uint32, key, version int16) []byte {
	b := binary.BigEndian.AppendUint32(nil, length)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	return append(b, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0)
}

func dial(tb testing.TB, broker *kafka.Embedded) *net.TCPConn {
	tb.Helper()
	conn, err := net.Dial("tcp", broker.Address())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// works checks that an ordinary client writes a record and reads it.
func works(tb testing.TB, client *kgo.Client) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	written, err := client.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("still here")}).First()
	if err != nil {
		tb.Fatalf("the broker no longer takes records: %v", err)
	}
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			tb.Fatalf("the broker no longer gives records: %v", err)
		}
		for _, r := range fetches.Records() {
			if r.Offset == written.Offset {
				return
			}
		}
	}
}

func TestGuardClosesBadConnections(t *testing.T) {
	tests := map[string]struct {
		sent []byte
		// The request breaks off, which shows only when the connection ends. All
		// others are refused without waiting for their rest.
		breaksOff bool
	}{
		"a stray HTTP request":       {sent: []byte("GET / HT")},
		"a stray TLS handshake":      {sent: []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0}},
		"a key that nobody knows":    {sent: header(14, 9999, 0)},
		"a negative key":             {sent: header(14, -1, 0)},
		"a key the broker lacks":     {sent: frame(kmsg.NewPtrControlledShutdownRequest())},
		"a length of nearly 4 GiB":   {sent: header(0xffff_fff0, 18, 0)},
		"a length of 101 MiB":        {sent: header(101<<20, 18, 0)},
		"a negative length":          {sent: header(0x8000_0000, 18, 0)},
		"no length at all":           {sent: header(0, 18, 0)},
		"a length without a header":  {sent: header(7, 18, 0)},
		"a version that is not yet":  {sent: header(1000, 3, 99)},
		"a negative version":         {sent: header(1000, 18, -1)},
		"a body that is none":        {sent: header(14, 0, 9)},
		"a bad one after a good one": {sent: append(frame(kmsg.NewPtrApiVersionsRequest()), header(14, 9999, 0)...)},
		"a request that breaks off":  {sent: header(1000, 3, 0), breaksOff: true},
		"half a header":              {sent: header(1000, 3, 0)[:6], breaksOff: true},
		"nothing":                    {breaksOff: true},
	}
	broker, client := embedded(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, broker)
			_, err := conn.Write(test.sent)
			if err == nil && test.breaksOff {
				err = conn.CloseWrite()
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays open")
			}
			works(t, client)
		})
	}
}

func TestGuardPassesRequestsInAnyPieces(t *testing.T) {
	requests := append(frame(kmsg.NewPtrApiVersionsRequest()), frame(kmsg.NewPtrMetadataRequest())...)
	tests := map[string]func(io.Reader) io.Reader{
		"at once":      func(r io.Reader) io.Reader { return r },
		"byte by byte": iotest.OneByteReader,
		"in halves":    iotest.HalfReader,
	}
	broker, _ := embedded(t)
	for name, pieces := range tests {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, broker)
			if err := conn.SetNoDelay(true); err != nil {
				t.Fatal(err)
			}
			// The wrapper hides WriterTo, which would write all of it at once.
			if _, err := io.Copy(struct{ io.Writer }{conn}, pieces(bytes.NewReader(requests))); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				var start [8]byte // length and correlation id of an answer
				if _, err := io.ReadFull(conn, start[:]); err != nil {
					t.Fatal(err)
				}
				if id := binary.BigEndian.Uint32(start[4:]); id != 7 {
					t.Fatalf("got the answer to request %d, want 7", id)
				}
				if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(start[:]))-4); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestGuardAnswersNewerClients: a client asks with the newest version it knows
// what versions there are, and must get an answer.
func TestGuardAnswersNewerClients(t *testing.T) {
	broker, _ := embedded(t)
	conn := dial(t, broker)
	request := kmsg.NewPtrApiVersionsRequest()
	request.ClientSoftwareName, request.ClientSoftwareVersion = "later", "1"
	request.SetVersion(request.MaxVersion())
	sent := frame(request)
	binary.BigEndian.PutUint16(sent[6:], 99)
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	var answer [10]byte // length, correlation id, error code
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		t.Fatal(err)
	}
	const unsupportedVersion = 35
	if code := binary.BigEndian.Uint16(answer[8:]); code != unsupportedVersion {
		t.Errorf("got the error code %d, want %d", code, unsupportedVersion)
	}
}

// FuzzGuard sends arbitrary bytes to an embedded broker, which must survive them.
// Behind the first header they are ASCII: a number of the protocol that claims
// billions of tagged fields would keep the broker's decoder counting for half a
// minute, which the guard does not prevent.
func FuzzGuard(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(header(14, 9999, 0))
	f.Add(header(14, 18, 99))
	f.Add(header(1000, 3, 0))
	f.Add(append(frame(kmsg.NewPtrApiVersionsRequest()), header(0x8000_0000, 18, 0)...))
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		if request := kmsg.RequestForKey(key); request != nil {
			f.Add(frame(request))
		}
	}
	broker, client := embedded(f)
	f.Fuzz(func(t *testing.T, sent []byte) {
		sent = bytes.Clone(sent)
		for i := 8; i < len(sent); i++ {
			sent[i] &= 0x7f
		}
		conn := dial(t, broker)
		// The broker may close while we write: whatever comes of it, it lives on.
		if _, err := conn.Write(sent); err == nil {
			_ = conn.CloseWrite()
		}
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection stays open")
		}
		works(t, client)
	})
}

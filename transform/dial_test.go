package transform

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

func TestForbiddenAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1": false, "::1": false, "10.0.0.1": false, "192.168.1.1": false, "8.8.8.8": false, "fd12::1": false,
		"::ffff:10.0.0.1": false, "64:ff9b::a00:1": false, "168.63.129.17": false, "2001:db8::254": false,

		"169.254.169.254": true, "169.254.170.2": true, "::ffff:169.254.169.254": true, "64:ff9b::a9fe:a9fe": true, "::ffff:168.63.129.16": true,
		"fe80::1": true, "fe80::1%eth0": true, "fd00:ec2::254": true, "fd20:ce::254": true,
		"168.63.129.16": true, "100.100.100.200": true, "192.0.0.192": true, "224.0.0.1": true, "ff02::1": true,
	} {
		if got := forbidden(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: got %v, want %v", address, got, want)
		}
	}
}

// TestIdleConnectionsAreClosed runs on virtual time: connections are pipes.
func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := HTTP(HTTPOptions{URLs: []string{"http://worker"}})
		if err != nil {
			t.Fatal(err)
		}
		var idle time.Duration
		client.transport.(*direct).DialContext = func(context.Context, string, string) (net.Conn, error) {
			conn, worker := net.Pipe()
			go func() {
				_, _ = http.ReadRequest(bufio.NewReader(worker))
				_, _ = io.WriteString(worker, "HTTP/1.1 204 No Content\r\n\r\n")
				began := time.Now()
				_, _ = worker.Read(make([]byte, 1)) // returns when the other end is closed
				idle = time.Since(began)
			}()
			return conn, nil
		}
		if _, err := processor.Call(t.Context(), client, processor.Input{Record: &kgo.Record{Topic: "in"}, Attempt: 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // virtual
		synctest.Wait()
		if idle != 4*time.Second {
			t.Errorf("an idle connection was closed after %v, want 4s, before workers do it (5s)", idle)
		}
	})
}

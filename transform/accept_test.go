package transform

import (
	"net"
	"sync"
	"testing"
)

// Accept has each connection, numbered from 1, answered, and closed then, until the test ends.
func Accept(t testing.TB, listener net.Listener, answer func(conn net.Conn, n int)) {
	t.Helper()
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for n := 1; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				answer(conn, n)
			})
		}
	})
}

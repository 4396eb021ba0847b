//go:build synctests

package processor_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"seriatim/internal/journal"
	"seriatim/processor"
)

// Results that are read from the state topic count against window.bytes before their records come, and of
// more than that a part is not kept: those records are attempted again. So who takes over from many
// instances does not hold what all of them held.
func TestStoredRepliesAreBounded(t *testing.T) {
	const replies, size = 60, 700 << 10
	stateful(t, 1, func(b *bed) {
		for i := range replies {
			b.remember(fmt.Sprintf("%d/reply/1", i+1), journal.Encode(journal.Reply{
				Generation: 1, Outputs: []journal.Output{{Value: fmt.Appendf(bytes.Repeat([]byte("x"), size), "%d", i+1)}},
			}))
		}
		opts, _ := b.mortal("one")
		opts.ReplyLog, opts.Window.Bytes = true, 4<<20
		before := heap()
		var mended atomic.Bool
		r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, out *processor.Outputs) error {
			for in.Offset == 0 && !mended.Load() {
				<-time.After(time.Second)
			}
			out.Add(in.Value)
			return nil
		}))
		b.produce("in", 0, 0, replies+1)
		<-time.After(time.Minute)
		if grown := heap() - before; grown > 6*4<<20 {
			b.t.Errorf("the heap has grown by %d MiB with window.bytes of 4 MiB", grown>>20)
		}
		s := b.status(r)
		if s.WindowBytes > 8<<20 || s.Replies["skipped"] == 0 {
			b.t.Errorf("%d bytes are held of 4 MiB, replies are %v", s.WindowBytes, s.Replies)
		}
		mended.Store(true)
		b.caughtUp(1)
		reused := 0
		for i, v := range b.values("out", 0) {
			if len(v) > size {
				reused++
				v = v[size:]
			}
			if v != fmt.Sprint(i) {
				b.t.Fatalf("%s is at place %d", v, i)
			}
		}
		if s := b.status(r); reused < 4 || s.Replies["reused"] != uint64(reused) || s.WindowBytes != 0 {
			b.t.Errorf("%d results are used again of 4 MiB; replies are %v, and %d bytes are held in the end", reused, s.Replies, s.WindowBytes)
		}
		b.stop(r)
		b.nothingKept(1)
	})
}

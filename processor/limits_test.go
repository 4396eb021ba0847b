//go:build synctests

package processor_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// What keeps a pipeline from going faster is shown, and told once when it has for a
// minute.
func TestLimitIsNamed(t *testing.T) {
	takes := func(d time.Duration) processor.TransformFunc {
		return func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d):
				return passOn(ctx, in, out)
			}
		}
	}
	for _, test := range []struct {
		limit     string
		options   func(*processor.Options)
		transform processor.TransformFunc
		fault     *kfake.Fault
		advice    string
	}{
		{"input", func(o *processor.Options) { o.Window.Records = 1 << 14 }, passOn, nil, ""},
		{"workers", func(o *processor.Options) { o.Workers, o.Window.Records = 1, 1<<14 }, takes(200 * time.Millisecond), nil, "raise workers"},
		{"window", func(o *processor.Options) { o.Workers, o.Window.Records = 64, 2 }, takes(200 * time.Millisecond), nil, "raise window.records"},
		{"memory", func(o *processor.Options) { o.Workers, o.Window.Bytes = 64, 1500 }, takes(200 * time.Millisecond), nil, "window.bytes"},
		{
			"output", func(o *processor.Options) { o.Window.Records = 100 }, passOn,
			&kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1}, "brokers",
		},
	} {
		t.Run(test.limit, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				b.produce("in", 0, 0, 1000)
				opts := b.options()
				test.options(&opts)
				var log bytes.Buffer
				opts.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(&log, logTo{b.t}), nil))
				if test.fault != nil {
					defer b.cluster.Fault(*test.fault).Remove()
				}
				r := b.run(opts, test.transform)
				share := func() float64 { return b.status(r).LimitedBy[test.limit] }
				b.eventually("it is shown", func() bool { return share() > 0.95 })
				shown := time.Now()
				if test.advice == "" {
					b.caughtUp(1)
				}
				<-time.After(time.Until(shown.Add(2 * time.Minute)))
				_ = r.stop()
				want := 1
				if test.advice == "" {
					want = 0
				}
				if n := strings.Count(log.String(), "limited_by="); n != want {
					b.t.Errorf("it is told %d times, want %d", n, want)
				}
				if !strings.Contains(log.String(), test.advice) {
					b.t.Errorf("the log has no advice %q", test.advice)
				}
			})
		})
	}
}

// Brokers that acknowledge nothing leave memory flat, whatever there is to read, and the
// reason is told; what was read goes on in order.
func TestSlowOutputLeavesMemoryFlat(t *testing.T) {
	const partitions, records, limit = 4, 2000, 1 << 20
	for _, exactlyOnce := range []bool{false, true} {
		virtual(t, partitions, func(b *bed) {
			var silent atomic.Bool
			defer silent.Store(false)
			out := b.cluster.TopicInfo("out").TopicID
			b.cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
				b.cluster.KeepControl()
				if r.(*kmsg.ProduceRequest).Topics[0].TopicID == out {
					b.holdWhile(&silent)
				}
				return nil, nil, false
			})
			opts := b.options()
			opts.ExactlyOnce, opts.Window.Bytes = exactlyOnce, limit
			silent.Store(true)
			noise := rand.NewChaCha8([32]byte{})        // does not compress
			for from := 0; from < records; from += 20 { // small batches, which are never split; 8 MB in all
				var input []*kgo.Record
				for p := range int32(partitions) {
					for _, r := range numbered("in", p, from, from+20) {
						r.Key = make([]byte, 1<<10)
						_, _ = noise.Read(r.Key)
						input = append(input, r)
					}
				}
				b.write(input...)
			}
			r := b.run(opts, processor.TransformFunc(passOn))
			named := 0
			for range 20 {
				<-time.After(time.Second)
				s := b.status(r)
				if s.WindowBytes > 2*limit { // what one fetch brings comes on top
					b.t.Fatalf("the pipeline holds %d bytes, the limit is %d", s.WindowBytes, limit)
				}
				if s.LimitedBy["output"] > 0.9 {
					named++
				}
			}
			if named == 0 {
				b.t.Errorf("it is not told that outputs wait: %v", b.status(r).LimitedBy)
			}
			silent.Store(false)
			b.caughtUp(partitions)
			b.stop(r)
			for p := range int32(partitions) {
				b.inOrder(p, 0, records)
			}
		})
	}
}

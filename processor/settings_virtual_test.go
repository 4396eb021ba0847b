//go:build synctests

package processor_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// What a topic takes cannot be asked for a while. No default is taken for it meanwhile, by which
// a record would be given up that the topic takes.
func TestSettingsThatAreNotToldForAWhile(t *testing.T) {
	for name, test := range map[string]struct {
		err   *kerr.Error
		first int // records that are through before
	}{
		"at the start":             {kerr.RequestTimedOut, 0},
		"later":                    {kerr.RequestTimedOut, 5},
		"as a right is taken away": {kerr.TopicAuthorizationFailed, 5},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				b.create("wide", 1, map[string]string{"max.message.bytes": "4000000"})
				hide := func() *kfake.FaultHandle {
					return b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: "wide", Err: test.err, Count: -1})
				}
				opts := b.options()
				opts.Output.Topic, opts.OnExhausted = "wide", processor.Drop
				var hidden *kfake.FaultHandle
				if test.first == 0 {
					hidden = hide()
				}
				r := b.run(opts, processor.TransformFunc(func(_ context.Context, _ processor.Input, out *processor.Outputs) error {
					out.Add(make([]byte, 2_000_000))
					return nil
				}))
				b.produce("in", 0, 0, test.first)
				b.eventually("what came before is committed", func() bool { return b.committed(0) == int64(test.first) })
				if hidden == nil {
					hidden = hide()
					<-time.After(10 * time.Second)
				}
				b.produce("in", 0, test.first, 10)
				<-time.After(30 * time.Second)
				if reason := b.problem(r, "output topic wide"); test.first == 0 && !strings.Contains(reason, test.err.Message) {
					b.t.Errorf("what holds the outputs up is %q", reason)
				}
				hidden.Remove()
				b.caughtUp(1)
				p := b.first(r)
				b.stop(r)
				if got := b.end("wide", 0); got != 10 || p.Dropped != 0 || hidden.Hits() == 0 {
					b.t.Errorf("%d outputs and %d dropped records, want 10 and none; asked %d times", got, p.Dropped, hidden.Hits())
				}
			})
		})
	}
}

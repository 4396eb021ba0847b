//go:build synctests

package processor_test

import (
	"fmt"
	"testing"
	"time"

	"seriatim/processor"
)

// The output topic is deleted and created anew, at once or after a while, which the client does
// not follow by itself: outputs go on in the new one.
func TestRecreatedOutputTopic(t *testing.T) {
	for _, away := range []time.Duration{0, time.Minute} {
		for _, exactlyOnce := range []bool{false, true} {
			t.Run(fmt.Sprintf("away=%v,exactlyOnce=%v", away, exactlyOnce), func(t *testing.T) {
				virtual(t, 2, func(b *bed) {
					opts := b.options()
					opts.ExactlyOnce = exactlyOnce
					r := b.run(opts, processor.TransformFunc(passOn))
					b.produceToAll(2, 0, 10)
					b.caughtUp(2)
					if err := b.cluster.DeleteTopic("out"); err != nil {
						b.t.Fatal(err)
					}
					<-time.After(away)
					b.create("out", 2, nil)
					began := time.Now()
					for i := 10; i < 60; i++ {
						b.produceToAll(2, i, i+1)
						<-time.After(time.Second / 2)
					}
					b.caughtUp(2)
					if took := time.Since(began); took > time.Minute {
						b.t.Errorf("it went on after %v", took)
					}
					b.eventually("nothing is wrong any more", func() bool { return len(b.status(r).Problems) == 0 })
					b.stop(r)
					b.forget()
					for p := range int32(2) {
						b.inOrder(p, 10, 60)
					}
				})
			})
		}
	}
}

//go:build synctests

package processor_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// virtual runs a test in virtual time: broker, clients and pipelines talk over a
// network inside the process, and the clock moves when all of them wait. Hours
// take milliseconds.
func virtual(t *testing.T, partitions int32, test func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(newBed(t, partitions, new(kfake.VirtualNetwork), kfake.Ports(9092)))
	})
}

// holdWhile has the broker hold up the request that a control function was asked about.
func (b *bed) holdWhile(held *atomic.Bool) {
	b.cluster.SleepControl(func() {
		for held.Load() {
			<-time.After(10 * time.Millisecond)
		}
	})
}

// unhurried saves steps where hours go by.
func (b *bed) unhurried(opts *processor.Options) {
	b.step = 5 * time.Second
	opts.Commit.Interval = time.Minute
	opts.Client = append(slices.Clone(opts.Client), kgo.FetchMaxWait(5*time.Second))
}

var planCount = flag.Int("plans", 0, "how many random plans each test runs, and prints; 0 is its own few")

// plans runs n random plans, each with a seed of its own that is in the name of
// its test. To run the plan of seed 5 alone say
//
//	go test -tags synctests ./processor -run TestName/seed=5$ -seed 5
//
// The seed fixes the plan, not in which order goroutines run.
func plans(t *testing.T, n int, test func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	if *planCount > 0 {
		n = *planCount
	}
	first := seed()
	red := 0
	for seed := first; seed < first+uint64(n); seed++ {
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			test(t, rand.New(rand.NewPCG(seed, seed)))
		}) {
			red++
		}
	}
	if *planCount > 0 {
		fmt.Fprintf(os.Stdout, "plans: %d of %s from seed %d, %d red\n", n, t.Name(), first, red)
	}
}

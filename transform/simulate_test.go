package transform_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// fate is what became of one attempt.
type fate struct {
	took   time.Duration
	failed bool
}

// fates runs attempts at n records of one partition on virtual time.
func fates(t *testing.T, opts transform.SimulateOptions, topic string, partition int32, attempt, n int) []fate {
	var all []fate
	synctest.Test(t, func(t *testing.T) {
		tr := transform.Simulate(opts)
		for i := range n {
			in := processor.Input{Record: &kgo.Record{Topic: topic, Partition: partition, Offset: int64(i)}, Attempt: attempt}
			began := time.Now()
			_, err := processor.Call(t.Context(), tr, in)
			var failure *processor.Failure
			if err != nil && (!errors.As(err, &failure) || failure.Kind != processor.Retry) {
				t.Fatalf("offset %d: got error %v, want a failure that asks for a retry", i, err)
			}
			all = append(all, fate{time.Since(began), err != nil})
		}
	})
	return all
}

func TestSimulateMeanAndSpread(t *testing.T) {
	const n = 20000
	for _, sigma := range []float64{0, 0.5, 1} {
		opts := transform.SimulateOptions{Latency: 750 * time.Millisecond, Sigma: sigma, FailureRate: 0.1, Seed: 1}
		var sum, logs, squares float64
		failed := 0
		for _, f := range fates(t, opts, "in", 0, 1, n) {
			sum += f.took.Seconds()
			logs += math.Log(f.took.Seconds())
			squares += math.Log(f.took.Seconds()) * math.Log(f.took.Seconds())
			if f.failed {
				failed++
			}
		}
		// Five standard errors; the draws are the same at every run.
		mean, slack := sum/n, 1e-6+5*0.75*math.Sqrt((math.Exp(sigma*sigma)-1)/n)
		if math.Abs(mean-0.75) > slack {
			t.Errorf("sigma %v: got a mean of %.4f s, want 0.75 ± %.4f", sigma, mean, slack)
		}
		spread := math.Sqrt(max(0, squares/n-(logs/n)*(logs/n)))
		if math.Abs(spread-sigma) > 0.03*sigma+1e-6 {
			t.Errorf("sigma %v: got %.4f", sigma, spread)
		}
		if share := float64(failed) / n; math.Abs(share-0.1) > 5*math.Sqrt(0.1*0.9/n) {
			t.Errorf("sigma %v: %.4f of the attempts failed, want 0.1", sigma, share)
		}
	}
}

func TestSimulateRepeats(t *testing.T) {
	const n = 200
	opts := transform.SimulateOptions{Latency: time.Second, Sigma: 1, FailureRate: 0.5, Seed: 7}
	first := fates(t, opts, "in", 3, 1, n)
	other := opts
	other.Seed = 8
	again := map[string]struct {
		fates []fate
		same  bool
	}{
		"the same again":    {fates(t, opts, "in", 3, 1, n), true},
		"another seed":      {fates(t, other, "in", 3, 1, n), false},
		"another topic":     {fates(t, opts, "on", 3, 1, n), false},
		"another partition": {fates(t, opts, "in", 4, 1, n), false},
		"another attempt":   {fates(t, opts, "in", 3, 2, n), false},
	}
	for name, second := range again {
		equal, agree := 0, 0
		for i := range first {
			if first[i].took == second.fates[i].took {
				equal++
			}
			if first[i].failed == second.fates[i].failed {
				agree++
			}
		}
		switch {
		case second.same && (equal != n || agree != n):
			t.Errorf("%s: %d of %d times and %d failures are the same, want all", name, equal, n, agree)
		case !second.same && equal > 0:
			t.Errorf("%s: %d of %d times are the same, want none", name, equal, n)
		case !second.same && (agree < n/4 || agree > 3*n/4):
			t.Errorf("%s: %d of %d attempts fail alike, want about half", name, agree, n)
		}
	}
}

func TestSimulateEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("revoked")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		began := time.Now()
		out, err := processor.Call(ctx, transform.Simulate(transform.SimulateOptions{Latency: time.Hour}), processor.Input{Record: &kgo.Record{}, Attempt: 1})
		if !errors.Is(err, cause) || len(out) != 0 {
			t.Errorf("got %d outputs and error %v, want none and the cause of the context's end", len(out), err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v, want to end with the context after 1s", took)
		}
	})
}

func TestSimulateBeyondDurations(t *testing.T) {
	// A third of these draws are longer than a time.Duration can say: they must not
	// wrap around to none.
	tr := transform.Simulate(transform.SimulateOptions{Latency: math.MaxInt64, Sigma: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for offset := range 100 {
		_, err := processor.Call(ctx, tr, processor.Input{Record: &kgo.Record{Offset: int64(offset)}, Attempt: 1})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("offset %d: got error %v, want that of the ended context: the attempt took no time", offset, err)
		}
	}
}

func BenchmarkSimulate(b *testing.B) {
	b.Run("latency=0", func(b *testing.B) {
		benchmark(b, transform.Simulate(transform.SimulateOptions{Sigma: 0.5, Seed: 1}))
	})
	b.Run("failures", func(b *testing.B) {
		benchmark(b, transform.Simulate(transform.SimulateOptions{FailureRate: 1e-300, Seed: 1}))
	})
}

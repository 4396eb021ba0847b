package main

import (
	"fmt"
	"time"
)

// slow is what transforms that take their time come to with default settings, against a pool
// of as many workers without any order. A record takes the same time on both sides.
var slow = func() []row {
	var rows []row
	for _, sigma := range []float64{0, 0.5, 1} {
		ours := job{Workers: workers, Window: window, Latency: 10 * time.Millisecond, Sigma: sigma}
		pool := ours
		pool.By = byPool
		for _, in := range []struct {
			name  string
			input topic
			quick int
		}{
			{"1 partition", topic{partitions: 1, records: 25_600, size: 100}, 1},
			{"8 partitions", topic{partitions: 8, records: 3_200, size: 100}, 0},
			{"8, one has 70 %", topic{partitions: 8, records: 3_200, size: 100, hot: 0.7}, 0},
		} {
			r := row{name: fmt.Sprintf("slow, sigma %.1f, %s / pool", sigma, in.name), input: in.input, a: ours, b: &pool, pairs: 3}
			if sigma > 0 {
				r.bar, r.pairs, r.quick = 0.99, 7, in.quick
			}
			rows = append(rows, r)
		}
	}
	many := job{Workers: 1000, Window: window, Latency: 100 * time.Millisecond}
	pool := many
	pool.By = byPool
	input := topic{partitions: 12, records: 5_000, size: 100}
	for _, sigma := range []float64{0.5, 1} { // forty seconds each: the last record may take two
		for _, n := range []int{workers, 1000} {
			ours := many
			ours.Sigma, ours.Workers = sigma, n
			pool := ours
			pool.By = byPool
			rows = append(rows, row{
				name:  fmt.Sprintf("slow, 100 ms, sigma %.1f, 12 partitions, %d workers / pool", sigma, n),
				input: topic{partitions: 12, records: int64(n) * 400 / 12, size: 100}, a: ours, b: &pool, pairs: 1,
			})
		}
	}
	return append(
		rows,
		row{name: "slow, 100 ms, 12 partitions / 1000 workers by 100 ms", input: input, a: many, rate: 10_000, bar: 0.99, pairs: 7},
		row{name: "slow, 100 ms, 12 partitions, 1000 workers / pool", input: input, a: many, b: &pool, pairs: 7},
	)
}()

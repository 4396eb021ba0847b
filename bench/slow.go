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
	for _, latency := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond} {
		for _, sigma := range []float64{0, 0.5, 1} {
			for _, n := range []int{workers, 1000} {
				for _, partitions := range []int32{1, 8, 12} {
					ours := job{Workers: n, Latency: latency, Sigma: sigma}
					if ours.measuredOften(partitions) {
						continue
					}
					pool := ours
					pool.By = byPool
					rounds := 400 // how many records a worker has: the last may take 25 times as long as the mean
					if latency > 10*time.Millisecond {
						rounds = 100 + int(300*sigma)
					}
					rows = append(rows, row{
						name:  fmt.Sprintf("slow, %d ms, sigma %.1f, %s, %d workers / pool", latency.Milliseconds(), sigma, counted(partitions), n),
						input: topic{partitions: partitions, records: int64(n*rounds) / int64(partitions), size: 100}, a: ours, b: &pool, pairs: 1,
					})
				}
			}
		}
	}
	many := job{Workers: 1000, Latency: 100 * time.Millisecond}
	pool := many
	pool.By = byPool
	input := topic{partitions: 12, records: 5_000, size: 100}
	return append(
		rows,
		row{name: "slow, 100 ms, 12 partitions / 1000 workers by 100 ms", input: input, a: many, rate: 10_000, bar: 0.99, pairs: 7},
		row{name: "slow, 100 ms, 12 partitions, 1000 workers / pool", input: input, a: many, b: &pool, pairs: 7},
	)
}()

// measuredOften tells whether there is a row of several pairs for this already.
func (j job) measuredOften(partitions int32) bool {
	if j.Latency == 10*time.Millisecond {
		return j.Workers == workers && partitions < 12
	}
	return j.Workers == 1000 && j.Sigma == 0 && partitions == 12
}

// counted is a number of partitions.
func counted(partitions int32) string {
	if partitions == 1 {
		return "1 partition"
	}
	return fmt.Sprintf("%d partitions", partitions)
}

package main

import (
	"fmt"
	"time"
)

// sizing is what a slow transform comes to, with windows of several sizes and in loops that
// people write by hand, as a share of what a pool of as many workers without any order does.
var sizing = func() []row {
	var rows []row
	for _, sigma := range []float64{0, 0.5, 1} {
		slow := job{Workers: workers, Latency: 10 * time.Millisecond, Sigma: sigma}
		pool := with(slow, window)
		pool.By = byPool
		add := func(what string, j job) {
			rows = append(rows, row{
				name:  fmt.Sprintf("sizing, sigma %.1f, %s / pool", sigma, what),
				input: topic{partitions: 1, records: 32_000, size: 100},
				a:     j, b: &pool, pairs: 1,
			})
		}
		for _, w := range []int{1, 4, 16, 64, 256} {
			add(fmt.Sprintf("window %d x workers", w), with(slow, w*workers))
		}
		for _, by := range []string{byBarrier, byFutures} {
			hand := slow
			hand.By = by
			add(by, hand)
		}
	}
	one := job{Workers: workers, Latency: 10 * time.Millisecond, Most: 500, By: byOne}
	pool := with(one, window)
	pool.By, pool.Most = byPool, 0
	return append(rows, row{name: "sizing, sigma 0.0, " + byOne + " / pool", input: topic{partitions: 1, records: 32_000, size: 100}, a: one, b: &pool, pairs: 1})
}()

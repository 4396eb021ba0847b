package main

import (
	"fmt"
	"slices"
	"time"
)

const (
	workers = 64
	window  = 16384
	// fastWindow is for transforms that take no time. At two million records a second over
	// 6 partitions the default window holds what is emitted in 50 ms: less than a loaded broker
	// takes to acknowledge it, and less than a transaction lasts.
	fastWindow = 65536
)

var (
	pass      = job{Workers: workers, Window: fastWindow}
	lognormal = job{Workers: workers, Window: window, Latency: 10 * time.Millisecond, Sigma: 1}
	bareLoop  = job{By: byBare}
	session   = job{By: bySession}
	hasty     = job{By: bySession, EachPoll: true}
	askHTTP   = job{Workers: workers, Window: window, Worker: overHTTP, Most: 100_000}
	askLines  = job{Workers: workers, Window: window, Worker: overLines, Most: 200_000}
	onceOnly  = job{Workers: workers, Window: fastWindow, ExactlyOnce: true}
)

// Inputs of the fast rows. They take some five seconds, so that joining, leaving and the last
// transaction, which waits for its 100 ms, count little.
var (
	small  = topic{partitions: 6, records: 1_500_000, size: 100}
	medium = topic{partitions: 6, records: 450_000, size: 1024}
)

// rows are what is measured: the bars first, then what windows and hand-written loops come to.
var rows = slices.Concat(fast, slow, stuckRows, asking, ceilings, sizing, inMemory)

// fast are rows of transforms that take no time. Those with the same input follow each other.
var fast = []row{
	{name: "pass, 100 B / bare loop", input: small, a: pass, b: &bareLoop, bar: 0.90, mostCPU: 1.10, mostAllocs: 1, pairs: 7, quick: 2},
	{name: "pass, 100 B, provenance / bare loop with the header", input: small, a: stamped(pass), b: new(stamped(bareLoop)), bar: 0.75, mostAllocs: 1, pairs: 7},
	{name: "pass, 100 B, exactly once / at least once", input: small, a: onceOnly, b: &pass, bar: 0.95, pairs: 7, quick: 2},
	{name: "pass, 100 B, exactly once / GroupTransactSession", input: small, a: onceOnly, b: &session, bar: 1, pairs: 7},
	{name: "pass, 1 KiB / bare loop", input: medium, a: pass, b: &bareLoop, bar: 0.96, mostCPU: 1.04, mostAllocs: 1, pairs: 7},
	{name: "pass, 1 KiB, provenance / bare loop with the header", input: medium, a: stamped(pass), b: new(stamped(bareLoop)), bar: 0.93, mostAllocs: 1, pairs: 7},
	{name: "pass, 1 KiB, exactly once / at least once", input: medium, a: onceOnly, b: &pass, bar: 0.90, pairs: 7},
	{name: "pass, 1 KiB, exactly once / GroupTransactSession", input: medium, a: onceOnly, b: &session, bar: 1, pairs: 7},
}

// inMemory are the same on a broker that costs next to nothing, which has no bars.
var inMemory = func() []row {
	rows := slices.Clone(fast)
	for i, r := range rows {
		rows[i] = row{name: "kfake, " + r.name, input: r.input, inMemory: true, a: r.a, b: r.b, pairs: 2}
	}
	return rows
}()

// ceilings are the bare loop, in transactions too, and what passes records on, with all sizes,
// partitions and codecs. Each takes a second or two.
var ceilings = func() []row {
	var rows []row
	for _, codec := range []string{"none", "lz4", "zstd"} {
		for _, size := range []struct {
			name    string
			bytes   int
			records int64
		}{{"100 B", 100, 3_000_000}, {"1 KiB", 1024, 750_000}, {"10 KiB", 10240, 120_000}} {
			for _, partitions := range []int32{1, 6, 64} {
				input := topic{partitions: partitions, records: size.records / int64(partitions), size: size.bytes, codec: codec}
				what := fmt.Sprintf("ceiling, %s, partitions: %d, %s, ", size.name, partitions, codec)
				rows = append(rows,
					row{name: what + "pass / bare loop", input: input, a: pass, b: &bareLoop, pairs: 1},
					row{name: what + "provenance / bare loop with the header", input: input, a: stamped(pass), b: new(stamped(bareLoop)), pairs: 1},
					row{name: what + "exactly once / GroupTransactSession", input: input, a: onceOnly, b: &session, pairs: 1})
			}
		}
	}
	return append(rows,
		row{name: "ceiling, 100 B, a transaction for each poll / bare loop", input: small, a: hasty, b: &bareLoop, pairs: 2},
		row{name: "ceiling, 100 B, exactly once / a transaction for each poll", input: small, a: onceOnly, b: &hasty, pairs: 2},
		row{name: "ceiling, 1 KiB, a transaction for each poll / bare loop", input: medium, a: hasty, b: &bareLoop, pairs: 2},
		row{name: "ceiling, 1 KiB, exactly once / a transaction for each poll", input: medium, a: onceOnly, b: &hasty, pairs: 2})
}()

// stuckRows are what the other partitions come to while records of one do not end.
var stuckRows = []row{
	{
		name:  "stuck, 1 of 8, slow / none stuck",
		input: topic{partitions: 8, records: 5_000, size: 100},
		a:     stuck(with(lognormal, 4096), true), b: new(stuck(with(lognormal, 4096), false)), bar: 0.98, pairs: 7,
	},
	{
		name:  "stuck, 1 of 8, pass / none stuck",
		input: topic{partitions: 8, records: 2_000_000, size: 100}, // some 8 s
		a:     stuck(pass, true), b: new(stuck(pass, false)), bar: 0.98, pairs: 7,
	},
	{
		// 60 s of the one, 15 s of the other.
		name:  "stuck, all of 1 of 8 hang until 10 s have passed, slow / none hang",
		input: topic{partitions: 8, records: 48_000, size: 100},
		a:     choked(lognormal, 7*48_000), b: new(others(lognormal, 7*12_000)), bar: 0.90, together: true, pairs: 3,
	},
}

// asking are rows of workers that are asked.
var asking = []row{
	{
		// All there is: with less than that the client of Kafka would have read ahead for nothing.
		name:  "workers over HTTP / a plain client",
		input: topic{partitions: 6, records: 50_000, size: 100},
		a:     all(askHTTP), b: &job{Workers: workers, By: byPlain, Worker: overHTTP}, bar: 0.80, pairs: 9,
	},
	{
		name:  "workers over lines / over HTTP",
		input: topic{partitions: 6, records: 100_000, size: 100},
		a:     askLines, b: &askHTTP, bar: 2, pairs: 7,
	},
	{
		name:  "workers over HTTP, batches of 1000 / single calls",
		input: topic{partitions: 6, records: 250_000, size: 100},
		a:     batched(askHTTP), b: &askHTTP, bar: 10, pairs: 7,
	},
	{
		name:  "workers over lines, batches of 1000 / single calls",
		input: topic{partitions: 6, records: 250_000, size: 100},
		a:     batched(askLines), b: &askLines, pairs: 7,
	},
}

// stamped is a job whose outputs say where they came from.
func stamped(j job) job {
	j.Provenance = true
	return j
}

// others is a job that is done when so many records of all partitions but the first are.
func others(j job, most int64) job {
	j.Others, j.Most = true, most
	return j
}

// choked is such a job while all transforms of the first partition hang.
func choked(j job, most int64) job {
	j.Hanging = true
	return others(j, most)
}

// all is a job that takes all there is.
func all(j job) job {
	j.Most = 0
	return j
}

// batched is a job in batches of 1000, that takes all there is.
func batched(j job) job {
	j.Batch, j.Window = 1000, fastWindow
	return all(j)
}

// with is a job with another window.
func with(j job, window int) job {
	j.Window = window
	return j
}

// stuck is a job that waits for all partitions but the first, of which a record
// may be stuck.
func stuck(j job, is bool) job {
	j.Stuck, j.Others = is, true
	return j
}

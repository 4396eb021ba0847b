package admin

import (
	"context"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"seriatim/processor"
)

// A collector reads metrics from the pipelines' status at each scrape, so that
// the pipelines need not count anything twice.
type collector []Pipeline

// A series of a partition. value tells whether it is known: what is not known is
// left out, for a 0 would be a statement.
type partitionSeries struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(p *processor.PartitionStatus) (v float64, known bool)
}

// desc describes a metric of this package.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("seriatim_"+name, help, labels, nil)
}

func gauge(name, help string, value func(p *processor.PartitionStatus) (float64, bool)) partitionSeries {
	return partitionSeries{desc(name, help, "pipeline", "topic", "partition"), prometheus.GaugeValue, value}
}

func counter(name, help string, value func(p *processor.PartitionStatus) uint64) partitionSeries {
	return partitionSeries{
		desc(name, help, "pipeline", "topic", "partition"), prometheus.CounterValue,
		func(p *processor.PartitionStatus) (float64, bool) { return float64(value(p)), true },
	}
}

// ofPartitions are the metrics of each assigned partition.
var ofPartitions = []partitionSeries{
	gauge("window_records", "Records admitted and not settled.", func(p *processor.PartitionStatus) (float64, bool) {
		return float64(p.WindowRecords), true
	}),
	gauge("window_limit_records", "Most records that the window admits.", func(p *processor.PartitionStatus) (float64, bool) {
		return float64(p.WindowLimitRecords), true
	}),
	gauge("window_bytes", "Bytes of inputs and outputs held, with their overhead.", func(p *processor.PartitionStatus) (float64, bool) {
		return float64(p.WindowBytes), true
	}),
	gauge("head_age_seconds", "Time since the oldest record not released was admitted; 0 without one.", func(p *processor.PartitionStatus) (float64, bool) {
		if p.Head == nil {
			return 0, true
		}
		return p.Head.Age.Seconds(), true
	}),
	gauge("lag_records", "Offsets between the next commit and the end of the log.", func(p *processor.PartitionStatus) (float64, bool) {
		return float64(p.LagRecords), lagKnown(p)
	}),
	gauge("lag_seconds", "Age of the oldest record not settled; 0 without one.", func(p *processor.PartitionStatus) (float64, bool) {
		return p.LagTime.Seconds(), p.NextOffset >= 0
	}),
	gauge("committed_offset", "Offset of the last acknowledged commit.", func(p *processor.PartitionStatus) (float64, bool) {
		return float64(p.CommittedOffset), p.CommittedOffset >= 0
	}),
	gauge("commit_age_seconds", "Time since the last acknowledged commit.", func(p *processor.PartitionStatus) (float64, bool) {
		return p.CommitAge.Seconds(), p.CommittedOffset >= 0
	}),
	gauge("paused", "1 while fetching is paused because the window is full, else 0.", func(p *processor.PartitionStatus) (float64, bool) {
		return truth(p.Paused), true
	}),
	gauge("partition_stopped", "1 while the partition does not go on; /readyz?verbose says why; else 0.", func(p *processor.PartitionStatus) (float64, bool) {
		return truth(p.Stopped != ""), true
	}),
	gauge("held", "Records that wait for a person to decide.", func(p *processor.PartitionStatus) (float64, bool) {
		return float64(len(p.Held)), true
	}),
	counter("emitted_total", "Outputs handed to the producer for the first time.", func(p *processor.PartitionStatus) uint64 { return p.Emitted }),
	counter("settled_total", "Records settled.", func(p *processor.PartitionStatus) uint64 { return p.Settled }),
	counter("dropped_total", "Records given up by on_exhausted: drop, or skipped by a person.", func(p *processor.PartitionStatus) uint64 { return p.Dropped }),
	counter("filtered_total", "Records that had no output.", func(p *processor.PartitionStatus) uint64 { return p.Filtered }),
}

func lagKnown(p *processor.PartitionStatus) bool { return p.EndOffset >= 0 && p.NextOffset >= 0 }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var (
	upDesc         = desc("up", "1 if the pipeline tells its status, 0 if it hangs.", "pipeline")
	problemsDesc   = desc("problems", "Reasons why records wait that should not; /readyz?verbose names them.", "pipeline")
	attemptsDesc   = desc("attempts_total", "Attempts at records, by result.", "pipeline", "result")
	breakerDesc    = desc("breaker_open", "1 while the pipeline is paused because of too many dead letters, else 0.", "pipeline")
	retriesDesc    = desc("retries_waiting", "Records whose back-off is over and that wait for retry.budget.", "pipeline")
	hedgesDesc     = desc("hedges_total", "Second attempts beside one that ran for long.", "pipeline")
	commitsDesc    = desc("commits_total", "Commits, by result.", "pipeline", "result")
	transactsDesc  = desc("transactions_total", "Transactions of exactly-once delivery, by result.", "pipeline", "result")
	writesDesc     = desc("state_writes_total", "Records written to the state topic, by kind.", "pipeline", "kind")
	repliesDesc    = desc("replies_total", "Results that waited behind the head of their partition, by what became of them in the reply log.", "pipeline", "result")
	ignoredDesc    = desc("state_ignored_total", "Records of the state topic that were ignored, by kind.", "pipeline", "kind")
	rebalancesDesc = desc("rebalances_total", "Assignments, revocations and losses that named a partition.", "pipeline")
	limitedDesc    = desc("limited_by", "What kept the pipeline from going faster: share of the last 10 seconds, by reason.", "pipeline", "reason")
	deadDesc       = desc("dead_letters_total", "Records emitted to the dead-letter topic, by reason.", "pipeline", "topic", "partition", "reason")
	gapsDesc       = desc("gap_offsets_total", "Offsets that no record had, by kind.", "pipeline", "topic", "partition", "kind")
)

// Describe sends all that Collect may send.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, problemsDesc, attemptsDesc, breakerDesc, retriesDesc, hedgesDesc, commitsDesc, transactsDesc, writesDesc, ignoredDesc, repliesDesc, rebalancesDesc, limitedDesc, deadDesc, gapsDesc} {
		ch <- d
	}
	for _, s := range ofPartitions {
		ch <- s.desc
	}
}

// Collect asks all pipelines. Of one that does not answer only up is sent.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, a := range ask(context.Background(), c) {
		ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, truth(a.err == nil), a.name)
		if a.err == nil {
			collect(ch, a.name, &a.status)
		}
	}
}

func collect(ch chan<- prometheus.Metric, name string, s *processor.Status) {
	ch <- prometheus.MustNewConstMetric(problemsDesc, prometheus.GaugeValue, float64(len(problemsOf(s))), name)
	ch <- prometheus.MustNewConstMetric(rebalancesDesc, prometheus.CounterValue, float64(s.Rebalances), name)
	ch <- prometheus.MustNewConstMetric(breakerDesc, prometheus.GaugeValue, truth(s.BreakerOpen), name)
	ch <- prometheus.MustNewConstMetric(retriesDesc, prometheus.GaugeValue, float64(s.RetriesWaiting), name)
	ch <- prometheus.MustNewConstMetric(hedgesDesc, prometheus.CounterValue, float64(s.Hedges), name)
	for reason, share := range s.LimitedBy {
		ch <- prometheus.MustNewConstMetric(limitedDesc, prometheus.GaugeValue, share, name, reason)
	}
	for _, counts := range []struct {
		desc *prometheus.Desc
		of   map[string]uint64
	}{
		{attemptsDesc, s.Attempts},
		{commitsDesc, s.Commits},
		{transactsDesc, s.Transactions},
		{writesDesc, s.StateWrites},
		{repliesDesc, s.Replies},
		{ignoredDesc, s.StateIgnored},
	} {
		for label, n := range counts.of {
			ch <- prometheus.MustNewConstMetric(counts.desc, prometheus.CounterValue, float64(n), name, label)
		}
	}
	for i := range s.Partitions {
		p := &s.Partitions[i]
		labels := []string{name, p.Topic, strconv.Itoa(int(p.Partition))}
		for _, series := range ofPartitions {
			if v, known := series.value(p); known {
				ch <- prometheus.MustNewConstMetric(series.desc, series.kind, v, labels...)
			}
		}
		for reason, n := range p.DeadLetters {
			ch <- prometheus.MustNewConstMetric(deadDesc, prometheus.CounterValue, float64(n), append(labels, reason)...)
		}
		for kind, n := range p.GapOffsets {
			ch <- prometheus.MustNewConstMetric(gapsDesc, prometheus.CounterValue, float64(n), append(labels, kind)...)
		}
	}
}

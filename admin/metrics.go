package admin

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"seriatim/processor"
)

// Metrics hold what the process measures while it runs. Make them before the
// pipelines, which need their hooks, and give them to [New] afterwards, which
// adds what is read from the pipelines at each scrape.
type Metrics struct {
	// Registry takes further collectors, such as those of the Kafka clients. It
	// has the collectors of the Go runtime and of the process already.
	Registry *prometheus.Registry

	transformDuration *prometheus.HistogramVec
	resequenceWait    *prometheus.HistogramVec
}

// NewMetrics returns the metrics of a process of the given version, built from
// the given revision of its source.
func NewMetrics(version, revision string) *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		transformDuration: prometheus.NewHistogramVec(histogram(
			"transform_duration_seconds", "Time that one attempt at a record took, by its outcome; of cheap transforms, the mean of each chunk."), []string{"pipeline", "outcome"}),
		resequenceWait: prometheus.NewHistogramVec(histogram(
			"resequence_wait_seconds", "Time that finished records waited for those before them, sampled."), []string{"pipeline"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "seriatim_build_info",
		Help:        "Always 1; the labels tell what is running.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.Registry.MustRegister(m.transformDuration, m.resequenceWait, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// histogram returns a histogram with classic buckets, for everybody, and native
// ones, for a Prometheus that asks for them.
func histogram(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: "seriatim_" + name,
		Help: help,
		Buckets: []float64{
			.00001, .0001, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60,
		},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// Hooks returns the hooks that measure the named pipeline.
func (m *Metrics) Hooks(pipeline string) processor.Hooks {
	// Finding the series of a label value costs more than observing, so it is done
	// once. The four outcomes are all there are.
	durations := make(map[string]prometheus.Observer)
	for _, outcome := range []string{"ok", "retry", "reject", "deployment"} {
		durations[outcome] = m.transformDuration.WithLabelValues(pipeline, outcome)
	}
	wait := m.resequenceWait.WithLabelValues(pipeline)
	return processor.Hooks{
		TransformDuration: func(outcome string, d time.Duration) {
			if observer, ok := durations[outcome]; ok {
				observer.Observe(d.Seconds())
			}
		},
		ResequenceWait: func(d time.Duration) { wait.Observe(d.Seconds()) },
	}
}

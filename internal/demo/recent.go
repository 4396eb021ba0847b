package demo

import (
	"slices"
	"time"
)

// period is how far back latency and throughput look.
const period = 10 * time.Second

// recent keeps the latencies of what came out within the last period.
type recent struct {
	began   time.Time
	samples []sample // oldest first
}

type sample struct {
	at      time.Time
	latency time.Duration
}

func (r *recent) add(at time.Time, latency time.Duration) {
	r.forget(at)
	r.samples = append(r.samples, sample{at, latency})
}

func (r *recent) forget(now time.Time) {
	old := 0
	for old < len(r.samples) && now.Sub(r.samples[old].at) > period {
		old++
	}
	r.samples = slices.Delete(r.samples, 0, old)
}

// rates are what the last period was like. Latencies are negative if nothing
// came out.
type rates struct {
	p50, p99  time.Duration
	perSecond float64
}

func (r *recent) rates(now time.Time) rates {
	r.forget(now)
	if len(r.samples) == 0 {
		return rates{p50: -1, p99: -1}
	}
	latencies := make([]time.Duration, len(r.samples))
	for i, s := range r.samples {
		latencies[i] = s.latency
	}
	slices.Sort(latencies)
	seconds := min(period, max(time.Second, now.Sub(r.began))).Seconds()
	return rates{quantile(latencies, 50), quantile(latencies, 99), float64(len(latencies)) / seconds}
}

// quantile returns the least of the values, which are sorted, that is not less than
// the share of all of them; negative if there are none.
func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return -1
	}
	return sorted[max(1, (len(sorted)*percent+99)/100)-1]
}

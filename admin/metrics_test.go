package admin

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// gather returns all families of a server of the given pipelines, by name.
func gather(t *testing.T, pipelines ...Pipeline) map[string]*dto.MetricFamily {
	t.Helper()
	metrics := NewMetrics("v1.2.3", "abc")
	for _, p := range pipelines {
		hooks := metrics.Hooks(p.Name)
		hooks.TransformDuration("ok", 3*time.Millisecond)
		hooks.ResequenceWait(time.Second)
	}
	New(Options{Metrics: metrics, Pipelines: pipelines})
	return gatherFrom(t, metrics.Registry)
}

func gatherFrom(t *testing.T, g prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]*dto.MetricFamily)
	for _, f := range families {
		byName[f.GetName()] = f
	}
	return byName
}

// samples returns the sample lines of the pipelines' status in the text format.
func samples(t *testing.T, pipelines ...Pipeline) []string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector(pipelines))
	var text bytes.Buffer
	for _, f := range gatherFrom(t, registry) {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "#") })
	slices.Sort(lines)
	return lines
}

func TestStatusBecomesMetricsAndUnknownValuesAreLeftOut(t *testing.T) {
	want := `
seriatim_attempts_total{pipeline="orders",result="ok"} 40
seriatim_attempts_total{pipeline="orders",result="retry"} 2
seriatim_breaker_open{pipeline="orders"} 1
seriatim_commit_age_seconds{partition="0",pipeline="orders",topic="orders.in"} 0.25
seriatim_commits_total{pipeline="orders",result="error"} 0
seriatim_commits_total{pipeline="orders",result="ok"} 7
seriatim_committed_offset{partition="0",pipeline="orders",topic="orders.in"} 40
seriatim_dead_letters_total{partition="0",pipeline="orders",reason="reject",topic="orders.in"} 3
seriatim_dropped_total{partition="0",pipeline="orders",topic="orders.in"} 2
seriatim_dropped_total{partition="1",pipeline="orders",topic="orders.in"} 0
seriatim_emitted_total{partition="0",pipeline="orders",topic="orders.in"} 45
seriatim_emitted_total{partition="1",pipeline="orders",topic="orders.in"} 0
seriatim_filtered_total{partition="0",pipeline="orders",topic="orders.in"} 4
seriatim_filtered_total{partition="1",pipeline="orders",topic="orders.in"} 0
seriatim_gap_offsets_total{kind="absent",partition="0",pipeline="orders",topic="orders.in"} 6
seriatim_head_age_seconds{partition="0",pipeline="orders",topic="orders.in"} 1.5
seriatim_head_age_seconds{partition="1",pipeline="orders",topic="orders.in"} 0
seriatim_hedges_total{pipeline="orders"} 1
seriatim_held{partition="0",pipeline="orders",topic="orders.in"} 1
seriatim_held{partition="1",pipeline="orders",topic="orders.in"} 0
seriatim_lag_records{partition="0",pipeline="orders",topic="orders.in"} 9
seriatim_lag_seconds{partition="0",pipeline="orders",topic="orders.in"} 2
seriatim_limited_by{pipeline="orders",reason="input"} 0.25
seriatim_limited_by{pipeline="orders",reason="workers"} 0.75
seriatim_partition_stopped{partition="0",pipeline="orders",topic="orders.in"} 0
seriatim_partition_stopped{partition="1",pipeline="orders",topic="orders.in"} 1
seriatim_paused{partition="0",pipeline="orders",topic="orders.in"} 1
seriatim_paused{partition="1",pipeline="orders",topic="orders.in"} 0
seriatim_problems{pipeline="orders"} 1
seriatim_rebalances_total{pipeline="orders"} 2
seriatim_replies_total{pipeline="orders",result="reused"} 3
seriatim_retries_waiting{pipeline="orders"} 5
seriatim_settled_total{partition="0",pipeline="orders",topic="orders.in"} 41
seriatim_settled_total{partition="1",pipeline="orders",topic="orders.in"} 0
seriatim_state_ignored_total{kind="torn",pipeline="orders"} 1
seriatim_state_writes_total{kind="attempts",pipeline="orders"} 5
seriatim_transactions_total{pipeline="orders",result="aborted"} 1
seriatim_transactions_total{pipeline="orders",result="committed"} 8
seriatim_up{pipeline="orders"} 1
seriatim_window_bytes{partition="0",pipeline="orders",topic="orders.in"} 900
seriatim_window_bytes{partition="1",pipeline="orders",topic="orders.in"} 0
seriatim_window_limit_records{partition="0",pipeline="orders",topic="orders.in"} 16384
seriatim_window_limit_records{partition="1",pipeline="orders",topic="orders.in"} 16384
seriatim_window_records{partition="0",pipeline="orders",topic="orders.in"} 3
seriatim_window_records{partition="1",pipeline="orders",topic="orders.in"} 0`
	status := orders()
	status.Partitions[1].Stopped = "its record is exhausted"
	if got := "\n" + strings.Join(samples(t, says(status)), "\n"); got != want {
		t.Errorf("got%s\n\nwant%s", got, want)
	}
}

func TestPipelineThatHangsIsShownAndHidesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got := samples(t, stuck(), says(orders()))
		if took := time.Since(start); took > answerTimeout {
			t.Errorf("the scrape took %v, want at most %v", took, answerTimeout)
		}
		for _, want := range []string{`seriatim_up{pipeline="stuck"} 0`, `seriatim_up{pipeline="orders"} 1`, `seriatim_problems{pipeline="orders"} 0`} {
			if !slices.Contains(got, want) {
				t.Errorf("missing %s in:\n%s", want, strings.Join(got, "\n"))
			}
		}
		for _, line := range got {
			if strings.Contains(line, "stuck") && !strings.HasPrefix(line, "seriatim_up") {
				t.Errorf("a value of a pipeline that hangs was made up: %s", line)
			}
		}
	})
}

func TestMetricNamesFollowTheConventions(t *testing.T) {
	var families []*dto.MetricFamily
	for _, f := range gather(t, says(orders())) {
		families = append(families, f)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestLabelsAreClosed(t *testing.T) {
	pipeline := []string{"pipeline"}
	want := map[string][]string{ // all others have those of a partition
		"seriatim_build_info":                 {"goversion", "revision", "version"},
		"seriatim_up":                         pipeline,
		"seriatim_problems":                   pipeline,
		"seriatim_rebalances_total":           pipeline,
		"seriatim_resequence_wait_seconds":    pipeline,
		"seriatim_transform_duration_seconds": {"outcome", "pipeline"},
		"seriatim_attempts_total":             {"pipeline", "result"},
		"seriatim_commits_total":              {"pipeline", "result"},
		"seriatim_hedges_total":               pipeline,
		"seriatim_breaker_open":               pipeline,
		"seriatim_retries_waiting":            pipeline,
		"seriatim_limited_by":                 {"pipeline", "reason"},
		"seriatim_transactions_total":         {"pipeline", "result"},
		"seriatim_replies_total":              {"pipeline", "result"},
		"seriatim_state_writes_total":         {"kind", "pipeline"},
		"seriatim_state_ignored_total":        {"kind", "pipeline"},
		"seriatim_dead_letters_total":         {"partition", "pipeline", "reason", "topic"},
		"seriatim_gap_offsets_total":          {"kind", "partition", "pipeline", "topic"},
	}
	ours := 0
	for name, family := range gather(t, says(orders())) {
		if !strings.HasPrefix(name, "seriatim_") {
			continue
		}
		ours++
		labels, ok := want[name]
		if !ok {
			labels = []string{"partition", "pipeline", "topic"}
		}
		for _, metric := range family.GetMetric() {
			var got []string
			for _, l := range metric.GetLabel() {
				got = append(got, l.GetName())
			}
			slices.Sort(got)
			if !slices.Equal(got, labels) {
				t.Errorf("%s: got labels %v, want %v", name, got, labels)
			}
		}
	}
	if want := len(ofPartitions) + len(want); ours != want {
		t.Errorf("got %d metrics of our own, want %d", ours, want)
	}
}

func TestHistogramsHaveClassicAndNativeBuckets(t *testing.T) {
	families := gather(t, says(orders()))
	for name, series := range map[string]int{"seriatim_transform_duration_seconds": 4, "seriatim_resequence_wait_seconds": 1} {
		metrics := families[name].GetMetric()
		if len(metrics) != series {
			t.Errorf("%s: got %d series, want %d", name, len(metrics), series)
		}
		var observed uint64
		for _, m := range metrics {
			h := m.GetHistogram()
			observed += h.GetSampleCount()
			if len(h.GetBucket()) == 0 || h.Schema == nil {
				t.Errorf("%s: got %d classic buckets and native schema %v, want both", name, len(h.GetBucket()), h.Schema)
			}
		}
		if observed != 1 {
			t.Errorf("%s: got %d observations, want 1", name, observed)
		}
	}
}

func TestMetricsAndFieldsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for name := range gather(t, says(orders())) {
		if name, ours := strings.CutPrefix(name, "seriatim_"); ours {
			want = append(want, name)
		}
	}
	for _, match := range regexp.MustCompile(`"([a-z_]+)":`).FindAllStringSubmatch(wantPipelines, -1) {
		want = append(want, match[1])
	}
	for _, name := range want {
		if !regexp.MustCompile("[`.\"]" + name + "[`{[\"]").Match(doc) {
			t.Errorf("docs/http.md does not tell about %s", name)
		}
	}
}

func TestMetricsAreServed(t *testing.T) {
	body := get(t, "/metrics", says(orders())).Body.String()
	for _, want := range []string{
		`seriatim_build_info{goversion="go`, `revision="abc",version="v1.2.3"} 1`,
		`seriatim_lag_records{partition="0",pipeline="orders",topic="orders.in"} 9`,
		"go_goroutines ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("missing %q in:\n%s", want, body)
		}
	}
}

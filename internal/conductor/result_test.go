package conductor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seriatim/internal/history"
)

func TestLedger(t *testing.T) {
	plan, err := NewPlan("kills", 7, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	green := &Result{Plan: plan, Mode: ExactlyOnce, Verdict: history.Verdict{Records: 5}, Counts: Counts{Kills: 3}}
	void := &Result{Plan: plan, Mode: ExactlyOnce, Void: []string{"no kill met work under way"}}
	red := &Result{Plan: plan, Mode: AtLeastOnce, Void: []string{"nothing was repeated"}, Verdict: history.Verdict{
		Faults: map[history.Rule]int{history.NoLoss: 2}, First: []string{"I1: the first"},
	}}
	file := filepath.Join(t.TempDir(), "ledger.tsv")
	for _, r := range []*Result{green, void, red} {
		if err := r.Record(file, "abc"); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 4 || lines[0]+"\n" != ledgerHead {
		t.Fatalf("got %q, want a head and three lines", lines)
	}
	columns := len(strings.Split(ledgerHead, "\t"))
	for i, word := range []string{"green", "void", "red"} {
		fields := strings.Split(lines[i+1], "\t")
		if len(fields) != columns || fields[columns-1] != word {
			t.Errorf("line %q has %d fields, want %d, the last one %s", lines[i+1], len(fields), columns, word)
		}
	}
	if got, want := red.String(), "again: make chaos MODE=at_least_once PLAN=kills SEED=7 FOR=1m0s"; !strings.Contains(got, want) || !strings.Contains(got, "I1: the first") {
		t.Errorf("got %q, want %q and the first fault in it", got, want)
	}
}

// TestVoid holds that a run which has met nothing shows nothing.
func TestVoid(t *testing.T) {
	for _, name := range PlanNames() {
		for _, mode := range []Delivery{AtLeastOnce, ExactlyOnce} {
			plan, err := NewPlan(name, 1, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			r := &run{plan: plan, mode: mode}
			if void := r.void(new(Result)); len(void) < 2 {
				t.Errorf("%s %s: nothing has happened, and only %q is missing", mode, name, void)
			}
			all := &Result{
				Counts: Counts{
					Kills: 9, KillsAtWork: 9, Freezes: 9, BrokerKills: 9, Refusals: 9, Rebalances: 9, Transactions: 9, Aborted: 9,
					WorkerKills: 9, WorkerFreezes: 9, Hangs: 9, Hedges: 9, Reused: 9,
				},
				Verdict: history.Verdict{Records: 9, Repeats: 9, Gaps: 9},
			}
			if void := r.void(all); len(void) > 0 {
				t.Errorf("%s %s: everything has happened, but %q is missing", mode, name, void)
			}
		}
	}
}

func TestReadMetrics(t *testing.T) {
	m := readMetrics(`# HELP x y
go_goroutines 12
seriatim_window_records{pipeline="a",partition="0"} 3
seriatim_window_records{pipeline="a",partition="1"} 4
seriatim_commits_total{pipeline="a",result="ok"} 1e2
seriatim_commits_total{pipeline="a",result="error"} 1
`)
	want := metrics{
		"go_goroutines": 12, "seriatim_window_records": 7, "seriatim_commits_total": 101,
		"seriatim_commits_total{ok}": 100, "seriatim_commits_total{error}": 1,
	}
	for name, want := range want {
		if m[name] != want {
			t.Errorf("%s is %v, want %v", name, m[name], want)
		}
	}
}

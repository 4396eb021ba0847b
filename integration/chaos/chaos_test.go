//go:build chaos

// Package chaos runs plans of faults on a real cluster: see the target chaos of
// the Makefile.
package chaos

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seriatim/internal/conductor"
)

var (
	modes   = flag.String("mode", "at_least_once,exactly_once", "deliveries")
	plans   = flag.String("plan", "kills", "names of plans, or all")
	seeds   = flag.String("seed", "1", "seeds; 1-3 is a range")
	length  = flag.Duration("for", time.Minute, "how long faults and load last")
	ledger  = flag.String("ledger", "", "file that gets a line for each run")
	dirs    = flag.String("dir", "../../.cache/chaos", "where diaries and logs are kept")
	keep    = flag.Bool("keep", false, "keep those of green runs too")
	onwards = flag.Bool("onwards", false, "go on after a red run")
)

// TestChaos carries out plans one after another on one cluster.
func TestChaos(t *testing.T) {
	ctx := context.Background()
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bed, err := conductor.NewBed(ctx, module)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	names := strings.Split(*plans, ",")
	if *plans == "all" {
		names = conductor.PlanNames()
	}
	commit := revision(t)
	for _, seed := range numbers(t, *seeds) {
		for _, name := range names {
			for _, mode := range strings.Split(*modes, ",") {
				plan, err := conductor.NewPlan(name, seed, *length)
				if err != nil {
					t.Fatal(err)
				}
				result := run(ctx, t, bed, conductor.Delivery(mode), plan, commit)
				if result == nil || result.Word() == "red" && !*onwards {
					return
				}
			}
		}
	}
}

func run(ctx context.Context, t *testing.T, bed *conductor.Bed, mode conductor.Delivery, plan *conductor.Plan, commit string) *conductor.Result {
	dir, err := filepath.Abs(filepath.Join(*dirs, time.Now().UTC().Format("0102-150405")+"-"+string(mode)+"-"+plan.Name+"-"+strconv.FormatUint(plan.Seed, 10)))
	if err != nil {
		t.Fatal(err)
	}
	result, err := bed.Run(ctx, mode, plan, dir)
	if err != nil {
		t.Errorf("%v\n%s", err, bed.LogTail(15))
		return nil
	}
	if *ledger != "" {
		if err := result.Record(*ledger, commit); err != nil {
			t.Error(err)
		}
	}
	switch result.Word() {
	case "green":
		t.Log(result)
		if *keep {
			break
		}
		if err := os.RemoveAll(result.Dir); err != nil {
			t.Error(err)
		}
	default:
		t.Error(result)
	}
	return result
}

// numbers reads "1,4-6".
func numbers(t *testing.T, text string) []uint64 {
	var list []uint64
	for _, part := range strings.Split(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		low, err := strconv.ParseUint(from, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		high, err := strconv.ParseUint(to, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for n := low; n <= high; n++ {
			list = append(list, n)
		}
	}
	return slices.Compact(list)
}

// revision names the commit under test, with a plus if something was changed since.
func revision(t *testing.T) string {
	out, err := exec.CommandContext(t.Context(), "git", "describe", "--always", "--dirty=+").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

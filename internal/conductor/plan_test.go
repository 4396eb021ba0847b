package conductor

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPlansFollowFromTheirSeed makes every plan twice, and with another seed.
func TestPlansFollowFromTheirSeed(t *testing.T) {
	for _, name := range PlanNames() {
		t.Run(name, func(t *testing.T) {
			protocols := make(map[Protocol]bool)
			different := make(map[string]bool)
			for seed := range uint64(6) {
				a, err := NewPlan(name, seed, time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				b, err := NewPlan(name, seed, time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				if fmt.Sprint(a) != fmt.Sprint(b) {
					t.Fatalf("seed %d gives two plans:\n%v\n%v", seed, a.Steps, b.Steps)
				}
				protocols[a.Protocol] = true
				different[fmt.Sprint(a.Steps)] = true
				check(t, a)
			}
			if len(protocols) != 3 && name != "crash" || len(different) != 6 {
				t.Errorf("6 seeds give %d plans with the protocols %v, want all to differ and all protocols", len(different), protocols)
			}
		})
	}
	if _, err := NewPlan("peace", 1, time.Minute); err == nil || !strings.Contains(err.Error(), "kills") {
		t.Errorf("a plan that does not exist: %v, want an error with those that do", err)
	}
}

// TestPlansAreDescribed reads the page about them.
func TestPlansAreDescribed(t *testing.T) {
	page, err := os.ReadFile("../../docs/chaos.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|").FindAllStringSubmatch(string(page), -1)
	var names []string
	for _, row := range rows {
		names = append(names, row[1])
	}
	slices.Sort(names)
	if !slices.Equal(names, PlanNames()) {
		t.Errorf("docs/chaos.md describes %q, the plans are %q", names, PlanNames())
	}
}

// check holds a plan to what the conductor can do.
func check(t *testing.T, p *Plan) {
	t.Helper()
	if len(p.Steps) < 3 {
		t.Errorf("seed %d: only %d steps in a minute", p.Seed, len(p.Steps))
	}
	last := time.Duration(0)
	for _, s := range p.Steps {
		if s.At < last || s.At < warmUp || s.At >= p.Length {
			t.Errorf("seed %d: %v is out of order or out of time", p.Seed, s)
		}
		last = s.At
		var n int
		switch {
		case s.Whom == "cluster":
			if s.Do != Move {
				t.Errorf("seed %d: %v", p.Seed, s)
			}
		case s.Whom == atWork:
			if p.Service == Own || s.Do != Kill && s.Do != Freeze {
				t.Errorf("seed %d: %v", p.Seed, s)
			}
		case slices.Contains(rights, s.Whom):
			if s.Do != Refuse {
				t.Errorf("seed %d: %v", p.Seed, s)
			}
		case strings.HasPrefix(s.Whom, "n"):
			if _, err := fmt.Sscanf(s.Whom, "n%d", &n); err != nil || n < 1 || n > brokers || (s.Do != Kill && s.Do != Stop && s.Do != Freeze) {
				t.Errorf("seed %d: %v", p.Seed, s)
			}
		default:
			if _, err := fmt.Sscanf(s.Whom, "i%d", &n); err != nil || n < 1 || n > p.Instances || s.Do == Move {
				t.Errorf("seed %d: %v", p.Seed, s)
			}
		}
	}
}

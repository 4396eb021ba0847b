package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// windows measure the window itself, with its own benchmark.
var windows = []trial{{name: "window of 16,384, random completion", times: 7, bars: true, run: admitToFree}}

// admitToFree is what admitting, completing, releasing and freeing a record takes.
func admitToFree(ctx context.Context, _ *bed) ([]figure, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkWindow$/slots=16384", "./resequence")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var figures []figure
	fields := strings.Fields(string(out))
	for i, field := range fields {
		var f figure
		switch field {
		case "ns/record":
			f = figure{name: "a record", unit: "ns", most: 20}
		case "allocs/op":
			f = figure{name: "allocations of 16,384 records"}
		default:
			continue
		}
		if f.value, err = strconv.ParseFloat(fields[i-1], 64); err != nil {
			return nil, err
		}
		figures = append(figures, f)
	}
	if len(figures) != 2 {
		return nil, fmt.Errorf("the benchmark of the window says %q", out)
	}
	return figures, nil
}

package conductor

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// metrics are the sums of an instance's metrics by name, with one label value
// where that matters: name or name{value}.
type metrics map[string]float64

// admin asks an admin server.
var adminClient = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(ctx context.Context, addr, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := adminClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// readMetrics parses the text format.
func readMetrics(text string) metrics {
	m := make(metrics)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if i < 0 {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(strings.TrimSpace(line[i:]), &v); err != nil {
			continue
		}
		name, labels, _ := strings.Cut(line[:i], "{")
		m[name] += v
		if _, result, ok := strings.Cut(labels, `result="`); ok {
			result, _, _ = strings.Cut(result, `"`)
			m[name+"{"+result+"}"] += v
		}
	}
	return m
}

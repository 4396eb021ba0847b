package transform_test

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"

	"seriatim/processor"
	"seriatim/transform"
)

// TestHTTPStatusesAsDocumented holds the code and the table of docs/workers.md
// together, for every status there can be.
func TestHTTPStatusesAsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/workers.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[int]string)
	rows := regexp.MustCompile(`(?m)^\| (\d{3}[^|]*) \| (\w+) \|`).FindAllSubmatch(page, -1)
	for _, row := range rows {
		for _, status := range regexp.MustCompile(`\b\d{3}\b`).FindAll(row[1], -1) {
			code, _ := strconv.Atoi(string(status))
			documented[code] = string(row[2])
		}
	}
	if len(rows) != 5 || len(documented) < 20 {
		t.Fatalf("found %d statuses in %d rows of the table, want all of its 5 rows", len(documented), len(rows))
	}
	want := func(status int) string {
		if outcome := documented[status]; outcome != "" {
			return outcome
		}
		if 500 <= status && status <= 599 {
			return "retry"
		}
		return "deployment"
	}

	answer := 0
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(answer) })
	client := connect(t, server.URL, transform.HTTPOptions{})
	for answer = 200; answer <= 999; answer++ {
		got := ""
		out, err := processor.Call(t.Context(), client, input())
		switch {
		case err != nil:
			got = failure(t, err).Kind.String()
		case len(out) == 0:
			got = "filter"
		default:
			got = "value"
		}
		if got != want(answer) {
			t.Errorf("%d: got %s, want %s as in the table", answer, got, want(answer))
		}
	}
}

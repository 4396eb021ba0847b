package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// A visit is one call for the record that hangs.
type visit struct {
	worker int
	at     time.Time
}

// TestRecipe runs examples/recipe.yaml with two workers that never answer for one
// record: 2 s each, the other worker after at most 1, 2, 4, 8 s, and after five a
// person decides, while the others leave in their turn.
func TestRecipe(t *testing.T) {
	t.Parallel()
	const each, poison = 300, 100
	in := newInput(t, 2)
	out := newTopic(t, ".out", 2)
	in.produce(t, each)
	hangs := fmt.Sprintf("%s/0/%d", in.topic, poison)
	var mu sync.Mutex
	var visits []visit
	var urls []string
	for n := range 2 {
		inner := newWorker(t)
		inner.hold(hangs)
		outer := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Seriatim-Offset") == fmt.Sprint(poison) && r.Header.Get("Seriatim-Partition") == "0" {
				mu.Lock()
				visits = append(visits, visit{n, time.Now()})
				mu.Unlock()
			}
			inner.ServeHTTP(rw, r)
		}))
		t.Cleanup(func() {
			inner.release()
			outer.CloseClientConnections()
			outer.Close()
		})
		urls = append(urls, outer.URL)
	}

	text, err := os.ReadFile("../examples/recipe.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Pipelines []settings }
	if err := yaml.Unmarshal(text, &file); err != nil || len(file.Pipelines) != 1 {
		t.Fatalf("examples/recipe.yaml: %v, %d pipelines", err, len(file.Pipelines))
	}
	name := unique(t, "")
	recipe := file.Pipelines[0]
	transform, _ := recipe["transform"].(settings)
	asks, _ := transform["http"].(settings)
	if asks == nil {
		t.Fatalf("examples/recipe.yaml asks no worker: %v", recipe)
	}
	asks["urls"] = urls
	i := start(t, process(recipe.with(settings{
		"name": name, "input": settings{"topics": []string{in.topic}}, "output": settings{"topic": out}, "commit": settings{"interval": "500ms"},
	})))

	i.awaitUnready(t, in.topic+"/0", fmt.Sprintf("offset %d", poison), "failed 5 times and is held", "no complete reply within 2s", "seriatim held")
	since := time.Now()
	mu.Lock()
	seen := visits
	mu.Unlock()
	if len(seen) != 5 {
		t.Fatalf("there were %d attempts, want 5", len(seen))
	}
	const attempt, slack = 2 * time.Second, 3 * time.Second
	for n := 1; n < len(seen); n++ {
		if seen[n].worker == seen[n-1].worker {
			t.Errorf("attempts %d and %d went to the same worker", n, n+1)
		}
		wait, most := seen[n].at.Sub(seen[n-1].at), attempt+time.Second<<(n-1)
		if wait < attempt-100*time.Millisecond || wait > most+slack {
			t.Errorf("attempt %d came %v after the one before, want 2s to %v", n+1, wait, most)
		}
	}
	if took := since.Sub(seen[4].at); took < attempt-100*time.Millisecond || took > attempt+2*slack {
		t.Errorf("it was held %v after the fifth attempt, want 2s", took)
	}
	if n := records(within(t, patience), t, out); n != each+poison {
		t.Errorf("%d outputs are there, want all of one partition and %d of the other", n, poison)
	}
	if text, code := held(t, i, "skip", fmt.Sprintf("%s/%s/0/%d", name, in.topic, poison), "--reason", "a test"); code != 0 {
		t.Errorf("held skip: %s", text)
	}
	awaitCaughtUp(t, patience, group(name), in.topic)
	i.drain(t)
	mustBe(t, "partition 0", sequences(t, out, 0), numbers(0, poison, poison+1, each))
	mustBe(t, "partition 1", sequences(t, out, 1), numbers(0, each))
}

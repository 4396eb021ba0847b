package integration

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/testkafka"
)

// TestStages has workers, over HTTP and over lines, take longer than the timeout for one
// record, which they say, and die of another after they have noted how far they came.
func TestStages(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs("testdata/stages.mjs")
	if err != nil {
		t.Fatal(err)
	}
	for _, over := range []string{"http", "lines"} {
		t.Run(over, func(t *testing.T) {
			t.Parallel()
			in := newInput(t, 2)
			out := newTopic(t, ".out", 2)
			in.produce(t, 20)
			name := unique(t, "")
			conf := pipeline(name, in.topic, out).with(settings{"retry": settings{"initial": "100ms", "attempts": 10}})
			listen := freeAddr(t)
			var worker *testkafka.Process
			var addr string
			if over == "http" {
				worker, addr = startWorker(t, "0", "node", script)
				conf = conf.with(settings{
					"transform": settings{"http": settings{"urls": []string{"http://" + addr + "/"}, "timeout": "2s"}},
					"callbacks": settings{"listen": listen},
				})
			} else {
				conf = conf.with(settings{"transform": settings{"exec": settings{"command": []string{"node", script, "lines"}, "timeout": "2s", "processes": 1}}})
			}
			i := start(t, process(conf))
			if over == "http" {
				select {
				case <-worker.Exited():
				case <-time.After(patience):
					t.Fatal("the worker has not died")
				}
				_, port, _ := strings.Cut(addr, ":")
				startWorker(t, port, "node", script)
			}
			awaitCaughtUp(t, patience, group(name), in.topic)
			if over == "http" {
				req, err := http.NewRequestWithContext(within(t, patience), http.MethodPost, "http://"+listen+"/attempts/AAAAAAAAAAAAAAAAAAAAAAAAAA/extend", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusConflict {
					t.Errorf("a guessed token: %s, want 409", resp.Status)
				}
			}
			i.drain(t)
			// An attempt at the slow one may have died with the process.
			slow := regexp.MustCompile("^" + regexp.QuoteMeta(in.topic) + "/0/7 attempt [0-9]+$")
			if got := values(t, out, 0); len(got) != 20 || !slow.MatchString(got[7]) {
				t.Errorf("the slow record was given up: %q", got)
			}
			if got, want := values(t, out, 1), in.topic+"/1/5 after salary service called"; len(got) != 20 || got[5] != want {
				t.Errorf("the noted record is not %q: %q", want, got)
			}
		})
	}
}

// values reads the values of a partition.
func values(t *testing.T, topic string, partition int32) (list []string) {
	t.Helper()
	ctx := within(t, patience)
	ends, err := bed.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, partition)
	reader, err := bed.cluster.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for int64(len(list)) < end.Offset {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { list = append(list, string(r.Value)) })
	}
	return list
}

package integration

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestOneOfTwoWorkersIsKilled kills one of two Node workers under load and starts
// it again: the other takes over without a pause, and it gets its share again.
func TestOneOfTwoWorkersIsKilled(t *testing.T) {
	t.Parallel()
	const partitions = 3
	in := newInput(t, partitions)
	in.json = true
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	first, firstAddr := startNode(t, "0")
	_, secondAddr := startNode(t, "0")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"workers":   16,
		"transform": settings{"http": settings{"urls": []string{"http://" + firstAddr + "/", "http://" + secondAddr + "/"}}},
	})))
	l := in.start(t, 300)
	i.awaitEmitted(t, name, 300)

	if err := first.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.Exited()
	awaitOutput(t, out, records(within(t, patience), t, out)+600)
	awaitLog(t, i, "a worker is ejected", firstAddr)
	if code, text := i.get(t, "/readyz?verbose"); code != 200 {
		t.Errorf("one worker is down, and the instance is not ready:\n%s", text)
	}

	_, port, _ := strings.Cut(firstAddr, ":")
	startNode(t, port)
	awaitLog(t, i, "a worker is back", firstAddr)
	awaitOutput(t, out, records(within(t, patience), t, out)+300)
	l.end()
	i.finish(t, name, in.topic, out)
	if text := i.logText(); strings.Contains(text, "deployment is wrong") {
		t.Errorf("the pipeline paused while one worker was well:\n%s", i.logTail(30))
	}
	// Each process counts its receipts from 1.
	if n := countReceipts(t, out, 1); n != 3 {
		t.Errorf("%d outputs have receipt 1, want one from each of the three processes", n)
	}
	if n, all := countReceipts(t, out, 0), records(within(t, patience), t, out); int64(n) != all {
		t.Errorf("%d outputs of %d have a receipt", n, all)
	}
}

// awaitLog waits for a line with all the words.
func awaitLog(t *testing.T, i *instance, words ...string) {
	t.Helper()
	await(t, patience, fmt.Sprintf("%q in the log", words), func() (bool, string) {
		for line := range strings.Lines(i.logText()) {
			if containsAll(line, words) {
				return true, ""
			}
		}
		return false, i.logTail(10)
	})
}

var receipt = regexp.MustCompile(`"receipt":(\d+|"[^"]+")`)

// countReceipts returns how many values of a topic have this receipt, or any with
// number 0.
func countReceipts(t *testing.T, topic string, number int) (n int) {
	t.Helper()
	ctx := within(t, patience)
	left := records(ctx, t, topic)
	reader, err := bed.cluster.Client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for left > 0 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			if found := receipt.FindSubmatch(r.Value); found != nil && (number == 0 || string(found[1]) == fmt.Sprint(number)) {
				n++
			}
		})
	}
	return n
}

package integration

import (
	"fmt"
	"testing"
)

// TestSeveralPipelines runs three in one process: two with topics by name, one of
// them with two topics, and one with a regular expression and an output topic for
// each input topic.
func TestSeveralPipelines(t *testing.T) {
	t.Parallel()
	single, left, right := newInput(t, 2), newInput(t, 2), newInput(t, 3)
	prefix := unique(t, "")
	berlin := &input{topic: prefix + ".in.berlin", next: make([]int, 2)}
	paris := &input{topic: prefix + ".in.paris", next: make([]int, 3)}
	rome := &input{topic: prefix + ".in.rome", next: make([]int, 1)}
	for _, in := range []*input{berlin, paris} {
		createTopic(t, in.topic, len(in.next))
	}
	out := newTopic(t, ".out", 2)
	outOf := func(in *input) string { return "out." + in.topic }
	for _, in := range []*input{left, right} {
		createTopic(t, outOf(in), len(in.next))
	}
	cities := map[*input]string{}
	for in, city := range map[*input]string{berlin: "berlin", paris: "paris", rome: "rome"} {
		cities[in] = fmt.Sprintf("%s.out.%s", prefix, city)
		createTopic(t, cities[in], len(in.next))
	}

	names := []string{unique(t, ""), unique(t, ""), unique(t, "")}
	byRegex := pipeline(names[2], "", prefix+".out.{1}")
	delete(byRegex["input"].(settings), "topics")
	byRegex["input"].(settings)["topics_regex"] = prefix + `\.in\.(.+)`
	byName := pipeline(names[1], "", "out.{topic}").with(settings{
		"input": settings{"topics": []string{left.topic, right.topic}},
	})
	i := start(t, process(pipeline(names[0], single.topic, out), byName, byRegex))
	i.awaitPartitions(t, names[0], 2)
	i.awaitPartitions(t, names[1], 5)
	i.awaitPartitions(t, names[2], 5)
	inputs := []*input{single, left, right, berlin, paris}
	for _, in := range inputs {
		in.produce(t, 200)
	}
	createTopic(t, rome.topic, 1) // found while the pipeline runs
	rome.produce(t, 200)
	check := func(name string, in *input, out string) {
		t.Helper()
		awaitCaughtUp(t, patience, group(name), in.topic)
		compareExact(t, in.topic, out)
	}
	check(names[0], single, out)
	check(names[1], left, outOf(left))
	check(names[1], right, outOf(right))
	for in, out := range cities {
		check(names[2], in, out)
	}
	i.drain(t)
}

// TestRegexLeavesTheOutputOut has an expression match the pipeline's own output.
func TestRegexLeavesTheOutputOut(t *testing.T) {
	t.Parallel()
	prefix := unique(t, "")
	in := &input{topic: prefix + ".in", next: make([]int, 2)}
	createTopic(t, in.topic, 2)
	out := prefix + ".out"
	createTopic(t, out, 2)
	name := unique(t, "")
	conf := pipeline(name, "", out)
	delete(conf["input"].(settings), "topics")
	conf["input"].(settings)["topics_regex"] = prefix + `\..+`
	i := start(t, process(conf))
	in.produce(t, 100)
	awaitCaughtUp(t, patience, group(name), in.topic)
	i.awaitReady(t)
	i.drain(t)
	compareExact(t, in.topic, out)
}

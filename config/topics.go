package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A flow is what one pipeline reads and writes.
type flow struct {
	*Pipeline
	at            place
	reads, writes *nameSet
}

// checkTopics checks where the topics of all pipelines lead.
func (l *loader) checkTopics() {
	var flows []*flow
	for i := range l.config.Pipelines {
		if f := l.flow(&l.config.Pipelines[i], l.origins[i]); f != nil {
			flows = append(flows, f)
		}
	}
	l.checkGroups(flows)
	l.checkCycles(flows)
	l.checkStates(flows)
}

var placeholder = regexp.MustCompile(`\{(topic|[1-9])\}`)

// flow returns what p reads and writes, or nil if there is a problem with it.
func (l *loader) flow(p *Pipeline, at place) *flow {
	output, dead := at.key("output.topic"), at.key("dead_letter.topic")
	if !l.sound(at.key("input.topics"), at.key("input.topics_regex"), output, dead) {
		return nil
	}
	f := &flow{Pipeline: p, at: at}
	var deadLetters []string
	if p.DeadLetter != nil {
		deadLetters = []string{p.DeadLetter.Topic}
	}
	if p.Input.TopicsRegex != nil {
		f.reads = matching(p.Input.TopicsRegex.String())
		f.writes = matching(couldBeWritten(p.Output.Topic, deadLetters))
		l.checkRegex(f)
	} else {
		f.reads = exactly(p.Input.Topics)
		f.writes = exactly(append(l.checkOutputs(f), deadLetters...))
	}
	if !l.sound(at.key("input.topics_regex"), output, dead) {
		return nil
	}
	return f
}

// checkOutputs checks the outputs of topics that are listed, and returns them.
func (l *loader) checkOutputs(f *flow) []string {
	output, dead := f.at.key("output.topic"), f.at.key("dead_letter.topic")
	if l.checkTemplate(f); !l.sound(output) {
		return nil
	}
	var names []string
	for _, topic := range f.Input.Topics {
		name := strings.ReplaceAll(f.Output.Topic, "{topic}", topic)
		names = append(names, name)
		switch {
		case f.reads.has(name):
			l.problem(output, nil, "%s is also an input topic; its records would go round and round", name)
			return names
		case len(name) > maxName:
			l.problem(output, nil, "makes a name of %d characters of the input topic %s; a topic name has at most %d", len(name), quote(topic), maxName)
			return names
		}
	}
	if f.DeadLetter != nil {
		switch topic := f.DeadLetter.Topic; {
		case f.reads.has(topic):
			l.problem(dead, nil, "%s is also an input topic; give dead letters a topic of their own", topic)
		case slices.Contains(names, topic):
			l.problem(dead, nil, "%s is also an output topic; give dead letters a topic of their own", topic)
		}
	}
	return names
}

// checkRegex checks a regular expression of input topics and its outputs. The
// engine sees what a single one of its topics leads to; here an example must do.
func (l *loader) checkRegex(f *flow) {
	expr, output := f.at.key("input.topics_regex"), f.at.key("output.topic")
	if l.checkTemplate(f); !l.sound(output) {
		return
	}
	topic, err := common(f.reads)
	switch {
	case err != nil:
		l.problem(expr, nil, "%v", err)
	case topic == "":
		l.problem(expr, nil, "matches no possible topic name (%s)", nameDoc)
	case outputOf(f.Pipeline, topic) == topic:
		l.problem(output, nil, "makes %s of the input topic %s; its records would go round and round", quote(topic), quote(topic))
	case f.DeadLetter != nil && f.DeadLetter.Topic == f.Output.Topic:
		l.problem(f.at.key("dead_letter.topic"), nil, "%s is also an output topic; give dead letters a topic of their own", f.Output.Topic)
	}
}

// outputOf returns the output topic of an input topic that the regular expression
// matches.
func outputOf(p *Pipeline, topic string) string {
	groups := p.Input.TopicsRegex.FindStringSubmatch(topic)
	return placeholder.ReplaceAllStringFunc(p.Output.Topic, func(s string) string {
		if n, err := strconv.Atoi(s[1 : len(s)-1]); err == nil && n < len(groups) {
			return groups[n]
		}
		return topic
	})
}

// couldBeWritten is an expression that matches every name which the template of
// an output topic can make, and the other topics.
func couldBeWritten(template string, others []string) string {
	parts := placeholder.Split(template, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	choices := []string{strings.Join(parts, ".*")}
	for _, topic := range others {
		choices = append(choices, regexp.QuoteMeta(topic))
	}
	return wholeOpen + strings.Join(choices, "|") + wholeClose
}

// checkTemplate checks the placeholders of an output topic.
func (l *loader) checkTemplate(f *flow) {
	output, expr := f.at.key("output.topic"), f.Input.TopicsRegex
	for _, m := range placeholder.FindAllStringSubmatch(f.Output.Topic, -1) {
		n, err := strconv.Atoi(m[1])
		switch {
		case err != nil: // {topic}
		case expr == nil:
			l.problem(output, nil, "%s is a group of input.topics_regex, which is not given; use {topic}", m[0])
			return
		case n > expr.NumSubexp():
			l.problem(output, nil, "%s is not there: input.topics_regex has %d %s in parentheses", m[0], expr.NumSubexp(), plural(expr.NumSubexp(), "group"))
			return
		}
	}
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// checkGroups reports pipelines that would take partitions, or the membership,
// from each other.
func (l *loader) checkGroups(flows []*flow) {
	byGroup := map[string][]*flow{}
	for _, f := range flows {
		group := f.at.key("input.group")
		if !l.sound(group) || !l.given(group) && !l.sound(f.at.key("name")) {
			continue
		}
		for _, other := range byGroup[f.Input.Group] {
			topic, err := common(f.reads, other.reads)
			switch {
			case err != nil:
				l.problem(f.at.key("input.topics_regex"), nil, "%v", err)
			case topic != "":
				l.problem(group, nil, "pipeline %s is in the group %s too, and both would read the topic %s: each would get some of its partitions only; give each pipeline a group", other.Name, quote(f.Input.Group), topic)
			case f.Input.StaticMembership && other.Input.StaticMembership:
				l.problem(group, nil, "pipeline %s is in the group %s too, and both would be its static member %s; give each pipeline a group", other.Name, quote(f.Input.Group), l.config.Instance)
			default:
				continue
			}
			break
		}
		byGroup[f.Input.Group] = append(byGroup[f.Input.Group], f)
	}
}

// checkCycles reports, once for each pipeline that begins one, records that would
// go from pipeline to pipeline and come back.
func (l *loader) checkCycles(flows []*flow) {
	next := make([][]int, len(flows))
	for i, from := range flows {
		for j, to := range flows {
			if i == j {
				continue // checked before
			}
			topic, err := common(from.writes, to.reads)
			if err != nil {
				l.problem(to.at.key("input.topics_regex"), nil, "%v", err)
				return
			}
			if topic != "" {
				next[i] = append(next[i], j)
			}
		}
	}
	for first, f := range flows {
		if way := roundTrip(next, first); way != nil {
			names := make([]string, len(way))
			for i, j := range way {
				names[i] = flows[j].Name
			}
			l.problem(f.at.key("output.topic"), nil, "records could go round and round: the pipelines %s read each other's outputs", strings.Join(names, " → "))
		}
	}
}

// checkStates reports state topics that a pipeline reads or writes as well: what is in
// them is not made to be read by anybody else, and they have no room for others.
func (l *loader) checkStates(flows []*flow) {
	for _, f := range flows {
		state := f.at.key("state.topic")
		if f.State == nil || !l.sound(state) {
			continue
		}
		for _, other := range flows {
			whose := ""
			if other != f {
				whose = " of the pipeline " + other.Name
			}
			switch topic := f.State.Topic; {
			case other.DeadLetter != nil && other.DeadLetter.Topic == topic:
				l.problem(state, nil, "%s is also the dead-letter topic%s; give state a topic of its own", topic, whose)
			case (other != f || f.Input.TopicsRegex == nil) && other.reads.has(topic): // a pipeline's own expression leaves it out
				l.problem(state, nil, "%s is also an input topic%s; give state a topic of its own", topic, whose)
			case (other.Input.TopicsRegex == nil || !strings.Contains(other.Output.Topic, "{")) && other.writes.has(topic):
				l.problem(state, nil, "%s is also an output topic%s; give state a topic of its own", topic, whose)
			default:
				continue
			}
			break
		}
	}
}

// roundTrip returns the shortest way from first to itself that passes no lower
// number, so that each circle has one beginning; or nil.
func roundTrip(next [][]int, first int) []int {
	before := map[int]int{}
	for queue := []int{first}; len(queue) > 0; queue = queue[1:] {
		for _, to := range next[queue[0]] {
			if to == first {
				way := []int{first}
				for at := queue[0]; at != first; at = before[at] {
					way = append(way, at)
				}
				way = append(way, first)
				slices.Reverse(way)
				return way
			}
			if _, seen := before[to]; !seen && to > first {
				before[to] = queue[0]
				queue = append(queue, to)
			}
		}
	}
	return nil
}

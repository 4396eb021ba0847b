package demo

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// topicsOf returns the names of the topics that a pipeline reads and writes. For
// an expression one name that it matches is made up.
func topicsOf(p OwnPipeline) (inputs, outputs []string, err error) {
	inputs = p.Topics
	if p.Regex != nil {
		name, err := example(p.Regex)
		if err != nil {
			return nil, nil, fmt.Errorf("pipeline %s: %w", p.Name, err)
		}
		inputs = []string{name}
	}
	for _, input := range inputs {
		pairs := []string{"{topic}", input}
		if p.Regex != nil {
			for i, group := range p.Regex.FindStringSubmatch(input) {
				pairs = append(pairs, fmt.Sprintf("{%d}", i), group)
			}
		}
		output := strings.NewReplacer(pairs...).Replace(p.Output)
		if output == input {
			return nil, nil, fmt.Errorf("pipeline %s: %s would be input and output at once; name the input with topics instead of topics_regex", p.Name, input)
		}
		outputs = append(outputs, output)
	}
	return inputs, outputs, nil
}

// topicChars are those that names of topics have, the likely ones first.
const topicChars = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_."

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// example makes up the name of a topic that an expression matches.
func example(expr *regexp.Regexp) (string, error) {
	parsed, err := syntax.Parse(expr.String(), syntax.Perl)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	spell(parsed, &b)
	if name := b.String(); topicName.MatchString(name) && expr.MatchString(name) {
		return name, nil
	}
	return "", fmt.Errorf("no topic can be made up that %s matches; name one with topics instead of topics_regex", expr)
}

// spell appends a text that an expression is likely to match.
func spell(re *syntax.Regexp, b *strings.Builder) {
	times := 1
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('a')
	case syntax.OpCharClass:
		for _, c := range topicChars {
			if inClass(re.Rune, c) {
				b.WriteRune(c)
				return
			}
		}
	case syntax.OpQuest:
		return
	case syntax.OpAlternate:
		spell(re.Sub[0], b)
		return
	case syntax.OpStar, syntax.OpPlus:
		if op := re.Sub[0].Op; op == syntax.OpAnyChar || op == syntax.OpAnyCharNotNL {
			b.WriteString("demo")
			return
		}
	case syntax.OpRepeat:
		times = max(1, re.Min)
	}
	for range times {
		for _, sub := range re.Sub {
			spell(sub, b)
		}
	}
}

// inClass reports whether c is in a class, which is a list of ranges.
func inClass(ranges []rune, c rune) bool {
	for i := 0; i+1 < len(ranges); i += 2 {
		if ranges[i] <= c && c <= ranges[i+1] {
			return true
		}
	}
	return false
}

package config

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// YAML returns the configuration in effect: every setting, defaults filled in,
// in the order of the documentation. Secrets are <redacted>; but for those, it
// loads to the same Config again.
func (c Config) YAML() []byte {
	out, err := yaml.Dump(node(root, reflect.ValueOf(c)), yaml.WithLineWidth(-1), yaml.WithCompactSeqIndent(false), yaml.WithQuotePreference(yaml.QuoteDouble))
	if err != nil {
		panic("the configuration cannot be written as YAML: " + err.Error())
	}
	return out
}

// node returns v, which f describes, as YAML. It is nil if v is not set.
func node(f *field, v reflect.Value) *yaml.Node {
	switch f.kind {
	case object:
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return nil
			}
			v = v.Elem()
		}
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, c := range f.fields {
			if c.unbuilt || c == sessionTimeout && v.Interface().(Input).GroupProtocol == byBroker {
				continue
			}
			if value := node(c, member(v, c.key)); value != nil {
				n.Content = append(n.Content, textNode(c.key), value)
			}
		}
		return n
	case list:
		if v.Len() == 0 {
			return nil
		}
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, node(f.item, v.Index(i)))
		}
		return n
	}
	if f.kind == table {
		if v.Len() == 0 {
			return nil
		}
		n := &yaml.Node{Kind: yaml.MappingNode}
		names := v.MapKeys()
		slices.SortFunc(names, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, name := range names {
			n.Content = append(n.Content, textNode(name.String()), node(f.item, v.MapIndex(name)))
		}
		return n
	}
	switch value := v.Interface().(type) {
	case Secret:
		return textNode(value.String())
	case *regexp.Regexp:
		if value == nil {
			return nil
		}
		return textNode(escape(strings.TrimSuffix(strings.TrimPrefix(value.String(), wholeOpen), wholeClose)))
	case string:
		if f.kind == program && value == "" {
			return nil
		}
		return textNode(escape(value))
	case Start:
		return textNode(value.String())
	case Delay:
		return textNode(value.String())
	case time.Duration:
		return textNode(formatDuration(value))
	case float64:
		if f.kind == percent {
			return textNode(formatPercent(value))
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatFloat(value, 'f', -1, 64)}
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatBool(value)}
	}
	if f.word != "" && v.Int() == -1 {
		return textNode(f.word)
	}
	if f.kind == size {
		return textNode(formatSize(v.Int()))
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatInt(v.Int(), 10)}
}

func textNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

// escape writes s so that loading expands nothing in it.
func escape(s string) string { return strings.ReplaceAll(s, "${", "$${") }

package processor

import (
	"encoding/base64"
	"regexp"
	"strings"
)

// outputTopic fills the template of an output topic for one input topic: {topic}
// is its name, {1} to {9} are the groups of the expression that matched it.
func outputTopic(template, topic string, expr *regexp.Regexp) string {
	if !strings.Contains(template, "{") {
		return template
	}
	pairs := []string{"{topic}", topic}
	if expr != nil {
		for i, group := range expr.FindStringSubmatch(topic) {
			if i > 0 && i < 10 {
				pairs = append(pairs, "{"+string(rune('0'+i))+"}", group)
			}
		}
	}
	return strings.NewReplacer(pairs...).Replace(template)
}

// topicID prints a topic id as Kafka's own tools do.
func topicID(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

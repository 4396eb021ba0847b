package processor

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

func TestLoginThatIsRefused(t *testing.T) {
	for err, want := range map[error][2]string{
		kerr.SaslAuthenticationFailed:    {"the brokers refuse the login; ", "check kafka.sasl"},
		kerr.UnsupportedSaslMechanism:    {"the brokers refuse the login; ", "check kafka.sasl.mechanism"},
		kerr.IllegalSaslState:            {"the brokers refuse the login; ", "nobody logs in there"},
		errors.New("connection refused"): {"no broker can be reached; ", "connection refused"},
	} {
		got := outOfReach(fmt.Errorf("127.0.0.1:9092: %w", err))
		if !strings.HasPrefix(got, want[0]) || !strings.Contains(got, want[1]) {
			t.Errorf("got %q, want %q … %q", got, want[0], want[1])
		}
	}
}

func TestReasonIsOneLine(t *testing.T) {
	err := errors.Join(kerr.TopicAuthorizationFailed, errRefused)
	if got := explain(err); strings.Contains(got, "\n") || !strings.Contains(got, "; an output was refused: grant this user READ") {
		t.Errorf("got %q", got)
	}
}

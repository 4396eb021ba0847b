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

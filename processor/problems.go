package processor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/resequence"
)

// problems are the reasons why records wait, by what they are about.
type problems map[string]problem

type problem struct {
	Problem
	until time.Time // zero: until it is deleted
}

// note keeps a reason for as long as it lasts, 0 is until it is over, and logs it
// when it is new or has changed. Outages repeat themselves many times a second.
func (l *loop) note(key, scope, reason string, lasts time.Duration) {
	p := problem{Problem: Problem{Scope: scope, Reason: reason, Since: l.now}}
	if lasts > 0 {
		p.until = l.now.Add(lasts)
	}
	if old, ok := l.problems[key]; ok && old.Reason == reason && !old.expired(l.now) {
		p.Since = old.Since
	} else {
		l.log.Warn("records wait", "scope", scope, "reason", reason)
	}
	l.problems[key] = p
}

// over forgets a reason.
func (l *loop) over(key string) {
	if p, ok := l.problems[key]; ok {
		delete(l.problems, key)
		if !p.expired(l.now) {
			l.log.Info("records do not wait any more", "scope", p.Scope, "after", l.now.Sub(p.Since).Round(time.Millisecond))
		}
	}
}

func (p *problem) expired(now time.Time) bool { return !p.until.IsZero() && p.until.Before(now) }

// list returns what holds now, by scope.
func (p problems) list(now time.Time) []Problem {
	var list []Problem
	for key, problem := range p {
		if problem.expired(now) {
			delete(p, key)
			continue
		}
		list = append(list, problem.Problem)
	}
	slices.SortFunc(list, func(a, b Problem) int {
		return strings.Compare(a.Scope+a.Reason, b.Scope+b.Reason)
	})
	return list
}

// stop has the partition go no further than the record at seq in this tenure.
// Those before it go on; one of them may stop the partition even earlier.
func (l *loop) stop(t *tenure, at resequence.Seq, reason string) {
	if t.stopped != "" && at >= t.stopAt {
		return
	}
	t.stopped, t.stoppedAt, t.stopAt = reason, l.now, at
	l.pause(t)
	l.log.Error("the partition is stopped; it is tried again after a restart or when it is assigned anew",
		"topic", t.topic, "partition", t.partition, "reason", reason)
}

// repeats is how long an error of a fetch counts: the client repeats one that
// lasts every few seconds.
const repeats = 30 * time.Second

// fetchFailed takes an error that a poll returned.
func (l *loop) fetchFailed(topic string, partition int32, err error) {
	key := partitionKey{topic, partition}
	var diverged *kgo.ErrDataLoss
	var session *kgo.ErrGroupSession
	var tooLarge *kgo.ErrDecompressTooLarge
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
	case errors.Is(err, kerr.OffsetOutOfRange), errors.As(err, &diverged):
		if t := l.tenures[key]; t != nil {
			l.lost(t, diverged)
		}
	case errors.As(err, &tooLarge): // the client says it once, and fetches the partition no more
		if t := l.tenures[key]; t != nil {
			l.stop(t, t.window.Next(), fmt.Sprintf("the batch at offset %d has more than %d MiB when it is decompressed, which is not read: "+
				"to go on without it, stop the group and reset its offset to %d", tooLarge.Offset, maxBatch>>20, tooLarge.NextOffset))
		}
	case errors.Is(err, kerr.UnknownTopicID):
		// Or the brokers do not know a new topic yet. The client would ask again at
		// once; the watcher's next look decides.
		if t := l.tenures[key]; t != nil {
			l.goneTopic(t)
		}
	case errors.As(err, &session):
		l.groupFailed(session.Err)
	case topic == "":
		l.note("fetch", l.opts.Name, "fetching fails: "+explain(err), repeats)
	default:
		l.note("fetch "+key.String(), key.String(), "fetching fails: "+explain(err), repeats)
	}
}

// groupFailed takes an error of the group membership.
func (l *loop) groupFailed(err error) {
	if errors.Is(err, kerr.FencedInstanceID) {
		l.end(&FencedError{Instance: l.opts.Instance, Err: err})
		return
	}
	if passing(err) || errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) {
		return
	}
	l.note("group", "group "+l.opts.Source.Group, "cannot be joined; trying again: "+explain(err), repeats)
}

// explain adds to an error of the broker what a person can do about it. It is one
// line, as joined errors are not.
func explain(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return text + ": grant this user READ and DESCRIBE on input topics, WRITE and DESCRIBE on output and dead-letter topics"
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return text + ": grant this user READ and DESCRIBE on the group"
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return text + ": grant this user WRITE on the output topics; brokers before 2.8 also want IDEMPOTENT_WRITE on the cluster"
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return text + ": grant this user WRITE and DESCRIBE on the transactional ids that begin with the name of the group"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return text + ": check kafka.sasl"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return text + ": check kafka.sasl.mechanism"
	case errors.Is(err, kerr.IllegalSaslState):
		return text + ": nobody logs in there: check the port in kafka.brokers, or remove kafka.sasl"
	default:
		return text
	}
}

// outOfReach says why nothing can be asked of the cluster.
func outOfReach(err error) string {
	for _, login := range []error{kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState} {
		if errors.Is(err, login) {
			return "the brokers refuse the login; trying again: " + explain(err)
		}
	}
	return "no broker can be reached; trying again: " + explain(err)
}

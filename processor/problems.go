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
)

// problems are the reasons why records wait, by what they are about.
type problems map[string]problem

type problem struct {
	Problem
	until time.Time // zero: until it is deleted
}

// note keeps a reason until it is deleted.
func (p problems) note(key, scope, reason string, now time.Time) {
	p.noteUntil(key, scope, reason, now, time.Time{})
}

func (p problems) noteUntil(key, scope, reason string, now, until time.Time) {
	since := now
	if old, ok := p[key]; ok && old.Reason == reason {
		since = old.Since
	}
	p[key] = problem{Problem{Scope: scope, Reason: reason, Since: since}, until}
}

// list returns what holds now, by scope.
func (p problems) list(now time.Time) []Problem {
	var list []Problem
	for key, problem := range p {
		if !problem.until.IsZero() && problem.until.Before(now) {
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

// repeats is how long an error of a fetch counts: the client repeats one that
// lasts every few seconds.
const repeats = 30 * time.Second

// fetchFailed takes an error that a poll returned.
func (l *loop) fetchFailed(topic string, partition int32, err error) {
	key := partitionKey{topic, partition}
	var lost *kgo.ErrDataLoss
	var session *kgo.ErrGroupSession
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
	case errors.Is(err, kerr.OffsetOutOfRange), errors.As(err, &lost):
		if t := l.tenures[key]; t != nil && t.tracker != nil {
			l.stop(t, fmt.Sprintf("the log no longer has offset %d: %v: reset the group's offset of the partition, then restart this instance",
				t.tracker.Position(), err))
		}
	case errors.As(err, &session):
		l.groupFailed(session.Err)
	case topic == "":
		l.problems.noteUntil("fetch", l.opts.Name, "fetching fails: "+err.Error(), l.now, l.now.Add(repeats))
	default:
		l.problems.noteUntil("fetch "+key.String(), key.String(), "fetching fails: "+explain(err), l.now, l.now.Add(repeats))
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
	l.log.Warn("the group cannot be joined; trying again", "group", l.opts.Source.Group, "err", err)
	l.problems.noteUntil("group", "group "+l.opts.Source.Group, "cannot be joined: "+explain(err), l.now, l.now.Add(repeats))
}

// explain adds to an error of the broker what a person can do about it.
func explain(err error) string {
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return err.Error() + ": grant this user READ and DESCRIBE on input topics, WRITE and DESCRIBE on output topics"
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return err.Error() + ": grant this user READ and DESCRIBE on the group"
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return err.Error() + ": grant this user IDEMPOTENT_WRITE on the cluster (brokers before 2.8)"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return err.Error() + ": check kafka.sasl"
	default:
		return err.Error()
	}
}

package processor

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/seeded"
)

// A member is what we are in the group at one moment.
type member struct {
	id         string // empty: none
	generation int32
	instance   *string // nil: membership is not static
}

// member is what we are in the group, and nobody if that is not what the tenures were
// given to: then others may have had their partitions since.
func (l *loop) member() member {
	m := l.memberNow()
	if !l.stays(m) {
		return member{}
	}
	l.as = m
	return m
}

func (l *loop) memberNow() (m member) {
	m.id, m.generation = l.consumer.GroupMetadata()
	if l.opts.Source.Static {
		m.instance = &l.opts.Instance
	}
	return m
}

// stays reports whether m is the member that the tenures were given to, and has been in
// the group all the time.
//
// The group removes a member that does not join in time, so that a dynamic one has another
// id when it is back. A static member stays, with its id, and misses a generation, in
// which others may have its partitions; each join looks, so that one that was joined and not
// handed out is not missed. With KIP-848 epochs leave numbers out as a matter of course, and
// the client always says when it was thrown out.
func (l *loop) stays(m member) bool {
	if seeded.Bug("tenure-outlives-membership") {
		return true
	}
	if m.id == "" || m.id != l.as.id {
		return false
	}
	return m.instance == nil || l.opts.Source.ServerSide || m.generation <= l.as.generation+1
}

// enter ends the tenures of a membership that is over, and begins those that the client
// still has anew, from what the group has committed by now. It comes first in each callback
// that follows a join.
//
// The client does not tell every end of a membership. A revoke callback takes its time, the
// group goes on without us, heartbeats are answered UNKNOWN_MEMBER_ID. The callback
// returns, and the client remembers the rejoin that it owes in place of that answer. Or it is
// the join that comes too late. It joins again under a new id, and says nothing; somebody
// else has had the partitions, and what we have of them would be committed in the name of
// the new member (seen: outputs twice, and the group back at 117 from 147).
func (g *group) enter() {
	var anew []*tenure
	g.loop.do(func() { anew = g.loop.enter() })
	if len(anew) == 0 {
		return
	}
	g.poller.flush() // they are paused by now, and get nothing until they have moved
	g.loop.do(func() {
		for _, t := range anew {
			g.lookUp(t, 0)
		}
	})
}

// enter takes what we are in the group now for what the tenures are given to. It
// returns those it has begun anew.
func (l *loop) enter() (anew []*tenure) {
	m := l.memberNow()
	over := !l.stays(m)
	l.as = m
	if !over || len(l.tenures) == 0 {
		return nil
	}
	partitions := make(map[string][]int32)
	given := make(map[partitionKey]bool)
	for key, t := range l.tenures {
		partitions[key.topic] = append(partitions[key.topic], key.partition)
		given[key] = t.given
		l.close(t)
	}
	l.disturbed = l.now
	l.log.Warn("the group went on without this instance, which was too late to join; what is unfinished is done again from what was committed; if that is often so, input.rebalance_timeout is too short", "partitions", partitions)
	l.assign(partitions)
	for key, t := range l.tenures {
		t.given = given[key]
		t.unplaced = "the group went on without this instance; its start offset is looked up again"
		l.pause(t)
		anew = append(anew, t)
	}
	l.pauses.apply(l.consumer)
	return anew
}

// claims is a balancer that claims no partitions for tenures of a membership that is over.
//
// The client claims them under its new id, with the generation that it has joined last. If
// the group rebalances again before it has its assignment, that is the generation of those
// who have the partitions by then, and the claim counts as much as theirs: it is given one
// at once, while they still drain it (seen: outputs twice, also exactly once).
type claims struct {
	kgo.GroupBalancer
	loop *loop
}

// JoinGroupMetadata is called by the client before it joins.
func (c claims) JoinGroupMetadata(topics []string, owned map[string][]int32, generation int32) []byte {
	if len(owned) > 0 && !seeded.Bug("claims-outlive-membership") {
		c.loop.do(func() {
			if c.loop.member().id == "" {
				owned = nil
			}
		})
	}
	return c.GroupBalancer.JoinGroupMetadata(topics, owned, generation)
}

package conductor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Instances log in as this user.
const user, password = "seriatim", "one after another"

// rights are what the user may do, and may be refused for a while.
var rights = []string{"acl-input", "acl-output", "acl-dead", "acl-group", "acl-transaction"}

// acl returns what a right is made of.
func (r *run) acl(right string) *kadm.ACLBuilder {
	pattern := kadm.ACLPatternLiteral
	b := kadm.NewACLs().Allow("User:" + user).AllowHosts("*")
	switch right {
	case "acl-input":
		b.Topics(r.in).Operations(kadm.OpRead, kadm.OpDescribe)
	case "acl-output":
		b.Topics(r.out).Operations(kadm.OpWrite, kadm.OpDescribe)
	case "acl-dead":
		b.Topics(r.dead).Operations(kadm.OpWrite, kadm.OpDescribe)
	case "acl-state": // is not refused
		b.Topics(r.state).Operations(kadm.OpRead, kadm.OpWrite, kadm.OpDescribe, kadm.OpDescribeConfigs)
	case "acl-group":
		b.Groups(r.group).Operations(kadm.OpRead, kadm.OpDescribe)
	default:
		pattern = kadm.ACLPatternPrefixed
		b.TransactionalIDs(r.group).Operations(kadm.OpWrite, kadm.OpDescribe)
	}
	return b.ResourcePatternType(pattern)
}

func (r *run) grant(ctx context.Context, right string) error {
	created, err := r.bed.admin.CreateACLs(ctx, r.acl(right))
	for _, c := range created {
		err = errors.Join(err, c.Err)
	}
	if err != nil {
		return fmt.Errorf("grant %s: %w", right, err)
	}
	return nil
}

func (r *run) refuse(ctx context.Context, right string) error {
	deleted, err := r.bed.admin.DeleteACLs(ctx, r.acl(right))
	for _, d := range deleted {
		err = errors.Join(err, d.Err)
	}
	if err != nil {
		return fmt.Errorf("refuse %s: %w", right, err)
	}
	return nil
}

// playRights takes rights away and gives them back, one after another.
func (r *run) playRights(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		if !wait(ctx, time.Until(r.began.Add(s.At))) {
			return nil
		}
		r.note("%v", s)
		r.count(func(c *Counts) { c.Refusals++ })
		if err := r.refuseFor(ctx, s.Whom, s.Time); err != nil {
			return err
		}
	}
	return nil
}

// refuseFor gives the right back when the time is over or ctx has ended.
func (r *run) refuseFor(ctx context.Context, right string, t time.Duration) error {
	long, cancel := context.WithTimeout(context.WithoutCancel(ctx), t+30*time.Second)
	defer cancel()
	if err := r.refuse(long, right); err != nil {
		return err
	}
	wait(ctx, t)
	return r.grant(long, right)
}

// remove takes what the run has made on the cluster away.
func (r *run) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var errs []error
	for _, right := range rights {
		errs = append(errs, r.refuse(ctx, right))
	}
	topics := []string{r.in, r.out, r.dead}
	if r.state != "" {
		errs = append(errs, r.refuse(ctx, "acl-state"))
		topics = append(topics, r.state)
	}
	_, err := r.bed.admin.DeleteTopics(ctx, topics...)
	return errors.Join(append(errs, err)...)
}

package integration

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// The tests of this file start instances in a cluster where something is missing.
// Each says what it is, and goes on by itself once it is there.

func TestOutputTopicMissing(t *testing.T) {
	t.Parallel()
	in := newInput(t, 3)
	in.produce(t, 100)
	out := unique(t, ".out")
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out)))
	t.Log(i.awaitUnready(t, name, out, "does not exist", "--create --topic "+out+" --partitions 3"))
	createTopic(t, out, 3)
	i.awaitReady(t)
	i.finish(t, name, in.topic, out)
}

func TestInputTopicMissing(t *testing.T) {
	t.Parallel()
	in := &input{topic: unique(t, ".in"), next: make([]int, 2)}
	out := newTopic(t, ".out", 2)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out)))
	t.Log(i.awaitUnready(t, name, in.topic, "does not exist", "--create --topic "+in.topic))
	createTopic(t, in.topic, 2)
	in.produce(t, 100)
	i.awaitReady(t)
	i.finish(t, name, in.topic, out)
}

// TestOutputWithFewerPartitions starts instances whose output topic has fewer
// partitions than their source: they refuse, and start when it has grown.
func TestOutputWithFewerPartitions(t *testing.T) {
	t.Parallel()
	for _, delivery := range []string{"at_least_once", "exactly_once"} {
		in := newInput(t, 4)
		in.produce(t, 100)
		out := newTopic(t, ".out", 2)
		name := unique(t, "")
		settings := process(pipeline(name, in.topic, out).with(settings{"delivery": delivery}))
		i := start(t, settings)
		i.end(t)
		if code := i.exit(t); code != 1 {
			t.Errorf("%s: the exit code is %d, want 1", delivery, code)
		}
		want := "output topic " + out + " has 2 partitions, but the input topic " + in.topic + " has 4"
		command := "--alter --topic " + out + " --partitions 4"
		if log := i.logText(); !strings.Contains(log, want) || !strings.Contains(log, command) {
			t.Errorf("%s: the log has no %q with %q: %s", delivery, want, command, log)
		}
		growTopic(t, out, 4)
		i = start(t, settings)
		i.finish(t, name, in.topic, out)
	}
}

// TestInputGrowsBeyondOutput adds partitions to a topic that is being read, and
// its output has none for them: these wait, the others go on.
func TestInputGrowsBeyondOutput(t *testing.T) {
	t.Parallel()
	in := newInput(t, 2)
	out := newTopic(t, ".out", 2)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out)))
	i.awaitPartitions(t, name, 2)
	growTopic(t, in.topic, 4)
	in.next = append(in.next, 0, 0)
	in.produce(t, 100)
	t.Log(i.awaitUnready(t, name, out, "2 partitions", "--alter --topic "+out+" --partitions 4"))
	awaitOutput(t, out, 200) // the two others go on
	growTopic(t, out, 4)
	i.awaitReady(t)
	i.finish(t, name, in.topic, out)
}

// TestInputGrows adds partitions to a topic that is being read: they are new, and
// read from their beginning.
func TestInputGrows(t *testing.T) {
	t.Parallel()
	in := newInput(t, 2)
	out := newTopic(t, ".out", 4)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{"input": settings{"start": "latest"}})))
	i.awaitPartitions(t, name, 2)
	awaitCaughtUp(t, patience, group(name), in.topic)
	in.produce(t, 100)
	growTopic(t, in.topic, 3)
	in.next = append(in.next, 0)
	in.produce(t, 100)
	i.awaitPartitions(t, name, 3)
	i.finish(t, name, in.topic, out)
}

// secured returns the settings of a process that logs in.
func secured(login settings, pipelines ...settings) settings {
	return process(pipelines...).with(settings{"kafka": settings{
		"brokers": bed.cluster.SecureBrokers(),
		"tls":     settings{"enabled": true, "ca_file": bed.cluster.CAFile},
		"sasl":    login,
	}})
}

// TestScramOverTLS runs the binary with each mechanism.
func TestScramOverTLS(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"scram-sha-256", "scram-sha-512", "plain"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			in := newInput(t, 2)
			out := newTopic(t, ".out", 2)
			in.produce(t, 100)
			name := unique(t, "")
			grantPipeline(t, "alice", in.topic, out, group(name))
			i := start(t, secured(
				settings{"mechanism": mechanism, "username": "alice", "password": users["alice"]},
				pipeline(name, in.topic, out)))
			awaitCaughtUp(t, patience, group(name), in.topic)
			i.awaitReady(t)
			i.drain(t)
			compareExact(t, in.topic, out)
			if text := i.logText(); strings.Contains(text, users["alice"]) {
				t.Errorf("the log tells the password:\n%s", text)
			}
		})
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	in := newInput(t, 1)
	name := unique(t, "")
	i := start(t, secured(
		settings{"mechanism": "scram-sha-256", "username": "alice", "password": "not hers"},
		pipeline(name, in.topic, newTopic(t, ".out", 1))))
	t.Log(i.awaitUnready(t, name, "SASL_AUTHENTICATION_FAILED", "kafka.sasl"))
	if code := i.terminate(t); code != 0 {
		t.Errorf("exit code %d, want 0: nothing was begun", code)
	}
}

// grantPipeline grants a user what a pipeline needs, and no more.
func grantPipeline(t *testing.T, user, in, out, group string) {
	t.Helper()
	grant(t, kadm.NewACLs().Allow("User:"+user).Topics(in).Groups(group).Operations(kadm.OpRead, kadm.OpDescribe))
	grant(t, kadm.NewACLs().Allow("User:"+user).Topics(out).Operations(kadm.OpWrite, kadm.OpDescribe))
}

// TestRefused takes one grant away at a time.
func TestRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		user   string
		refuse func(in, out, group string) *kadm.ACLBuilder
		says   func(in, out, group string) []string
	}{
		"group": {
			"bob",
			func(_, _, group string) *kadm.ACLBuilder {
				return kadm.NewACLs().Groups(group).Operations(kadm.OpRead)
			},
			func(_, _, group string) []string { return []string{group, "GROUP_AUTHORIZATION_FAILED", "READ"} },
		},
		"input": {
			"bob",
			func(in, _, _ string) *kadm.ACLBuilder { return kadm.NewACLs().Topics(in).Operations(kadm.OpRead) },
			func(in, _, _ string) []string { return []string{in, "TOPIC_AUTHORIZATION_FAILED", "READ"} },
		},
		"output": { // bob may write to some other topic
			"bob",
			func(_, out, _ string) *kadm.ACLBuilder { return kadm.NewACLs().Topics(out).Operations(kadm.OpWrite) },
			func(_, out, _ string) []string { return []string{out, "TOPIC_AUTHORIZATION_FAILED", "WRITE"} },
		},
		"any output": { // carol may write to none, which brokers tell in another way
			"carol",
			func(_, out, _ string) *kadm.ACLBuilder { return kadm.NewACLs().Topics(out).Operations(kadm.OpWrite) },
			func(_, _, _ string) []string { return []string{"CLUSTER_AUTHORIZATION_FAILED", "WRITE"} },
		},
	}
	grant(t, kadm.NewACLs().Allow("User:bob").Topics(newTopic(t, "", 1)).Operations(kadm.OpWrite))
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInput(t, 2)
			out := newTopic(t, ".out", 2)
			in.produce(t, 100)
			name := unique(t, "")
			grantPipeline(t, test.user, in.topic, out, group(name))
			denied := test.refuse(in.topic, out, group(name)).Deny("User:" + test.user).DenyHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
			if _, err := bed.admin.CreateACLs(within(t, patience), denied); err != nil {
				t.Fatal(err)
			}
			i := start(t, secured(
				settings{"mechanism": "scram-sha-512", "username": test.user, "password": users[test.user]},
				pipeline(name, in.topic, out)))
			t.Log(i.awaitUnready(t, test.says(in.topic, out, group(name))...))
			if _, err := bed.admin.DeleteACLs(within(t, patience), denied); err != nil {
				t.Fatal(err)
			}
			awaitCaughtUp(t, patience, group(name), in.topic)
			i.awaitReady(t)
			i.drain(t)
			compareExact(t, in.topic, out)
		})
	}
}

// TestCommitThatMayNotBeSeen has an instance take over a partition of a topic that it
// must not describe: it waits, and goes on from the commit when it may, and not from the
// end, where its group would start without one.
func TestCommitThatMayNotBeSeen(t *testing.T) {
	t.Parallel()
	in := newInput(t, 2)
	out := newTopic(t, ".out", 2)
	name := unique(t, "")
	grantPipeline(t, "bob", in.topic, out, group(name))
	latest := pipeline(name, in.topic, out).with(settings{"input": settings{"start": "latest"}})
	bob := start(t, secured(settings{"mechanism": "scram-sha-512", "username": "bob", "password": users["bob"]}, latest))
	bob.awaitPartitions(t, name, 2)
	awaitCaughtUp(t, patience, group(name), in.topic) // with a commit of 0
	other := start(t, process(latest))
	other.awaitPartitions(t, name, 1)
	bob.awaitPartitions(t, name, 1)
	in.produce(t, 100)
	awaitCaughtUp(t, patience, group(name), in.topic)

	denied := kadm.NewACLs().Topics(in.topic).Operations(kadm.OpDescribe).
		Deny("User:bob").DenyHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
	if _, err := bed.admin.CreateACLs(within(t, patience), denied); err != nil {
		t.Fatal(err)
	}
	t.Log(bob.awaitUnready(t, in.topic, "TOPIC_AUTHORIZATION_FAILED"))
	other.drain(t)
	in.produce(t, 100)
	t.Log(bob.awaitUnready(t, "start offset cannot be read", "TOPIC_AUTHORIZATION_FAILED", "DESCRIBE"))
	if _, err := bed.admin.DeleteACLs(within(t, patience), denied); err != nil {
		t.Fatal(err)
	}
	bob.finish(t, name, in.topic, out)
}

package testkafka

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
)

// settings returns the server.properties of a node: small, quick to rebalance,
// and creating no topic that nobody asked for.
func (n *Node) settings(opts Options) []byte {
	replicas := min(3, len(n.cluster.Nodes))
	inSync := max(1, replicas-1)
	var voters []string
	for _, other := range n.cluster.Nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", other.id, loopback(other.controller)))
	}
	p := map[string]string{
		"process.roles":                            "broker,controller",
		"node.id":                                  fmt.Sprint(n.id),
		"controller.quorum.voters":                 strings.Join(voters, ","),
		"controller.listener.names":                "CONTROLLER",
		"inter.broker.listener.name":               "PLAIN",
		"listeners":                                fmt.Sprintf("PLAIN://%s,CONTROLLER://%s", loopback(n.plain), loopback(n.controller)),
		"advertised.listeners":                     "PLAIN://" + loopback(n.plain),
		"listener.security.protocol.map":           "PLAIN:PLAINTEXT,FRONT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
		"log.dirs":                                 filepath.Join(n.dir(), "data"),
		"auto.create.topics.enable":                "false",
		"default.replication.factor":               fmt.Sprint(replicas),
		"min.insync.replicas":                      fmt.Sprint(inSync),
		"offsets.topic.num.partitions":             "4",
		"offsets.topic.replication.factor":         fmt.Sprint(replicas),
		"transaction.state.log.num.partitions":     "4",
		"transaction.state.log.replication.factor": fmt.Sprint(replicas),
		"transaction.state.log.min.isr":            fmt.Sprint(inSync),
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
		// A node that was killed may come back once its old session is over.
		"broker.session.timeout.ms":                "5000",
		"broker.heartbeat.interval.ms":             "1000",
		"group.initial.rebalance.delay.ms":         "0",
		"group.min.session.timeout.ms":             "1000",
		"group.consumer.min.session.timeout.ms":    "1000",
		"group.consumer.session.timeout.ms":        "6000",
		"group.consumer.min.heartbeat.interval.ms": "500",
		"group.consumer.heartbeat.interval.ms":     "1000",
		"num.network.threads":                      "2",
		"num.io.threads":                           "4",
		"log.cleaner.dedupe.buffer.size":           "8388608",
		"log.segment.delete.delay.ms":              "1000",
	}
	if len(opts.Users) > 0 {
		p["listeners"] += ",SECURE://" + loopback(n.secure)
		p["advertised.listeners"] += ",SECURE://" + loopback(n.secure)
		maps.Copy(p, n.security(opts.Users))
	}
	if n.advertised != "" && len(opts.Users) > 0 {
		p["listener.security.protocol.map"] = strings.Replace(p["listener.security.protocol.map"], "FRONT:PLAINTEXT", "FRONT:SASL_PLAINTEXT", 1)
	}
	if n.advertised != "" {
		p["listeners"] += ",FRONT://" + loopback(n.front)
		p["advertised.listeners"] += ",FRONT://" + n.advertised
	}
	maps.Copy(p, opts.Properties)

	var text bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&text, "%s=%s\n", key, p[key])
	}
	return text.Bytes()
}

// security returns the settings of the second listener and of the ACLs.
func (n *Node) security(users map[string]string) map[string]string {
	plain := "org.apache.kafka.common.security.plain.PlainLoginModule required"
	for _, name := range slices.Sorted(maps.Keys(users)) {
		plain += fmt.Sprintf(" user_%s=%q", name, users[name])
	}
	const scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	return map[string]string{
		"ssl.keystore.type":                                   "PEM",
		"ssl.keystore.location":                               n.cluster.keystore(),
		"listener.name.secure.sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.secure.plain.sasl.jaas.config":         plain + ";",
		"listener.name.secure.scram-sha-256.sasl.jaas.config": scram,
		"listener.name.secure.scram-sha-512.sasl.jaas.config": scram,
		"listener.name.front.sasl.enabled.mechanisms":         "SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.front.scram-sha-256.sasl.jaas.config":  scram,
		"listener.name.front.scram-sha-512.sasl.jaas.config":  scram,
		"authorizer.class.name":                               "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                                         "User:ANONYMOUS",
	}
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// FreePorts returns ports that nobody listens on. They are below those that the
// system gives to outgoing connections: a client that tries to reach a node which
// is down could otherwise be given the node's own port, be connected to itself,
// and keep the node from coming back.
func FreePorts(n int) ([]int, error) {
	const low, high = 15000, 32000
	ports := make([]int, 0, n)
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := low + rand.IntN(high-low)
		if slices.Contains(ports, port) {
			continue
		}
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		listener.Close()
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("no %d free ports from %d to %d on 127.0.0.1", n, low, high)
}

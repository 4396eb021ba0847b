package config

import (
	"net"
	"net/netip"
	"strings"
)

// check reports what is wrong between settings that are each fine. Of settings
// that are wrong already it says nothing.
func (l *loader) check() {
	l.checkTLS()
	l.checkSASL()
	l.checkAdmin()
	for i := range l.config.Pipelines {
		l.checkPipeline(&l.config.Pipelines[i], l.origins[i])
	}
	l.checkNames()
	l.checkListeners()
	l.checkTopics()
}

// at returns the place of a setting outside pipelines, as in at("kafka.tls").
func (l *loader) at(path string) place {
	section, _, _ := strings.Cut(path, ".")
	if p, ok := l.sections[section]; ok {
		return place{p.file, path}
	}
	return place{l.files[0], path}
}

func (l *loader) checkTLS() {
	tls, at := l.config.Kafka.TLS, l.at("kafka.tls")
	if !l.sound(at) {
		return
	}
	if !tls.Enabled {
		for _, f := range []struct{ key, value string }{
			{"ca_file", tls.CAFile}, {"cert_file", tls.CertFile}, {"key_file", tls.KeyFile}, {"server_name", tls.ServerName},
		} {
			if f.value != "" {
				l.problem(at.key(f.key), nil, "is given, but kafka.tls.enabled is false; set that to true, or remove this")
			}
		}
		return
	}
	switch {
	case tls.CertFile != "" && tls.KeyFile == "":
		l.problem(at.key("cert_file"), nil, "needs key_file, the private key of the certificate")
	case tls.KeyFile != "" && tls.CertFile == "":
		l.problem(at.key("key_file"), nil, "needs cert_file, the certificate of the key")
	}
}

func (l *loader) checkSASL() {
	sasl, at := l.config.Kafka.SASL, l.at("kafka.sasl")
	mechanism, username, password := at.key("mechanism"), at.key("username"), at.key("password")
	if !l.sound(mechanism, username, password) {
		return
	}
	if sasl.Mechanism == "none" {
		const idle = "is given, but kafka.sasl.mechanism is none; choose plain, scram-sha-256 or scram-sha-512, or remove this"
		switch {
		case sasl.Username != "":
			l.problem(username, nil, idle)
		case sasl.Password.Reveal() != "":
			l.problem(password, nil, idle)
		}
		return
	}
	if sasl.Username == "" {
		l.problem(username, nil, "is required with %s", sasl.Mechanism)
	}
	if sasl.Password.Reveal() == "" {
		l.problem(password, nil, "is required with %s", sasl.Mechanism)
	}
	brokers := l.at("kafka.brokers")
	if sasl.Mechanism != "plain" || l.config.Kafka.TLS.Enabled || !l.sound(brokers, l.at("kafka.tls.enabled")) {
		return
	}
	for _, broker := range l.config.Kafka.Brokers {
		if !isLoopback(broker) {
			l.problem(mechanism, nil, "plain would send the password to %s in clear text; set kafka.tls.enabled to true, or use scram-sha-512", broker)
			return
		}
	}
}

func (l *loader) checkAdmin() {
	admin, listen, probes := l.config.Admin, l.at("admin.listen"), l.at("admin.probes_listen")
	if l.sound(listen) && admin.Listen != None && !isLoopback(admin.Listen) {
		l.problem(listen, nil, "%s is not a loopback address, and nobody is asked for a password there; use 127.0.0.1:PORT, and admin.probes_listen for a kubelet or Prometheus", quote(admin.Listen))
	}
	if l.sound(listen, probes) && sameListener(admin.Listen, admin.ProbesListen) {
		p := probes
		if !l.given(p) {
			p = listen
		}
		l.problem(p, nil, "admin.listen (%s) and admin.probes_listen (%s) need the same port; give them different ones", admin.Listen, admin.ProbesListen)
	}
}

// isLoopback reports whether address, host:port, is surely on this machine only.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// sameListener reports whether one of two addresses to listen on keeps the
// system from giving out the other.
func sameListener(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return isWild(hostA) || isWild(hostB) || strings.EqualFold(hostA, hostB) || isLoopback(a) && isLoopback(b)
}

// isWild reports whether a host to listen on is every interface.
func isWild(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// checkPipeline checks one pipeline on its own, topics left out.
func (l *loader) checkPipeline(p *Pipeline, at place) {
	if session := at.key("input.session_timeout"); p.Input.GroupProtocol == byBroker && l.given(session) && l.sound(session, at.key("input.group_protocol")) {
		l.problem(session, nil, "the broker alone sets it with group_protocol consumer (group.consumer.session.timeout.ms); remove it")
	}
	l.checkDeadLetter(p, at)
	l.checkCallbacks(p, at.key("callbacks"))
	if p.Transform.HTTP != nil {
		l.checkHTTP(p.Transform.HTTP, at.key("transform.http"))
	}
	if p.Batch != nil {
		l.checkBatch(p, at)
	}
	if p.WorkersPerPartition > p.Workers {
		l.clash(at, "workers_per_partition", p.WorkersPerPartition, "more than", "workers", p.Workers, "less than")
	}
	if p.Retry.Initial > p.Retry.Max {
		l.clash(at, "retry.initial", formatDuration(p.Retry.Initial), "more than", "retry.max", formatDuration(p.Retry.Max), "less than")
	}
	if p.DrainTimeout > p.Input.RebalanceTimeout/2 {
		l.clash(at, "drain_timeout", formatDuration(p.DrainTimeout), "more than half of", "input.rebalance_timeout", formatDuration(p.Input.RebalanceTimeout), "less than twice")
	}
}

func (l *loader) checkBatch(p *Pipeline, at place) {
	batch, hedge := at.key("batch"), at.key("hedge.after")
	if l.sound(batch, at.key("transform")) && p.Transform.HTTP == nil && p.Transform.Exec == nil {
		l.problem(batch, nil, "is given, but only transform.http and transform.exec take batches; remove it")
	}
	if l.sound(batch, hedge) && p.Hedge.After != (Delay{}) {
		l.problem(hedge, nil, "is not possible with batch; remove one of them")
	}
	if p.Batch.Records > p.Window.Records {
		l.clash(at, "batch.records", p.Batch.Records, "more than", "window.records", p.Window.Records, "less than")
	}
	if p.Batch.Bytes > p.Window.Bytes {
		l.clash(at, "batch.bytes", formatSize(p.Batch.Bytes), "more than", "window.bytes", formatSize(p.Window.Bytes), "less than")
	}
}

func (l *loader) checkDeadLetter(p *Pipeline, at place) {
	exhausted, dead := at.key("on_exhausted"), at.key("dead_letter")
	if !l.sound(exhausted, dead) {
		return
	}
	wanted := p.OnExhausted == "dead_letter"
	switch {
	case !wanted && p.DeadLetter != nil && p.DeadLetter.Breaker != nil:
		l.problem(dead.key("breaker"), nil, "is given, but on_exhausted is %s; set that to dead_letter, or remove this", p.OnExhausted)
	case p.OnExhausted == "hold": // a person may decide for a dead letter
	case wanted && p.DeadLetter == nil:
		l.problem(exhausted, nil, "dead_letter needs dead_letter.topic")
	case !wanted && p.DeadLetter != nil:
		l.problem(dead, nil, "is given, but on_exhausted is %s; set that to dead_letter or hold, or remove this", p.OnExhausted)
	}
}

// clash reports that settings a and b of the pipeline at p don't go together: at
// a if it was given, else at b.
func (l *loader) clash(p place, keyA string, a any, relation, keyB string, b any, converse string) {
	switch placeA, placeB := p.key(keyA), p.key(keyB); {
	case !l.sound(placeA, placeB):
	case l.given(placeA):
		l.problem(placeA, nil, "%v is %s %s (%v)", a, relation, keyB, b)
	default:
		l.problem(placeB, nil, "%v is %s %s (%v)", b, converse, keyA, a)
	}
}

func (l *loader) checkNames() {
	first := map[string]place{}
	for i, p := range l.config.Pipelines {
		name := l.origins[i].key("name")
		if !l.sound(name) {
			continue
		}
		if other, ok := first[p.Name]; ok {
			l.problem(name, nil, "%s is given twice, first at %s; names of pipelines are unique", p.Name, l.where(other))
			continue
		}
		first[p.Name] = name
	}
}

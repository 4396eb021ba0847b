package config

import "net"

func (l *loader) checkCallbacks(p *Pipeline, at place) {
	c, listen, url := p.Callbacks, at.key("listen"), at.key("url")
	if !l.sound(listen, url) {
		return
	}
	if c.Listen == None {
		if c.URL != "" {
			l.problem(url, nil, "is given, but listen is none; set that to host:port, or remove this")
		}
		return
	}
	host, _, _ := net.SplitHostPort(c.Listen)
	switch {
	case p.Transform.HTTP == nil:
		l.problem(at, nil, "is given, but only workers of transform.http have them; remove it")
	case c.URL == "" && isWild(host):
		l.problem(listen, nil, "%s is every interface, which no worker can call; set url to an address by which workers reach this process", quote(c.Listen))
	}
}

// checkListeners reports callbacks that listen where somebody else does.
func (l *loader) checkListeners() {
	type listener struct {
		address string
		place   place
	}
	taken := []listener{{l.config.Admin.Listen, l.at("admin.listen")}, {l.config.Admin.ProbesListen, l.at("admin.probes_listen")}}
	for i, p := range l.config.Pipelines {
		at := l.origins[i].key("callbacks.listen")
		if p.Callbacks.Listen == "" || !l.sound(at) {
			continue
		}
		for _, other := range taken {
			if l.sound(other.place) && sameListener(p.Callbacks.Listen, other.address) {
				l.problem(at, nil, "%s needs the same port as %s (%s); give them different ones", p.Callbacks.Listen, other.place.path, other.address)
				break
			}
		}
		taken = append(taken, listener{p.Callbacks.Listen, at})
	}
}

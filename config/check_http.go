package config

import (
	"slices"
	"strings"

	"seriatim/internal/contract"
)

func (l *loader) checkHTTP(h *HTTP, at place) {
	credentials := ""
	switch bearer := at.key("bearer_token_file"); {
	case h.BearerTokenFile != "" && h.BasicAuth != nil:
		l.problem(bearer, nil, "is given, and basic_auth too; choose one")
	case h.BearerTokenFile != "":
		credentials = "bearer_token_file"
	case h.BasicAuth != nil:
		credentials = "basic_auth"
	}
	for key := range h.Headers {
		switch {
		case contract.Reserved(key):
			l.problem(at.key("headers").key(key), nil, "is set by the program alone; remove it")
		case strings.EqualFold(key, "Authorization") && credentials != "":
			l.problem(at.key("headers").key(key), nil, "is given, and %s too; choose one", credentials)
		}
	}

	if http2 := at.key("http2"); h.HTTP2 && h.ProxyFromEnvironment && l.sound(http2) {
		l.problem(http2, nil, "is not possible with proxy_from_environment; remove one of them")
	}

	tls, atTLS, urls := h.TLS, at.key("tls"), at.key("urls")
	if !l.sound(atTLS) {
		return
	}
	switch {
	case tls.CertFile != "" && tls.KeyFile == "":
		l.problem(atTLS.key("cert_file"), nil, "needs key_file, the private key of the certificate")
	case tls.KeyFile != "" && tls.CertFile == "":
		l.problem(atTLS.key("key_file"), nil, "needs cert_file, the certificate of the key")
	case tls != (WorkerTLS{}) && l.sound(urls) && !slices.ContainsFunc(h.URLs, func(u string) bool { return strings.HasPrefix(u, "https:") }):
		l.problem(atTLS, nil, "is given, but no address in urls begins with https://")
	}
}

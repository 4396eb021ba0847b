package transform

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"seriatim/internal/certs"
)

// A connectError is why no connection to the worker came about: nothing was
// sent, so that it says nothing about a record.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

type dial func(ctx context.Context, network, address string) (net.Conn, error)

// dialers returns how connections are made, plain and with TLS. Unless all may be
// dialled, both check the address that is really dialled, whatever a name resolved
// to. The files are read again for each connection.
func dialers(timeout time.Duration, files certs.Files, http2, all bool) (plain, secure dial) {
	dialer := &net.Dialer{Timeout: timeout, Control: refuse}
	if all {
		dialer.Control = nil
	}
	return marked(dialer.DialContext), marked(func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := files.Config()
		if err != nil {
			return nil, err
		}
		if http2 {
			config.NextProtos = []string{"h2"}
		}
		secureDialer := &tls.Dialer{NetDialer: dialer, Config: config} // the timeout is for both handshakes
		conn, err := secureDialer.DialContext(ctx, network, address)
		if err == nil && http2 && conn.(*tls.Conn).ConnectionState().NegotiatedProtocol != "h2" {
			_ = conn.Close()
			return nil, errNoHTTP2
		}
		return conn, err
	})
}

var errNoHTTP2 = errors.New("does not speak HTTP/2; set transform.http.http2 to false")

func marked(dial dial) dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, &connectError{err}
		}
		return conn, nil
	}
}

// metadata are the addresses, beside link-local ones, at which clouds give
// credentials to whoever asks from inside. No worker lives there.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::/32"),      // AWS
	netip.MustParsePrefix("fd20:ce::254/128"),   // Google
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle
}

// translated holds IPv4 addresses in its last four bytes (NAT64, RFC 6052).
var translated = netip.MustParsePrefix("64:ff9b::/96")

// refuse is asked before each connection, once the name is resolved.
func refuse(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if ip := to.Addr(); forbidden(ip) {
		return fmt.Errorf("%v is a link-local or cloud metadata address, where no worker is looked for; "+
			"name another address in transform.http.urls, or set transform.http.allow_link_local", ip)
	}
	return nil
}

func forbidden(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if translated.Contains(ip) {
		bytes := ip.As16()
		ip = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return true
	}
	for _, prefix := range metadata {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

package testkafka

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerifyRefusesWhatWasNotAskedFor(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing there":  {nil, "is missing, and 44 more"},
		"a changed jar":  {map[string]string{"slf4j-api-1.7.36.jar": "changed"}, "slf4j-api-1.7.36.jar has the SHA-256"},
		"one jar extra":  {map[string]string{"other-1.0.jar": ""}, "other-1.0.jar has the SHA-256"},
		"other files do": {map[string]string{"pom.xml": ""}, "is missing, and 44 more"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for base, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, base), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := verify(dir); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestCertificatesAreTrusted(t *testing.T) {
	dir := t.TempDir()
	ca, keystore := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "keystore.pem")
	if err := makeCertificates(ca, keystore); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(keystore, keystore)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatal("no certificate in ca.pem")
	}
	for _, name := range []string{"127.0.0.1", "localhost"} {
		client, server := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- tls.Server(server, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake()
		}()
		if err := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: name}).Handshake(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		client.Close()
		if err := <-served; err != nil {
			t.Errorf("%s: the server: %v", name, err)
		}
	}
}

func TestFreePortsDiffer(t *testing.T) {
	ports, err := FreePorts(50)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for _, port := range ports {
		if seen[port] {
			t.Errorf("port %d twice", port)
		}
		seen[port] = true
	}
}

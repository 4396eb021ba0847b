// Package certs makes TLS settings of the files that a user names.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Files are what a client needs to know whom it talks to and to say who it is.
// All are in PEM and may be empty.
type Files struct {
	CAFile            string // authorities to trust instead of the system's
	CertFile, KeyFile string // the client's certificate and its key: both or neither
	ServerName        string // that the server's certificate must bear, if not the host that is dialled
}

// Config reads the files and returns the settings, for TLS 1.2 at least. The
// client's certificate is read again for every connection, so that a renewed one
// needs no restart. Errors begin with the setting, as in tls.ca_file.
func (f Files) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName}
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca_file: %s holds no certificate in PEM form", f.CAFile)
		}
	}
	switch {
	case f.CertFile == "" && f.KeyFile == "":
		return config, nil
	case f.CertFile == "":
		return nil, errors.New("tls.cert_file: is required with tls.key_file")
	case f.KeyFile == "":
		return nil, errors.New("tls.key_file: is required with tls.cert_file")
	}
	if _, err := f.certificate(nil); err != nil {
		return nil, err
	}
	config.GetClientCertificate = f.certificate
	return config, nil
}

func (f Files) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls.cert_file %s, tls.key_file %s: %w", f.CertFile, f.KeyFile, err)
	}
	return &pair, nil
}

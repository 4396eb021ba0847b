package config

import (
	"fmt"
	"io"
)

const redacted = "<redacted>"

// A Secret is a string that no printer, logger or encoder shows. The zero Secret
// is empty.
type Secret struct {
	// A pointer, because fmt walks into unexported fields without asking for
	// methods: of a pointer it shows the address.
	value *string
}

// NewSecret returns a Secret that hides s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{&s}
}

// Reveal returns the string itself. Give it to nothing that prints.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// String returns <redacted>, or nothing for an empty secret.
func (s Secret) String() string {
	if s.Reveal() == "" {
		return ""
	}
	return redacted
}

// Format writes what [Secret.String] returns, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is how slog and the encoders of JSON, YAML and XML show a Secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

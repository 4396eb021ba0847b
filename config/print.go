package config

// YAML returns the configuration in effect.
func (c Config) YAML() []byte { return nil }

// Schema returns the JSON Schema.
func Schema() []byte { return nil }

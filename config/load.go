package config

// Load is a placeholder until the loader is in.
func Load(paths []string, lookup func(string) (string, bool)) (Config, error) {
	return Config{}, Problems{{File: "-", What: "the loader is not built yet"}}
}

// YAML returns the configuration in effect.
func (c Config) YAML() []byte { return nil }

// Schema returns the JSON Schema.
func Schema() []byte { return nil }

package config

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// canary must never come out of anything.
const canary = "canary-4711"

func TestSecretIsNeverShown(t *testing.T) {
	cfg, err := loadText("kafka: {sasl: {mechanism: plain, username: me, password: " + canary + "}}\npipelines:\n" + minimal("a"))
	if err != nil {
		t.Fatal(err)
	}
	secret := cfg.Kafka.SASL.Password
	if secret.Reveal() != canary {
		t.Fatalf("the password is %q", secret.Reveal())
	}

	shown := map[string]string{"YAML": string(cfg.YAML())}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T", "%10v", "%-5s"} {
		for name, v := range map[string]any{
			"value": secret, "pointer": &secret, "settings": cfg, "pointer to settings": &cfg, "list": []Secret{secret},
			"map": map[Secret]Secret{secret: secret}, "any": []any{secret, &cfg.Kafka}, "unexported": struct{ s Secret }{secret},
			"unexported pointer": struct{ s *Secret }{&secret}, "error": errors.New(fmt.Sprint(secret)),
		} {
			shown[verb+" of "+name] = fmt.Sprintf(verb, v)
		}
	}
	for name, v := range map[string]any{"value": secret, "pointer": &secret, "settings": cfg, "unexported": struct{ s Secret }{secret}} {
		text, err := json.Marshal(v)
		shown["JSON of "+name] = fmt.Sprint(string(text), err)
		text, err = yaml.Dump(v)
		shown["YAML of "+name] = fmt.Sprint(string(text), err)
		text, err = xml.Marshal(v)
		shown["XML of "+name] = fmt.Sprint(string(text), err)
		var b bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
			slog.New(h).Info("x", "a", v, slog.Group("g", slog.Any("b", v)))
		}
		shown["log of "+name] = b.String()
	}
	for how, text := range shown {
		if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) || strings.Contains(text, fmt.Sprintf("%X", canary)) {
			t.Errorf("%s shows the secret: %s", how, text)
		}
	}
	for _, how := range []string{"YAML", "%v of settings", "%#v of value", "JSON of settings", "log of value"} {
		if !strings.Contains(shown[how], "redacted") {
			t.Errorf("%s does not say that something is redacted: %s", how, shown[how])
		}
	}
	if got := fmt.Sprintf("%v%s", Secret{}, NewSecret("")); got != "" {
		t.Errorf("an empty secret shows as %q", got)
	}
}

// TestProblemsShowNoSecret: whatever is wrong with a password, or wrong because
// a value of a file stands in the wrong place.
func TestProblemsShowNoSecret(t *testing.T) {
	src := world
	src.read = func(string) ([]byte, error) { return []byte(canary + "("), nil }
	src.lookup = func(name string) (string, bool) { return "i", name == "HOSTNAME" }
	password := func(value string) string {
		return "kafka: {sasl: {mechanism: plain, username: me, password: " + value + "}}\npipelines:\n" + minimal("a")
	}
	pipeline := func(name, input, transform, output, rest string) string {
		return "pipelines:\n  - {name: " + name + ", input: {start: earliest, " + input + "}, transform: " + transform + ", output: {topic: " + output + "}" + rest + "}\n"
	}
	const file = `"${file:/secret}"`
	tests := map[string]string{
		"a tag":                    password("!" + canary),
		"a tag and more":           password("!" + canary + " x"),
		"an alias":                 password("*" + canary),
		"a list":                   password("[" + canary + "]"),
		"a mapping":                password("{" + canary + "}"),
		"a variable":               password(`"${` + canary + `}"`),
		"half a variable":          password(`"${` + canary + `"`),
		"a control character":      password(`"\x01` + canary + `"`),
		"a second time":            strings.Replace(password("x"), "me,", "me, password: "+canary+",", 1),
		"no mechanism":             "kafka: {sasl: {password: " + canary + "}}\npipelines:\n" + minimal("a"),
		"an address":               pipeline("a", "topics: [a]", `{http: {urls: ["https://me:`+canary+`@x"]}}`, "b", ""),
		"a header":                 pipeline("a", "topics: [a]", `{http: {urls: ["http://x"], headers: {X: ["`+canary+`"]}}}`, "b", ""),
		"a header that is no text": pipeline("a", "topics: [a]", `{http: {urls: ["http://x"], headers: {X: {`+canary+`: 1}}}}`, "b", ""),
		"a user":                   pipeline("a", "topics: [a]", `{http: {urls: ["http://x"], basic_auth: {username: "${file:/secret}:", password_file: x}}}`, "b", ""),
		"a broker":                 "kafka: {brokers: [\"sasl://me:" + canary + "@x:1\"]}\npipelines:\n" + minimal("a"),
		"an enum":                  strings.ReplaceAll(password("x"), "plain", file),
		"a switch":                 "kafka: {tls: {enabled: " + file + "}}\npipelines:\n" + minimal("a"),
		"a number":                 pipeline("a", "topics: [a]", "{pass: {}}", "b", ", workers: "+file),
		"a real number":            pipeline("a", "topics: [a]", "{simulate: {sigma: "+file+"}}", "b", ""),
		"a duration":               pipeline("a", "topics: [a]", "{pass: {}}", "b", ", drain_timeout: "+file),
		"a size":                   pipeline("a", "topics: [a]", "{pass: {}}", "b", ", window: {bytes: "+file+"}"),
		"a start":                  strings.Replace(pipeline("a", "topics: [a]", "{pass: {}}", "b", ""), "earliest", file, 1),
		"a regex":                  pipeline("a", "topics_regex: "+file, "{pass: {}}", "b", ""),
		"a name":                   pipeline(file, "topics: [a]", "{pass: {}}", "b", ""),
		"a topic":                  pipeline("a", "topics: ["+file+"]", "{pass: {}}", "b", ""),
		"a listener":               "admin: {listen: " + file + "}\npipelines:\n" + minimal("a"),
		"an instance":              "instance: " + file + "\npipelines:\n" + minimal("a"),
	}
	for name, text := range tests {
		l := newLoader(src)
		l.files = []string{"f.yaml"}
		l.document(place{file: "f.yaml"}, []byte(text))
		_, err := l.finish()
		if err == nil {
			t.Errorf("%s: no problem was found", name)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: shows the secret: %v", name, err)
		}
	}
}

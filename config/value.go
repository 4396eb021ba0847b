package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"seriatim/internal/jq"
)

// setText parses s as a value of the scalar field f and stores it in v. The
// error says what is wrong with s; it quotes it as shown.
func setText(f *field, v reflect.Value, s, shown string) error {
	switch f.kind {
	case text, secret, pattern:
		if err := checkCharacters(s); err != nil {
			return err
		}
	}
	if f.word != "" && s == f.word {
		v.SetInt(-1)
		return nil
	}
	switch f.kind {
	case program:
		if _, err := jq.Compile(s); err != nil {
			return err
		}
		v.SetString(s)
	case secret:
		v.Set(reflect.ValueOf(NewSecret(s)))
	case text:
		if err := checkText(f, s, shown); err != nil {
			return err
		}
		v.SetString(s)
	case integer:
		if !decimalForm.MatchString(s) {
			return fmt.Errorf("%s is not a whole number in plain decimal%s", shown, octalHint(s))
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%s is too large", shown)
		}
		v.SetInt(n)
	case number:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsInf(x, 0) || math.IsNaN(x) || !floatForm.MatchString(s) {
			return fmt.Errorf("%s is not a number%s", shown, octalHint(s))
		}
		v.SetFloat(x)
	case boolean:
		switch strings.ToLower(s) {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			return fmt.Errorf("%s is neither true nor false", shown)
		}
	case duration:
		d, err := parseDuration(s)
		if err != nil {
			return fmt.Errorf("%s %w", shown, err)
		}
		v.SetInt(int64(d))
	case size:
		n, err := parseSize(s)
		if err != nil {
			return fmt.Errorf("%s %w", shown, err)
		}
		v.SetInt(n)
	case pattern:
		// On its own first, so that a pattern such as `a)(b` cannot balance the
		// parentheses around it.
		_, err := regexp.Compile(s)
		if err == nil {
			var re *regexp.Regexp
			if re, err = regexp.Compile(wholeOpen + s + wholeClose); err == nil {
				v.Set(reflect.ValueOf(re))
			}
		}
		if err != nil {
			// The error itself repeats the expression, which may come from a file.
			var se *syntax.Error
			if !errors.As(err, &se) {
				return fmt.Errorf("%s is not a regular expression", shown)
			}
			return fmt.Errorf("%s is not a regular expression: %s", shown, se.Code)
		}
	case percent:
		x, err := parsePercent(s)
		if err != nil {
			return fmt.Errorf("%s %w", shown, err)
		}
		v.SetFloat(x)
	case delay:
		d, err := parseDelay(s)
		if err != nil {
			return fmt.Errorf("%s %w", shown, err)
		}
		v.Set(reflect.ValueOf(d))
	case start:
		p, err := parseStart(s)
		if err != nil {
			return fmt.Errorf("%s %w%s", shown, err, didYouMean(s, []string{"earliest", "latest"}))
		}
		v.Set(reflect.ValueOf(p))
	}
	return checkRange(f, v, shown)
}

// A pattern is stored between these, so that it matches whole names only.
const wholeOpen, wholeClose = `^(?:`, `)$`

var (
	decimalForm  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	floatForm    = regexp.MustCompile(`^-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$`)
	durationForm = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h|d|w))+$`)
	durationPart = regexp.MustCompile(`([0-9.]+)([a-z]+)`)
	sizeForm     = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?)(B|kB|KB|KiB|MB|MiB|GB|GiB|TB|TiB)$`)
	percentForm  = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]+)?%$`)
	quantileForm = regexp.MustCompile(`^p[1-9][0-9]?$`)
	delayForm    = regexp.MustCompile(`^(p[1-9][0-9]?|([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h|d|w))+)$`)
	startForm    = regexp.MustCompile(`^(earliest|latest|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2}))$`)
)

// octalHint explains numbers that YAML reads otherwise than people do.
func octalHint(s string) string {
	if len(s) > 1 && s[0] == '0' && s[1] >= '0' && s[1] <= '9' {
		return ": YAML readers disagree about a leading zero (010 is 8 to many of them)"
	}
	return ""
}

func checkText(f *field, s, shown string) error {
	if slices.Contains(f.unbuiltValues, s) {
		return fmt.Errorf("%s is not built yet; %s", shown, possible(f.enum))
	}
	if len(f.enum) > 0 && !slices.Contains(f.enum, s) {
		return fmt.Errorf("%s is unknown; %s%s", shown, possible(f.enum), didYouMean(s, f.enum))
	}
	if f.form != nil && !f.form.MatchString(s) {
		return fmt.Errorf("%s is wrong: must be %s", shown, f.formDoc)
	}
	return nil
}

// checkCharacters refuses what no name, path or password has on purpose.
func checkCharacters(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("has bytes that are not UTF-8")
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		r, _ := utf8.DecodeRuneInString(s[i:])
		return fmt.Errorf("has the control character %U at position %d; is a line break too much?", r, i+1)
	}
	return nil
}

func possible(values []string) string {
	if len(values) == 1 {
		return "only " + values[0] + " is possible"
	}
	return "possible are " + strings.Join(values, ", ")
}

// checkRange reports whether v, which was given as shown, keeps to the limits of
// its field.
func checkRange(f *field, v reflect.Value, shown string) error {
	limit := func(s string) float64 {
		l := reflect.New(v.Type()).Elem()
		if err := setText(&field{kind: f.kind}, l, s, s); err != nil {
			panic(f.key + ": the limit " + err.Error())
		}
		return numeric(l)
	}
	if f.min != "" && numeric(v) < limit(f.min) {
		return fmt.Errorf("%s is too small: the least is %s", shown, f.min)
	}
	if f.max != "" && numeric(v) > limit(f.max) {
		return fmt.Errorf("%s is too large: the most is %s", shown, f.max)
	}
	return nil
}

func numeric(v reflect.Value) float64 {
	if v.Kind() == reflect.Float64 {
		return v.Float()
	}
	return float64(v.Int())
}

// parseDuration reads what time.ParseDuration reads, with d and w for days and
// weeks, without a sign, and always with a unit.
func parseDuration(s string) (time.Duration, error) {
	if !durationForm.MatchString(s) {
		return 0, errors.New("is not a duration: write a number with a unit, like 250ms, 10s, 5m, 1h or 7d")
	}
	var sum time.Duration
	for _, part := range durationPart.FindAllStringSubmatch(s, -1) {
		unit, times := part[2], time.Duration(1)
		switch unit {
		case "d":
			unit, times = "h", 24
		case "w":
			unit, times = "h", 7*24
		}
		d, err := time.ParseDuration(part[1] + unit)
		if err != nil || d > (math.MaxInt64-sum)/times {
			return 0, errors.New("is too long a duration")
		}
		sum += d * times
	}
	return sum, nil
}

func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return strings.ReplaceAll(s, "µ", "u")
}

var sizeUnits = map[string]float64{
	"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

func parseSize(s string) (int64, error) {
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("is not a size: write a number with a unit, like 512B, 64KiB, 128MiB or 1GB")
	}
	x, err := strconv.ParseFloat(m[1], 64)
	if x *= sizeUnits[m[3]]; err != nil || x > 1<<62 {
		return 0, errors.New("is too large")
	}
	return int64(x), nil
}

func formatSize(n int64) string {
	for _, u := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if unit := int64(sizeUnits[u]); n != 0 && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + u
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// parsePercent reads 5% as 0.05.
func parsePercent(s string) (float64, error) {
	x, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !percentForm.MatchString(s) {
		return 0, errors.New("is not a share: write a number with a percent sign, like 5%")
	}
	return x / 100, nil
}

func formatPercent(x float64) string {
	return strconv.FormatFloat(math.Round(x*100*1e6)/1e6, 'f', -1, 64) + "%"
}

func parseDelay(s string) (Delay, error) {
	if quantileForm.MatchString(s) {
		n, err := strconv.Atoi(s[1:])
		return Delay{Quantile: float64(n) / 100}, err
	}
	d, err := parseDuration(s)
	if err != nil && strings.HasPrefix(s, "p") {
		return Delay{}, errors.New("is neither a duration like 2s nor a quantile from p1 to p99")
	}
	return Delay{Time: d}, err
}

// String returns the delay as it is written in a file.
func (d Delay) String() string {
	if d.Quantile > 0 {
		return "p" + strconv.Itoa(int(math.Round(d.Quantile*100)))
	}
	return formatDuration(d.Time)
}

func parseStart(s string) (Start, error) {
	switch s {
	case "earliest":
		return Start{}, nil
	case "latest":
		return Start{End: true}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || !startForm.MatchString(s) {
		return Start{}, errors.New("is neither earliest, latest nor a time like 2026-01-31T00:00:00Z")
	}
	if t.UnixMilli() <= 0 {
		return Start{}, errors.New("is before 1970, when no log has records; write earliest")
	}
	return Start{Time: t}, nil
}

// String returns the start as it is written in a file.
func (s Start) String() string {
	switch {
	case s.End:
		return "latest"
	case s.Time.IsZero():
		return "earliest"
	}
	return s.Time.Format(time.RFC3339Nano)
}

package main

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"

	"seriatim/config"
)

// fill sets every field below v to a value that is not the zero one.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		switch v.Addr().Interface().(type) {
		case *time.Time:
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		case *config.Secret:
			v.Set(reflect.ValueOf(config.NewSecret("secret")))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		if v.Type() == reflect.TypeFor[*regexp.Regexp]() {
			v.Set(reflect.ValueOf(regexp.MustCompile("x")))
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("x"), value)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(0.5)
	default:
		panic(fmt.Sprintf("fill: %v", v.Type()))
	}
}

// zeros returns the paths of the fields below v that are zero.
func zeros(v reflect.Value, path string) []string {
	if v.Kind() != reflect.Struct || v.Type() == reflect.TypeFor[time.Time]() {
		if v.IsZero() {
			return []string{path}
		}
		return nil
	}
	var found []string
	for i := range v.NumField() {
		below := v.Type().Field(i).Name
		if path != "" {
			below = path + "." + below
		}
		found = append(found, zeros(v.Field(i), below)...)
	}
	return found
}

func filled[T any]() T {
	var c T
	fill(reflect.ValueOf(&c).Elem())
	return c
}

// An option that stays zero is one that was forgotten here when it was added.
func TestEverySettingArrives(t *testing.T) {
	p := filled[config.Pipeline]()
	p.Input.GroupProtocol, p.Input.Isolation, p.Output.Partition = "consumer", "read_uncommitted", "key"
	p.Delivery, p.OnExhausted, p.Input.OnDataLoss = "exactly_once", "dead_letter", "latest"
	p.Hedge.HeadOnly = false
	frames := filled[config.Exec]()
	frames.Codec = "length_prefixed"
	for name, test := range map[string]struct {
		options any
		zero    []string // those that are no settings of this section
	}{
		"kafka":    {kafkaOptions(filled[config.Kafka]()), []string{"Logger", "Metrics"}},
		"http":     {httpOptions(filled[config.HTTP](), 1), []string{"Adaptive", "Callbacks", "Logger"}},
		"exec":     {execOptions(frames), []string{"Logger"}},
		"simulate": {simulateOptions(filled[config.Simulate]()), nil},
		"processor": {processorOptions(p), []string{
			"Client", "Hooks.ResequenceWait", "Hooks.TransformDuration", "Instance", "Logger",
		}},
	} {
		got := zeros(reflect.ValueOf(test.options), "")
		slices.Sort(got)
		if !slices.Equal(got, test.zero) {
			t.Errorf("%s: options left zero: %q, want %q", name, got, test.zero)
		}
	}
}

// Settings of a few words become flags; the default must leave them off.
func TestWordsBecomeFlags(t *testing.T) {
	c := loadConfig(t, configFile(t, onePipeline, "127.0.0.1:1")).Pipelines[0]
	o := processorOptions(c)
	if o.Source.ServerSide || o.Source.ReadUncommitted || o.Output.ByKey {
		t.Errorf("defaults: got %+v %+v, want a classic group, committed records, source partitions", o.Source, o.Output)
	}
	if o.Window.Bytes != 128<<20 || o.DrainTimeout != 10*time.Second || o.Source.Group != "seriatim.orders" {
		t.Errorf("defaults: got window %d, drain timeout %v, group %s", o.Window.Bytes, o.DrainTimeout, o.Source.Group)
	}
}

package transform_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// A worker is any HTTP server: it gets a value and answers with another.
func ExampleHTTP() {
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(r.Body)
		switch {
		case err != nil:
			return
		case len(value) == 0:
			w.WriteHeader(http.StatusNoContent) // no output
		case value[0] != '{':
			w.Header().Set("Seriatim-Error", "not%20an%20object")
			w.WriteHeader(http.StatusUnprocessableEntity) // this record can never work
		default:
			w.Header().Set("Seriatim-H-content-type", "application/json")
			_, _ = w.Write(bytes.ToUpper(value))
		}
	}))
	defer worker.Close()

	client, err := transform.HTTP(transform.HTTPOptions{URLs: []string{worker.URL}, Timeout: 10 * time.Second, Connections: 64})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	for _, value := range []string{`{"id": 1}`, ``, `nonsense`} {
		out, err := processor.Call(context.Background(), client, processor.Input{
			Record:   &kgo.Record{Topic: "orders.in", Value: []byte(value)},
			Pipeline: "orders",
			Attempt:  1,
		})
		var failure *processor.Failure
		if errors.As(err, &failure) {
			fmt.Println(failure.Kind)
			continue
		}
		fmt.Println(len(out), "outputs")
		for _, record := range out {
			fmt.Printf("%s %s=%s\n", record.Value, record.Headers[0].Key, record.Headers[0].Value)
		}
	}
	// Output:
	// 1 outputs
	// {"ID": 1} content-type=application/json
	// 0 outputs
	// reject
}

// The same seed gives the same times and failures at every run.
func ExampleSimulate() {
	slow := transform.Simulate(transform.SimulateOptions{Latency: time.Millisecond, Sigma: 0.5, FailureRate: 0.3, Seed: 1})
	for attempt := 1; attempt <= 2; attempt++ {
		out, err := processor.Call(context.Background(), slow, processor.Input{
			Record:  &kgo.Record{Topic: "orders.in", Offset: 1, Value: []byte("passed on")},
			Attempt: attempt,
		})
		if err != nil {
			fmt.Println(attempt, err)
			continue
		}
		fmt.Printf("%d %s\n", attempt, out[0].Value)
	}
	// Output:
	// 1 simulated failure (simulate.failure_rate)
	// 2 passed on
}

func ExamplePass() {
	out, err := processor.Call(context.Background(), transform.Pass(), processor.Input{
		Record: &kgo.Record{Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}}},
	})
	fmt.Printf("%s: %s %s=%s %v\n", out[0].Key, out[0].Value, out[0].Headers[0].Key, out[0].Headers[0].Value, err)
	// Output: k: v h=1 <nil>
}

// A jq program makes any number of outputs.
func ExampleJQ() {
	items, err := transform.JQ(transform.JQOptions{Program: `.items[] | {id, customer: $key}`})
	if err != nil {
		fmt.Println(err)
		return
	}
	out, err := processor.Call(context.Background(), items, processor.Input{
		Record: &kgo.Record{Key: []byte("c7"), Value: []byte(`{"items": [{"id": 1, "price": 2}, {"id": 12345678901234567890}]}`)},
	})
	for _, record := range out {
		fmt.Printf("%s\n", record.Value)
	}
	fmt.Println(err)
	// Output:
	// {"customer":"c7","id":1}
	// {"customer":"c7","id":12345678901234567890}
	// <nil>
}

// Exec starts the worker itself and ends it with Close.
func ExampleExec() {
	workers, err := transform.Exec(transform.ExecOptions{
		Command:   []string{"node", "examples/node/stdio.mjs"},
		Processes: 2,
		InFlight:  32,
		Timeout:   10 * time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer workers.Close()
	out, err := processor.Call(context.Background(), workers, processor.Input{
		Record:   &kgo.Record{Topic: "orders.in", Value: []byte(`{"id": 1}`)},
		Pipeline: "orders",
		Attempt:  1,
	})
	fmt.Println(len(out), err)
}

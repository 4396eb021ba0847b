// Bench measures what Seriatim costs and what it keeps up with, on a real Kafka
// that it starts for the purpose:
//
//	go run .         # speed, latency, cost, growth; "go run . -h" lists the flags
//	go run . -bars   # what has a bar
//	go run . soak    # memory with a stuck head
//	go run . hanging # latency with a worker that hangs now and then
//
// Speed is measured in pairs: the pipeline and what it is compared with run in
// turn, each in a process of its own, so that what changes on the machine
// changes both. A row shows the medians, and the interval that holds the median
// of the ratios with 95 % certainty. Runs during which other programs used the
// CPU are repeated. CPU time moves far less with such noise than speed does.
package main

// Package processor moves the records of Kafka topics through a [Transform], out
// of order on many workers, and emits the results strictly in the order of their
// source offsets.
package processor

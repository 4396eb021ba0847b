// Package explore is a test. It walks through every state that a small world can get
// into: two instances share two partitions, in whose logs are a gap, an aborted, a
// filtered and a control record. What an instance holds of a partition are the real
// window and the real tracker; broker, group and network are models.
//
// It has one goroutine, and is not built with the race detector, which would only make
// it slow.
package explore

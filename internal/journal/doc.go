// Package journal holds what consumer groups remember of records in a compacted topic:
// how its records look, and what follows from reading them in order. It is pure: it
// has no goroutine, clock, I/O or lock.
//
// Each record of the state topic is about one record of a source partition, or about
// the partition as a whole. Its key says about what, of which kind it is, and who
// wrote it:
//
//	seriatim.orders/orders.in/3/4711/attempts/17   the owner in generation 17
//	seriatim.orders/orders.in/3/4711/reply/17      likewise
//	seriatim.orders/orders.in/3/4711/decision/9f…  somebody who decided about a held record
//	seriatim.orders/orders.in/3/-/open/1c…         one tenure of the partition
//
// The writer is in the key, so that no writer ever replaces what another one has
// written: compaction keeps the last record of a key, and the last one may be a late
// write of an owner that has lost the partition. Who reads takes the highest
// generation. A record without a value deletes the one with its key.
package journal

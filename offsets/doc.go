// Package offsets knows how far a partition may be committed, and when to.
//
// A [Tracker] belongs to one partition. The life of a slot:
//
//	Track     the offset and leader epoch of a record, in admission order
//	Settle    in any order, once each
//	          once all before it are settled too, the frontier passes it and the
//	          slot is used again
//
// Guarantees: the frontier is one past the longest settled prefix and never
// moves back. It is computed from the offsets of records alone, so that gaps
// (compaction, aborted transactions, markers) neither stop it nor are passed
// before the record that follows them. A call that returns an error has changed
// nothing. At a steady size nothing is allocated.
//
// The ring has 64 slots at first and doubles when it is full; who admits records
// bounds it. It never shrinks while records are tracked. It falls back to 64
// slots when the tracker has become empty 16 times in a row without ever having
// used a quarter of the ring.
//
// A [Policy] belongs to one committer: it says when the next commit is due.
//
// What the package does not do: it starts no goroutine, has no clock, takes no
// lock and talks to no broker. It does not know what was committed.
package offsets

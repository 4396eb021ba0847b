// Package resequence gives work that finishes out of order back in the order in
// which it came.
//
// A [Window] belongs to one partition. The life of a slot:
//
//	Admit     the next Seq, a zero T in the ring; its bytes count from here
//	Complete  in any order, once each; the bytes of the outputs are added
//	Release   the head, once it is completed: in order of Seq, once each
//	Free      the slot is zeroed and neither record nor bytes count any more
//
// Release and Free are two steps because a result is kept until it is settled:
// after a failed produce it is emitted again from its slot.
//
// Guarantees: Seqs are dense from 0. Release returns every Seq exactly once, in
// order, never before it was completed. At most Limits.Records slots are held.
// Bytes stay within Limits.Bytes at every Admit, except that one record always
// fits an empty window; outputs may go beyond, as they exist already. A call
// that returns an error has changed nothing. At a steady size nothing is
// allocated.
//
// The ring has 64 slots at first and doubles, when it is full, up to the power
// of two that holds Limits.Records. It never shrinks while records are held. It
// falls back to 64 slots when the window has become empty 16 times in a row
// without ever having used a quarter of the ring: a partition that goes up and
// down between nothing and a few thousand records keeps its ring, one that had a
// burst once and trickles since gives it back.
//
// What it does not do: it starts no goroutine, waits for nothing, has no clock,
// takes no lock and gives no gap up. A head that never completes blocks what is
// behind it for ever; to see that is the caller's part. It knows nothing of
// offsets: the n-th admitted record is Seq n, whatever its offset.
package resequence

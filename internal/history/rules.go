package history

// A Rule is one that a run is judged by.
type Rule string

// The rules. Where a comment says so, another part of the tests reports it with
// [Check.Fault].
const (
	// NoLoss: every record that a reader of committed records can see has its
	// outcome: all its outputs, or a dead letter, or none where none is due.
	NoLoss Rule = "I1"
	// NoRepeat, of exactly-once delivery: each output is visible once.
	NoRepeat Rule = "I2"
	// BoundedRepeats, of at-least-once delivery: outputs repeat only after a crash,
	// a freeze or a lost session, and never those of records that had been
	// committed before.
	BoundedRepeats Rule = "I3"
	// InOrder: first appearances follow the source without a gap. Exactly-once
	// delivery has nothing else; with at-least-once delivery a stream may step back
	// and then follows the source again. A key stays in its partition, so that this
	// is the order of keys as well (I5).
	InOrder Rule = "I4"
	// CommitBehind: whenever an offset was seen committed, the outcomes of all
	// records before it were in the log.
	CommitBehind Rule = "I6"
	// CommitForward: committed offsets do not move back.
	CommitForward Rule = "I7"
	// NoAborted: nothing comes of a record whose transaction was aborted.
	NoAborted Rule = "I8"
	// NotTorn, of exactly-once delivery: of the outputs of a record all are visible
	// or none.
	NotTorn Rule = "I9"
	// Final: at the end the group has committed the end of every log, readers of
	// committed records see all of the outputs, and no transaction is open.
	Final Rule = "I10"
	// BoundedMemory (the conductor): windows keep their limits, and the process its
	// memory.
	BoundedMemory Rule = "I12"
	// Bounds (the conductor): SIGTERM ends an instance within drain_timeout and 2 s;
	// the partitions of one that was killed go on within the session timeout and
	// 5 s; an open transaction blocks readers no longer than its timeout.
	Bounds Rule = "I13"
	// Progress (the conductor): when all faults are over the lag goes to 0.
	Progress Rule = "I14"
	// Intact: keys, values, headers and timestamps arrive as they were sent; null
	// and empty differ.
	Intact Rule = "I15"
	// NoLeak (the conductor): when there is nothing to do, goroutines and open files
	// are few.
	NoLeak Rule = "I16"
	// OneOutcome: a record has no outcome but its own: nothing comes of a filtered
	// one, and a dead letter only of one that had to fail.
	OneOutcome Rule = "I17"
	// MetricsAgree (the conductor): what instances tell of commits and lag is what
	// the broker says.
	MetricsAgree Rule = "I18"
	// SameKey (the worker): the idempotency key of a record never changes.
	SameKey Rule = "P9"
	// Alive (the conductor): instances end when they are told to, and never by
	// themselves.
	Alive Rule = "alive"
)

// NotJudged are the invariants that no run on a broker can see: that at most one
// instance emits for a partition (I11) shows in I2, I3 and I7, and nothing else.
const NotJudged = "I11"

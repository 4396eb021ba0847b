// Package history decides whether a run of Seriatim kept its promises, from what
// the broker holds at the end.
//
// A [Workload] says what every record of a run is and what must become of it: a
// record is a function of the seed, its partition and its sequence number, so
// that nothing has to be remembered to judge it. A [Check] is given the input and
// the outputs as the broker has them, the committed offsets that were seen on
// the way, and the state of the group at the end; its [Verdict] names each rule
// that was broken (see [Rules]) with the first places.
//
// The package does no I/O and is for tests alone.
package history

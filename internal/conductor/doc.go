// Package conductor runs the built binary on a real cluster and breaks things by
// a plan: it kills, stops and freezes instances, has them join and leave, kills
// and freezes brokers, moves leaders, cuts, slows and holds up connections. Then
// it heals everything, waits until all is quiet, and has package history judge
// what the brokers hold.
//
// A plan follows from its name and a seed alone. What the processes do in between
// does not: the same plan can be replayed, the same interleaving cannot.
//
// The package is for tests alone.
package conductor

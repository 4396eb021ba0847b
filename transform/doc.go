// Package transform holds the ready-made transforms: [Pass] and [Simulate] for
// tests, trials and demos, [JQ], which runs a program, and [HTTP] and [Exec], which
// ask workers.
package transform

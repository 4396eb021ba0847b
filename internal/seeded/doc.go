// Package seeded holds mistakes that are made on purpose, to see that the tests
// find them. Each is one line where somebody could have made it:
//
//	if seeded.Bug("commit-polled") {
//
// Without the build tag seededbugs Bug is a constant false, and the compiler
// removes the line. With it the environment variable SERIATIM_BUG says which
// mistake is made. `make seeded` makes them one after the other.
package seeded

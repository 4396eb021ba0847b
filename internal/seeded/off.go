//go:build !seededbugs

package seeded

// Bug reports whether the mistake of that name is made: never in this build.
func Bug(string) bool { return false }

//go:build seededbugs

package seeded

import "os"

var made = os.Getenv("SERIATIM_BUG")

// Bug reports whether the mistake of that name is made.
func Bug(name string) bool { return name == made }

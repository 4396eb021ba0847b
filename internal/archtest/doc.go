// Package archtest holds the rules of the house that a compiler does not know:
// who may import whom, and how packages and files are kept.
package archtest

// Package demo shows Seriatim at work on a broker inside the process: beside
// one-at-a-time processing of the same input, or with pipelines of the user's own.
package demo

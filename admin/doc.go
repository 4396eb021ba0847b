// Package admin serves the state of running pipelines over HTTP: metrics,
// liveness, readiness, and a status for people and programs.
package admin

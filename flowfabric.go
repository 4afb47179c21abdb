// Package flowfabric holds the words of the durable execution engine: ids,
// states, policies, errors, commands and their results, and the [Backend]
// contract that every store fulfils. It does no I/O and imports no other
// package of this module.
//
// An execution is a unit of work that must not be lost. A worker claims it,
// which gives the worker a lease; while the lease is renewed nobody else can
// touch the execution. Each run is an attempt; a failed attempt may be retried,
// an attempt whose worker died is reclaimed. The rules of every transition are
// in package lifecycle, the stores only load, apply and save.
//
// # Time
//
// Instants are [time.Time] in UTC with millisecond precision and come from the
// clock of the store, never from a worker. The zero time means "unset".
// Durations are [time.Duration]; milliseconds appear only on the wire.
package flowfabric

// Version is the version of this module.
const Version = "0.1.0"

// LibraryVersion is the version of the Valkey function library whose wire this
// module speaks.
const LibraryVersion = "34"

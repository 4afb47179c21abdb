// Package outage turns many failures of one thing into two lines of a log: that it
// fails, and that it works again.
package outage

import (
	"sync"
	"time"
)

// Outage is the state of something that is used again and again, by any number of
// callers. The zero value works, and holds that the thing does.
type Outage struct {
	// Quiet is how long there must have been no failure before a success ends the
	// outage: where a part of the thing is away, successes and failures alternate.
	Quiet time.Duration

	mu          sync.Mutex
	failed      int
	since, last time.Time
}

// Failed notes a failure, and reports whether it is the first of an outage.
func (o *Outage) Failed() (first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed++
	o.last = time.Now()
	if o.failed == 1 {
		o.since = o.last
	}
	return o.failed == 1
}

// Worked notes a success of what began at some time. When it ends an outage, it
// says how many failures there were and how long the outage was.
func (o *Outage) Worked(began time.Time) (failed int, lasted time.Duration, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed == 0 || began.Before(o.last.Add(o.Quiet)) {
		return 0, 0, false
	}
	failed, o.failed = o.failed, 0
	return failed, time.Since(o.since), true
}

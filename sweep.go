package flowfabric

import "time"

// SweepKind names the work of one background loop. Every execution has at most
// one thing due next; the kind says which loop does it (spec 06).
type SweepKind string

// The kinds. Their names are the scanner names of the metrics (spec 09 §4.2).
const (
	SweepLeaseExpiry       SweepKind = "lease_expiry"
	SweepDelayed           SweepKind = "delayed_promoter"
	SweepAttemptTimeout    SweepKind = "attempt_timeout"
	SweepExecutionDeadline SweepKind = "execution_deadline"
	// SweepSuspensionTimeout does what suspensions do when their time is over.
	SweepSuspensionTimeout SweepKind = "suspension_timeout"
	// SweepPendingWaitpoints closes pending waitpoints that no suspension took up.
	SweepPendingWaitpoints SweepKind = "pending_wp_expiry"
	SweepRetention         SweepKind = "retention_trimmer"
	// SweepIndex repairs indexes that a peer or a loss left incomplete; stores whose
	// indexes cannot be have nothing to do.
	SweepIndex SweepKind = "index_reconciler"
)

// SweepKinds lists all kinds.
var SweepKinds = []SweepKind{SweepLeaseExpiry, SweepDelayed, SweepAttemptTimeout, SweepExecutionDeadline,
	SweepSuspensionTimeout, SweepPendingWaitpoints, SweepRetention, SweepIndex}

// Sweep does what is due of one kind: marks lapsed leases so that their
// executions can be claimed again, promotes delayed executions, expires
// executions by timeout or deadline, deletes what retention no longer keeps.
type Sweep struct {
	Kind SweepKind
	// Limit bounds the executions of one call; 0 means 500.
	Limit int
	// Every is how often the caller sweeps this kind, when it goes on doing so. A store
	// that several processes share may then leave the work to one of them, and take
	// another when that one is late. With 0 the sweep is done.
	Every time.Duration
}

// SweepResult says what was done.
type SweepResult struct {
	// Processed counts executions changed, Errors those that failed and will be
	// tried again.
	Processed, Errors int
	// More says that the limit was reached and more is due now.
	More bool
	// Next is when the next thing of this kind becomes due; zero when nothing is
	// scheduled. Something due earlier may be stored later: see WatchDue.
	Next time.Time
	// Now is the store's clock at the sweep.
	Now time.Time
}

// Wait is how long nothing of the kind is due, at most limit.
func (r SweepResult) Wait(limit time.Duration) time.Duration {
	if r.Next.IsZero() {
		return limit
	}
	return min(limit, max(0, r.Next.Sub(r.Now)))
}

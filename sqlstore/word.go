package sqlstore

import (
	"slices"

	ff "github.com/flowfabric/flowfabric"
)

// words maps the words of one dimension to the small integers that are stored.
// Six of them are in every row and some are in every index, so integers make
// rows and indexes shorter and their comparison cheaper; the views
// executions_view and events_view show the words to people. The position of a
// word is its code: append only.
type words[T ~string] []T

// code is the stored form; the empty word is 0.
func (w words[T]) code(word T) int64 { return int64(slices.Index(w, word)) }

// word is the inverse of code; an unknown code gives the empty word.
func (w words[T]) word(code int64) T {
	if code < 0 || code >= int64(len(w)) {
		return ""
	}
	return w[code]
}

// The dimensions of the state vector, in the order of spec 01 §4, and the other
// words that rows hold.
var (
	phases        = withEmpty(ff.LifecyclePhases)
	ownerships    = withEmpty(ff.OwnershipStates)
	eligibilities = withEmpty(ff.EligibilityStates)
	blockings     = withEmpty(ff.BlockingReasons)
	outcomes      = withEmpty(ff.TerminalOutcomes)
	attemptPhases = withEmpty(ff.AttemptPhases)
	publicStates  = withEmpty(ff.PublicStates)
	attemptTypes  = withEmpty(ff.AttemptTypes)
	attemptStates = withEmpty(ff.AttemptStates)
	// What may be due of an execution. The indexes are written with the records, so
	// there is nothing to reconcile.
	sweepKinds = withEmpty([]ff.SweepKind{ff.SweepLeaseExpiry, ff.SweepDelayed, ff.SweepAttemptTimeout, ff.SweepExecutionDeadline, ff.SweepRetention,
		ff.SweepSuspensionTimeout, ff.SweepPendingWaitpoints})
	frameModes        = withEmpty([]ff.FrameMode{ff.FrameDurable, ff.FrameSummary, ff.FrameBestEffort})
	pendingWaitpoints = sweepKinds.code(ff.SweepPendingWaitpoints)
	eventTypes        = words[ff.EventType]{"", ff.EventAcquired, ff.EventReleased, ff.EventLeaseExpired, ff.EventRevoked,
		ff.EventReclaimed, ff.EventReplayInitiated, ff.EventCompletion, ff.EventSignal, ff.EventResumed, ff.EventEscalated}
)

func withEmpty[T ~string](list []T) words[T] { return append(words[T]{""}, list...) }

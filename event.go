package flowfabric

import (
	"slices"
	"time"
)

// EventFamily groups events by what subscribers follow (spec 01 §13.2).
type EventFamily string

// The families.
const (
	FamilyLease      EventFamily = "lease"
	FamilyCompletion EventFamily = "completion"
	// FamilySignal has the signals that were delivered and the ends of suspensions.
	FamilySignal EventFamily = "signal"
)

// EventFamilies lists all families.
var EventFamilies = []EventFamily{FamilyLease, FamilyCompletion, FamilySignal}

// EventType is what happened.
type EventType string

// The types. Lease events carry the words of the lease history (spec 01 §6.3).
const (
	EventAcquired        EventType = "acquired"
	EventReleased        EventType = "released"
	EventLeaseExpired    EventType = "expired"
	EventRevoked         EventType = "revoked"
	EventReclaimed       EventType = "reclaimed"
	EventReplayInitiated EventType = "replay_initiated"
	EventCompletion      EventType = "completion"
	// EventSignal is a signal; its reason is the effect.
	EventSignal EventType = "signal_delivered"
	// EventResumed makes a suspended execution runnable again; its reason is signal,
	// operator or timeout.
	EventResumed EventType = "resumed"
	// EventEscalated leaves a suspension whose time is over to an operator.
	EventEscalated EventType = "escalated"
)

// Event is one thing that happened to an execution. Events are stored in the
// same transaction as the change that caused them.
type Event struct {
	// Cursor is the position in the store's event log; set by the store.
	Cursor       EventCursor      `json:"cursor,omitempty"`
	Family       EventFamily      `json:"family"`
	Type         EventType        `json:"type"`
	ID           ExecutionID      `json:"execution_id"`
	At           time.Time        `json:"at"`
	FlowID       FlowID           `json:"flow_id,omitzero"`
	LeaseID      LeaseID          `json:"lease_id,omitzero"`
	LeaseEpoch   uint64           `json:"lease_epoch,omitempty"`
	AttemptID    AttemptID        `json:"attempt_id,omitzero"`
	AttemptIndex int              `json:"attempt_index"`
	Worker       WorkerID         `json:"worker_id,omitempty"`
	Instance     WorkerInstanceID `json:"worker_instance_id,omitempty"`
	Reason       string           `json:"reason,omitempty"`
	// SignalID, WaitpointID and Source (its type and identity, joined by a colon) are set
	// on signals.
	SignalID    SignalID    `json:"signal_id,omitzero"`
	WaitpointID WaitpointID `json:"waitpoint_id,omitzero"`
	Source      string      `json:"source,omitempty"`
	// Outcome is set on completions: success, failed, cancelled, expired, skipped.
	Outcome TerminalOutcome `json:"outcome,omitempty"`
}

// EventCursor is an opaque position in the event log; empty is its beginning.
type EventCursor string

// ReadEvents asks for the events after a cursor, in order.
type ReadEvents struct {
	After EventCursor
	// ID, when set, keeps the events of one execution.
	ID ExecutionID
	// Family, when set, keeps one family.
	Family EventFamily
	Limit  int
	// Wait is how long the call may wait when there is nothing yet, at most
	// MaxClaimWait.
	Wait time.Duration
}

// Validate checks the query.
func (c *ReadEvents) Validate() error {
	if c.Wait < 0 || c.Wait > MaxClaimWait {
		return InvalidInput("wait", "must be 0 to %s (got %s)", MaxClaimWait, c.Wait)
	}
	if c.Family != "" && !slices.Contains(EventFamilies, c.Family) {
		return InvalidInput("family", "must be one of %v (got %.40q)", EventFamilies, string(c.Family))
	}
	return checkLimit(c.Limit)
}

// ReadEventsResult is a page. Next is where to go on; it equals After when
// nothing came.
type ReadEventsResult struct {
	Events []Event
	Next   EventCursor
}

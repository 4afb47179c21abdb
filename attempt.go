package flowfabric

import "time"

// Attempt is one run of an execution by one worker (spec 01 §6.5). Index is
// zero-based. An attempt that was delayed or suspended continues under a new
// lease; a retry, a reclaim or a replay is a new attempt.
type Attempt struct {
	ID          AttemptID        `json:"attempt_id"`
	Index       int              `json:"attempt_index"`
	Type        AttemptType      `json:"attempt_type"`
	State       AttemptState     `json:"attempt_state"`
	CreatedAt   time.Time        `json:"created_at,omitzero"`
	StartedAt   time.Time        `json:"started_at,omitzero"`
	EndedAt     time.Time        `json:"ended_at,omitzero"`
	SuspendedAt time.Time        `json:"suspended_at,omitzero"`
	ResumedAt   time.Time        `json:"resumed_at,omitzero"`
	Worker      WorkerID         `json:"worker_id,omitempty"`
	Instance    WorkerInstanceID `json:"worker_instance_id,omitempty"`
	LeaseID     LeaseID          `json:"lease_id"`
	LeaseEpoch  uint64           `json:"lease_epoch"`
	// Suspension is the suspension's id, or worker_delay, waiting_children or
	// worker_release while the attempt is parked.
	Suspension      string `json:"suspension_id,omitempty"`
	FailureReason   string `json:"failure_reason,omitempty"`
	FailureCategory string `json:"failure_category,omitempty"`
	// Cause says why this attempt exists: the failure that was retried, how the
	// lease before it ended, or who asked for the replay.
	Cause string `json:"cause,omitempty"`
	// RequestedBy is who asked for a replay.
	RequestedBy string `json:"requested_by,omitempty"`
	// Previous is the index of the attempt that this one follows; -1 for none.
	Previous int `json:"previous_attempt_index"`
}

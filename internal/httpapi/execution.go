package httpapi

import (
	"encoding/json"

	ff "github.com/flowfabric/flowfabric"
)

// Lanes is the answer of GET /v1/lanes.
type Lanes struct {
	Lanes []Lane `json:"lanes"`
}

// Lane counts the executions of a lane by state.
type Lane struct {
	LaneID   ff.LaneID              `json:"lane_id"`
	Counts   map[ff.PublicState]int `json:"counts"`
	OldestAt Time                   `json:"oldest_waiting_at,omitzero"`
}

// ExecutionPage is the answer of GET /v1/query/executions.
type ExecutionPage struct {
	Executions []Record `json:"executions"`
	NextCursor string   `json:"next_cursor,omitempty"`
}

// Attempts is the answer of GET /v1/executions/{id}/attempts.
type Attempts struct {
	Attempts []Attempt `json:"attempts"`
}

// ReplayWith is the body of POST /v1/executions/{id}/replay-with.
type ReplayWith struct {
	Reason      string `json:"reason,omitempty" maxLength:"4096"`
	RequestedBy string `json:"requested_by,omitempty" maxLength:"256"`
	// Payload or PayloadBase64, when given, replaces the input; an empty
	// PayloadBase64 by nothing.
	Payload       json.RawMessage `json:"payload,omitempty"`
	PayloadBase64 []byte          `json:"payload_base64,omitzero"`
}

// StateAnswer is the state after a command.
type StateAnswer struct {
	State ff.PublicState `json:"state"`
}

// PriorityAnswer has the priorities before and after.
type PriorityAnswer struct {
	Old int `json:"old_priority"`
	New int `json:"new_priority"`
}

// SetTags is the body of POST /v1/executions/{id}/tags.
type SetTags struct {
	Tags Tags `json:"tags"`
}

// Cancel is the body of POST /v1/executions/{id}/cancel-with: a cancel by its
// holder or an operator.
type Cancel struct {
	Reason string          `json:"reason,omitempty" maxLength:"4096"`
	Source ff.CancelSource `json:"source,omitempty" maxLength:"256"`
	Fence  ff.Fence        `json:"fence,omitzero"`
}

// CancelAnswer is what a cancel did.
type CancelAnswer struct {
	State    ff.PublicState    `json:"state"`
	Previous ff.LifecyclePhase `json:"previous_phase"`
}

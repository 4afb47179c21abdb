package httpapi

import (
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Suspend is the body of POST /v1/executions/{id}/suspend.
type Suspend struct {
	Fence          ff.Fence               `json:"fence"`
	SuspensionID   ff.SuspensionID        `json:"suspension_id,omitzero" doc:"Chosen by the client, so that a repetition is one; minted by the server when absent"`
	Waitpoints     []WaitpointBinding     `json:"waitpoints,omitempty" doc:"One new waitpoint when absent" maxItems:"64"`
	Condition      ff.ResumeCondition     `json:"resume_condition"`
	ResumeDelayMS  Millis                 `json:"resume_delay_ms,omitempty" doc:"Hold the execution back for so long after a signal has resumed it" minimum:"0"`
	Reason         ff.SuspensionReason    `json:"reason_code,omitempty" enum:"waiting_for_signal,waiting_for_approval,waiting_for_callback,waiting_for_tool_result,waiting_for_operator_review,paused_by_policy,paused_by_budget,step_boundary,manual_pause"`
	RequestedBy    ff.SuspensionRequester `json:"requested_by,omitempty" enum:"worker,operator,policy,system_timeout_policy"`
	Continuation   string                 `json:"continuation_metadata_pointer,omitempty" doc:"Kept for whoever takes up the attempt again" maxLength:"65536"`
	TimeoutAt      Time                   `json:"timeout_at,omitzero"`
	TimeoutAfterMS Millis                 `json:"timeout_after_ms,omitempty" doc:"By the clock of the store, instead of timeout_at" minimum:"0"`
	OnTimeout      ff.TimeoutBehavior     `json:"timeout_behavior,omitempty" enum:"fail,cancel,expire,auto_resume_with_timeout_signal,escalate"`
	IdempotencyKey string                 `json:"idempotency_key,omitempty" maxLength:"512"`
}

// WaitpointBinding is a waitpoint of a suspension.
type WaitpointBinding struct {
	ID      ff.WaitpointID `json:"waitpoint_id,omitzero"`
	Key     string         `json:"waitpoint_key,omitempty" maxLength:"256"`
	Pending bool           `json:"pending,omitempty" doc:"The waitpoint was created ahead"`
}

// SuspendOf makes the body.
func SuspendOf(c *ff.SuspendExecution) Suspend {
	b := Suspend{Fence: c.Fence, SuspensionID: c.SuspensionID, Condition: c.Condition, ResumeDelayMS: MillisOf(c.ResumeDelay), Reason: c.Reason,
		RequestedBy: c.RequestedBy, Continuation: c.Continuation, TimeoutAt: At(c.TimeoutAt), TimeoutAfterMS: MillisOf(c.TimeoutAfter),
		OnTimeout: c.OnTimeout, IdempotencyKey: c.IdempotencyKey}
	for _, w := range c.Waitpoints {
		b.Waitpoints = append(b.Waitpoints, WaitpointBinding(w))
	}
	return b
}

// Command is the command for an execution.
func (b *Suspend) Command(id ff.ExecutionID) (c ff.SuspendExecution, err error) {
	c = ff.SuspendExecution{LeaseRef: ff.LeaseRef{ID: id, Fence: b.Fence}, SuspensionID: b.SuspensionID, Condition: b.Condition, Reason: b.Reason,
		RequestedBy: b.RequestedBy, Continuation: b.Continuation, TimeoutAt: b.TimeoutAt.Time, OnTimeout: b.OnTimeout, IdempotencyKey: b.IdempotencyKey}
	for _, w := range b.Waitpoints {
		c.Waitpoints = append(c.Waitpoints, ff.WaitpointBinding(w))
	}
	if c.ResumeDelay, err = b.ResumeDelayMS.Duration("resume_delay_ms"); err != nil {
		return c, err
	}
	c.TimeoutAfter, err = b.TimeoutAfterMS.Duration("timeout_after_ms")
	return c, err
}

// Suspended says whether an execution is suspended now. It has the tokens of the
// waitpoints.
type Suspended struct {
	SuspensionID ff.SuspensionID      `json:"suspension_id"`
	Waitpoints   []ff.IssuedWaitpoint `json:"waitpoints"`
	Satisfied    bool                 `json:"satisfied" doc:"Signals that came ahead have met the condition: the lease goes on"`
	TimeoutAt    Time                 `json:"timeout_at,omitzero"`
}

// SuspendedOf makes the answer.
func SuspendedOf(r *ff.SuspendExecutionResult) Suspended {
	return Suspended{r.SuspensionID, r.Waitpoints, r.Satisfied, At(r.TimeoutAt)}
}

// Result is the result that it was made of.
func (s *Suspended) Result() ff.SuspendExecutionResult {
	return ff.SuspendExecutionResult{SuspensionID: s.SuspensionID, Waitpoints: s.Waitpoints, Satisfied: s.Satisfied, TimeoutAt: s.TimeoutAt.Time}
}

// Resume is the body of POST /v1/executions/{id}/resume.
type Resume struct {
	DelayMS Millis `json:"delay_ms,omitempty" doc:"Hold the execution back for so long" minimum:"0"`
}

// SuspensionAnswer is the answer of GET /v1/executions/{id}/suspension.
type SuspensionAnswer struct {
	Suspension *Suspension `json:"suspension,omitempty" doc:"The latest suspension, in force or closed; absent when there was none"`
}

// Suspension is a suspension.
type Suspension struct {
	SuspensionID  ff.SuspensionID        `json:"suspension_id"`
	ExecutionID   ff.ExecutionID         `json:"execution_id"`
	AttemptIndex  int                    `json:"attempt_index"`
	Reason        ff.SuspensionReason    `json:"reason_code"`
	RequestedBy   ff.SuspensionRequester `json:"requested_by"`
	Condition     ff.ResumeCondition     `json:"resume_condition"`
	ResumeDelayMS Millis                 `json:"resume_delay_ms,omitempty"`
	Continuation  string                 `json:"continuation_metadata_pointer,omitempty"`
	Waitpoints    []ff.WaitpointID       `json:"waitpoints"`
	CreatedAt     Time                   `json:"created_at"`
	TimeoutAt     Time                   `json:"timeout_at,omitzero"`
	OnTimeout     ff.TimeoutBehavior     `json:"timeout_behavior,omitempty"`
	LastSignalAt  Time                   `json:"last_signal_at,omitzero"`
	SatisfiedAt   Time                   `json:"satisfied_at,omitzero"`
	ClosedAt      Time                   `json:"closed_at,omitzero"`
	CloseReason   string                 `json:"close_reason,omitempty"`
	ResumedBy     []ff.SignalID          `json:"all_satisfier_signals,omitempty"`
}

// SuspensionOf makes a suspension.
func SuspensionOf(s *ff.Suspension) Suspension {
	return Suspension{s.ID, s.ExecutionID, s.AttemptIndex, s.Reason, s.RequestedBy, s.Condition, MillisOf(s.ResumeDelay), s.Continuation,
		append([]ff.WaitpointID{}, s.Waitpoints...), At(s.CreatedAt), At(s.TimeoutAt), s.OnTimeout, At(s.LastSignalAt), At(s.SatisfiedAt), At(s.ClosedAt), s.CloseReason, s.ResumedBy}
}

// Suspension is the suspension that it was made of.
func (s *Suspension) Suspension() ff.Suspension {
	return ff.Suspension{ID: s.SuspensionID, ExecutionID: s.ExecutionID, AttemptIndex: s.AttemptIndex, Reason: s.Reason, RequestedBy: s.RequestedBy,
		Condition: s.Condition, ResumeDelay: time.Duration(s.ResumeDelayMS) * time.Millisecond, Continuation: s.Continuation, Waitpoints: s.Waitpoints,
		CreatedAt: s.CreatedAt.Time, TimeoutAt: s.TimeoutAt.Time, OnTimeout: s.OnTimeout, LastSignalAt: s.LastSignalAt.Time,
		SatisfiedAt: s.SatisfiedAt.Time, ClosedAt: s.ClosedAt.Time, CloseReason: s.CloseReason, ResumedBy: s.ResumedBy}
}

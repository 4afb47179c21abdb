package httpapi

import (
	"encoding/json"

	ff "github.com/flowfabric/flowfabric"
)

// Submit is the body of POST /v1/lanes/{lane}/executions. Only Kind is required.
type Submit struct {
	Kind string `json:"kind" doc:"Kind of the execution; workers choose their handler by it" minLength:"1" maxLength:"256" example:"send-mail"`
	// Payload is any JSON value; PayloadBase64 raw bytes. At most one is given.
	Payload         json.RawMessage `json:"payload,omitempty" doc:"Input, any JSON value"`
	PayloadBase64   []byte          `json:"payload_base64,omitempty" doc:"Input as raw bytes in base64, instead of payload"`
	PayloadEncoding string          `json:"payload_encoding,omitempty" maxLength:"64"`
	ExecutionID     ff.ExecutionID  `json:"execution_id,omitzero" doc:"Chosen by the client for repeatable submits; minted by the server when absent"`
	Namespace       ff.Namespace    `json:"namespace,omitempty" maxLength:"256"`
	Priority        int             `json:"priority,omitempty" doc:"0 to 9000, the highest is claimed first" minimum:"0" maximum:"9000"`
	Creator         string          `json:"creator,omitempty" maxLength:"256"`
	IdempotencyKey  string          `json:"idempotency_key,omitempty" doc:"A repeated submit with the same key within 24 hours returns the first execution" maxLength:"512"`
	Tags            Tags            `json:"tags,omitempty"`
	DelayMS         Millis          `json:"delay_ms,omitempty" doc:"Hold the execution back for so long" minimum:"0"`
	DelayUntil      Time            `json:"delay_until,omitzero" doc:"Hold the execution back until this instant, in milliseconds since 1970"`
	DeadlineAt      Time            `json:"deadline_at,omitzero" doc:"Expire the execution at this instant, whatever it is doing"`
	MaxRetries      *int            `json:"max_retries,omitempty" doc:"Short form of the policy: retries with exponential backoff" minimum:"0" maximum:"1000000"`
	TimeoutMS       Millis          `json:"timeout_ms,omitempty" doc:"Short form of the policy: longest time of one attempt" minimum:"0"`
	Requires        []string        `json:"requires,omitempty" doc:"Short form of the policy: capabilities that a worker needs"`
	Policy          *Policy         `json:"policy,omitempty"`
}

// Command is the command for a lane.
func (s *Submit) Command(lane ff.LaneID) (ff.CreateExecution, error) {
	c := ff.CreateExecution{
		ID: s.ExecutionID, Namespace: s.Namespace, Lane: lane, Kind: s.Kind, Payload: s.PayloadBase64, PayloadEncoding: s.PayloadEncoding,
		Priority: s.Priority, Creator: s.Creator, IdempotencyKey: s.IdempotencyKey, Tags: s.Tags,
		DelayUntil: s.DelayUntil.Time, Deadline: s.DeadlineAt.Time,
	}
	if s.Payload != nil {
		if s.PayloadBase64 != nil {
			return c, ff.InvalidInput("payload", "give either payload or payload_base64, not both")
		}
		c.Payload = s.Payload
		if c.PayloadEncoding == "" {
			c.PayloadEncoding = "json"
		}
	}
	if s.Priority < 0 || s.Priority > ff.MaxPriority {
		return c, ff.InvalidInput("priority", "must be 0 to %d (got %d)", ff.MaxPriority, s.Priority)
	}
	var err error
	if c.Delay, err = s.DelayMS.Duration("delay_ms"); err != nil {
		return c, err
	}
	c.Policy, err = s.policy()
	return c, err
}

// policy is the policy with the short forms applied to it.
func (s *Submit) policy() (*ff.ExecutionPolicy, error) {
	if s.MaxRetries == nil && s.TimeoutMS == 0 && s.Requires == nil {
		return (*ff.ExecutionPolicy)(s.Policy), nil
	}
	p := ff.DefaultExecutionPolicy()
	if s.Policy != nil {
		*p = ff.ExecutionPolicy(*s.Policy)
	}
	if n := s.MaxRetries; n != nil {
		if *n < 0 || *n > ff.MaxRetries {
			return nil, ff.InvalidInput("max_retries", "must be 0 to %d (got %d)", ff.MaxRetries, *n)
		}
		p.Retry = copyOr(p.Retry, *ff.ExponentialRetry(*n, ff.DefaultRetryInitial, ff.DefaultRetryMax))
		p.Retry.MaxRetries = *n
	}
	if s.TimeoutMS != 0 {
		d, err := s.TimeoutMS.Duration("timeout_ms")
		if err != nil {
			return nil, err
		}
		p.Timeout = copyOr(p.Timeout, ff.TimeoutPolicy{MaxReclaims: ff.DefaultMaxReclaims})
		p.Timeout.Attempt = d
	}
	if s.Requires != nil {
		set, err := ff.NewCapabilitySet(s.Requires...)
		if err != nil {
			return nil, err
		}
		p.Routing = copyOr(p.Routing, ff.RoutingRequirements{})
		p.Routing.RequiredCapabilities = set
	}
	return p, nil
}

// copyOr is a copy of what p points to, or of the default.
func copyOr[T any](p *T, def T) *T {
	if p != nil {
		def = *p
	}
	return &def
}

// SubmitOf is the body of a command.
func SubmitOf(c *ff.CreateExecution) Submit {
	return Submit{
		Kind: c.Kind, PayloadBase64: c.Payload, PayloadEncoding: c.PayloadEncoding, ExecutionID: c.ID, Namespace: c.Namespace,
		Priority: min(max(c.Priority, 0), ff.MaxPriority), Creator: c.Creator, IdempotencyKey: c.IdempotencyKey, Tags: c.Tags,
		DelayMS: MillisOf(c.Delay), DelayUntil: At(c.DelayUntil), DeadlineAt: At(c.Deadline), Policy: (*Policy)(c.Policy),
	}
}

// Submitted is the answer to a submit.
type Submitted struct {
	ExecutionID ff.ExecutionID `json:"execution_id"`
	State       ff.PublicState `json:"state"`
	// Duplicate says that the execution was there before.
	Duplicate bool `json:"duplicate"`
}

// SubmitBatch submits many executions to one lane, all or none.
type SubmitBatch struct {
	Executions []Submit `json:"executions" minItems:"1" maxItems:"1000"`
}

// SubmittedBatch has one answer per item, in order.
type SubmittedBatch struct {
	Results []Submitted `json:"results"`
}

// CreateMany submits executions to any lanes, all or none. It is the remote
// store's call; people use the lane's endpoint.
type CreateMany struct {
	Executions []CreateItem `json:"executions" minItems:"1" maxItems:"1000"`
}

// CreateItem is a submit with its lane.
type CreateItem struct {
	LaneID ff.LaneID `json:"lane_id"`
	Submit
}

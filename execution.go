package flowfabric

import (
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Execution is the authoritative record of one execution: what was submitted
// and the state it is in (spec 01 §6.1). The input payload and the result are
// not part of it, see [Executions.ExecutionPayload] and
// [Executions.ExecutionResult]. A zero time or a zero id means "unset".
type Execution struct {
	ID              ExecutionID
	Namespace       Namespace
	Lane            LaneID
	Kind            string
	Priority        int
	Creator         string
	PayloadEncoding string
	Policy          *ExecutionPolicy
	// Required are the capabilities a worker needs to claim this execution.
	Required CapabilitySet
	Tags     map[string]string
	FlowID   FlowID

	State          StateVector
	BlockingDetail string

	// Attempt is the latest attempt; meaningful when TotalAttempts > 0.
	Attempt Attempt
	// CurrentAttemptID is the id of the attempt in progress or last ended. It is
	// cleared when a retry is scheduled (spec 03 §10).
	CurrentAttemptID AttemptID
	// TotalAttempts counts attempts; it is the index of the next one.
	TotalAttempts int
	RetryCount    int
	ReplayCount   int
	ReclaimCount  int

	// Lease is the lease in force, or the lapsed one until it is taken over.
	Lease Lease
	// LeaseEpoch is the epoch of the latest lease; it only grows.
	LeaseEpoch        uint64
	LeaseExpiredAt    time.Time
	LeaseRevokedAt    time.Time
	LeaseRevokeReason string
	// Grant permits one worker to claim this execution for a short time.
	Grant Grant

	PendingRetryReason     string
	PendingReplayReason    string
	PendingReplayBy        string
	PendingPreviousAttempt int

	CreatedAt        time.Time
	StartedAt        time.Time
	CompletedAt      time.Time
	LastTransitionAt time.Time
	LastMutationAt   time.Time
	DelayUntil       time.Time
	// Deadline ends the execution whatever it is doing.
	Deadline time.Time
	// AttemptTimeoutAt ends the attempt in progress.
	AttemptTimeoutAt     time.Time
	CapabilityMismatchAt time.Time

	// SuspensionID and WaitpointID are the suspension in force and its primary
	// waitpoint; SuspensionTimeoutAt is when it times out.
	SuspensionID        SuspensionID
	WaitpointID         WaitpointID
	SuspensionTimeoutAt time.Time

	FailureReason      string
	FailureCategory    string
	CancellationReason string
	CancelledBy        CancelSource

	Progress Progress
}

// PublicState is the one word that sums up the state vector.
func (x *Execution) PublicState() PublicState { return x.State.Public() }

// Terminal reports whether the execution has ended. A replay may start it again.
func (x *Execution) Terminal() bool { return x.State.Phase == PhaseTerminal }

// RetentionUntil is when the trimmer may delete the execution: its completion
// plus the retention of its policy, or plus fallback when the policy has none.
// It is zero while the execution is not terminal.
func (x *Execution) RetentionUntil(fallback time.Duration) time.Time {
	if !x.Terminal() || x.CompletedAt.IsZero() {
		return time.Time{}
	}
	if x.Policy != nil && x.Policy.Stream != nil && x.Policy.Stream.RetentionTTL > 0 {
		fallback = x.Policy.Stream.RetentionTTL
	}
	return x.CompletedAt.Add(fallback)
}

// Progress is what a worker last reported about the attempt in progress.
type Progress struct {
	// Percent is 0 to 100; nil when never reported.
	Percent   *int      `json:"percent,omitempty"`
	Message   string    `json:"message,omitempty"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// CreateExecution submits an execution. Only Lane and Kind are required.
type CreateExecution struct {
	// ID is minted by the store when zero. Creating an id that exists is a
	// duplicate: nothing is written and the result says so.
	ID        ExecutionID
	Namespace Namespace
	Lane      LaneID
	Kind      string
	// Payload is the input, at most MaxPayloadBytes.
	Payload         []byte
	PayloadEncoding string
	// Priority is 0 to MaxPriority; the highest is claimed first.
	Priority int
	Creator  string
	// IdempotencyKey makes a repeated submit within the dedup window
	// (IdempotencyWindow by default) return the first execution, unless that has
	// been deleted because its retention was shorter. Its scope is the namespace
	// and the partition of the execution.
	IdempotencyKey string
	Tags           map[string]string
	Policy         *ExecutionPolicy
	// DelayUntil holds the execution back; an instant that has passed means now.
	// Delay is the same relative to the store's clock; giving both is an error.
	DelayUntil time.Time
	Delay      time.Duration
	// Deadline expires the execution, whatever it is doing, with outcome
	// expired. The policy's execution_deadline_ms is the relative form.
	Deadline time.Time
}

// Validate checks everything about the command that does not need the store.
// Errors: invalid_input, payload_too_large, invalid_capabilities,
// invalid_policy_json; each names the field, the value and the limit.
func (c *CreateExecution) Validate() error {
	if err := c.Lane.Validate(); err != nil {
		return err
	}
	if err := c.Namespace.Validate(); err != nil {
		return err
	}
	if c.Kind == "" {
		return InvalidInput("kind", "must not be empty")
	}
	for _, f := range []struct {
		field, value string
		limit        int
	}{
		{"kind", c.Kind, MaxKindBytes},
		{"creator", c.Creator, MaxCreatorBytes},
		{"idempotency_key", c.IdempotencyKey, MaxIdempotencyKeyBytes},
		{"payload_encoding", c.PayloadEncoding, MaxEncodingBytes},
	} {
		if err := checkText(f.field, f.value, f.limit); err != nil {
			return err
		}
	}
	if n := len(c.Payload); n > MaxPayloadBytes {
		return tooLarge("payload", n, MaxPayloadBytes)
	}
	if err := validateTags(c.Tags); err != nil {
		return err
	}
	if c.Delay < 0 {
		return InvalidInput("delay", "must not be negative (got %s)", c.Delay)
	}
	if c.Delay > 0 && !c.DelayUntil.IsZero() {
		return InvalidInput("delay", "give either delay or delay_until, not both")
	}
	if c.Delay > MaxDelay {
		return InvalidInput("delay", "exceeds %s (got %s)", MaxDelay, c.Delay)
	}
	for _, f := range []struct {
		field string
		at    time.Time
	}{{"delay_until", c.DelayUntil}, {"execution_deadline_at", c.Deadline}} {
		if err := checkInstant(f.field, f.at); err != nil {
			return err
		}
	}
	if c.Policy != nil {
		return c.Policy.Validate()
	}
	return nil
}

// Identify is the id under which a store of these partitions creates the execution:
// its own, or a new one. Errors: invalid_input for an id that is not canonical or of
// a partition that the store does not have.
func (c *CreateExecution) Identify(partitions PartitionConfig) (ExecutionID, error) {
	const field = "execution_id"
	switch {
	case c.ID.IsZero():
		return NewExecutionID(c.Lane, partitions), nil
	case !c.ID.IsCanonical():
		return c.ID, InvalidInput(field, "is not in canonical form (got %q, want %q)", c.ID.String(), MakeExecutionID(c.ID.Partition(), c.ID.UUID()).String())
	case c.ID.Partition() >= partitions.Flow:
		return c.ID, InvalidInput(field, "partition %d does not exist: this store has partitions 0 to %d (got %q)", c.ID.Partition(), partitions.Flow-1, c.ID.String())
	}
	return c.ID, nil
}

// DedupWindow is how long the idempotency key counts.
func (c *CreateExecution) DedupWindow() time.Duration {
	if c.Policy != nil && c.Policy.DedupWindow > 0 {
		return c.Policy.DedupWindow
	}
	return IdempotencyWindow
}

// Size is what the execution counts towards MaxBatchBytes: the bytes of its payload
// and tags.
func (c *CreateExecution) Size() int {
	n := len(c.Payload)
	for k, v := range c.Tags {
		n += len(k) + len(v)
	}
	return n
}

// CreateExecutionResult is what became of a submit.
type CreateExecutionResult struct {
	ID    ExecutionID
	State PublicState
	// Duplicate says that nothing was written: ID is the execution that the
	// idempotency key or the id already named.
	Duplicate bool
}

// CreateExecutions submits many executions. They are stored together: either
// all of them or none; on a cluster of Valkeys that holds for those of each partition.
type CreateExecutions struct{ Executions []CreateExecution }

// Validate checks the batch and each item; the error names the item. A batch of more
// than MaxBatchBytes is payload_too_large.
func (c *CreateExecutions) Validate() error {
	if n := len(c.Executions); n == 0 || n > MaxBatch {
		return InvalidInput("executions", "must hold 1 to %d items (got %d)", MaxBatch, n)
	}
	size := 0
	for i := range c.Executions {
		if err := c.Executions[i].Validate(); err != nil {
			return AtItem("executions", i, err)
		}
		size += c.Executions[i].Size()
	}
	if size > MaxBatchBytes {
		return tooLarge("executions", size, MaxBatchBytes)
	}
	return nil
}

// CreateExecutionsResult has one result per item, in order.
type CreateExecutionsResult struct{ Results []CreateExecutionResult }

// CancelExecution ends an execution that is not terminal. A worker that holds
// the lease gives its Fence; an operator gives none.
type CancelExecution struct {
	ID     ExecutionID
	Reason string
	// Source defaults to operator_override, or to worker when a fence is given.
	Source CancelSource
	// Fence, when set, must match the lease in force.
	Fence Fence
}

// Validate checks the command.
func (c *CancelExecution) Validate() error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	if err := checkText("source", string(c.Source), MaxCategoryBytes); err != nil {
		return err
	}
	if err := c.Fence.validateOptional(); err != nil {
		return err
	}
	return checkText("reason", c.Reason, MaxReasonBytes)
}

// CancelExecutionResult is the state after the cancel.
type CancelExecutionResult struct {
	State PublicState
	// Previous is the phase that the cancel ended.
	Previous LifecyclePhase
}

// ChangePriority moves a waiting execution within its lane.
type ChangePriority struct {
	ID       ExecutionID
	Priority int
}

// ChangePriorityResult has the priorities before and after; the new one is
// clamped to 0..MaxPriority.
type ChangePriorityResult struct{ Old, New int }

// ReplayExecution starts a terminal execution again as a new attempt.
type ReplayExecution struct {
	ID ExecutionID
	// Reason and RequestedBy are kept on the new attempt.
	Reason      string
	RequestedBy string
	// Payload, when not nil, replaces the input before the new attempt.
	Payload []byte
}

// Validate checks the command.
func (c *ReplayExecution) Validate() error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	if n := len(c.Payload); n > MaxPayloadBytes {
		return tooLarge("payload", n, MaxPayloadBytes)
	}
	if err := checkText("requested_by", c.RequestedBy, MaxCreatorBytes); err != nil {
		return err
	}
	return checkText("reason", c.Reason, MaxReasonBytes)
}

// ReplayExecutionResult is the state after the replay.
type ReplayExecutionResult struct{ State PublicState }

// SetExecutionTags adds or overwrites tags; it works in every phase.
type SetExecutionTags struct {
	ID   ExecutionID
	Tags map[string]string
}

var tagKey = regexp.MustCompile(`^[a-z][a-z0-9_]*\.[a-z0-9_][a-z0-9_.]*$`)

// Validate checks the command. Errors: invalid_tag_key for a key that is not
// `namespace.name` (spec 01 §15), invalid_input.
func (c *SetExecutionTags) Validate() error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	if len(c.Tags) == 0 {
		return InvalidInput("tags", "must hold at least one tag")
	}
	for k := range c.Tags {
		if !tagKey.MatchString(k) {
			return NewError(CodeInvalidTagKey, k)
		}
	}
	return validateTags(c.Tags)
}

// SetExecutionTagsResult has all tags after the change.
type SetExecutionTagsResult struct{ Tags map[string]string }

// ExecutionPayload is what a worker needs to run an execution.
type ExecutionPayload struct {
	Payload  []byte
	Encoding string
	Kind     string
	Tags     map[string]string
}

// ListExecutions asks for a page of executions, newest first unless Oldest.
// Empty filters match everything.
type ListExecutions struct {
	Lane      LaneID
	State     PublicState
	Kind      string
	Namespace Namespace
	Oldest    bool
	// Cursor continues after the page that returned it.
	Cursor string
	// Limit is 1 to MaxPageLimit; 0 means DefaultPageLimit.
	Limit int
}

// Validate checks the query.
func (c *ListExecutions) Validate() error {
	if c.Lane != "" {
		if err := c.Lane.Validate(); err != nil {
			return err
		}
	}
	if c.State != "" && !c.State.Valid() {
		return InvalidInput("state", "unknown state %q", string(c.State))
	}
	if err := checkText("kind", c.Kind, MaxKindBytes); err != nil {
		return err
	}
	return checkLimit(c.Limit)
}

// ListExecutionsResult is a page; Next is empty on the last one.
type ListExecutionsResult struct {
	Executions []Execution
	Next       string
}

// ListPartition asks for the execution ids of one partition in ascending order
// (spec 08 §3.1).
type ListPartition struct {
	Partition uint16
	After     ExecutionID
	Limit     int
}

// Validate checks the query.
func (c *ListPartition) Validate() error { return checkLimit(c.Limit) }

// ListPartitionResult is a page of ids; Next is zero on the last one.
type ListPartitionResult struct {
	IDs  []ExecutionID
	Next ExecutionID
}

// LaneStatus counts the executions of a lane by public state. The counts are
// kept by the store, never scanned.
type LaneStatus struct {
	Lane   LaneID              `json:"lane_id"`
	Counts map[PublicState]int `json:"counts"`
	// Oldest is when the execution that waits longest was created; zero when
	// nothing waits.
	Oldest time.Time `json:"oldest_waiting_at,omitzero"`
}

// AtItem puts the position of a batch item in front of an error's field.
func AtItem(field string, index int, err error) error {
	return InField(field+"["+strconv.Itoa(index)+"]", err)
}

// InField puts the field that holds a part in front of the field of the part's
// error.
func InField(field string, err error) error {
	e, ok := AsError(err)
	if !ok {
		return err
	}
	at := *e
	at.Field = field
	if e.Field != "" {
		at.Field += "." + e.Field
	}
	return &at
}

// CloneTags copies tags; nil stays nil.
func CloneTags(tags map[string]string) map[string]string { return maps.Clone(tags) }

func checkID(id ExecutionID) error {
	if id.IsZero() {
		return InvalidInput("execution_id", "must not be empty")
	}
	return nil
}

func checkText(field, value string, limit int) error {
	if len(value) > limit {
		return InvalidInput(field, "exceeds %d bytes (got %d)", limit, len(value))
	}
	if !utf8.ValidString(value) {
		return InvalidInput(field, "is not valid UTF-8")
	}
	if strings.IndexByte(value, 0) >= 0 {
		return InvalidInput(field, "must not contain a NUL byte")
	}
	return nil
}

func checkLimit(limit int) error {
	if limit < 0 || limit > MaxPageLimit {
		return InvalidInput("limit", "must be 1 to %d (got %d)", MaxPageLimit, limit)
	}
	return nil
}

// checkInstant refuses instants that milliseconds since 1970 cannot hold or
// that are absurdly far away.
func checkInstant(field string, at time.Time) error {
	if at.IsZero() {
		return nil
	}
	if y := at.Year(); y < 1970 || y > 9999 {
		return InvalidInput(field, "must lie between the years 1970 and 9999 (got %d)", y)
	}
	return nil
}

func tooLarge(field string, got, limit int) error {
	e := Errorf(CodePayloadTooLarge, "exceeds %d bytes (got %d)", limit, got)
	e.Field = field
	return e
}

func validateTags(tags map[string]string) error {
	if len(tags) > MaxTags {
		return InvalidInput("tags", "more than %d tags (got %d)", MaxTags, len(tags))
	}
	for k, v := range tags {
		if k == "" {
			return InvalidInput("tags", "a key must not be empty")
		}
		if err := checkText("tags."+k, k, MaxTagKeyBytes); err != nil {
			return err
		}
		if err := checkText("tags."+k, v, MaxTagValueBytes); err != nil {
			return err
		}
	}
	return nil
}

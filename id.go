package flowfabric

import (
	"encoding"
	"errors"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/uuid"
)

// ID is an id made of one UUID. The kind makes ids of different things
// different types.
type ID[K idKind] uuid.UUID

type idKind interface{ noun() string }

type (
	flowKind        struct{}
	budgetKind      struct{}
	quotaPolicyKind struct{}
	leaseKind       struct{}
	attemptKind     struct{}
	signalKind      struct{}
	waitpointKind   struct{}
	suspensionKind  struct{}
	edgeKind        struct{}
)

func (flowKind) noun() string        { return "flow_id" }
func (budgetKind) noun() string      { return "budget_id" }
func (quotaPolicyKind) noun() string { return "quota_policy_id" }
func (leaseKind) noun() string       { return "lease_id" }
func (attemptKind) noun() string     { return "attempt_id" }
func (signalKind) noun() string      { return "signal_id" }
func (waitpointKind) noun() string   { return "waitpoint_id" }
func (suspensionKind) noun() string  { return "suspension_id" }
func (edgeKind) noun() string        { return "edge_id" }

// The ids made of one UUID (spec 01 §2.2).
type (
	// FlowID names a flow.
	FlowID = ID[flowKind]
	// BudgetID names a budget.
	BudgetID = ID[budgetKind]
	// QuotaPolicyID names a quota policy.
	QuotaPolicyID = ID[quotaPolicyKind]
	// LeaseID names a lease.
	LeaseID = ID[leaseKind]
	// AttemptID names an attempt.
	AttemptID = ID[attemptKind]
	// SignalID names a signal.
	SignalID = ID[signalKind]
	// WaitpointID names a waitpoint.
	WaitpointID = ID[waitpointKind]
	// SuspensionID names a suspension.
	SuspensionID = ID[suspensionKind]
	// EdgeID names an edge of a flow.
	EdgeID = ID[edgeKind]
)

// The New functions mint random ids (UUID version 4). They read the system's
// random source each time: a pool (uuid.EnableRandPool) would be a switch for the
// whole process of whoever imports this package, would keep coming ids in memory,
// and saves little next to a write to a store.

// NewFlowID mints a flow id.
func NewFlowID() FlowID { return FlowID(uuid.New()) }

// NewBudgetID mints a budget id.
func NewBudgetID() BudgetID { return BudgetID(uuid.New()) }

// NewQuotaPolicyID mints a quota policy id.
func NewQuotaPolicyID() QuotaPolicyID { return QuotaPolicyID(uuid.New()) }

// NewLeaseID mints a lease id.
func NewLeaseID() LeaseID { return LeaseID(uuid.New()) }

// NewAttemptID mints an attempt id.
func NewAttemptID() AttemptID { return AttemptID(uuid.New()) }

// NewSignalID mints a signal id.
func NewSignalID() SignalID { return SignalID(uuid.New()) }

// NewWaitpointID mints a waitpoint id.
func NewWaitpointID() WaitpointID { return WaitpointID(uuid.New()) }

// NewSuspensionID mints a suspension id.
func NewSuspensionID() SuspensionID { return SuspensionID(uuid.New()) }

// NewEdgeID mints an edge id.
func NewEdgeID() EdgeID { return EdgeID(uuid.New()) }

// ParseID reads an id in any usual UUID form: with or without hyphens, in braces
// or with the urn:uuid: prefix, hex digits in either letter case (spec 01 §2.2).
// Errors: invalid_input naming the kind of id and the value.
func ParseID[I ID[K], K idKind](s string) (I, error) {
	u, err := parseUUID(s)
	if err != nil {
		var k K
		return I{}, InvalidInput(k.noun(), "%q is not a UUID", s)
	}
	return I(u), nil
}

// ParseFlowID reads a flow id; errors as ParseID.
func ParseFlowID(s string) (FlowID, error) { return ParseID[FlowID](s) }

// ParseBudgetID reads a budget id; errors as ParseID.
func ParseBudgetID(s string) (BudgetID, error) { return ParseID[BudgetID](s) }

// ParseQuotaPolicyID reads a quota policy id; errors as ParseID.
func ParseQuotaPolicyID(s string) (QuotaPolicyID, error) { return ParseID[QuotaPolicyID](s) }

// ParseLeaseID reads a lease id; errors as ParseID.
func ParseLeaseID(s string) (LeaseID, error) { return ParseID[LeaseID](s) }

// ParseAttemptID reads an attempt id; errors as ParseID.
func ParseAttemptID(s string) (AttemptID, error) { return ParseID[AttemptID](s) }

// ParseSignalID reads a signal id; errors as ParseID.
func ParseSignalID(s string) (SignalID, error) { return ParseID[SignalID](s) }

// ParseWaitpointID reads a waitpoint id; errors as ParseID.
func ParseWaitpointID(s string) (WaitpointID, error) { return ParseID[WaitpointID](s) }

// ParseSuspensionID reads a suspension id; errors as ParseID.
func ParseSuspensionID(s string) (SuspensionID, error) { return ParseID[SuspensionID](s) }

// ParseEdgeID reads an edge id; errors as ParseID.
func ParseEdgeID(s string) (EdgeID, error) { return ParseID[EdgeID](s) }

// parseUUID reads the forms of spec 01 §2.2 and no others: uuid.Parse would take
// any two characters for the braces.
func parseUUID(s string) (uuid.UUID, error) {
	const braced, urn = len("{}") + 36, len(urnPrefix) + 36
	switch {
	case len(s) == braced && (s[0] != '{' || s[braced-1] != '}'),
		len(s) == urn && !strings.HasPrefix(s, urnPrefix):
		return uuid.UUID{}, errUUIDForm
	}
	return uuid.Parse(s)
}

const urnPrefix = "urn:uuid:"

var errUUIDForm = errors.New("not a form of a UUID")

// String is the canonical form: lower case with hyphens.
func (id ID[K]) String() string { return uuid.UUID(id).String() }

// UUID is the id as a UUID.
func (id ID[K]) UUID() uuid.UUID { return uuid.UUID(id) }

// IsZero reports whether the id is unset (the nil UUID).
func (id ID[K]) IsZero() bool { return id == ID[K]{} }

// MarshalText writes the canonical form, nothing for an unset id.
func (id ID[K]) MarshalText() ([]byte, error) {
	if id.IsZero() {
		return nil, nil
	}
	return uuid.UUID(id).MarshalText()
}

// UnmarshalText reads what ParseID reads; the empty text is the unset id.
func (id *ID[K]) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*id = ID[K]{}
		return nil
	}
	parsed, err := ParseID[ID[K]](string(text))
	if err == nil {
		*id = parsed
	}
	return err
}

// ExecutionID names an execution: `{fp:N}:<uuid>`, where N is its partition
// (spec 01 §2.3). The text is kept as it was given, because it is part of keys;
// only canonical forms are minted, and only those can be created.
type ExecutionID struct {
	text      string
	uuid      uuid.UUID
	partition uint16
}

var (
	_ encoding.TextMarshaler   = ExecutionID{}
	_ encoding.TextUnmarshaler = (*ExecutionID)(nil)
)

// MakeExecutionID is the id of a UUID on a partition.
func MakeExecutionID(partition uint16, u uuid.UUID) ExecutionID {
	var b [48]byte
	text := append(b[:0], "{fp:"...)
	text = strconv.AppendUint(text, uint64(partition), 10)
	text = append(text, "}:"...)
	text = append(text, u.String()...)
	return ExecutionID{text: string(text), uuid: u, partition: partition}
}

// NewExecutionID mints the id of an execution outside of flows, on the partition
// of its lane. Its UUID is of version 7, so that ids sort by age and recent ones
// stay together in indexes.
func NewExecutionID(lane LaneID, cfg PartitionConfig) ExecutionID {
	return SoloExecutionID(lane, cfg, newUUIDv7())
}

// NewFlowExecutionID mints the id of a flow's member, on the partition of the
// flow, with a UUID as NewExecutionID makes it.
func NewFlowExecutionID(flow FlowID, cfg PartitionConfig) ExecutionID {
	return FlowExecutionID(flow, cfg, newUUIDv7())
}

// SoloExecutionID is the id of an execution outside of flows with the caller's
// UUID, of any version: the same arguments give the same id.
func SoloExecutionID(lane LaneID, cfg PartitionConfig, u uuid.UUID) ExecutionID {
	return MakeExecutionID(cfg.LanePartition(lane), u)
}

// FlowExecutionID is the id of a flow's member with the caller's UUID, of any
// version: the same arguments give the same id.
func FlowExecutionID(flow FlowID, cfg PartitionConfig, u uuid.UUID) ExecutionID {
	return MakeExecutionID(cfg.FlowPartition(flow), u)
}

func newUUIDv7() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// ParseExecutionID reads an id. Errors: invalid_input with the three texts of
// spec 01 §2.3.
func ParseExecutionID(s string) (ExecutionID, error) {
	const field = "execution_id"
	rest, ok := strings.CutPrefix(s, "{fp:")
	number, id, ok2 := strings.Cut(rest, "}:")
	if !ok || !ok2 {
		return ExecutionID{}, InvalidInput(field, "execution_id is missing the `{fp:N}:` hash-tag prefix: %s", s)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(number, "+"), 10, 16)
	if err != nil {
		return ExecutionID{}, InvalidInput(field, "execution_id partition index is not a valid u16: %s", number)
	}
	u, err := parseUUID(id)
	if err != nil {
		return ExecutionID{}, InvalidInput(field, "execution_id UUID suffix is not a valid UUID: %s", id)
	}
	return ExecutionID{text: s, uuid: u, partition: uint16(n)}, nil
}

// String is the text of the id.
func (id ExecutionID) String() string { return id.text }

// Partition is the flow partition that holds the execution.
func (id ExecutionID) Partition() uint16 { return id.partition }

// UUID is the part behind the partition.
func (id ExecutionID) UUID() uuid.UUID { return id.uuid }

// IsZero reports whether the id is unset.
func (id ExecutionID) IsZero() bool { return id.text == "" }

// IsCanonical reports whether the text is the one that MakeExecutionID gives.
func (id ExecutionID) IsCanonical() bool {
	return id.text == MakeExecutionID(id.partition, id.uuid).text
}

// Compare orders ids by their text.
func (id ExecutionID) Compare(other ExecutionID) int { return strings.Compare(id.text, other.text) }

// MarshalText writes the text.
func (id ExecutionID) MarshalText() ([]byte, error) { return []byte(id.text), nil }

// UnmarshalText reads what ParseExecutionID reads; the empty text is the unset
// id.
func (id *ExecutionID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*id = ExecutionID{}
		return nil
	}
	parsed, err := ParseExecutionID(string(text))
	if err == nil {
		*id = parsed
	}
	return err
}

// MaxLaneIDBytes bounds a lane id.
const MaxLaneIDBytes = 64

// LaneID names a lane: a queue that workers serve (spec 01 §2.4).
type LaneID string

// ParseLaneID checks a lane id.
func ParseLaneID(s string) (LaneID, error) { return LaneID(s), LaneID(s).Validate() }

// Validate checks that the id is 1 to 64 printable ASCII bytes.
func (l LaneID) Validate() error {
	const field = "lane_id"
	if l == "" {
		return InvalidInput(field, "lane_id is empty")
	}
	if len(l) > MaxLaneIDBytes {
		return InvalidInput(field, "lane_id exceeds %d bytes (got %d)", MaxLaneIDBytes, len(l))
	}
	for i := range len(l) {
		if l[i] < 0x20 || l[i] > 0x7e {
			return InvalidInput(field, "lane_id contains non-ASCII-printable byte at index %d", i)
		}
	}
	return nil
}

// UnmarshalText reads and checks a lane id.
func (l *LaneID) UnmarshalText(text []byte) error {
	parsed, err := ParseLaneID(string(text))
	if err == nil {
		*l = parsed
	}
	return err
}

// MaxIdentifierBytes bounds worker ids, worker instance ids and namespaces.
const MaxIdentifierBytes = 256

// WorkerID names a worker: all processes that run the same code.
type WorkerID string

// Validate checks the identifier rule of spec 08 §3.13.
func (w WorkerID) Validate() error { return checkIdentifier("worker_id", string(w)) }

// WorkerInstanceID names one process of a worker.
type WorkerInstanceID string

// Validate checks the identifier rule of spec 08 §3.13.
func (w WorkerInstanceID) Validate() error {
	return checkIdentifier("worker_instance_id", string(w))
}

// Namespace labels the tenant of an execution or a worker; empty is allowed.
type Namespace string

// Validate checks the identifier rule of spec 08 §3.13, except that a namespace
// may be empty.
func (n Namespace) Validate() error {
	if n == "" {
		return nil
	}
	return checkIdentifier("namespace", string(n))
}

func checkIdentifier(field, s string) error {
	if s == "" {
		return InvalidInput(field, "must not be empty")
	}
	if len(s) > MaxIdentifierBytes {
		return InvalidInput(field, "exceeds %d bytes (got %d)", MaxIdentifierBytes, len(s))
	}
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar {
			return InvalidInput(field, "must not contain whitespace or control characters")
		}
	}
	return nil
}

// CancelSource says who ended an execution (spec 01 §2.6). Other words than the
// constants are kept as they are.
type CancelSource string

// The known sources.
const (
	SourceOperatorOverride CancelSource = "operator_override"
	SourceLeaseHolder      CancelSource = "lease_holder"
	SourceFlowCascade      CancelSource = "flow_cascade"
	SourceSystemTimeout    CancelSource = "system_timeout"
	SourceWorker           CancelSource = "worker"
)

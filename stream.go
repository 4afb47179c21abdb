package flowfabric

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// Every attempt has one output stream: frames in the order in which its worker
// appended them, and a summary document that summary frames keep up to date (spec
// 04c). Writing needs the lease of the attempt; anybody may read, and go on reading
// until the stream is closed, which it is when the attempt has ended.

// FrameMode says how long a frame is kept. Frames of different modes share one stream
// and its trimming: a best-effort frame keeps as many as its rate asks for, whatever
// their modes.
type FrameMode string

// The modes (spec 04c §1).
const (
	// FrameDurable keeps the newest DefaultFrameRetention frames, or as many as the
	// append says.
	FrameDurable FrameMode = "durable"
	// FrameSummary merges the payload into the summary document of the attempt. A stream
	// of nothing else keeps about the newest SummaryRetention frames; one that has had
	// others keeps as many as for a durable frame.
	FrameSummary FrameMode = "summary"
	// FrameBestEffort is for output that is only interesting live. How many frames are
	// kept follows their rate; a stream that has nothing else is deleted two TTLs after
	// its last frame.
	FrameBestEffort FrameMode = "best_effort"
)

// Limits of streams.
const (
	// MaxFramePayloadBytes bounds the payload of one frame.
	MaxFramePayloadBytes = 64 << 10
	// MaxFrameTypeBytes bounds the type of a frame.
	MaxFrameTypeBytes = 256
	// MaxFrameSourceBytes bounds the source of a frame.
	MaxFrameSourceBytes = 256
	// MaxCorrelationIDBytes bounds the correlation id of a frame or a signal.
	MaxCorrelationIDBytes = 256
	// MaxAppendBytes bounds the payloads of one append.
	MaxAppendBytes = 8 << 20
	// DefaultFrameRetention is how many durable frames a stream keeps.
	DefaultFrameRetention = 10_000
	// MaxFrameRetention bounds what an append may ask for.
	MaxFrameRetention = 100_000
	// SummaryRetention is about how many frames a stream of summary frames keeps.
	SummaryRetention = 64
	// DefaultFrameTTL is the TTL of best-effort frames.
	DefaultFrameTTL = 15 * time.Second
	// MaxFrameTTL bounds it.
	MaxFrameTTL = 24 * time.Hour
	// MaxSummaryDepth is how deep an object of a patch may lie in other objects.
	MaxSummaryDepth = 16
	// MaxSummaryBytes bounds the summary document; a patch that makes it larger is
	// refused.
	MaxSummaryBytes = 1 << 20
	// MaxTailWait bounds how long one tail may wait for frames.
	MaxTailWait = 30 * time.Second
	// MaxFrameLimit bounds the frames of one page.
	MaxFrameLimit = 10_000
	// DefaultFrameLimit is the size of a page when none is given.
	DefaultFrameLimit = 100
	// MaxFramePageBytes bounds the payloads of a page: one that has reached it ends
	// there, with More.
	MaxFramePageBytes = 8 << 20
)

// SummaryNull is the text that stands for null in a patch of the summary, where null
// itself deletes a member (spec 04c §5.2).
const SummaryNull = "__ff_null__"

// FrameID is the position of a frame in its stream: the store's clock in milliseconds
// and a number that tells frames of the same millisecond apart.
type FrameID struct {
	Ms  uint64
	Seq uint64
}

// IsZero reports whether the id is the position before all frames.
func (f FrameID) IsZero() bool { return f == FrameID{} }

// Compare orders positions.
func (f FrameID) Compare(g FrameID) int {
	switch {
	case f == g:
		return 0
	case f.Ms < g.Ms, f.Ms == g.Ms && f.Seq < g.Seq:
		return -1
	}
	return 1
}

// Next is the position right after; the last one is its own.
func (f FrameID) Next() FrameID {
	switch {
	case f.Seq < math.MaxUint64:
		return FrameID{f.Ms, f.Seq + 1}
	case f.Ms < math.MaxUint64:
		return FrameID{f.Ms + 1, 0}
	}
	return f
}

// String is the form of the wire, "ms-seq".
func (f FrameID) String() string {
	return strconv.FormatUint(f.Ms, 10) + "-" + strconv.FormatUint(f.Seq, 10)
}

// MarshalText gives the form of the wire.
func (f FrameID) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads the form of the wire.
func (f *FrameID) UnmarshalText(b []byte) (err error) {
	*f, err = ParseFrameID(string(b))
	return err
}

// ParseFrameID reads "ms-seq" or "ms", which means "ms-0". Errors: invalid_input.
func ParseFrameID(s string) (FrameID, error) {
	bad := func() (FrameID, error) {
		return FrameID{}, InvalidInput("frame_id", "must be MS or MS-SEQ in decimal digits (got %.60q)", s)
	}
	ms, seq, both := strings.Cut(s, "-")
	var f FrameID
	var err error
	if f.Ms, err = strconv.ParseUint(ms, 10, 64); err != nil || ms[0] == '+' {
		return bad()
	}
	if both {
		if f.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil || seq[0] == '+' {
			return bad()
		}
	}
	return f, nil
}

// NewFrame is a frame to append. Only Payload or Type is needed.
type NewFrame struct {
	// Type is free text for readers, such as "token" or "stdout".
	Type string
	// Payload is any bytes; of a summary frame, a JSON object: the patch.
	Payload []byte
	// Encoding says how to read the payload; empty means utf8.
	Encoding string
	// Source says who wrote it; empty means worker.
	Source        string
	CorrelationID string
	// Mode is FrameDurable when empty.
	Mode FrameMode
	// At is the writer's clock; the store's when zero.
	At time.Time
	// TTL is for FrameBestEffort only; 0 means DefaultFrameTTL.
	TTL time.Duration
}

func (f *NewFrame) validate() error {
	if n := len(f.Payload); n > MaxFramePayloadBytes {
		return tooLarge("payload", n, MaxFramePayloadBytes)
	}
	for _, t := range []struct {
		field, text string
		limit       int
	}{{"frame_type", f.Type, MaxFrameTypeBytes}, {"encoding", f.Encoding, MaxEncodingBytes},
		{"source", f.Source, MaxFrameSourceBytes}, {"correlation_id", f.CorrelationID, MaxCorrelationIDBytes}} {
		if err := checkText(t.field, t.text, t.limit); err != nil {
			return err
		}
	}
	if err := checkInstant("ts", f.At); err != nil {
		return err
	}
	return f.validateMode()
}

func (f *NewFrame) validateMode() error {
	switch f.Mode {
	case "", FrameDurable:
	case FrameSummary:
		var patch map[string]json.RawMessage
		if err := json.Unmarshal(f.Payload, &patch); err != nil || patch == nil {
			return InvalidInput("payload", "of a summary frame must be a JSON object (got %.60q)", f.Payload)
		}
	case FrameBestEffort:
		if f.TTL < 0 || f.TTL > MaxFrameTTL {
			return InvalidInput("ttl_ms", "must be 0 to %s (got %s)", MaxFrameTTL, f.TTL)
		}
		return nil
	default:
		return InvalidInput("mode", "must be %s, %s or %s (got %.40q)", FrameDurable, FrameSummary, FrameBestEffort, string(f.Mode))
	}
	if f.TTL != 0 {
		return InvalidInput("ttl_ms", "is for mode %s only (got %s)", FrameBestEffort, f.TTL)
	}
	return nil
}

// AppendFrames appends to the stream of the attempt that the lease belongs to, all
// frames or none.
type AppendFrames struct {
	LeaseRef
	Frames []NewFrame
	// Retention is how many frames the stream keeps after an append with durable
	// frames; 0 means DefaultFrameRetention.
	Retention int
}

// Validate checks the command. Errors: invalid_input, payload_too_large,
// fence_required, partial_fence_triple.
func (c *AppendFrames) Validate() error {
	if err := c.LeaseRef.Validate(); err != nil {
		return err
	}
	if n := len(c.Frames); n == 0 || n > MaxBatch {
		return InvalidInput("frames", "must hold 1 to %d items (got %d)", MaxBatch, n)
	}
	if c.Retention < 0 || c.Retention > MaxFrameRetention {
		return InvalidInput("retention", "must be 0 to %d (got %d)", MaxFrameRetention, c.Retention)
	}
	size := 0
	for i := range c.Frames {
		if err := c.Frames[i].validate(); err != nil {
			return AtItem("frames", i, err)
		}
		size += len(c.Frames[i].Payload)
	}
	if size > MaxAppendBytes {
		return tooLarge("frames", size, MaxAppendBytes)
	}
	return nil
}

// AppendFramesResult says where the frames are.
type AppendFramesResult struct {
	// IDs are the positions, in the order of the command.
	IDs []FrameID
	// Count is how many frames the attempt has appended so far, also those that are
	// trimmed by now.
	Count int64
	// SummaryVersion is the version of the summary after the last summary frame; 0 when
	// there was none in this command.
	SummaryVersion int64
}

// Frame is one frame of a stream.
type Frame struct {
	ID            FrameID
	Type          string
	Payload       []byte
	Encoding      string
	Source        string
	CorrelationID string
	Mode          FrameMode
	// At is the writer's clock.
	At time.Time
	// TTL is set on best-effort frames.
	TTL time.Duration
	// SummaryVersion is set on summary frames: the version that the patch made.
	SummaryVersion int64
}

// StreamRef names the output stream of an attempt.
type StreamRef struct {
	ID           ExecutionID
	AttemptIndex int
}

// Validate checks the reference. Errors: invalid_input.
func (r StreamRef) Validate() error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	if r.AttemptIndex < 0 {
		return InvalidInput("attempt_index", "must not be negative (got %d)", r.AttemptIndex)
	}
	return nil
}

// ReadFrames asks for the frames from one position to another, both included, oldest
// first.
type ReadFrames struct {
	StreamRef
	From FrameID
	// To is the last position wanted; zero means the end.
	To    FrameID
	Limit int
	// Durable leaves best-effort frames out.
	Durable bool
}

// Validate checks the query.
func (c *ReadFrames) Validate() error {
	if err := c.StreamRef.Validate(); err != nil {
		return err
	}
	return checkFrameLimit(c.Limit)
}

// TailFrames asks for the frames after a position and waits for the first when there
// are none yet.
type TailFrames struct {
	StreamRef
	// After is the position of the last frame that the caller has; zero for the
	// beginning.
	After FrameID
	// Wait is how long the call may wait, at most MaxTailWait. It ends sooner when the
	// stream is closed.
	Wait  time.Duration
	Limit int
	// Durable leaves best-effort frames out.
	Durable bool
}

// Validate checks the query.
func (c *TailFrames) Validate() error {
	if err := c.StreamRef.Validate(); err != nil {
		return err
	}
	if c.Wait < 0 || c.Wait > MaxTailWait {
		return InvalidInput("wait", "must be 0 to %s (got %s)", MaxTailWait, c.Wait)
	}
	return checkFrameLimit(c.Limit)
}

func checkFrameLimit(limit int) error {
	if limit < 0 || limit > MaxFrameLimit {
		return InvalidInput("limit", "must be 0 to %d (got %d)", MaxFrameLimit, limit)
	}
	return nil
}

// FrameLimit is the size of a page of frames of which limit was asked for, 0 for the
// default.
func FrameLimit(limit int) int {
	if limit == 0 {
		return DefaultFrameLimit
	}
	return limit
}

// FramesResult is a page of a stream. A stream that does not exist has no frames.
type FramesResult struct {
	Frames []Frame
	// Last is the position of the last frame that was looked at, also when it was left
	// out: where to go on. It is the position asked for when there was none.
	Last FrameID
	// More says that the limit was reached, or MaxFramePageBytes: there may be more.
	More bool
	// ClosedAt is set when no frames will follow; ClosedReason says why (spec 04c §4).
	// A stream is closed when its attempt has ended, or was never begun and never will
	// be. After retries the work may go on in the stream of the next attempt.
	ClosedAt     time.Time
	ClosedReason string
}

// Closed reports whether no frames follow those of this page.
func (r *FramesResult) Closed() bool { return !r.ClosedAt.IsZero() && !r.More }

// Summary is the document that the summary frames of an attempt have made.
type Summary struct {
	Document json.RawMessage
	// Version counts the patches; 0 means that there is no summary.
	Version        int64
	FirstAppliedAt time.Time
	UpdatedAt      time.Time
}

// Streams is the output of attempts.
type Streams interface {
	// AppendFrames writes. Errors: stream_closed when the execution is not active,
	// stale_owner_cannot_append when the lease is not the one in force,
	// retention_limit_exceeded, invalid_input for a patch that cannot be merged.
	AppendFrames(context.Context, AppendFrames) (AppendFramesResult, error)
	// ReadFrames reads a range.
	ReadFrames(context.Context, ReadFrames) (FramesResult, error)
	// TailFrames reads what comes after a position, waiting for it.
	TailFrames(context.Context, TailFrames) (FramesResult, error)
	// Summary reads the summary of an attempt; version 0 when there is none.
	Summary(context.Context, StreamRef) (Summary, error)
}

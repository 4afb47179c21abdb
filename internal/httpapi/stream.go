package httpapi

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	ff "github.com/flowfabric/flowfabric"
)

// Append is the body of POST /v1/executions/{id}/frames.
type Append struct {
	Fence     ff.Fence   `json:"fence"`
	Frames    []NewFrame `json:"frames" minItems:"1" maxItems:"1000"`
	Retention int        `json:"retention,omitempty" minimum:"0" maximum:"100000" doc:"How many frames the stream keeps after an append with durable frames; 10000 when absent"`
}

// NewFrame is a frame to append.
type NewFrame struct {
	Type string `json:"frame_type,omitempty" maxLength:"256"`
	FramePayload
	Encoding      string       `json:"encoding,omitempty" maxLength:"64" doc:"How to read the payload; utf8 when absent"`
	Source        string       `json:"source,omitempty" maxLength:"256" doc:"Who wrote it; worker when absent"`
	CorrelationID string       `json:"correlation_id,omitempty" maxLength:"256"`
	Mode          ff.FrameMode `json:"mode,omitempty" enum:"durable,summary,best_effort" doc:"durable when absent"`
	At            Time         `json:"at,omitzero" doc:"The clock of the writer; that of the store when absent"`
	TTLMS         Millis       `json:"ttl_ms,omitempty" minimum:"0" doc:"Of best_effort frames only"`
}

// FramePayload is the payload of a frame: a text, or bytes in base64. At most one is
// given.
type FramePayload struct {
	Text   *string `json:"payload,omitempty" doc:"The payload when it is text; of a summary frame, the text of a JSON object"`
	Base64 []byte  `json:"payload_base64,omitempty" doc:"The payload when it is not"`
}

// PayloadOf makes a payload in the form that is easier to read, unless that would be
// much larger.
func PayloadOf(p []byte) FramePayload {
	if !utf8.Valid(p) || escapes(p)*5 > len(p)/3+64 {
		return FramePayload{Base64: p}
	}
	text := string(p)
	return FramePayload{Text: &text}
}

// escapes counts the bytes that JSON may have to write in six.
func escapes(p []byte) (n int) {
	for _, c := range p {
		switch {
		case c < 0x20, c == '"', c == '\\', c == '<', c == '>', c == '&', c == 0xe2:
			n++
		}
	}
	return n
}

// Bytes is the payload. Errors: invalid_input when both forms are given.
func (p *FramePayload) Bytes() ([]byte, error) {
	switch {
	case p.Text == nil:
		return p.Base64, nil
	case p.Base64 != nil:
		return nil, ff.InvalidInput("payload", "give either payload or payload_base64, not both")
	}
	return []byte(*p.Text), nil
}

// AppendOf makes the body.
func AppendOf(c *ff.AppendFrames) Append {
	b := Append{Fence: c.Fence, Retention: c.Retention, Frames: make([]NewFrame, len(c.Frames))}
	for i := range c.Frames {
		f := &c.Frames[i]
		b.Frames[i] = NewFrame{Type: f.Type, FramePayload: PayloadOf(f.Payload), Encoding: f.Encoding, Source: f.Source,
			CorrelationID: f.CorrelationID, Mode: f.Mode, At: At(f.At), TTLMS: MillisOf(f.TTL)}
	}
	return b
}

// Command is the append of an execution.
func (b *Append) Command(id ff.ExecutionID) (ff.AppendFrames, error) {
	c := ff.AppendFrames{LeaseRef: ff.LeaseRef{ID: id, Fence: b.Fence}, Retention: b.Retention, Frames: make([]ff.NewFrame, len(b.Frames))}
	for i := range b.Frames {
		f := &b.Frames[i]
		payload, err := f.Bytes()
		if err != nil {
			return c, ff.AtItem("frames", i, err)
		}
		ttl, err := f.TTLMS.Duration("ttl_ms")
		if err != nil {
			return c, ff.AtItem("frames", i, err)
		}
		c.Frames[i] = ff.NewFrame{Type: f.Type, Payload: payload, Encoding: f.Encoding, Source: f.Source,
			CorrelationID: f.CorrelationID, Mode: f.Mode, At: f.At.Time, TTL: ttl}
	}
	return c, nil
}

// Appended says where the frames are.
type Appended struct {
	IDs            []ff.FrameID `json:"ids"`
	Count          int64        `json:"count" doc:"How many frames the attempt has appended so far"`
	SummaryVersion int64        `json:"summary_version,omitempty" doc:"The version of the summary after the last summary frame of this append"`
}

// AppendedOf makes the answer.
func AppendedOf(r ff.AppendFramesResult) Appended {
	return Appended{IDs: r.IDs, Count: r.Count, SummaryVersion: r.SummaryVersion}
}

// Result is the answer in the words of the store.
func (a *Appended) Result() ff.AppendFramesResult {
	return ff.AppendFramesResult{IDs: a.IDs, Count: a.Count, SummaryVersion: a.SummaryVersion}
}

// Frame is one frame of a stream.
type Frame struct {
	ID   ff.FrameID `json:"id"`
	Type string     `json:"frame_type,omitempty"`
	FramePayload
	Encoding       string       `json:"encoding,omitempty"`
	Source         string       `json:"source,omitempty"`
	CorrelationID  string       `json:"correlation_id,omitempty"`
	Mode           ff.FrameMode `json:"mode"`
	At             Time         `json:"at,omitzero"`
	TTLMS          Millis       `json:"ttl_ms,omitempty"`
	SummaryVersion int64        `json:"summary_version,omitempty"`
}

// FrameOf makes a Frame.
func FrameOf(f *ff.Frame) Frame {
	return Frame{ID: f.ID, Type: f.Type, FramePayload: PayloadOf(f.Payload), Encoding: f.Encoding, Source: f.Source,
		CorrelationID: f.CorrelationID, Mode: f.Mode, At: At(f.At), TTLMS: MillisOf(f.TTL), SummaryVersion: f.SummaryVersion}
}

// Frame is the frame in the words of the store.
func (f *Frame) Frame() ff.Frame {
	payload := f.Base64
	if f.Text != nil {
		payload = []byte(*f.Text)
	}
	return ff.Frame{ID: f.ID, Type: f.Type, Payload: payload, Encoding: f.Encoding, Source: f.Source, CorrelationID: f.CorrelationID,
		Mode: f.Mode, At: f.At.Time, TTL: time.Duration(f.TTLMS) * time.Millisecond, SummaryVersion: f.SummaryVersion}
}

// Frames is a page of a stream.
type Frames struct {
	Frames []Frame    `json:"frames"`
	Last   ff.FrameID `json:"last" doc:"The position of the last frame that was looked at: where to go on"`
	More   bool       `json:"more" doc:"Whether the limit was reached"`
	Closed
}

// Closed says since when no frames follow, and why; both are absent while the stream
// is open.
type Closed struct {
	ClosedAt     Time   `json:"closed_at,omitzero"`
	ClosedReason string `json:"closed_reason,omitempty"`
}

// FramesOf makes a page.
func FramesOf(r *ff.FramesResult) Frames {
	page := Frames{Frames: make([]Frame, len(r.Frames)), Last: r.Last, More: r.More, Closed: Closed{At(r.ClosedAt), r.ClosedReason}}
	for i := range r.Frames {
		page.Frames[i] = FrameOf(&r.Frames[i])
	}
	return page
}

// Result is the page in the words of the store.
func (p *Frames) Result() ff.FramesResult {
	r := ff.FramesResult{Frames: make([]ff.Frame, len(p.Frames)), Last: p.Last, More: p.More, ClosedAt: p.ClosedAt.Time, ClosedReason: p.ClosedReason}
	for i := range p.Frames {
		r.Frames[i] = p.Frames[i].Frame()
	}
	return r
}

// Visibilities of frames in queries.
const (
	VisibilityAll     = "all"
	VisibilityDurable = "durable"
)

// Summary is the answer of GET /v1/executions/{id}/attempts/{idx}/summary. Version 0
// means that there is none.
type Summary struct {
	Document       json.RawMessage `json:"document,omitempty"`
	Version        int64           `json:"version"`
	FirstAppliedAt Time            `json:"first_applied_at,omitzero"`
	UpdatedAt      Time            `json:"updated_at,omitzero"`
}

// SummaryOf makes a Summary.
func SummaryOf(s *ff.Summary) Summary {
	return Summary{Document: s.Document, Version: s.Version, FirstAppliedAt: At(s.FirstAppliedAt), UpdatedAt: At(s.UpdatedAt)}
}

// Result is the summary in the words of the store.
func (s *Summary) Result() ff.Summary {
	r := ff.Summary{Version: s.Version, FirstAppliedAt: s.FirstAppliedAt.Time, UpdatedAt: s.UpdatedAt.Time}
	if len(s.Document) > 0 {
		r.Document = s.Document
	}
	return r
}

// StreamFrames is a page of a stream as the reference answers it (spec 08 §3.14).
type StreamFrames struct {
	Frames []StreamFrame `json:"frames"`
	Count  int           `json:"count"`
	Closed
}

// StreamFrame is a frame whose fields are texts as they are stored.
type StreamFrame struct {
	ID     ff.FrameID        `json:"id"`
	Fields map[string]string `json:"fields"`
}

// StreamFramesOf makes the answer.
func StreamFramesOf(r *ff.FramesResult) StreamFrames {
	page := StreamFrames{Frames: make([]StreamFrame, len(r.Frames)), Count: len(r.Frames), Closed: Closed{At(r.ClosedAt), r.ClosedReason}}
	for i := range r.Frames {
		page.Frames[i] = streamFrameOf(&r.Frames[i])
	}
	return page
}

// streamFrameOf has the fields in the texts of the wire (spec 04c §3.3).
func streamFrameOf(f *ff.Frame) StreamFrame {
	fields := map[string]string{"frame_type": f.Type, "ts": msText(f.At), "payload": string(f.Payload), "encoding": f.Encoding,
		"source": f.Source, "mode": string(f.Mode)}
	if f.CorrelationID != "" {
		fields["correlation_id"] = f.CorrelationID
	}
	if f.SummaryVersion > 0 {
		fields["summary_version"] = strconv.FormatInt(f.SummaryVersion, 10)
	}
	if f.TTL > 0 {
		fields["ttl_ms"] = strconv.FormatInt(f.TTL.Milliseconds(), 10)
	}
	return StreamFrame{ID: f.ID, Fields: fields}
}

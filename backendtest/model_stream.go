package backendtest

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// modelStream is what the rules say about the stream of one attempt.
type modelStream struct {
	stream  lifecycle.Stream
	frames  []ff.Frame
	summary ff.Summary
}

// modelStreamLength bounds the frames of a stream: stores may trim longer ones in
// blocks.
const modelStreamLength = ff.SummaryRetention

// modelPatches are small so that they meet.
var modelPatches = []string{`{"a":1}`, `{"a":{"b":{"c":1.5}}}`, `{"a":{"b":"__ff_null__"}}`, `{"a":{"b":null}}`, `{"a":[1,{"n":null}],"d":[]}`,
	`{"a":[false,null,"x"]}`, `{"a":{}}`, `{"a":null}`, `{}`, `{"x":{"a":[]}}`, `{"a":[false,null,null,null,null,null,null,null,null,null,null,7]}`}

func (m *model) appendFrames(t *rapid.T) {
	e, ref := m.pickRef(t)
	if e == nil {
		return
	}
	c := ff.AppendFrames{LeaseRef: ref}
	for i := range rapid.IntRange(1, 3).Draw(t, "frames") {
		c.Frames = append(c.Frames, drawFrame(t, i))
	}
	index := e.x.Attempt.Index
	before := e.streams[index]
	if before == nil {
		before = &modelStream{}
	}
	if len(before.frames) > modelStreamLength-len(c.Frames) {
		return
	}
	got, err := m.store.AppendFrames(t.Context(), c)
	after, want, refused := before.append(&e.x, &c, m.now)
	m.sameFate(err, refused)
	m.equal("the append", got, want)
	if refused == nil {
		if e.streams == nil {
			e.streams = map[int]*modelStream{}
		}
		e.streams[index] = after
	}
}

func drawFrame(t *rapid.T, i int) ff.NewFrame {
	f := ff.NewFrame{Type: "k", Payload: []byte(fmt.Sprint(i)),
		Mode: rapid.SampledFrom([]ff.FrameMode{ff.FrameBestEffort, ff.FrameDurable, ff.FrameSummary}).Draw(t, "mode")}
	switch f.Mode {
	case ff.FrameSummary:
		f.Payload = []byte(rapid.SampledFrom(modelPatches).Draw(t, "patch"))
	case ff.FrameBestEffort:
		f.TTL = rapid.SampledFrom([]time.Duration{777 * time.Millisecond, 0}).Draw(t, "ttl")
	case ff.FrameDurable:
	}
	return f
}

// append applies the rules to a copy.
func (s *modelStream) append(x *ff.Execution, c *ff.AppendFrames, now time.Time) (*modelStream, ff.AppendFramesResult, error) {
	args, err := lifecycle.PrepareAppend(c)
	if err != nil {
		return nil, ff.AppendFramesResult{}, err
	}
	summary, err := lifecycle.ReadSummary(s.summary)
	if err != nil {
		return nil, ff.AppendFramesResult{}, err
	}
	after := *s
	a, err := lifecycle.Append(x, &after.stream, summary, &args, now)
	if err != nil {
		return nil, ff.AppendFramesResult{}, err
	}
	if a.Restart {
		after.frames = nil
	}
	after.frames = append(after.frames[:len(after.frames):len(after.frames)], a.Frames...)
	r := ff.AppendFramesResult{Count: after.stream.Count}
	for i := range a.Frames {
		r.IDs = append(r.IDs, a.Frames[i].ID)
	}
	if args.Patches() {
		after.summary, r.SummaryVersion = summary.Summary, summary.Version
	}
	return &after, r, nil
}

// checkStreams compares the streams of the attempts of an execution, and of the one
// that may follow.
func (m *model) checkStreams(e *modelled) {
	for index := range e.x.TotalAttempts + 1 {
		want := e.streams[index]
		if want == nil {
			want = &modelStream{}
		}
		stream := ff.StreamRef{ID: e.x.ID, AttemptIndex: index}
		got, err := m.store.ReadFrames(m.t.Context(), ff.ReadFrames{StreamRef: stream, Limit: ff.MaxFrameLimit})
		m.must(err)
		frames := want.frames
		if want.stream.Expired(m.now) {
			frames = nil
		}
		m.equal("the frames", got.Frames, frames)
		at, reason := lifecycle.StreamEnd(&e.x, index, e.superseded)
		m.equal("the end of the stream", end{got.ClosedAt, sameEnd(got.ClosedReason)}, end{at, sameEnd(reason)})
		sum, err := m.store.Summary(m.t.Context(), stream)
		m.must(err)
		sum.Document, want.summary.Document = canonical(m.t, sum.Document), canonical(m.t, want.summary.Document)
		m.equal("the summary", sum, want.summary)
	}
}

type end struct {
	At     time.Time
	Reason string
}

// sameEnd takes two reasons as one: after a replay nobody can tell whether a retry
// followed an attempt that time had ended.
func sameEnd(reason string) string {
	if reason == "expired" {
		return "attempt_failure"
	}
	return reason
}

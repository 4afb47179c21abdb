package valkey

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// AppendFrames appends to the stream of an attempt, in one call.
func (s *Store) AppendFrames(ctx context.Context, c ff.AppendFrames) (ff.AppendFramesResult, error) {
	if _, err := lifecycle.PrepareAppend(&c); err != nil {
		return ff.AppendFramesResult{}, err
	}
	call := callAppend(&c)
	a, err := s.answer(ctx, &call)
	if err != nil {
		return ff.AppendFramesResult{}, refusedFrame(err)
	}
	r := ff.AppendFramesResult{Count: a.number(0), SummaryVersion: a.number(1)}
	ids, err := a[2].AsStrSlice()
	if err != nil {
		return r, ff.Errorf(ff.CodeInternal, "%s: %w", call.function, err)
	}
	r.IDs, err = frameIDs(ids)
	return r, err
}

func frameIDs(texts []string) ([]ff.FrameID, error) {
	ids := make([]ff.FrameID, len(texts))
	for i, text := range texts {
		id, err := ff.ParseFrameID(text)
		if err != nil {
			return nil, ff.Errorf(ff.CodeInternal, "an append answered the position %.60q", text)
		}
		ids[i] = id
	}
	return ids, nil
}

// refusedFrame names the frame in an error whose details end with its number.
func refusedFrame(err error) error {
	e, ok := ff.AsError(err)
	if !ok || e.Code != ff.CodeInvalidInput || len(e.Details) != 2 {
		return err
	}
	n, notANumber := strconv.Atoi(e.Details[1])
	if notANumber != nil {
		return err
	}
	return ff.AtItem("frames", n-1, ff.InvalidInput("payload", "%s", e.Details[0]))
}

// frameQuery is a range of a stream that is read in parts.
type frameQuery struct {
	ff.StreamRef
	// from and to are included; a zero to means the end.
	from, to ff.FrameID
	limit    int
	durable  bool
}

// frameChunk bounds the frames of one part, so that pages of large frames are not read
// at once.
const frameChunk = 256

func (q *frameQuery) chunk(got int) int { return min(q.limit-got, frameChunk) }

func (s *Store) rangeCommand(q *frameQuery, from ff.FrameID, count int) valkey.Completed {
	to := "+"
	if !q.to.IsZero() {
		to = q.to.String()
	}
	return s.client.B().Xrange().Key(keysOf(q.ID).stream(q.AttemptIndex)).Start(from.String()).End(to).Count(int64(count)).Build()
}

// ReadFrames reads a range.
func (s *Store) ReadFrames(ctx context.Context, c ff.ReadFrames) (ff.FramesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FramesResult{}, err
	}
	return s.readStream(ctx, &frameQuery{c.StreamRef, c.From, c.To, ff.FrameLimit(c.Limit), c.Durable}, c.From)
}

// TailFrames reads what comes after a position. Who waits leaves a mark on the
// execution: what appends to its streams or ends one removes the mark and publishes.
// Frames and ends of peers that do not publish are found by polling.
func (s *Store) TailFrames(ctx context.Context, c ff.TailFrames) (ff.FramesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FramesResult{}, err
	}
	q := frameQuery{StreamRef: c.StreamRef, from: c.After.Next(), limit: ff.FrameLimit(c.Limit), durable: c.Durable}
	if c.Wait == 0 {
		return s.readStream(ctx, &q, c.After)
	}
	return s.waitForFrames(ctx, &q, c.Wait, c.After)
}

func (s *Store) waitForFrames(ctx context.Context, q *frameQuery, wait time.Duration, last ff.FrameID) (ff.FramesResult, error) {
	s.wakeups.start(ctx)
	end := time.NewTimer(wait)
	defer end.Stop()
	mark := s.client.B().Set().Key(keysOf(q.ID).tails()).Value("1").Px(markTTL).Build().Pin()
	for {
		w := s.wakeups.tails.Wait([]ff.ExecutionID{q.ID}, nil)
		r, err := s.readStream(ctx, q, last, mark)
		if err != nil || len(r.Frames) > 0 || !r.ClosedAt.IsZero() {
			w.Stop()
			return r, err
		}
		again, err := s.await(ctx, w.C(), end.C)
		w.Stop()
		if !again {
			return r, err
		}
		// Who was woken by frames needs neither a mark nor the end of the stream.
		if err := s.readFrames(ctx, q, &r); err != nil || len(r.Frames) > 0 {
			return r, err
		}
		last = r.Last
	}
}

// readStream reads a page of a stream, and before it whether the stream is closed: no
// frame comes after its end. Last is the position that the page goes on from; first are
// commands that come before the reading. What the execution says is mostly enough; if
// not, the attempt is read too.
func (s *Store) readStream(ctx context.Context, q *frameQuery, last ff.FrameID, first ...valkey.Completed) (r ff.FramesResult, err error) {
	if err := s.open(); err != nil {
		return r, err
	}
	for _, whole := range []bool{false, true} {
		r = ff.FramesResult{Last: last}
		commands := append(append(first, s.endCommands(q.StreamRef, whole)...), s.rangeCommand(q, q.from, q.chunk(0)))
		results := s.client.DoMulti(ctx, commands...)
		for _, result := range results[:len(first)] {
			if err := result.Error(); err != nil {
				return r, s.lift(ctx, err)
			}
		}
		known := false
		if r.ClosedAt, r.ClosedReason, known, err = s.streamEnd(ctx, q.StreamRef, results[len(first):len(results)-1]); err != nil {
			return r, err
		}
		if known {
			return r, s.fillPage(ctx, q, &r, results[len(results)-1])
		}
		first = nil
	}
	return r, nil
}

// readFrames reads a page that goes on behind the last position of r.
func (s *Store) readFrames(ctx context.Context, q *frameQuery, r *ff.FramesResult) error {
	return s.fillPage(ctx, q, r, s.client.Do(ctx, s.rangeCommand(q, r.Last.Next(), q.chunk(0))))
}

// fillPage takes the frames of an answer into a page, and reads on until the page is full
// or there are no more.
func (s *Store) fillPage(ctx context.Context, q *frameQuery, r *ff.FramesResult, entries valkey.ValkeyResult) error {
	p := framePage{q: q, r: r}
	for count := q.chunk(0); ; entries = s.client.Do(ctx, s.rangeCommand(q, r.Last.Next(), count)) {
		list, err := entries.ToArray()
		if err != nil {
			return s.lift(ctx, err)
		}
		if err := p.take(list); err != nil {
			return err
		}
		if r.More || len(list) < count {
			return nil
		}
		count = q.chunk(len(r.Frames))
	}
}

// framePage is a page of frames under way.
type framePage struct {
	q     *frameQuery
	r     *ff.FramesResult
	bytes int
}

// take adds entries of the stream until the page is full.
func (p *framePage) take(entries []valkey.ValkeyMessage) error {
	for i := range entries {
		f, err := frameOf(&entries[i])
		if err != nil {
			return ff.Errorf(ff.CodeCorruption, "the stream of attempt %d of %s: %w", p.q.AttemptIndex, p.q.ID, err)
		}
		p.r.Last = f.ID
		if p.q.durable && f.Mode == ff.FrameBestEffort {
			continue
		}
		p.r.Frames = append(p.r.Frames, f)
		p.bytes += len(f.Payload)
		if p.r.More = len(p.r.Frames) == p.q.limit || p.bytes >= ff.MaxFramePageBytes; p.r.More {
			return nil
		}
	}
	return nil
}

// frameOf reads an entry of a stream. A peer may have written any text: what is no
// number is left out, and the time is then that of the position.
func frameOf(m *valkey.ValkeyMessage) (f ff.Frame, err error) {
	parts, err := m.ToArray()
	if err != nil || len(parts) != 2 {
		return f, ff.NewError(ff.CodeCorruption, "an entry of another shape than expected")
	}
	id, err := parts[0].ToString()
	if err != nil {
		return f, err
	}
	if f.ID, err = ff.ParseFrameID(id); err != nil {
		return f, err
	}
	values, err := parts[1].AsStrSlice()
	if err != nil {
		return f, err
	}
	f.Mode, f.At = ff.FrameDurable, time.UnixMilli(int64(f.ID.Ms))
	for i := 0; i+1 < len(values); i += 2 {
		setField(&f, values[i], values[i+1])
	}
	return f, nil
}

func setField(f *ff.Frame, name, value string) {
	switch name {
	case "frame_type":
		f.Type = value
	case "payload":
		if value != "" {
			f.Payload = []byte(value)
		}
	case "encoding":
		f.Encoding = value
	case "source":
		f.Source = value
	case "correlation_id":
		f.CorrelationID = value
	case "mode":
		f.Mode = ff.FrameMode(value)
	case "ts":
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			f.At = time.UnixMilli(n)
		}
	case "summary_version":
		f.SummaryVersion, _ = strconv.ParseInt(value, 10, 64)
	case "ttl_ms":
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			f.TTL = time.Duration(n * float64(time.Millisecond))
		}
	}
}

// The fields that tell whether and why a stream is closed.
var (
	metaEndFields = []string{"closed_at", "closed_reason"}
	coreEndFields = []string{"lifecycle_phase", "ownership_state", "terminal_outcome", "current_attempt_index", "completed_at",
		"lease_expired_at", "failure_reason", "failure_category", "cancellation_reason", "pending_retry_reason"}
	attemptEndFields = []string{"attempt_state", "ended_at", "failure_reason", "failure_category", "attempt_type"}
)

// endCommands read what streamEnd needs; the whole of it, or only what it mostly needs.
func (s *Store) endCommands(r ff.StreamRef, whole bool) []valkey.Completed {
	k, b := keysOf(r.ID), s.client.B()
	commands := []valkey.Completed{b.Hmget().Key(k.streamMeta(r.AttemptIndex)).Field(metaEndFields...).Build(),
		b.Hmget().Key(k.core()).Field(coreEndFields...).Build()}
	if whole {
		commands = append(commands, b.Hmget().Key(k.attempt(r.AttemptIndex)).Field(attemptEndFields...).Build(),
			b.Hmget().Key(k.attempt(r.AttemptIndex+1)).Field(attemptEndFields...).Build())
	}
	return commands
}

// streamEnd is when and why a stream was closed; known is false when that takes the
// whole of endCommands. The record of the stream says so, when frames were written;
// otherwise the execution does. Other ends than those that the worker told give way
// to that of the attempt: its lease had lapsed before, or it was over already.
func (s *Store) streamEnd(ctx context.Context, r ff.StreamRef, answers []valkey.ValkeyResult) (at time.Time, reason string, known bool, err error) {
	var read [4]*fields
	for i, names := range [][]string{metaEndFields, coreEndFields, attemptEndFields, attemptEndFields}[:len(answers)] {
		g, err := glimpseOf(answers[i], names)
		if err != nil {
			return at, "", true, damage(r.ID, s.lift(ctx, err))
		}
		read[i] = fieldsOf(r.ID, g)
	}
	meta, core := read[0], read[1]
	at, reason = meta.instant("closed_at"), meta.m["closed_reason"]
	if core.m == nil || meta.err != nil || !at.IsZero() && lastReasons[reason] {
		return at, reason, true, meta.err
	}
	x, err := endingOf(core)
	if err != nil || isOpen(x, r.AttemptIndex) {
		return at, reason, true, err
	}
	if len(answers) == 2 {
		return at, reason, false, nil
	}
	attempts, err := attemptsFrom(x, r.AttemptIndex, read[2:])
	if err != nil {
		return at, reason, true, err
	}
	derived, why := lifecycle.StreamEnd(x, r.AttemptIndex, attempts)
	if !derived.IsZero() {
		at, reason = derived, why
	}
	return at, reason, true, nil
}

// isOpen reports whether the execution alone shows that a stream is open.
func isOpen(x *ff.Execution, index int) bool {
	if x.TotalAttempts == 0 {
		return !x.Terminal()
	}
	return x.State.Phase == ff.PhaseActive && x.State.Ownership != ff.OwnershipLeaseExpired && index >= x.Attempt.Index
}

// lastReasons are those of ends by the worker itself: nothing changes them.
var lastReasons = map[string]bool{"attempt_success": true, "attempt_failure": true, "reclaimed": true}

// endingOf is as much of an execution as matters to its streams; its attempt is not
// read yet.
func endingOf(f *fields) (*ff.Execution, error) {
	x := &ff.Execution{State: ff.StateVector{Phase: word(f, "lifecycle_phase", ff.LifecyclePhases), Ownership: word(f, "ownership_state", ff.OwnershipStates),
		Outcome: word(f, "terminal_outcome", ff.TerminalOutcomes)},
		CompletedAt: f.instant("completed_at"), LeaseExpiredAt: f.instant("lease_expired_at"),
		FailureReason: f.m["failure_reason"], FailureCategory: f.m["failure_category"], CancellationReason: f.m["cancellation_reason"],
		PendingRetryReason: f.m["pending_retry_reason"]}
	if f.m["current_attempt_index"] != "" {
		x.TotalAttempts, x.Attempt.Index = 1, f.count("current_attempt_index")
	}
	return x, f.err
}

// attemptsFrom reads the attempt of the index and the one after it, as far as they are
// there. The latest is that of the execution.
func attemptsFrom(x *ff.Execution, index int, read []*fields) (list []ff.Attempt, err error) {
	for i, f := range read {
		if f.m == nil {
			continue
		}
		a := ff.Attempt{Index: index + i, State: word(f, "attempt_state", ff.AttemptStates), EndedAt: f.instant("ended_at"),
			FailureReason: f.m["failure_reason"], FailureCategory: f.m["failure_category"], Type: word(f, "attempt_type", ff.AttemptTypes)}
		if f.err != nil {
			return nil, f.err
		}
		if x.TotalAttempts > 0 && a.Index == x.Attempt.Index {
			if x.State.Outcome == ff.OutcomeExpired {
				a.FailureCategory = timeoutCategory // a peer does not say so
			}
			endLast(&a, x)
			x.Attempt = a
		}
		list = append(list, a)
	}
	return list, nil
}

var summaryFields = []string{"document", "version", "first_applied_ms", "last_updated_ms"}

// Summary reads the summary of an attempt.
func (s *Store) Summary(ctx context.Context, r ff.StreamRef) (ff.Summary, error) {
	if err := r.Validate(); err != nil {
		return ff.Summary{}, err
	}
	m, err := s.plain(ctx, s.client.B().Hmget().Key(keysOf(r.ID).summary(r.AttemptIndex)).Field(summaryFields...).Build())
	if err != nil {
		return ff.Summary{}, err
	}
	values, err := m.ToArray()
	if err != nil {
		return ff.Summary{}, s.lift(ctx, err)
	}
	return summaryOf(r, values)
}

func summaryOf(r ff.StreamRef, values reply) (ff.Summary, error) {
	f := &fields{hash: fmt.Sprintf("the summary of attempt %d of %s", r.AttemptIndex, r.ID), m: map[string]string{}}
	for i, name := range summaryFields {
		f.m[name] = values.text(i)
	}
	v := ff.Summary{Version: f.number("version"), FirstAppliedAt: f.instant("first_applied_ms"), UpdatedAt: f.instant("last_updated_ms")}
	if f.err != nil || v.Version == 0 {
		return ff.Summary{}, f.err
	}
	v.Document = json.RawMessage(orElse(f.m["document"], "{}"))
	return v, nil
}

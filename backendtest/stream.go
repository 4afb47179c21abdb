package backendtest

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var streamBehaviours = []behaviour{
	{"frames are read as they were written, in order", framesAsWritten},
	{"what a frame does not say is filled in", frameDefaults},
	{"positions are the clock of the store and grow within a millisecond", positions},
	{"frames are read by range and by pages", frameRanges},
	{"a page ends when its payloads are large", largePages},
	{"a page without best-effort frames says where to go on", durablePages},
	{"every attempt has a stream of its own", streamsOfAttempts},
	{"an attempt that goes on goes on with its stream", streamOfResumed},
	{"only the holder of the lease appends", appendNeedsLease},
	{"an append changes nothing of the execution", appendLeavesExecution},
	{"concurrent appends to one stream are all there", concurrentAppends},
	{"a stream keeps as many durable frames as the append says", durableRetention},
	{"a stream of summary frames keeps about the newest", summaryRetention},
	{"summary frames push out no others", mixedRetention},
	{"best-effort frames go two TTLs after the last", bestEffortExpires},
	{"a durable frame keeps a best-effort stream", durableKeepsBestEffort},
	{"a stream that has expired goes on with its count", expiredGoesOn},
	{"a stream closes with its attempt and says why", streamCloses},
	{"a stream closes whether or not it has frames", silentStreamCloses},
	{"a stream is open while frames may come", streamStaysOpen},
	{"a replay opens the stream of the next attempt", replayOpensStream},
	{"retention deletes streams and summaries", retentionDeletesStreams},
	{"the stream of an unknown execution is empty", unknownStream},
	{"appends and reads that cannot be are refused", badStreamCommands},
}

// streamOf is the output stream of a claimed attempt.
func streamOf(c ff.Claimed) ff.StreamRef {
	return ff.StreamRef{ID: c.Execution.ID, AttemptIndex: c.Execution.Attempt.Index}
}

func textFrame(payload string) ff.NewFrame { return ff.NewFrame{Payload: []byte(payload)} }

func summaryFrame(patch string) ff.NewFrame {
	return ff.NewFrame{Type: "patch", Payload: []byte(patch), Mode: ff.FrameSummary}
}

func liveFrame(payload string, ttl time.Duration) ff.NewFrame {
	return ff.NewFrame{Payload: []byte(payload), Mode: ff.FrameBestEffort, TTL: ttl}
}

func (s *subject) tryAppend(c ff.Claimed, frames ...ff.NewFrame) (ff.AppendFramesResult, error) {
	s.Helper()
	return s.AppendFrames(s.Context(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: frames})
}

func (s *subject) appendTo(c ff.Claimed, frames ...ff.NewFrame) ff.AppendFramesResult {
	s.Helper()
	r, err := s.tryAppend(c, frames...)
	s.must(err)
	if len(r.IDs) != len(frames) {
		s.Fatalf("%d frames appended, %d positions", len(frames), len(r.IDs))
	}
	return r
}

// position is one of this millisecond.
func (s *subject) position(seq uint64) ff.FrameID {
	s.Helper()
	return ff.FrameID{Ms: uint64(s.now().UnixMilli()), Seq: seq}
}

// readFrames reads on until the end of the range.
func (s *subject) readFrames(q ff.ReadFrames) (all ff.FramesResult) {
	s.Helper()
	for all.More = true; all.More; {
		r, err := s.ReadFrames(s.Context(), q)
		s.must(err)
		if len(r.Frames) > ff.FrameLimit(q.Limit) {
			s.Fatalf("a page of %d frames, the limit is %d", len(r.Frames), q.Limit)
		}
		if n := len(r.Frames); n > 0 && r.Last.Compare(r.Frames[n-1].ID) < 0 || r.Last.Compare(q.From) < 0 || r.More && r.Last == q.From && n == 0 {
			s.Fatalf("the page from %s goes on after %s", q.From, r.Last)
		}
		r.Frames = append(all.Frames, r.Frames...)
		all, q.From = r, r.Last.Next()
	}
	return all
}

// frames reads a whole stream.
func (s *subject) frames(stream ff.StreamRef) ff.FramesResult {
	s.Helper()
	return s.readFrames(ff.ReadFrames{StreamRef: stream})
}

func payloadsOf(frames []ff.Frame) string {
	list := make([]string, len(frames))
	for i := range frames {
		list[i] = string(frames[i].Payload)
	}
	return strings.Join(list, " ")
}

func (s *subject) wantPayloads(stream ff.StreamRef, want string) {
	s.Helper()
	s.equal("the payloads", payloadsOf(s.frames(stream).Frames), want)
}

func framesAsWritten(s *subject) {
	c := s.start(ff.CreateExecution{})
	written := s.now().Add(-time.Minute)
	var all []byte
	for b := range 256 {
		all = append(all, byte(b))
	}
	frames := []ff.NewFrame{
		{Type: "token", Payload: all, Encoding: "binary", Source: "model", CorrelationID: "c-1", At: written},
		{Type: "patch", Payload: []byte(`{"a":1}`), Encoding: "json", Source: "tool", Mode: ff.FrameSummary, At: written.Add(time.Hour)},
		{Type: "größe", Payload: bytes.Repeat([]byte("x"), ff.MaxFramePayloadBytes), Mode: ff.FrameBestEffort, TTL: time.Minute},
		{Type: "empty"},
	}
	r := s.appendTo(c, frames...)
	s.equal("the answer", r, ff.AppendFramesResult{IDs: []ff.FrameID{s.position(0), s.position(1), s.position(2), s.position(3)}, Count: 4, SummaryVersion: 1})
	now := s.now()
	s.equal("the stream", s.frames(streamOf(c)), ff.FramesResult{Last: r.IDs[3], Frames: []ff.Frame{
		{ID: r.IDs[0], Type: "token", Payload: all, Encoding: "binary", Source: "model", CorrelationID: "c-1", Mode: ff.FrameDurable, At: written},
		{ID: r.IDs[1], Type: "patch", Payload: []byte(`{"a":1}`), Encoding: "json", Source: "tool", Mode: ff.FrameSummary, At: written.Add(time.Hour), SummaryVersion: 1},
		{ID: r.IDs[2], Type: "größe", Payload: frames[2].Payload, Encoding: "utf8", Source: "worker", Mode: ff.FrameBestEffort, At: now, TTL: time.Minute},
		{ID: r.IDs[3], Type: "empty", Encoding: "utf8", Source: "worker", Mode: ff.FrameDurable, At: now},
	}})
}

func frameDefaults(s *subject) {
	c := s.start(ff.CreateExecution{})
	r := s.appendTo(c, textFrame("a"), ff.NewFrame{Mode: ff.FrameBestEffort})
	s.equal("the frames", s.frames(streamOf(c)).Frames, []ff.Frame{
		{ID: r.IDs[0], Payload: []byte("a"), Encoding: "utf8", Source: "worker", Mode: ff.FrameDurable, At: s.now()},
		{ID: r.IDs[1], Encoding: "utf8", Source: "worker", Mode: ff.FrameBestEffort, At: s.now(), TTL: ff.DefaultFrameTTL},
	})
}

func positions(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.equal("the first", s.appendTo(c, textFrame("a")), ff.AppendFramesResult{IDs: []ff.FrameID{s.position(0)}, Count: 1})
	s.equal("of the same millisecond", s.appendTo(c, textFrame("b"), textFrame("c")),
		ff.AppendFramesResult{IDs: []ff.FrameID{s.position(1), s.position(2)}, Count: 3})
	s.Advance(time.Second)
	s.equal("later", s.appendTo(c, textFrame("d")), ff.AppendFramesResult{IDs: []ff.FrameID{s.position(0)}, Count: 4})
	s.wantPayloads(streamOf(c), "a b c d")
}

func frameRanges(s *subject) {
	c := s.start(ff.CreateExecution{})
	var ids []ff.FrameID
	for i := range 30 {
		if i%4 == 0 {
			s.Advance(time.Millisecond)
		}
		ids = append(ids, s.appendTo(c, textFrame(fmt.Sprint(i))).IDs...)
	}
	all := s.frames(streamOf(c)).Frames
	s.equal("frames", len(all), 30)
	for _, limit := range []int{1, 7, 29, 30, 31} {
		s.equal(fmt.Sprint("by pages of ", limit), s.readFrames(ff.ReadFrames{StreamRef: streamOf(c), Limit: limit}).Frames, all)
	}
	for _, r := range [][2]int{{0, 0}, {3, 4}, {5, 29}, {11, 17}} {
		q := ff.ReadFrames{StreamRef: streamOf(c), From: ids[r[0]], To: ids[r[1]], Limit: 3}
		s.equal(fmt.Sprint("the range ", r), s.readFrames(q).Frames, all[r[0]:r[1]+1])
	}
	r, err := s.ReadFrames(s.Context(), ff.ReadFrames{StreamRef: streamOf(c), Limit: 3})
	s.must(err)
	s.equal("the page", r, ff.FramesResult{Frames: all[:3], Last: ids[2], More: true})
	after := ids[29].Next()
	for _, q := range []ff.ReadFrames{{From: after}, {From: ids[9], To: ids[8]}, {From: ff.FrameID{Ms: 1 << 63, Seq: 1 << 63}}} {
		q.StreamRef = streamOf(c)
		r, err := s.ReadFrames(s.Context(), q)
		s.must(err)
		s.equal("an empty range", r, ff.FramesResult{Last: q.From})
	}
}

func largePages(s *subject) {
	c := s.start(ff.CreateExecution{})
	const n = ff.MaxFramePageBytes/ff.MaxFramePayloadBytes + 10
	large := bytes.Repeat([]byte("x"), ff.MaxFramePayloadBytes)
	for range n {
		s.appendTo(c, ff.NewFrame{Payload: large})
	}
	r, err := s.ReadFrames(s.Context(), ff.ReadFrames{StreamRef: streamOf(c), Limit: ff.MaxFrameLimit})
	s.must(err)
	if size := len(r.Frames) * len(large); size > ff.MaxFramePageBytes || size < ff.MaxFramePageBytes/2 || !r.More {
		s.Errorf("a page of %d bytes, more %t", size, r.More)
	}
	s.equal("frames", len(s.readFrames(ff.ReadFrames{StreamRef: streamOf(c), Limit: ff.MaxFrameLimit}).Frames), n)
}

func durablePages(s *subject) {
	c := s.start(ff.CreateExecution{})
	var last ff.FrameID
	for i := range 40 {
		last = s.appendTo(c, liveFrame("live", time.Minute), liveFrame("live", time.Minute), textFrame(fmt.Sprint(i)), liveFrame("live", time.Minute)).IDs[3]
	}
	for _, limit := range []int{1, 5, 1000} {
		r := s.readFrames(ff.ReadFrames{StreamRef: streamOf(c), Limit: limit, Durable: true})
		if r.Last != last {
			s.Errorf("looked at frames up to %s, want %s", r.Last, last)
		}
		s.equal("frames", len(r.Frames), 40)
		for i, f := range r.Frames {
			s.equal("the payload", string(f.Payload), fmt.Sprint(i))
		}
	}
}

func streamsOfAttempts(s *subject) {
	first := s.start(retrying(ff.FixedRetry(3, 0)))
	s.appendTo(first, textFrame("first"), summaryFrame(`{"attempt":0}`))
	s.fail(first, ff.FailExecution{Reason: "once"})
	second := s.claim(ff.Claim{})
	s.wantPayloads(streamOf(second), "")
	s.equal("the answer", s.appendTo(second, textFrame("second")), ff.AppendFramesResult{IDs: []ff.FrameID{s.position(0)}, Count: 1})
	s.wantPayloads(streamOf(first), `first {"attempt":0}`)
	s.wantPayloads(streamOf(second), "second")
	s.wantSummary(streamOf(first), `{"attempt":0}`, 1)
	s.wantSummary(streamOf(second), "", 0)
}

func streamOfResumed(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.appendTo(c, textFrame("before"), summaryFrame(`{"a":1}`))
	_, err := s.DelayExecution(s.Context(), ff.DelayExecution{LeaseRef: c.Ref(), For: time.Second})
	s.must(err)
	s.pass(time.Second)
	again := s.claim(ff.Claim{Claimant: who("b")})
	s.equal("the answer", s.appendTo(again, summaryFrame(`{"b":2}`)), ff.AppendFramesResult{IDs: []ff.FrameID{s.position(0)}, Count: 3, SummaryVersion: 2})
	s.wantPayloads(streamOf(again), `before {"a":1} {"b":2}`)
	s.wantSummary(streamOf(c), `{"a":1,"b":2}`, 2)
}

func appendNeedsLease(s *subject) {
	refused := func(what string, c ff.Claimed, want *ff.Error) {
		s.Helper()
		_, err := s.tryAppend(c, textFrame("refused"))
		if ff.CodeOf(err) != want.Code {
			s.Errorf("append %s: %v, want %q", what, err, want.Code)
		}
	}
	c := s.start(ff.CreateExecution{})
	s.appendTo(c, textFrame("accepted"))
	stale := c
	stale.Execution.Lease.ID = ff.NewLeaseID()
	refused("with another lease", stale, ff.ErrStaleOwnerCannotAppend)
	stale = c
	stale.Execution.LeaseEpoch++
	refused("with another epoch", stale, ff.ErrStaleOwnerCannotAppend)
	stale = c
	stale.Execution.CurrentAttemptID = ff.NewAttemptID()
	refused("with another attempt", stale, ff.ErrStaleOwnerCannotAppend)
	missing := c
	missing.Execution.ID = ff.MakeExecutionID(0, c.Execution.Lease.ID.UUID())
	refused("to no execution", missing, ff.ErrStreamClosed)

	s.Advance(ttl)
	refused("after the lease", c, ff.ErrStaleOwnerCannotAppend)
	s.sweep(ff.SweepLeaseExpiry)
	refused("after the lease was found lapsed", c, ff.ErrStaleOwnerCannotAppend)
	taker := s.claim(ff.Claim{Claimant: who("b")})
	refused("after the takeover", c, ff.ErrStaleOwnerCannotAppend)
	_, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: taker.Execution.ID})
	s.must(err)
	refused("after the revocation", taker, ff.ErrStaleOwnerCannotAppend)
	parked := s.claim(ff.Claim{Claimant: who("c")})
	_, err = s.DelayExecution(s.Context(), ff.DelayExecution{LeaseRef: parked.Ref(), For: time.Second})
	s.must(err)
	refused("while parked", parked, ff.ErrStreamClosed)
	s.pass(time.Second)
	done := s.claim(ff.Claim{Claimant: who("d")})
	refused("with the lease before", parked, ff.ErrStaleOwnerCannotAppend)
	s.complete(done)
	refused("after the end", done, ff.ErrStreamClosed)
	s.wantPayloads(streamOf(c), "accepted")
	s.wantPayloads(streamOf(done), "")
}

func appendLeavesExecution(s *subject) {
	c := s.start(ff.CreateExecution{})
	before, events := s.read(c.Execution.ID), len(s.events(ff.ReadEvents{ID: c.Execution.ID}))
	s.Advance(time.Second)
	s.appendTo(c, textFrame("a"), summaryFrame(`{"a":1}`), liveFrame("b", time.Minute))
	s.equal("the execution", s.read(c.Execution.ID), before)
	s.Advance(ttl)
	_, err := s.tryAppend(c, textFrame("late"))
	s.refused(err, ff.ErrStaleOwnerCannotAppend)
	s.equal("the execution after its lease", s.read(c.Execution.ID), before)
	s.equal("events", len(s.events(ff.ReadEvents{ID: c.Execution.ID})), events)
}

func concurrentAppends(s *subject) {
	const callers, each = 8, 20
	c := s.start(ff.CreateExecution{})
	var mu sync.Mutex
	acknowledged := map[ff.FrameID]string{}
	inParallel(callers, func(i int) {
		for n := range each {
			payload := fmt.Sprintf("%d-%d", i, n)
			r, err := s.AppendFrames(s.Context(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: []ff.NewFrame{textFrame(payload), summaryFrame(fmt.Sprintf(`{"%s":%d}`, payload, n))}, Retention: 1000})
			if err != nil {
				s.Error(err)
				return
			}
			mu.Lock()
			acknowledged[r.IDs[0]] = payload
			mu.Unlock()
		}
	})
	s.equal("distinct positions", len(acknowledged), callers*each)
	for _, f := range s.frames(streamOf(c)).Frames {
		if f.Mode == ff.FrameDurable && acknowledged[f.ID] != string(f.Payload) {
			s.Errorf("frame %s has %q, acknowledged was %q", f.ID, f.Payload, acknowledged[f.ID])
		}
	}
	sum := s.summary(streamOf(c))
	s.equal("patches", sum.Version, int64(callers*each))
	s.equal("the count", s.appendTo(c, textFrame("last")).Count, int64(2*callers*each+1))
}

func durableRetention(s *subject) {
	c := s.start(ff.CreateExecution{})
	send := func(retention, n int) {
		s.Helper()
		frames := make([]ff.NewFrame, n)
		for i := range frames {
			frames[i] = textFrame(fmt.Sprint(i))
		}
		_, err := s.AppendFrames(s.Context(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: frames, Retention: retention})
		s.must(err)
	}
	send(0, 100)
	s.equal("frames of the default", len(s.frames(streamOf(c)).Frames), 100)
	send(10, 3)
	s.wantPayloads(streamOf(c), "93 94 95 96 97 98 99 0 1 2")
	send(4, 9)
	s.wantPayloads(streamOf(c), "5 6 7 8")
	send(4, 1)
	s.wantPayloads(streamOf(c), "6 7 8 0")
	send(0, 2)
	s.wantPayloads(streamOf(c), "6 7 8 0 0 1")
	s.equal("the count", s.appendTo(c, textFrame("last")).Count, int64(116))
}

func mixedRetention(s *subject) {
	c := s.start(ff.CreateExecution{})
	for i := range 300 {
		frames := []ff.NewFrame{textFrame(fmt.Sprint("token ", i)), summaryFrame(fmt.Sprintf(`{"tokens":%d}`, i+1))}
		if _, err := s.AppendFrames(s.Context(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: frames}); err != nil {
			s.Fatal(err)
		}
	}
	got := s.frames(streamOf(c)).Frames
	if len(got) != 600 || string(got[0].Payload) != "token 0" {
		s.Errorf("%d of 600 frames are kept", len(got))
	}
}

// summaryRetention allows for stores that trim whole blocks.
func summaryRetention(s *subject) {
	c := s.start(ff.CreateExecution{})
	for i := range 300 {
		s.appendTo(c, summaryFrame(fmt.Sprintf(`{"step":%d}`, i)))
	}
	got := s.frames(streamOf(c)).Frames
	if n := len(got); n < ff.SummaryRetention || n > 3*ff.SummaryRetention {
		s.Errorf("%d frames are kept, want about %d", n, ff.SummaryRetention)
	}
	for i := range got {
		s.equal("the frame", string(got[i].Payload), fmt.Sprintf(`{"step":%d}`, 300-len(got)+i))
	}
	s.wantSummary(streamOf(c), `{"step":299}`, 300)
}

func bestEffortExpires(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.appendTo(c, liveFrame("a", time.Second))
	s.Advance(1900 * time.Millisecond)
	s.appendTo(c, liveFrame("b", time.Second))
	s.Advance(1900 * time.Millisecond)
	s.wantPayloads(streamOf(c), "a b")
	s.Advance(200 * time.Millisecond)
	s.equal("the stream", s.frames(streamOf(c)), ff.FramesResult{})
	s.sweep(ff.SweepRetention)
	s.equal("the stream after the trimmer", s.frames(streamOf(c)), ff.FramesResult{})
}

func durableKeepsBestEffort(s *subject) {
	for _, frame := range []ff.NewFrame{textFrame("{}"), summaryFrame("{}")} {
		c := s.start(ff.CreateExecution{})
		s.appendTo(c, liveFrame("a", time.Second))
		s.appendTo(c, frame)
		s.appendTo(c, liveFrame("b", time.Second))
		s.pass(5 * time.Second)
		s.wantPayloads(streamOf(c), "a {} b")
	}
}

func expiredGoesOn(s *subject) {
	for _, swept := range []bool{false, true} {
		c := s.start(ff.CreateExecution{})
		s.appendTo(c, liveFrame("a", time.Second), liveFrame("b", time.Second))
		s.Advance(2100 * time.Millisecond)
		if swept {
			s.sweep(ff.SweepRetention)
		}
		s.equal("the answer", s.appendTo(c, textFrame("c")), ff.AppendFramesResult{IDs: []ff.FrameID{s.position(0)}, Count: 3})
		s.wantPayloads(streamOf(c), "c")
	}
}

// endings are the ways in which an attempt ends, each with the reason that its stream
// is closed for.
var endings = []struct {
	name, reason string
	submit       ff.CreateExecution
	end          func(*subject, ff.Claimed)
}{
	{"complete", "attempt_success", ff.CreateExecution{}, (*subject).complete},
	{"fail", "attempt_failure", ff.CreateExecution{}, func(s *subject, c ff.Claimed) { s.fail(c, ff.FailExecution{Reason: "broken"}) }},
	{"fail and retry", "attempt_failure", retrying(ff.FixedRetry(1, time.Minute)), func(s *subject, c ff.Claimed) { s.fail(c, ff.FailExecution{Reason: "broken"}) }},
	{"cancel", "attempt_cancelled", ff.CreateExecution{}, func(s *subject, c ff.Claimed) { s.cancel(c.Execution.ID) }},
	{"cancel while parked", "attempt_cancelled", ff.CreateExecution{}, func(s *subject, c ff.Claimed) {
		_, err := s.DelayExecution(s.Context(), ff.DelayExecution{LeaseRef: c.Ref(), For: time.Minute})
		s.must(err)
		s.cancel(c.Execution.ID)
	}},
	{"lapse", "lease_expired", ff.CreateExecution{}, func(s *subject, _ ff.Claimed) { s.pass(ttl) }},
	{"reclaim", "reclaimed", ff.CreateExecution{}, func(s *subject, _ ff.Claimed) {
		s.pass(ttl)
		s.claim(ff.Claim{Claimant: who("b")})
	}},
	{"reclaim after a revocation", "reclaimed", ff.CreateExecution{}, func(s *subject, c ff.Claimed) {
		_, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: c.Execution.ID})
		s.must(err)
		s.claim(ff.Claim{Claimant: who("b")})
	}},
	{"deadline", "expired", policed(func(p *ff.ExecutionPolicy) { p.Timeout = &ff.TimeoutPolicy{Deadline: time.Second} }),
		func(s *subject, _ ff.Claimed) { s.pass(time.Second) }},
	{"attempt timeout", "expired", policed(func(p *ff.ExecutionPolicy) { p.Timeout = &ff.TimeoutPolicy{Attempt: time.Second} }),
		func(s *subject, _ ff.Claimed) { s.pass(time.Second) }},
	{"attempt timeout and retry", "attempt_failure", policed(func(p *ff.ExecutionPolicy) {
		p.Timeout, p.Retry = &ff.TimeoutPolicy{Attempt: time.Second}, ff.FixedRetry(1, 0)
	}), func(s *subject, _ ff.Claimed) {
		s.pass(time.Second)
		s.claim(ff.Claim{Claimant: who("b")})
	}},
}

func streamCloses(s *subject) {
	for _, e := range endings {
		c := s.start(e.submit)
		s.appendTo(c, textFrame("a"), textFrame("b"))
		s.Advance(100 * time.Millisecond)
		e.end(s, c)
		at := s.now()
		s.pass(time.Millisecond)
		r := s.frames(streamOf(c))
		if r.ClosedReason != e.reason || !r.ClosedAt.Equal(at) || !r.Closed() || payloadsOf(r.Frames) != "a b" {
			s.Errorf("after %s: closed for %q at %s with %q, want %q at %s", e.name, r.ClosedReason, r.ClosedAt, payloadsOf(r.Frames), e.reason, at)
		}
		first, err := s.ReadFrames(s.Context(), ff.ReadFrames{StreamRef: streamOf(c), Limit: 1})
		s.must(err)
		if first.Closed() {
			s.Errorf("after %s: a page that others follow is closed", e.name)
		}
		s.cancelAll()
	}
}

func silentStreamCloses(s *subject) {
	for _, e := range endings {
		c := s.start(e.submit)
		s.Advance(100 * time.Millisecond)
		e.end(s, c)
		at := s.now()
		s.pass(time.Millisecond)
		r := s.frames(streamOf(c))
		s.equal("the stream after "+e.name, r, ff.FramesResult{ClosedReason: e.reason, ClosedAt: at})
		s.cancelAll()
	}
	// The attempts that will not be.
	for _, e := range []struct{ reason, end string }{{"attempt_cancelled", "cancel"}, {"attempt_success", "complete"}} {
		id := s.submit(ff.CreateExecution{})
		index := 0
		if e.end == "cancel" {
			s.cancel(id)
		} else {
			s.complete(s.claim(ff.Claim{}))
			index = 1
		}
		s.equal("the stream that will not be", s.frames(ff.StreamRef{ID: id, AttemptIndex: index}), ff.FramesResult{ClosedReason: e.reason, ClosedAt: s.now()})
	}
}

// cancelAll ends what is left of a case.
func (s *subject) cancelAll() {
	s.Helper()
	r, err := s.ListExecutions(s.Context(), ff.ListExecutions{Limit: ff.MaxPageLimit})
	s.must(err)
	for i := range r.Executions {
		if !r.Executions[i].Terminal() {
			s.cancel(r.Executions[i].ID)
		}
	}
}

func (s *subject) cancel(id ff.ExecutionID) {
	s.Helper()
	_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: id, Reason: "enough"})
	s.must(err)
}

func streamStaysOpen(s *subject) {
	open := func(what string, stream ff.StreamRef) {
		s.Helper()
		if r := s.frames(stream); !r.ClosedAt.IsZero() || r.ClosedReason != "" {
			s.Errorf("%s: closed for %q at %s", what, r.ClosedReason, r.ClosedAt)
		}
	}
	id := s.submit(retrying(ff.FixedRetry(1, time.Second)))
	first := ff.StreamRef{ID: id}
	next := ff.StreamRef{ID: id, AttemptIndex: 1}
	open("waiting", first)
	s.claim(ff.Claim{})
	open("active", first)
	open("before the next attempt", next)
	s.Advance(ttl)
	open("with a lapse that nobody has found", first)
	s.sweep(ff.SweepLeaseExpiry)
	open("after the lapse, the next", next)
	c := s.claim(ff.Claim{Claimant: who("b")})
	s.appendTo(c, textFrame("a"))
	_, err := s.DelayExecution(s.Context(), ff.DelayExecution{LeaseRef: c.Ref(), For: time.Second})
	s.must(err)
	open("parked", next)
	s.pass(time.Second)
	c = s.claim(ff.Claim{Claimant: who("c")})
	_, err = s.RevokeLease(s.Context(), ff.RevokeLease{ID: id})
	s.must(err)
	open("revoked", streamOf(c))
	c = s.claim(ff.Claim{Claimant: who("d")})
	s.fail(c, ff.FailExecution{Reason: "broken"})
	open("during the backoff, the next", ff.StreamRef{ID: id, AttemptIndex: c.Execution.Attempt.Index + 1})
}

func replayOpensStream(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.appendTo(c, textFrame("a"))
	s.complete(c)
	ended := s.frames(streamOf(c))
	_, err := s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: c.Execution.ID})
	s.must(err)
	s.equal("the stream that ended", s.frames(streamOf(c)), ended)
	s.equal("the next", s.frames(ff.StreamRef{ID: c.Execution.ID, AttemptIndex: 1}), ff.FramesResult{})
	again := s.claim(ff.Claim{})
	s.appendTo(again, textFrame("b"))
	s.wantPayloads(streamOf(again), "b")
	s.equal("the stream that ended", s.frames(streamOf(c)), ended)
}

func retentionDeletesStreams(s *subject) {
	c := s.start(policed(func(p *ff.ExecutionPolicy) {
		p.Retry, p.Stream = ff.FixedRetry(1, 0), &ff.StreamPolicy{RetentionTTL: time.Minute}
	}))
	s.appendTo(c, textFrame("a"), summaryFrame(`{"a":1}`))
	s.fail(c, ff.FailExecution{Reason: "broken"})
	again := s.claim(ff.Claim{})
	s.appendTo(again, textFrame("b"), summaryFrame(`{"b":1}`))
	s.complete(again)
	s.pass(time.Minute + time.Millisecond)
	_, err := s.Execution(s.Context(), c.Execution.ID)
	s.refused(err, ff.ErrExecutionNotFound)
	for _, stream := range []ff.StreamRef{streamOf(c), streamOf(again)} {
		s.equal("the stream", s.frames(stream), ff.FramesResult{})
		s.wantSummary(stream, "", 0)
	}
}

func unknownStream(s *subject) {
	unknown := ff.StreamRef{ID: ff.MakeExecutionID(0, ff.NewLeaseID().UUID())}
	s.equal("the stream", s.frames(unknown), ff.FramesResult{})
	from := ff.FrameID{Ms: 17, Seq: 4}
	r, err := s.ReadFrames(s.Context(), ff.ReadFrames{StreamRef: unknown, From: from})
	s.must(err)
	s.equal("the page", r, ff.FramesResult{Last: from})
	r, err = s.TailFrames(s.Context(), ff.TailFrames{StreamRef: unknown, After: from, Wait: 20 * time.Millisecond})
	s.must(err)
	s.equal("the tail", r, ff.FramesResult{Last: from})
	s.wantSummary(unknown, "", 0)
}

func badStreamCommands(s *subject) {
	c := s.start(ff.CreateExecution{})
	good := textFrame("a")
	for what, bad := range map[string]ff.AppendFrames{
		"no frames":              {},
		"too many frames":        {Frames: make([]ff.NewFrame, ff.MaxBatch+1)},
		"an unknown mode":        {Frames: []ff.NewFrame{{Mode: "DURABLE"}}},
		"a negative retention":   {Frames: []ff.NewFrame{good}, Retention: -1},
		"too large a retention":  {Frames: []ff.NewFrame{good}, Retention: ff.MaxFrameRetention + 1},
		"a long type":            {Frames: []ff.NewFrame{{Type: strings.Repeat("t", ff.MaxFrameTypeBytes+1)}}},
		"a long source":          {Frames: []ff.NewFrame{{Source: strings.Repeat("t", ff.MaxFrameSourceBytes+1)}}},
		"a long correlation id":  {Frames: []ff.NewFrame{{CorrelationID: strings.Repeat("t", ff.MaxCorrelationIDBytes+1)}}},
		"a TTL of a durable one": {Frames: []ff.NewFrame{{TTL: time.Second}}},
		"too long a TTL":         {Frames: []ff.NewFrame{liveFrame("a", ff.MaxFrameTTL+1)}},
	} {
		bad.LeaseRef = c.Ref()
		_, err := s.AppendFrames(s.Context(), bad)
		if ff.CodeOf(err) != ff.CodeInvalidInput {
			s.Errorf("%s: %v", what, err)
		}
	}
	_, err := s.tryAppend(c, ff.NewFrame{Payload: make([]byte, ff.MaxFramePayloadBytes+1)})
	s.refused(err, ff.ErrPayloadTooLarge)
	_, err = s.AppendFrames(s.Context(), ff.AppendFrames{LeaseRef: ff.LeaseRef{ID: c.Execution.ID}, Frames: []ff.NewFrame{good}})
	s.refused(err, ff.ErrFenceRequired)
	for _, q := range []ff.ReadFrames{{Limit: -1}, {Limit: ff.MaxFrameLimit + 1}, {StreamRef: ff.StreamRef{AttemptIndex: -1}}} {
		q.ID = c.Execution.ID
		_, err := s.ReadFrames(s.Context(), q)
		s.refused(err, ff.ErrInvalidInput)
	}
	for _, q := range []ff.TailFrames{{Limit: -1}, {Wait: -1}, {Wait: ff.MaxTailWait + 1}} {
		q.StreamRef = streamOf(c)
		_, err := s.TailFrames(s.Context(), q)
		s.refused(err, ff.ErrInvalidInput)
	}
	_, err = s.Summary(s.Context(), ff.StreamRef{ID: c.Execution.ID, AttemptIndex: -1})
	s.refused(err, ff.ErrInvalidInput)
	s.wantPayloads(streamOf(c), "")
}

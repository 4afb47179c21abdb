package valkey_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// appendFrame is what the reference's worker sends (spec 04c §7.1), without its limits.
func (p *peer) appendFrame(l *peerLease, f *ff.NewFrame, retention string) []string {
	p.t.Helper()
	ts, ttl := "", "0"
	if !f.At.IsZero() {
		ts = num(f.At.UnixMilli())
	}
	if f.Mode == ff.FrameBestEffort {
		ttl = num(f.TTL.Milliseconds())
	}
	stream := "ff:stream:" + tagOfID(l.id) + ":" + l.id + ":" + l.index
	return p.fcall("ff_append_frame", []string{p.key(l.id, "core"), stream, stream + ":meta", p.attempt(l.id, l.index) + ":summary"},
		l.id, l.index, l.lease, l.epoch, f.Type, ts, string(f.Payload), orDefault(f.Encoding, "utf8"), f.CorrelationID, orDefault(f.Source, "worker"), retention,
		l.attempt, "65536", orDefault(string(f.Mode), "durable"), "", ttl, "0", "0", "0")
}

// stream is everything that is kept of the stream of an attempt, for comparison with
// that of another.
func (p *peer) stream(id, index string) map[string]any {
	p.t.Helper()
	key := "ff:stream:" + tagOfID(id) + ":" + id + ":" + index
	entries, err := p.do("XRANGE", key, "-", "+").AsXRange()
	if err != nil {
		p.t.Fatal(err)
	}
	ttl, _ := p.do("PTTL", key).AsInt64()
	meta, summary := p.hash(key+":meta"), p.hash(p.attempt(id, index)+":summary")
	var document any // the order of members is free
	if text, ok := summary["document"]; ok {
		if err := json.Unmarshal([]byte(text), &document); err != nil {
			p.t.Errorf("the summary is %q: %v", text, err)
		}
		delete(summary, "document")
	}
	for _, name := range []string{"stream_id", "execution_id", "attempt_id"} {
		if meta[name] == "" {
			p.t.Errorf("the record of the stream has no %s", name)
		}
		delete(meta, name)
	}
	return map[string]any{"entries": entries, "ttl": ttl, "meta": meta, "summary": summary, "document": document}
}

// peerLeaseOf is how a peer would hold what we have claimed.
func peerLeaseOf(c ff.Claimed) *peerLease {
	return &peerLease{id: c.Execution.ID.String(), lane: string(c.Execution.Lane), index: fmt.Sprint(c.Execution.Attempt.Index),
		attempt: c.Execution.Attempt.ID.String(), lease: c.Execution.Lease.ID.String(), epoch: fmt.Sprint(c.Execution.LeaseEpoch)}
}

var patches = []string{`{}`, `{"a":1}`, `{"a":null,"b":{"c":[1,2.5]}}`, `{"b":{"c":[]}}`, `{"b":{"d":"__ff_null__"}}`, `{"l":[false,1]}`, `{"l":{"x":1}}`,
	`{"l":[false,{"x":null},null]}`, `{"l":{"1":7}}`, `{"b":[1]}`, `{"b":5}`, `{"n":12345678901234567890}`, `{"a":{"b":{"c":{"d":{}}}}}`}

// TestABatchIsStoredAsTheFramesOneByOne compares what one call for many frames leaves
// with what the compatible function leaves for the same frames: but for what summary
// frames do to others, which is seen where few frames are kept.
func TestABatchIsStoredAsTheFramesOneByOne(t *testing.T) {
	n := newInterop(t)
	rapid.Check(t, func(rt *rapid.T) {
		batch, single := n.claim(n.create(ff.CreateExecution{})), n.claim(n.create(ff.CreateExecution{}))
		retention := rapid.SampledFrom([]int{0, 3, 500}).Draw(rt, "retention")
		for range rapid.IntRange(1, 4).Draw(rt, "batches") {
			frames := rapid.SliceOfN(rapid.Custom(frameOf), 1, 12).Draw(rt, "frames")
			for i := range frames {
				if retention == 3 && frames[i].Mode == ff.FrameSummary {
					frames[i].Mode = ff.FrameDurable
				}
			}
			must[ff.AppendFramesResult](n)(n.store.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: batch.Ref(), Frames: frames, Retention: retention}))
			for i := range frames {
				if frames[i].TTL == 0 {
					frames[i].TTL = ff.DefaultFrameTTL
				}
				n.peer.good(n.peer.appendFrame(peerLeaseOf(single), &frames[i], fmt.Sprint(retention)))
			}
			if diff := cmp.Diff(n.peer.stream(single.Execution.ID.String(), "0"), n.peer.stream(batch.Execution.ID.String(), "0")); diff != "" {
				rt.Fatalf("one by one -, together +:\n%s", diff)
			}
			n.wait(time.Duration(rapid.IntRange(0, 200).Draw(rt, "pause")) * time.Millisecond)
		}
		for _, c := range []ff.Claimed{batch, single} {
			must[ff.CompleteExecutionResult](n)(n.store.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: c.Ref()}))
		}
	})
}

func frameOf(rt *rapid.T) ff.NewFrame {
	f := ff.NewFrame{Type: rapid.SampledFrom([]string{"", "token"}).Draw(rt, "type"), Mode: rapid.SampledFrom([]ff.FrameMode{"", ff.FrameDurable,
		ff.FrameBestEffort, ff.FrameBestEffort, ff.FrameSummary, ff.FrameSummary}).Draw(rt, "mode")}
	switch f.Mode {
	case ff.FrameSummary:
		f.Payload = []byte(rapid.SampledFrom(patches).Draw(rt, "patch"))
	case ff.FrameBestEffort:
		f.TTL = time.Duration(rapid.SampledFrom([]int{0, 1, 40, 3000}).Draw(rt, "ttl")) * time.Millisecond
		f.Payload = []byte("x")
	default:
		f.Payload = rapid.SliceOf(rapid.Byte()).Draw(rt, "payload")
		f.CorrelationID = rapid.SampledFrom([]string{"", "c"}).Draw(rt, "correlation")
	}
	return f
}

// TestAPeerWritesWhatWeRead, and reads what we write.
func TestAPeerWritesWhatWeRead(t *testing.T) {
	n := newInterop(t)
	c := n.claim(n.create(ff.CreateExecution{}))
	l, id := peerLeaseOf(c), c.Execution.ID.String()
	at := n.clock.Now().Truncate(time.Millisecond)
	n.peer.good(n.peer.appendFrame(l, &ff.NewFrame{Type: "event", Payload: []byte("theirs"), At: at.Add(-time.Second), CorrelationID: "c"}, "10000"))
	must[ff.AppendFramesResult](t)(n.store.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: []ff.NewFrame{{Type: "event", Payload: []byte("ours")}}}))
	n.peer.text("XADD", "ff:stream:"+tagOfID(id)+":"+id+":0", "*", "payload", "bare", "ts", "yesterday", "ttl_ms", "x")
	r := must[ff.FramesResult](t)(n.store.ReadFrames(t.Context(), ff.ReadFrames{StreamRef: ff.StreamRef{ID: c.Execution.ID}}))
	want := []ff.Frame{
		{Type: "event", Payload: []byte("theirs"), At: at.Add(-time.Second), CorrelationID: "c", Encoding: "utf8", Source: "worker", Mode: ff.FrameDurable},
		{Type: "event", Payload: []byte("ours"), At: at, Encoding: "utf8", Source: "worker", Mode: ff.FrameDurable},
		{Payload: []byte("bare"), At: at, Mode: ff.FrameDurable},
	}
	for i := range want {
		want[i].ID = ff.FrameID{Ms: uint64(at.UnixMilli()), Seq: uint64(i)}
	}
	if diff := cmp.Diff(want, r.Frames); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
	n.peer.good(n.peer.complete(l, ""))
	r = must[ff.FramesResult](t)(n.store.TailFrames(t.Context(), ff.TailFrames{StreamRef: ff.StreamRef{ID: c.Execution.ID}, After: r.Last, Wait: time.Minute / 2}))
	if !r.Closed() || r.ClosedReason != "attempt_success" || !r.ClosedAt.Equal(at) || len(r.Frames) > 0 {
		t.Errorf("after the peer's completion %+v", r)
	}
	if meta := n.peer.hash(n.peer.meta(id, "0")); meta["frame_count"] != "2" || meta["closed_reason"] != "attempt_success" {
		t.Errorf("the peer reads %v", meta)
	}
}

// tailing starts a tail that waits and gives what it answers.
func tailing(t *testing.T, s ff.Streams, q ff.TailFrames) <-chan ff.FramesResult {
	t.Helper()
	answers := make(chan ff.FramesResult, 1)
	go func() {
		r, err := s.TailFrames(t.Context(), q)
		if err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		answers <- r
	}()
	return answers
}

// tailed waits until somebody waits for frames of an execution.
func tailed(t *testing.T, p *peer, id string) {
	t.Helper()
	eventually(t, "a tail waits", func() bool { return p.text("GET", "ffx:exec:"+tagOfID(id)+":"+id+":tails") == "1" })
}

// TestTailsHearAtOnceWhateverWrites: frames and ends reach a tail of another store long
// before it would look again.
func TestTailsHearAtOnceWhateverWrites(t *testing.T) {
	server := valkeytest.Start(t)
	p := newPeer(t, server)
	for name, open := range map[string]func(*testing.T) ff.Backend{
		"extensions": func(t *testing.T) ff.Backend {
			return openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions})
		},
		"without extensions": without(server.URL()),
	} {
		t.Run(name, func(t *testing.T) {
			writer, reader := open(t), open(t)
			c := startOne(t, writer)
			id, q := c.Execution.ID.String(), ff.TailFrames{StreamRef: ff.StreamRef{ID: c.Execution.ID}, Wait: ff.MaxTailWait}
			next := ff.StreamRef{ID: c.Execution.ID, AttemptIndex: 1}
			later := tailing(t, reader, ff.TailFrames{StreamRef: next, Wait: ff.MaxTailWait})
			var slowest time.Duration
			for i, write := range []func(){
				func() {
					must[ff.AppendFramesResult](t)(writer.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: []ff.NewFrame{{Type: "1"}}}))
				},
				func() { p.good(p.appendFrame(peerLeaseOf(c), &ff.NewFrame{Type: "2"}, "0")) },
				func() {
					must[ff.AppendFramesResult](t)(writer.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: []ff.NewFrame{{Type: "3"}, {}}}))
				},
				func() {
					must[ff.CompleteExecutionResult](t)(writer.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: c.Ref()}))
				},
			} {
				answer := tailing(t, reader, q)
				tailed(t, p, id)
				began := time.Now()
				write()
				r := <-answer
				slowest = max(slowest, time.Since(began))
				if q.After = r.Last; i < 3 && len(r.Frames) == 0 || i == 3 && !r.Closed() {
					t.Fatalf("write %d: %+v", i, r)
				}
			}
			if r := <-later; !r.Closed() || r.ClosedReason != "attempt_success" {
				t.Errorf("the stream of an attempt that will not be: %+v", r)
			}
			if slowest > 300*time.Millisecond {
				t.Errorf("a tail heard after %v", slowest)
			}
		})
	}
}

// startOne submits an execution and claims it.
func startOne(t *testing.T, s ff.Backend) ff.Claimed {
	t.Helper()
	id := must[ff.CreateExecutionResult](t)(s.CreateExecution(t.Context(), ff.CreateExecution{Lane: "alpha", Kind: "job"})).ID
	for {
		r := must[ff.ClaimResult](t)(s.Claim(t.Context(), ff.Claim{Claimant: us, Lanes: []ff.LaneID{"alpha"}, Max: 1, LeaseTTL: time.Hour, Wait: time.Second}))
		if len(r.Claimed) == 1 && r.Claimed[0].Execution.ID == id {
			return r.Claimed[0]
		}
	}
}

// TestTailsFindWhatIsNotPublished: the library of the reference tells nobody.
func TestTailsFindWhatIsNotPublished(t *testing.T) {
	server := valkeytest.Start(t)
	s, p := openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions}), newPeer(t, server)
	c := startOne(t, s)
	id := c.Execution.ID.String()
	answer := tailing(t, s, ff.TailFrames{StreamRef: ff.StreamRef{ID: c.Execution.ID}, Wait: ff.MaxTailWait})
	tailed(t, p, id)
	began := time.Now()
	p.text("XADD", "ff:stream:"+tagOfID(id)+":"+id+":0", "*", "frame_type", "event", "payload", "x", "mode", "durable")
	if r := <-answer; len(r.Frames) != 1 || time.Since(began) > 3*time.Second {
		t.Errorf("%d frames after %v", len(r.Frames), time.Since(began))
	}
}

// TestAThousandTailsShareConnections: many wait on few streams and all hear.
func TestAThousandTailsShareConnections(t *testing.T) {
	server := valkeytest.Start(t)
	s, p := openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions}), newPeer(t, server)
	const streams, tails = 20, 50
	var claims []ff.Claimed
	var answers []<-chan ff.FramesResult
	for range streams {
		c := startOne(t, s)
		claims = append(claims, c)
		for range tails {
			answers = append(answers, tailing(t, s, ff.TailFrames{StreamRef: ff.StreamRef{ID: c.Execution.ID}, Wait: ff.MaxTailWait}))
		}
	}
	for _, c := range claims {
		tailed(t, p, c.Execution.ID.String())
	}
	for _, line := range strings.Split(p.text("INFO", "clients"), "\r\n") {
		var n int
		if _, err := fmt.Sscanf(line, "connected_clients:%d", &n); err == nil && n > 20 {
			t.Errorf("%d connections", n)
		}
	}
	var appends sync.WaitGroup
	for _, c := range claims {
		appends.Go(func() {
			_, err := s.AppendFrames(context.Background(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: []ff.NewFrame{{Type: "event"}}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	appends.Wait()
	for i, answer := range answers {
		if r := <-answer; len(r.Frames) != 1 {
			t.Fatalf("tail %d got %d frames", i, len(r.Frames))
		}
	}
}

// TestNothingOfAStreamOutlivesItsExecution: the trimmer deletes every key.
func TestNothingOfAStreamOutlivesItsExecution(t *testing.T) {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	p := newPeer(t, server)
	for name, extensions := range map[string]valkey.ExtensionUse{"extensions": valkey.ExtensionsRequired, "without extensions": valkey.ExtensionsOff} {
		t.Run(name, func(t *testing.T) {
			s := openBackend(t, server.URL(), valkey.Options{Partitions: fewPartitions, Extensions: extensions})
			c := startOne(t, s)
			must[ff.AppendFramesResult](t)(s.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: []ff.NewFrame{
				{Type: "event"}, {Mode: ff.FrameSummary, Payload: []byte(`{"a":1}`)}}}))
			answer := tailing(t, s, ff.TailFrames{StreamRef: ff.StreamRef{ID: c.Execution.ID, AttemptIndex: 5}, Wait: ff.MaxTailWait})
			tailed(t, p, c.Execution.ID.String())
			must[ff.FailExecutionResult](t)(s.FailExecution(t.Context(), ff.FailExecution{LeaseRef: c.Ref(), Reason: "x", NoRetry: true}))
			if r := <-answer; r.ClosedReason != "attempt_failure" {
				t.Errorf("the tail got %+v", r)
			}
			clock.Advance(ff.DefaultRetention + time.Second)
			must[ff.SweepResult](t)(s.Sweep(t.Context(), ff.Sweep{Kind: ff.SweepRetention}))
			left := p.list("KEYS", "*"+c.Execution.ID.UUID().String()+"*")
			if len(left) > 0 {
				slices.Sort(left)
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestALapsedLeaseGivesWayToTheEndOfTheAttempt: the compatible function that takes over
// once too often leaves the stream closed by the lapse.
func TestALapsedLeaseGivesWayToTheEndOfTheAttempt(t *testing.T) {
	n := newInterop(t)
	c := n.claim(n.create(ff.CreateExecution{Policy: n.policy(`{"max_reclaim_count":0}`)}))
	ref := ff.StreamRef{ID: c.Execution.ID}
	must[ff.AppendFramesResult](t)(n.store.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: c.Ref(), Frames: []ff.NewFrame{{Type: "event"}}}))
	n.wait(3 * time.Second)
	n.sweep(ff.SweepLeaseExpiry)
	lapsed := n.clock.Now().Truncate(time.Millisecond)
	end := func() ff.FramesResult {
		return must[ff.FramesResult](t)(n.store.ReadFrames(t.Context(), ff.ReadFrames{StreamRef: ref}))
	}
	if r := end(); r.ClosedReason != "lease_expired" || !r.ClosedAt.Equal(lapsed) {
		t.Errorf("after the lapse %q at %v, want %v", r.ClosedReason, r.ClosedAt, lapsed)
	}
	n.wait(time.Second)
	n.nothing()
	if x := n.record(c.Execution.ID.String()); x.FailureReason != "max_reclaims_exceeded" {
		t.Fatalf("the execution is %+v", x)
	}
	if err := n.peer.do("HSET", n.peer.meta(ref.ID.String(), "0"), "closed_at", num(lapsed.UnixMilli()), "closed_reason", "lease_expired").Error(); err != nil {
		t.Fatal(err)
	}
	if r := end(); r.ClosedReason != "attempt_failure" || !r.ClosedAt.Equal(lapsed.Add(time.Second)) {
		t.Errorf("after the end %q at %v", r.ClosedReason, r.ClosedAt)
	}
}

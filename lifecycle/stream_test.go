package lifecycle_test

import (
	"fmt"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// appendTo appends and fails the test when it is refused.
func appendTo(t *testing.T, x *ff.Execution, s *lifecycle.Stream, now time.Time, retention int, frames ...ff.NewFrame) lifecycle.Appended {
	t.Helper()
	return appendAfter(t, x, s, 0, now, retention, frames...)
}

// appendAfter is appendTo after a number of summary frames.
func appendAfter(t *testing.T, x *ff.Execution, s *lifecycle.Stream, summaries int64, now time.Time, retention int, frames ...ff.NewFrame) lifecycle.Appended {
	t.Helper()
	fence := ff.Fence{LeaseID: x.Lease.ID, LeaseEpoch: x.LeaseEpoch, AttemptID: x.CurrentAttemptID}
	args, err := lifecycle.PrepareAppend(&ff.AppendFrames{LeaseRef: ref(x, fence), Frames: frames, Retention: retention})
	if err != nil {
		t.Fatal(err)
	}
	summary, err := lifecycle.ReadSummary(ff.Summary{Version: summaries})
	if err != nil {
		t.Fatal(err)
	}
	a, err := lifecycle.Append(x, s, summary, &args, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func active(t *testing.T) *ff.Execution {
	t.Helper()
	x := submit(ff.CreateExecution{})
	claim(t, x, 1, t0)
	return x
}

func live(ttl time.Duration) ff.NewFrame { return ff.NewFrame{Mode: ff.FrameBestEffort, TTL: ttl} }

func repeat(n int, f ff.NewFrame) []ff.NewFrame {
	frames := make([]ff.NewFrame, n)
	for i := range frames {
		frames[i] = f
	}
	return frames
}

func TestPositionsGrowWhenTheClockGoesBack(t *testing.T) {
	x, s := active(t), lifecycle.Stream{}
	var last ff.FrameID
	for i, now := range []time.Time{after(time.Second), after(time.Second), t0, after(2 * time.Second), after(time.Millisecond)} {
		id := appendTo(t, x, &s, now, 0, ff.NewFrame{}).Frames[0].ID
		if id.Compare(last) <= 0 || id.Ms < uint64(now.UnixMilli()) {
			t.Errorf("frame %d is at %s after %s, the clock is %d", i, id, last, now.UnixMilli())
		}
		last = id
	}
}

// The table of spec 04c §6.
func TestTheCapOfBestEffortFramesFollowsTheirRate(t *testing.T) {
	x, s := active(t), lifecycle.Stream{}
	ttl, now := 15*time.Second, t0
	for i, want := range []struct {
		since time.Duration
		rate  string
	}{{0, "2.1333"}, {51 * time.Millisecond, "5.6282"}, {50 * time.Millisecond, "8.5026"}} {
		now = now.Add(want.since)
		appendTo(t, x, &s, now, 0, live(ttl))
		if got := fmt.Sprintf("%.4f", s.Rate); got != want.rate {
			t.Errorf("append %d: the rate is %s, want %s", i, got, want.rate)
		}
	}
	s = lifecycle.Stream{}
	if appendTo(t, x, &s, now, 0, live(time.Millisecond)); s.Rate != 32000 {
		t.Errorf("the first rate of the shortest TTL is %g, want 32000", s.Rate)
	}
}

func TestStreamsKeepWhatTheirModesSay(t *testing.T) {
	summary := ff.NewFrame{Mode: ff.FrameSummary, Payload: []byte(`{}`)}
	for name, c := range map[string]struct {
		frame     ff.NewFrame
		retention int
		every     time.Duration
		// The fewest and the most frames kept of 900.
		least, most int64
	}{
		"durable":                     {ff.NewFrame{}, 0, 0, 900, 900},
		"durable with a retention":    {ff.NewFrame{}, 10, 0, 10, 10},
		"summary":                     {summary, 0, 0, 64, 128},
		"best-effort, seldom":         {live(time.Second), 0, time.Second, 64, 128},
		"best-effort, often":          {live(time.Second), 0, time.Millisecond, 900, 900},
		"best-effort of a short life": {live(50 * time.Millisecond), 0, time.Millisecond, 100, 192},
	} {
		t.Run(name, func(t *testing.T) {
			x, s, kept := active(t), lifecycle.Stream{}, int64(0)
			for i := range 900 {
				a := appendAfter(t, x, &s, int64(i), t0.Add(time.Duration(i%20)*c.every), c.retention, c.frame)
				kept += int64(len(a.Frames)) - a.Drop
				if kept != s.Kept || s.Count != int64(i+1) {
					t.Fatalf("after %d: %d are left, %+v", i, kept, s)
				}
			}
			if s.Kept < c.least || s.Kept > c.most {
				t.Errorf("%d are kept, want %d to %d", s.Kept, c.least, c.most)
			}
		})
	}
}

func TestOneAppendTrimsFrameByFrame(t *testing.T) {
	x, s := active(t), lifecycle.Stream{}
	summary := ff.NewFrame{Mode: ff.FrameSummary, Payload: []byte(`{}`)}
	appendTo(t, x, &s, t0, 0, repeat(500, summary)...)
	kept := s.Kept
	if a := appendAfter(t, x, &s, 500, t0, 0, append([]ff.NewFrame{summary}, repeat(100, ff.NewFrame{})...)...); kept > 128 || s.Kept < 164 || a.Drop != kept+101-s.Kept {
		t.Errorf("kept %d, then %d, dropped %d", kept, s.Kept, a.Drop)
	}
}

func TestASummaryPushesOutNoFramesOfOtherModes(t *testing.T) {
	x, s := active(t), lifecycle.Stream{}
	summary := ff.NewFrame{Mode: ff.FrameSummary, Payload: []byte(`{}`)}
	appendTo(t, x, &s, t0, 0, repeat(500, ff.NewFrame{})...)
	appendTo(t, x, &s, t0, 0, repeat(300, summary)...)
	if s.Kept != 800 {
		t.Errorf("%d of 800 are kept", s.Kept)
	}
	appendAfter(t, x, &s, 300, t0, 700, summary)
	if s.Kept != 700 {
		t.Errorf("%d are kept, want the 700 that the append says", s.Kept)
	}
}

func TestOnlyBestEffortStreamsExpire(t *testing.T) {
	x, s := active(t), lifecycle.Stream{}
	appendTo(t, x, &s, t0, 0, live(2*time.Second))
	appendTo(t, x, &s, after(time.Second), 0, live(time.Second))
	if s.Expired(after(3*time.Second)) || !s.Expired(after(3*time.Second+1)) {
		t.Errorf("expires at %s", s.ExpiresAt)
	}
	if a := appendTo(t, x, &s, after(4*time.Second), 0, live(time.Second)); !a.Restart || s.Kept != 1 || s.Count != 3 || a.Drop != 0 {
		t.Errorf("after the end: %+v, %+v", a, s)
	}
	appendTo(t, x, &s, after(5*time.Second), 0, ff.NewFrame{}, live(time.Second))
	if s.Expired(after(time.Hour)) || !s.Lasting {
		t.Errorf("a durable frame does not keep the stream: %+v", s)
	}
}

func TestAnAppendIsRefusedInTheWordsOfStreams(t *testing.T) {
	x := active(t)
	good := ff.Fence{LeaseID: x.Lease.ID, LeaseEpoch: 1, AttemptID: x.CurrentAttemptID}
	send := func(x *ff.Execution, f ff.Fence, now time.Time) error {
		args, err := lifecycle.PrepareAppend(&ff.AppendFrames{LeaseRef: ref(x, f), Frames: []ff.NewFrame{{}}})
		if err != nil {
			t.Fatal(err)
		}
		before := *x
		s := lifecycle.Stream{}
		_, err = lifecycle.Append(x, &s, nil, &args, now)
		if err != nil && s != (lifecycle.Stream{}) || x.State != before.State {
			t.Errorf("a refused append changed something: %+v", s)
		}
		return err
	}
	wantCode(t, send(x, good, x.Lease.ExpiresAt), ff.CodeStaleOwnerCannotAppend)
	wantCode(t, send(x, ff.Fence{LeaseID: leaseID(9), LeaseEpoch: 1, AttemptID: good.AttemptID}, t0), ff.CodeStaleOwnerCannotAppend)
	wantCode(t, send(submit(ff.CreateExecution{}), good, t0), ff.CodeStreamClosed)
	if err := send(x, good, x.Lease.ExpiresAt.Add(-1)); err != nil {
		t.Error(err)
	}
}

func TestTheEndOfAStreamFollowsFromItsAttempt(t *testing.T) {
	timeouts := policy(func(p *ff.ExecutionPolicy) {
		p.Timeout, p.Retry = &ff.TimeoutPolicy{Attempt: time.Second}, ff.FixedRetry(1, time.Second)
	})
	x := submit(timeouts)
	want := func(what string, index int, earlier []ff.Attempt, at time.Time, reason string) {
		t.Helper()
		if gotAt, got := lifecycle.StreamEnd(x, index, earlier); got != reason || !gotAt.Equal(at) {
			t.Errorf("%s: %q at %s, want %q at %s", what, got, gotAt, reason, at)
		}
	}
	open := time.Time{}
	want("waiting", 0, nil, open, "")
	claim(t, x, 1, t0)
	want("active", 0, nil, open, "")
	lifecycle.Advance(x, time.Hour, after(time.Second))
	want("timed out, during the backoff", 0, nil, after(time.Second), "attempt_failure")
	want("the attempt that will be", 1, nil, open, "")
	lifecycle.Advance(x, time.Hour, after(2*time.Second))
	first := x.Attempt
	claim(t, x, 2, after(2*time.Second))
	want("timed out, retried", 0, []ff.Attempt{first}, after(time.Second), "attempt_failure")
	lifecycle.Advance(x, time.Hour, after(3*time.Second))
	want("timed out for good", 1, []ff.Attempt{first}, after(3*time.Second), "expired")
	want("the attempt that will not be", 2, []ff.Attempt{first}, after(3*time.Second), "expired")
	if _, err := lifecycle.Replay(x, &ff.ReplayExecution{ID: x.ID}, after(4*time.Second)); err != nil {
		t.Fatal(err)
	}
	want("the attempt of the replay", 2, []ff.Attempt{first}, open, "")
	want("the attempt before the replay", 1, []ff.Attempt{first}, after(3*time.Second), "expired")
}

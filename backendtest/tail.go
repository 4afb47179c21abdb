package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var tailBehaviours = []behaviour{
	{"a tail returns what is there at once", tailAtOnce},
	{"a tail that waits hears of a frame within milliseconds", tailWaits},
	{"a tail goes on from where it was until the stream is closed", tailFollows},
	{"a tail that waits hears of the end of the attempt at once", tailClose},
	{"a tail that waits hears that its attempt will not be", tailOfNoAttempt},
	{"a tail that waits in vain gets an empty page and its position", tailWaitEnds},
	{"a tail without best-effort frames waits on past them", tailDurable},
	{"a tail waits for an attempt that has not begun", tailBeforeAttempt},
	{"a tail goes when its context ends", tailContext},
	{"a tail goes when the store is closed", tailClosed},
	{"many tails of many streams hear of their frames and ends", manyTails},
}

// tail is a tail that runs in a goroutine of its own.
func (s *subject) tail(c ff.TailFrames) <-chan ff.FramesResult {
	if c.Wait == 0 {
		c.Wait = ff.MaxTailWait
	}
	got := make(chan ff.FramesResult, 1)
	go func() {
		r, err := s.TailFrames(s.Context(), c)
		if err != nil {
			s.Error(err)
		}
		got <- r
	}()
	return got
}

func tailAtOnce(s *subject) {
	c := s.start(ff.CreateExecution{})
	ids := s.appendTo(c, textFrame("a"), textFrame("b"), textFrame("c")).IDs
	frames := s.frames(streamOf(c)).Frames
	for _, wait := range []time.Duration{0, time.Minute / 2} {
		for after, want := range map[ff.FrameID]ff.FramesResult{
			{}:     {Frames: frames[:2], Last: ids[1], More: true},
			ids[0]: {Frames: frames[1:], Last: ids[2], More: true},
			ids[1]: {Frames: frames[2:], Last: ids[2]},
		} {
			r, err := s.TailFrames(s.Context(), ff.TailFrames{StreamRef: streamOf(c), After: after, Limit: 2, Wait: wait})
			s.must(err)
			s.equal("the page after "+after.String(), r, want)
		}
	}
	r, err := s.TailFrames(s.Context(), ff.TailFrames{StreamRef: streamOf(c), After: ids[2]})
	s.must(err)
	s.equal("the page after the last", r, ff.FramesResult{Last: ids[2]})
}

func tailWaits(s *subject) {
	c := s.start(ff.CreateExecution{})
	after := s.appendTo(c, textFrame("before")).IDs[0]
	var took []time.Duration
	for i := range 15 {
		got := s.tail(ff.TailFrames{StreamRef: streamOf(c), After: after})
		settle()
		start := time.Now()
		s.appendTo(c, textFrame(fmt.Sprint(i)))
		r := <-got
		took = append(took, time.Since(start))
		if payloadsOf(r.Frames) != fmt.Sprint(i) || r.Closed() {
			s.Fatalf("the tail got %+v", r)
		}
		after = r.Last
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > 50*time.Millisecond {
		s.Errorf("a tail returns %s after the frame (median), want a few milliseconds", median)
	}
}

// follow tails until the stream is closed.
func (s *subject) follow(stream ff.StreamRef, limit int) (all ff.FramesResult) {
	for c := (ff.TailFrames{StreamRef: stream, Wait: ff.MaxTailWait, Limit: limit}); ; c.After = all.Last {
		r, err := s.TailFrames(s.Context(), c)
		if err != nil {
			s.Error(err)
			return all
		}
		r.Frames = append(all.Frames, r.Frames...)
		if all = r; all.Closed() {
			return all
		}
	}
}

func tailFollows(s *subject) {
	c := s.start(ff.CreateExecution{})
	got := make(chan ff.FramesResult, 1)
	go func() { got <- s.follow(streamOf(c), 7) }()
	const n = 200
	want := make([]ff.FrameID, 0, n)
	for i := range n {
		if i%10 == 0 {
			s.Advance(time.Millisecond)
		}
		want = append(want, s.appendTo(c, textFrame(fmt.Sprint(i))).IDs...)
	}
	s.complete(c)
	r := <-got
	s.equal("the reason", r.ClosedReason, "attempt_success")
	ids := make([]ff.FrameID, len(r.Frames))
	for i := range r.Frames {
		ids[i] = r.Frames[i].ID
	}
	s.equal("the frames", ids, want)
}

func tailClose(s *subject) {
	for _, e := range endings {
		for _, silent := range []bool{false, true} {
			c := s.start(e.submit)
			var after ff.FrameID
			if !silent {
				after = s.appendTo(c, textFrame("a")).IDs[0]
			}
			got := s.tail(ff.TailFrames{StreamRef: streamOf(c), After: after})
			settle()
			start := time.Now()
			e.end(s, c)
			r := <-got
			// A store may close it twice, first for the lapse.
			if !r.Closed() || r.ClosedReason != e.reason && r.ClosedReason != "lease_expired" || len(r.Frames) > 0 || r.Last != after {
				s.Errorf("after %s (silent %t): %+v", e.name, silent, r)
			}
			if took := time.Since(start); took > 500*time.Millisecond {
				s.Errorf("after %s (silent %t) the tail went on for %s", e.name, silent, took)
			}
			s.cancelAll()
		}
	}
}

func tailOfNoAttempt(s *subject) {
	waiting := s.submit(ff.CreateExecution{Lane: "other"})
	got := s.tail(ff.TailFrames{StreamRef: ff.StreamRef{ID: waiting}})
	settle()
	s.cancel(waiting)
	s.equal("the tail of a cancelled execution", <-got, ff.FramesResult{ClosedAt: s.now(), ClosedReason: "attempt_cancelled"})
	c := s.start(ff.CreateExecution{})
	got = s.tail(ff.TailFrames{StreamRef: ff.StreamRef{ID: c.Execution.ID, AttemptIndex: 1}})
	settle()
	s.complete(c)
	s.equal("the tail of the next attempt", <-got, ff.FramesResult{ClosedAt: s.now(), ClosedReason: "attempt_success"})
}

func tailWaitEnds(s *subject) {
	c := s.start(ff.CreateExecution{})
	after := s.appendTo(c, textFrame("a")).IDs[0]
	for _, after := range []ff.FrameID{after, {Ms: 1 << 63, Seq: 7}, {Ms: 1<<64 - 1, Seq: 1<<64 - 1}} {
		r, err := s.TailFrames(s.Context(), ff.TailFrames{StreamRef: streamOf(c), After: after, Wait: 20 * time.Millisecond})
		s.must(err)
		s.equal("the page", r, ff.FramesResult{Last: after})
	}
}

func tailDurable(s *subject) {
	c := s.start(ff.CreateExecution{})
	live := s.appendTo(c, textFrame("a"), liveFrame("b", time.Minute), liveFrame("c", time.Minute)).IDs
	r, err := s.TailFrames(s.Context(), ff.TailFrames{StreamRef: streamOf(c), After: live[0], Durable: true, Wait: 20 * time.Millisecond})
	s.must(err)
	s.equal("the page", r, ff.FramesResult{Last: live[2]})
	got := s.tail(ff.TailFrames{StreamRef: streamOf(c), After: live[0], Durable: true})
	settle()
	s.appendTo(c, liveFrame("d", time.Minute))
	settle()
	last := s.appendTo(c, liveFrame("e", time.Minute), textFrame("f")).IDs[1]
	r = <-got
	s.equal("what the tail got", payloadsOf(r.Frames), "f")
	s.equal("where it goes on", r.Last, last)
}

func tailBeforeAttempt(s *subject) {
	id := s.submit(ff.CreateExecution{})
	got := s.tail(ff.TailFrames{StreamRef: ff.StreamRef{ID: id}})
	settle()
	c := s.claim(ff.Claim{})
	s.appendTo(c, textFrame("a"))
	r := <-got
	s.equal("what the tail got", payloadsOf(r.Frames), "a")
}

func tailContext(s *subject) {
	c := s.start(ff.CreateExecution{})
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := s.TailFrames(ctx, ff.TailFrames{StreamRef: streamOf(c), Wait: ff.MaxTailWait})
	if !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("after the end of the context: %v", err)
	}
}

func tailClosed(s *subject) {
	c := s.start(ff.CreateExecution{})
	failed := make(chan error)
	go func() {
		_, err := s.TailFrames(s.Context(), ff.TailFrames{StreamRef: streamOf(c), Wait: ff.MaxTailWait})
		failed <- err
	}()
	settle()
	s.must(s.Close())
	s.refused(<-failed, ff.ErrUnavailable)
	_, err := s.tryAppend(c, textFrame("a"))
	s.refused(err, ff.ErrUnavailable)
	_, err = s.ReadFrames(s.Context(), ff.ReadFrames{StreamRef: streamOf(c)})
	s.refused(err, ff.ErrUnavailable)
}

func manyTails(s *subject) {
	const streams, tails, frames = 10, 20, 20
	claimed := make([]ff.Claimed, streams)
	got := make(chan string, streams*tails)
	for i := range claimed {
		claimed[i] = s.start(ff.CreateExecution{Lane: ff.LaneID(fmt.Sprint("lane ", i))})
		for range tails {
			go func() {
				r := s.follow(streamOf(claimed[i]), 0)
				got <- fmt.Sprint(i, len(r.Frames), r.ClosedReason)
			}()
		}
	}
	inParallel(streams, func(i int) {
		for range frames {
			if _, err := s.tryAppend(claimed[i], textFrame("a")); err != nil {
				s.Error(err)
			}
		}
		if _, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: claimed[i].Ref()}); err != nil {
			s.Error(err)
		}
	})
	seen := map[string]int{}
	for range streams * tails {
		seen[<-got]++
	}
	for i := range streams {
		s.equal("the tails", seen[fmt.Sprint(i, frames, "attempt_success")], tails)
	}
}

package backendtest

import (
	"context"
	"errors"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var storeBehaviours = []behaviour{
	{"a store describes itself", describes},
	{"a command whose context has ended does nothing", endedContext},
	{"a closed store refuses commands and closes again without an error", closed},
	{"what was acknowledged is there after a reopening", reopened},
}

func describes(s *subject) {
	s.must(s.Ping(s.Context()))
	info, err := s.Info(s.Context())
	s.must(err)
	if info.Store == "" || info.Version == "" || info.Durability == "" {
		s.Errorf("info %+v", info)
	}
	s.must(info.Partitions.Validate())
	before := s.now()
	s.Advance(time.Minute)
	s.equal("how far the clock moved", s.now().Sub(before), time.Minute)
}

func endedContext(s *subject) {
	id := s.submit(ff.CreateExecution{})
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	for range 20 {
		_, err := s.CreateExecution(ctx, filled(ff.CreateExecution{}))
		if !errors.Is(err, context.Canceled) {
			s.Fatalf("create with an ended context: %v", err)
		}
	}
	_, err := s.Claim(ctx, ff.Claim{Claimant: who("a"), Lanes: []ff.LaneID{mainLane}})
	if !errors.Is(err, context.Canceled) {
		s.Errorf("claim with an ended context: %v", err)
	}
	got := s.claimUpTo(ff.Claim{Max: 50})
	if len(got) != 1 || got[0].Execution.ID != id {
		s.Errorf("claimed %d, want the one submitted before", len(got))
	}
}

func closed(s *subject) {
	s.must(s.Close())
	_, err := s.CreateExecution(s.Context(), filled(ff.CreateExecution{}))
	s.refused(err, ff.ErrUnavailable)
	_, err = s.Claim(s.Context(), ff.Claim{Claimant: who("a"), Lanes: []ff.LaneID{mainLane}, Wait: time.Minute})
	s.refused(err, ff.ErrUnavailable)
	s.must(s.Close())
}

// reopened compares everything that can be read before and after.
func reopened(s *subject) {
	if s.Reopen == nil {
		return // Nothing is kept beyond the life of this store.
	}
	lapsed := s.start(retrying(ff.FixedRetry(3, time.Minute)))
	lost := s.lose(ff.CreateExecution{Lane: "lost", Tags: map[string]string{"a.b": "c"}, Payload: []byte("in")})
	done := s.start(ff.CreateExecution{Lane: "done", IdempotencyKey: "key"})
	_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: done.Ref(), Result: []byte("out")})
	s.must(err)
	s.register(ff.RegisterWorker{Claimant: who("a", "gpu"), Lanes: []ff.LaneID{mainLane}})
	active := s.start(ff.CreateExecution{Lane: "active"})
	s.appendTo(active, ff.NewFrame{Type: "stdout", Payload: []byte("working")}, summaryFrame(`{"files":{"a.go":1}}`))
	waiting := s.submit(ff.CreateExecution{Lane: "granted"})
	s.grant(ff.GrantNext{Lane: "granted"})
	s.submit(ff.CreateExecution{Delay: time.Second})
	before := s.everything()
	s.Backend = s.Reopen(s.t)
	s.equal("everything", s.everything(), before)
	s.countsEqualRecount()

	// It goes on where it was.
	s.refused(s.renew(lapsed.Ref(), ttl).Err, ff.ErrLeaseExpired)
	s.must(s.renew(active.Ref(), ttl).Err)
	s.equal("the counters", s.appendTo(active, summaryFrame(`{}`)), ff.AppendFramesResult{
		IDs: []ff.FrameID{s.position(0)}, Count: 3, SummaryVersion: 2})
	r, err := s.CreateExecution(s.Context(), filled(ff.CreateExecution{Lane: "done", IdempotencyKey: "key"}))
	s.must(err)
	s.equal("the duplicate", r, ff.CreateExecutionResult{ID: done.Execution.ID, State: ff.StateCompleted, Duplicate: true})
	_, err = s.claimGranted(waiting, who("a"))
	s.must(err)
	again := s.claim(ff.Claim{Lanes: []ff.LaneID{"lost"}})
	if again.Execution.ID != lost.Execution.ID || string(again.Payload) != "in" || again.Execution.LeaseEpoch != 2 {
		s.Errorf("claimed %+v", again)
	}
	s.Advance(time.Second)
	s.equal("promoted", s.sweep(ff.SweepDelayed), 1)
}

type content struct {
	Executions []ff.Execution
	Attempts   [][]ff.Attempt
	Payloads   []ff.ExecutionPayload
	Results    [][]byte
	Frames     []ff.FramesResult
	Summaries  []ff.Summary
	Events     []ff.Event
	Lanes      []ff.LaneStatus
	Workers    []ff.WorkerInfo
}

func (s *subject) everything() (all content) {
	s.Helper()
	r, err := s.ListExecutions(s.Context(), ff.ListExecutions{Limit: ff.MaxPageLimit})
	s.must(err)
	for _, x := range r.Executions {
		payload, err := s.ExecutionPayload(s.Context(), x.ID)
		s.must(err)
		result, err := s.ExecutionResult(s.Context(), x.ID)
		s.must(err)
		all.Attempts, all.Payloads, all.Results = append(all.Attempts, s.attempts(x.ID)), append(all.Payloads, payload), append(all.Results, result)
		for i := range x.TotalAttempts {
			stream := ff.StreamRef{ID: x.ID, AttemptIndex: i}
			all.Frames, all.Summaries = append(all.Frames, s.frames(stream)), append(all.Summaries, s.summary(stream))
		}
		all.Events = append(all.Events, s.events(ff.ReadEvents{ID: x.ID})...)
	}
	all.Executions, all.Workers = r.Executions, s.workers(ff.ListWorkers{})
	all.Lanes, err = s.Lanes(s.Context())
	s.must(err)
	return all
}

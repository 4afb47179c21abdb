package backendtest

import (
	"sync/atomic"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var sweepBehaviours = []behaviour{
	{"a delayed execution becomes eligible when its time has come", sweepDelayed},
	{"a lapsed lease is marked and the attempt is interrupted", sweepLease},
	{"an attempt that takes too long is retried and then expires", sweepAttemptTimeout},
	{"the attempt timeout starts anew with every lease", sweepAttemptTimeoutAnew},
	{"a deadline expires an execution whatever it does", sweepDeadline},
	{"retention deletes an execution with everything that belongs to it", sweepRetention},
	{"a policy has its own retention", sweepOwnRetention},
	{"a replayed execution is not deleted", sweepReplayed},
	{"a sweep says when the next thing is due", sweepNext},
	{"a sweep stops at its limit and says that more is due", sweepLimit},
	{"a sweep leaves alone what is of another kind", sweepKinds},
	{"sweeps at the same time do everything once", concurrentSweeps},
	{"who watches hears of something due earlier", watchDue},
	{"sweeps that cannot be are refused", badSweeps},
}

func sweepDelayed(s *subject) {
	byDelay := s.submit(ff.CreateExecution{Delay: time.Minute})
	byInstant := s.submit(ff.CreateExecution{DelayUntil: s.now().Add(time.Minute)})
	byPolicy := s.submit(policed(func(p *ff.ExecutionPolicy) { p.DelayUntil = s.now().Add(time.Minute + time.Millisecond) }))
	all := []ff.ExecutionID{byDelay, byInstant, byPolicy}
	for _, id := range all {
		x := s.wantState(id, ff.StateDelayed)
		s.equal("the reason", x.State.Blocking, ff.WaitingForDelay)
	}
	s.Advance(time.Minute - 10*time.Millisecond)
	s.equal("promoted too early", s.sweep(ff.SweepDelayed), 0)
	s.nothingToClaim()
	s.Advance(10 * time.Millisecond)
	s.equal("promoted", s.sweep(ff.SweepDelayed), 3)
	for _, id := range all {
		x := s.wantState(id, ff.StateWaiting)
		s.equal("the state", x.State, waitingVector)
		if !x.DelayUntil.IsZero() {
			s.Errorf("still delayed until %s", x.DelayUntil)
		}
	}
	s.equal("claimed", len(s.claimUpTo(ff.Claim{Max: 5})), 3)
}

func sweepLease(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.Advance(ttl - time.Millisecond)
	s.equal("marked too early", s.sweep(ff.SweepLeaseExpiry), 0)
	s.Advance(time.Millisecond)
	s.nothingToClaim()
	s.equal("marked", s.sweep(ff.SweepLeaseExpiry), 1)
	s.equal("marked again", s.sweep(ff.SweepLeaseExpiry), 0)
	x := s.wantState(c.Execution.ID, ff.StateActive)
	s.equal("the state", x.State, ff.StateVector{Phase: ff.PhaseActive, Ownership: ff.OwnershipLeaseExpired,
		Eligibility: ff.EligibilityNotApplicable, Blocking: ff.WaitingForWorker, Outcome: ff.OutcomeNone, Attempt: ff.AttemptInterrupted})
	if !x.LeaseExpiredAt.Equal(s.now()) || x.Lease.ID != c.Execution.Lease.ID {
		s.Errorf("lapsed record: %+v", x)
	}
}

func timingOut(retries int) ff.CreateExecution {
	return policed(func(p *ff.ExecutionPolicy) {
		p.Retry = ff.FixedRetry(retries, time.Second)
		p.Timeout = &ff.TimeoutPolicy{Attempt: 5 * time.Second}
	})
}

func sweepAttemptTimeout(s *subject) {
	c := s.start(timingOut(1))
	s.must(s.renew(c.Ref(), time.Hour).Err)
	s.Advance(5*time.Second - time.Millisecond)
	s.equal("too early", s.sweep(ff.SweepAttemptTimeout), 0)
	s.Advance(time.Millisecond)
	s.equal("timed out", s.sweep(ff.SweepAttemptTimeout), 1)
	x := s.wantState(c.Execution.ID, ff.StateDelayed)
	if x.RetryCount != 1 || x.Attempt.State != ff.AttemptEndedFailure || x.Attempt.FailureReason != "attempt_timeout" || x.FailureCategory != "timeout" {
		s.Errorf("after the first timeout: %+v", x)
	}
	_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref()})
	s.refused(err, ff.ErrExecutionNotActive)
	s.pass(time.Second)
	s.equal("the second attempt", s.claim(ff.Claim{}).Execution.Attempt.Type, ff.AttemptRetry)
	s.pass(5 * time.Second)
	x = s.wantState(c.Execution.ID, ff.StateExpired)
	if x.FailureReason != "attempt_timeout" || !x.Lease.ID.IsZero() || x.State.Outcome != ff.OutcomeExpired || x.TotalAttempts != 2 {
		s.Errorf("after the second timeout: %+v", x)
	}
}

func sweepAttemptTimeoutAnew(s *subject) {
	c := s.start(timingOut(0))
	s.Advance(4 * time.Second)
	_, err := s.ReleaseExecutions(s.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{c.Ref()}})
	s.must(err)
	s.pass(time.Hour)
	s.wantState(c.Execution.ID, ff.StateWaiting)
	c = s.claim(ff.Claim{})
	s.pass(5*time.Second - time.Millisecond)
	s.wantState(c.Execution.ID, ff.StateActive)
	s.pass(time.Millisecond)
	s.wantState(c.Execution.ID, ff.StateExpired)
}

func sweepDeadline(s *subject) {
	s.Advance(time.Millisecond)
	at := s.now().Add(time.Minute)
	waiting := s.submit(ff.CreateExecution{Lane: "w", Deadline: at})
	delayed := s.submit(ff.CreateExecution{Delay: time.Hour, Deadline: at})
	granted := s.submit(ff.CreateExecution{Lane: "g", Deadline: at})
	s.grant(ff.GrantNext{Lane: "g", TTL: time.Minute})
	active := s.submit(ff.CreateExecution{Deadline: at})
	c := s.claim(ff.Claim{LeaseTTL: time.Hour})
	s.Advance(at.Sub(s.now()) - time.Millisecond)
	s.equal("too early", s.sweep(ff.SweepExecutionDeadline), 0)
	s.Advance(time.Millisecond)
	s.equal("expired", s.sweep(ff.SweepExecutionDeadline), 4)
	for id, attempt := range map[ff.ExecutionID]ff.AttemptPhase{
		waiting: ff.AttemptPendingFirst, delayed: ff.AttemptPendingFirst, granted: ff.AttemptPendingFirst, active: ff.AttemptTerminal,
	} {
		x := s.wantState(id, ff.StateExpired)
		if x.FailureReason != "execution_deadline" || x.State.Attempt != attempt || !x.Lease.ID.IsZero() || x.Grant != (ff.Grant{}) {
			s.Errorf("expired record: %+v", x)
		}
	}
	s.equal("the attempt", s.attempts(active)[0].State, ff.AttemptEndedFailure)
	s.refused(s.renew(c.Ref(), ttl).Err, ff.ErrExecutionNotActive)
	relative := s.submit(policed(func(p *ff.ExecutionPolicy) { p.Timeout = &ff.TimeoutPolicy{Deadline: time.Second} }))
	s.pass(time.Second)
	s.wantState(relative, ff.StateExpired)
}

func sweepRetention(s *subject) {
	lost := s.lose(ff.CreateExecution{IdempotencyKey: "key", Payload: []byte("in"), Tags: map[string]string{"a.b": "c"}})
	id := lost.Execution.ID
	c := s.claim(ff.Claim{})
	_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte("out")})
	s.must(err)
	s.pass(ff.DefaultRetention - time.Millisecond)
	s.wantState(id, ff.StateCompleted)
	s.Advance(time.Millisecond)
	s.equal("deleted", s.sweep(ff.SweepRetention), 1)
	ctx := s.Context()
	for name, read := range map[string]func() error{
		"record":   func() error { _, err := s.Execution(ctx, id); return err },
		"payload":  func() error { _, err := s.ExecutionPayload(ctx, id); return err },
		"result":   func() error { _, err := s.ExecutionResult(ctx, id); return err },
		"attempts": func() error { _, err := s.Attempts(ctx, id); return err },
		"replay":   func() error { _, err := s.ReplayExecution(ctx, ff.ReplayExecution{ID: id}); return err },
	} {
		if err := read(); ff.CodeOf(err) != ff.CodeExecutionNotFound {
			s.Errorf("%s of a deleted execution: %v", name, err)
		}
	}
	events, err := s.ReadEvents(ctx, ff.ReadEvents{ID: id})
	s.must(err)
	s.equal("events", len(events.Events), 0)
	s.countsEqualRecount()
	// The id and the key are free again.
	r, err := s.CreateExecution(ctx, filled(ff.CreateExecution{ID: id, IdempotencyKey: "key"}))
	s.must(err)
	s.equal("the answer", r, ff.CreateExecutionResult{ID: id, State: ff.StateWaiting})
	if x := s.read(id); x.TotalAttempts != 0 || len(x.Tags) > 0 || len(s.attempts(id)) > 0 {
		s.Errorf("the new execution has inherited: %+v", x)
	}
	again := s.claim(ff.Claim{})
	s.equal("the payload", string(again.Payload), "")
}

func sweepOwnRetention(s *subject) {
	c := s.start(policed(func(p *ff.ExecutionPolicy) { p.Stream = &ff.StreamPolicy{RetentionTTL: time.Minute} }))
	s.complete(c)
	kept := s.start(ff.CreateExecution{})
	s.complete(kept)
	s.pass(time.Minute)
	_, err := s.Execution(s.Context(), c.Execution.ID)
	s.refused(err, ff.ErrExecutionNotFound)
	s.wantState(kept.Execution.ID, ff.StateCompleted)
}

func sweepReplayed(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.complete(c)
	_, err := s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: c.Execution.ID})
	s.must(err)
	s.pass(10 * ff.DefaultRetention)
	s.wantState(c.Execution.ID, ff.StateWaiting)
}

func sweepNext(s *subject) {
	s.submit(ff.CreateExecution{Delay: time.Hour})
	s.submit(ff.CreateExecution{Delay: time.Minute})
	r, err := s.Sweep(s.Context(), ff.Sweep{Kind: ff.SweepDelayed})
	s.must(err)
	s.equal("the answer", r, ff.SweepResult{Next: s.now().Add(time.Minute), Now: s.now()})
	s.equal("the wait", r.Wait(time.Hour), time.Minute)
	s.Advance(time.Hour)
	r, err = s.Sweep(s.Context(), ff.Sweep{Kind: ff.SweepDelayed})
	s.must(err)
	s.equal("the last answer", r, ff.SweepResult{Processed: 2, Now: s.now()})
}

func sweepLimit(s *subject) {
	for range 25 {
		s.submit(ff.CreateExecution{Delay: time.Minute})
	}
	s.Advance(time.Minute)
	for _, want := range []struct {
		processed int
		more      bool
	}{{10, true}, {10, true}, {5, false}} {
		r, err := s.Sweep(s.Context(), ff.Sweep{Kind: ff.SweepDelayed, Limit: 10})
		s.must(err)
		if r.Processed != want.processed || r.More != want.more {
			s.Errorf("swept %d, more %t, want %d, %t", r.Processed, r.More, want.processed, want.more)
		}
	}
}

func sweepKinds(s *subject) {
	s.start(timingOut(0))
	s.submit(ff.CreateExecution{Delay: time.Second})
	s.complete(s.start(ff.CreateExecution{}))
	s.Advance(5 * time.Second)
	for _, k := range []ff.SweepKind{ff.SweepLeaseExpiry, ff.SweepExecutionDeadline, ff.SweepRetention} {
		s.equal("swept of "+string(k), s.sweep(k), 0)
	}
	s.equal("swept of the delayed", s.sweep(ff.SweepDelayed), 1)
	s.equal("swept of the attempt timeouts", s.sweep(ff.SweepAttemptTimeout), 1)
}

func concurrentSweeps(s *subject) {
	const n = 300
	for range n {
		s.submit(ff.CreateExecution{Delay: time.Minute})
	}
	s.Advance(time.Minute)
	var processed atomic.Int64
	inParallel(4, func(int) {
		for more := true; more; {
			r, err := s.Sweep(s.Context(), ff.Sweep{Kind: ff.SweepDelayed, Limit: 20})
			if err != nil {
				s.Error(err)
				return
			}
			processed.Add(int64(r.Processed))
			more = r.More
		}
	})
	s.equal("processed by all", processed.Load(), int64(n))
	s.countsEqualRecount()
}

func watchDue(s *subject) {
	due, stop := s.WatchDue(ff.SweepDelayed)
	defer stop()
	if due == nil {
		return // The store cannot tell: its loops poll.
	}
	heard := func(what string) {
		s.Helper()
		select {
		case <-due:
		case <-time.After(10 * time.Second):
			s.Fatalf("the watcher did not hear of %s", what)
		}
	}
	s.sweep(ff.SweepDelayed)
	s.submit(ff.CreateExecution{Delay: time.Hour})
	heard("the first delay")
	s.sweep(ff.SweepDelayed)
	s.submit(ff.CreateExecution{Delay: time.Minute})
	heard("an earlier delay")
	s.sweep(ff.SweepDelayed)
	s.submit(ff.CreateExecution{})
	s.grant(ff.GrantNext{TTL: time.Second})
	heard("a grant that lapses earlier")
}

func badSweeps(s *subject) {
	for _, c := range []ff.Sweep{{}, {Kind: "dust"}, {Kind: ff.SweepDelayed, Limit: -1}} {
		_, err := s.Sweep(s.Context(), c)
		s.refused(err, ff.ErrInvalidInput)
	}
}

package backendtest

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var leaseBehaviours = []behaviour{
	{"a renewal extends the lease and keeps its epoch", renewExtends},
	{"a renewal never shortens a lease", renewNeverShortens},
	{"one call renews many leases, each with its own fate", renewMany},
	{"progress keeps what is not given", progress},
	{"a completion keeps its result", completion},
	{"a delayed execution goes on with the same attempt", delay},
	{"a delay until the past makes it eligible at once", delayPast},
	{"a released execution goes on at once with the same attempt", release},
	{"one call releases many leases, each with its own fate", releaseMany},
	{"a revoked lease leaves its worker without rights", revoke},
	{"a revocation that finds nothing to take says why", revokeNothing},
	{"lapsed leases are listed in the order of their ends", expiredLeases},
	{"commands with values that cannot be are refused", badLeaseCommands},
}

func (s *subject) renew(ref ff.LeaseRef, ttl time.Duration) ff.Renewal {
	s.Helper()
	r, err := s.RenewLeases(s.Context(), ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: ttl})
	s.must(err)
	return r.Renewals[0]
}

func renewExtends(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.Advance(ttl - time.Millisecond)
	want := s.now().Add(ttl)
	s.equal("the renewal", s.renew(c.Ref(), ttl), ff.Renewal{ID: c.Execution.ID, ExpiresAt: want})
	x := s.read(c.Execution.ID)
	if !x.Lease.ExpiresAt.Equal(want) || x.LeaseEpoch != 1 || x.Lease.ID != c.Execution.Lease.ID || !x.Lease.RenewedAt.Equal(s.now()) {
		s.Errorf("renewed lease: %+v, epoch %d", x.Lease, x.LeaseEpoch)
	}
	s.pass(ttl - time.Millisecond)
	s.nothingToClaim()
	s.complete(c)
}

func renewNeverShortens(s *subject) {
	c := s.start(ff.CreateExecution{})
	if r := s.renew(c.Ref(), time.Second); r.Err != nil || !r.ExpiresAt.Equal(c.Execution.Lease.ExpiresAt) {
		s.Errorf("renewal %+v, want the end %s", r, c.Execution.Lease.ExpiresAt)
	}
}

func renewMany(s *subject) {
	good, done, revoked, stale := s.start(ff.CreateExecution{}), s.start(ff.CreateExecution{}), s.start(ff.CreateExecution{}), s.start(ff.CreateExecution{})
	s.complete(done)
	_, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: revoked.Execution.ID})
	s.must(err)
	missing, old := good.Ref(), stale.Ref()
	missing.ID = ff.MakeExecutionID(0, good.Execution.Lease.ID.UUID())
	old.Fence.LeaseEpoch = 7
	r, err := s.RenewLeases(s.Context(), ff.RenewLeases{TTL: time.Minute,
		Leases: []ff.LeaseRef{old, done.Ref(), good.Ref(), missing, revoked.Ref()}})
	s.must(err)
	for i, want := range []*ff.Error{ff.ErrStaleLease, ff.ErrExecutionNotActive, nil, ff.ErrExecutionNotFound, ff.ErrLeaseRevoked} {
		if want == nil {
			s.equal("the good renewal", r.Renewals[i], ff.Renewal{ID: good.Execution.ID, ExpiresAt: s.now().Add(time.Minute)})
			continue
		}
		s.refused(r.Renewals[i].Err, want)
	}
}

func progress(s *subject) {
	c := s.start(ff.CreateExecution{})
	fifty, zero := 50, 0
	for _, step := range []struct {
		percent *int
		message string
		want    ff.Progress
	}{
		{&fifty, "halfway there", ff.Progress{Percent: &fifty, Message: "halfway there"}},
		{nil, "still there", ff.Progress{Percent: &fifty, Message: "still there"}},
		{&zero, "", ff.Progress{Percent: &zero, Message: "still there"}},
	} {
		s.Advance(time.Second)
		s.must(s.UpdateProgress(s.Context(), ff.UpdateProgress{LeaseRef: c.Ref(), Percent: step.percent, Message: step.message}))
		step.want.UpdatedAt = s.now()
		s.equal("the progress", s.read(c.Execution.ID).Progress, step.want)
	}
	if x := s.read(c.Execution.ID); !x.Lease.ExpiresAt.Equal(c.Execution.Lease.ExpiresAt) {
		s.Error("progress has renewed the lease")
	}
}

func completion(s *subject) {
	c := s.start(ff.CreateExecution{})
	id := c.Execution.ID
	if r, err := s.ExecutionResult(s.Context(), id); err != nil || r != nil {
		s.Errorf("result before the end: %q, %v", r, err)
	}
	s.Advance(time.Second)
	r, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte(`{"status":"ok"}`)})
	s.must(err)
	s.equal("the answer", r, ff.CompleteExecutionResult{State: ff.StateCompleted})
	x := s.read(id)
	s.equal("the state", x.State, ff.StateVector{Phase: ff.PhaseTerminal, Ownership: ff.OwnershipUnowned,
		Eligibility: ff.EligibilityNotApplicable, Blocking: ff.BlockingNone, Outcome: ff.OutcomeSuccess, Attempt: ff.AttemptTerminal})
	if !x.Lease.ID.IsZero() || !x.CompletedAt.Equal(s.now()) || x.Attempt.State != ff.AttemptEndedSuccess || !x.Attempt.EndedAt.Equal(s.now()) {
		s.Errorf("completed record: %+v", x)
	}
	result, err := s.ExecutionResult(s.Context(), id)
	s.must(err)
	s.equal("the result", string(result), `{"status":"ok"}`)
}

func delay(s *subject) {
	c := s.start(ff.CreateExecution{Payload: []byte("in")})
	r, err := s.DelayExecution(s.Context(), ff.DelayExecution{LeaseRef: c.Ref(), For: time.Minute})
	s.must(err)
	s.equal("the answer", r, ff.DelayExecutionResult{Until: s.now().Add(time.Minute)})
	x := s.wantState(c.Execution.ID, ff.StateDelayed)
	if x.State.Blocking != ff.WaitingForDelay || !x.Lease.ID.IsZero() || x.Attempt.State != ff.AttemptSuspended || x.Attempt.Suspension != "worker_delay" {
		s.Errorf("delayed record: %+v", x)
	}
	s.pass(time.Minute - time.Millisecond)
	s.nothingToClaim()
	s.pass(time.Millisecond)
	s.resumed(c, s.claim(ff.Claim{Claimant: who("b")}))
}

// resumed checks that a parked attempt goes on.
func (s *subject) resumed(before, after ff.Claimed) {
	s.Helper()
	x := after.Execution
	if !after.Resumed || x.ID != before.Execution.ID || x.CurrentAttemptID != before.Execution.CurrentAttemptID || x.Attempt.Index != 0 ||
		x.TotalAttempts != 1 || x.LeaseEpoch != 2 || x.Lease.ID == before.Execution.Lease.ID || x.Attempt.ResumedAt.IsZero() ||
		string(after.Payload) != string(before.Payload) {
		s.Errorf("resumed: %+v", after)
	}
	s.equal("the attempts", len(s.attempts(x.ID)), 1)
	s.refused(s.renew(before.Ref(), ttl).Err, ff.ErrStaleLease)
	s.complete(after)
}

func delayPast(s *subject) {
	c := s.start(ff.CreateExecution{})
	_, err := s.DelayExecution(s.Context(), ff.DelayExecution{LeaseRef: c.Ref(), Until: s.now().Add(-time.Second)})
	s.must(err)
	s.wantState(c.Execution.ID, ff.StateWaiting)
	s.resumed(c, s.claim(ff.Claim{Claimant: who("b")}))
}

func release(s *subject) {
	c := s.start(ff.CreateExecution{Payload: []byte("in")})
	r, err := s.ReleaseExecutions(s.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{c.Ref()}, Reason: "shutdown"})
	s.must(err)
	s.must(errors.Join(r.Errs...))
	s.wantState(c.Execution.ID, ff.StateWaiting)
	s.resumed(c, s.claim(ff.Claim{Claimant: who("b")}))
}

func releaseMany(s *subject) {
	good, done := s.start(ff.CreateExecution{}), s.start(ff.CreateExecution{})
	s.complete(done)
	stale := good.Ref()
	stale.Fence.AttemptID = ff.NewAttemptID()
	r, err := s.ReleaseExecutions(s.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{done.Ref(), stale, good.Ref()}})
	s.must(err)
	s.refused(r.Errs[0], ff.ErrExecutionNotActive)
	s.refused(r.Errs[1], ff.ErrStaleLease)
	s.must(r.Errs[2])
	s.wantState(good.Execution.ID, ff.StateWaiting)
}

func revoke(s *subject) {
	c := s.start(ff.CreateExecution{})
	r, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: c.Execution.ID, LeaseID: c.Execution.Lease.ID, Instance: "a", Reason: "node lost"})
	s.must(err)
	s.equal("the answer", r, ff.RevokeLeaseResult{LeaseID: c.Execution.Lease.ID, LeaseEpoch: 1})
	x := s.wantState(c.Execution.ID, ff.StateActive)
	if x.State.Ownership != ff.OwnershipLeaseRevoked || x.LeaseRevokeReason != "node lost" || !x.LeaseRevokedAt.Equal(s.now()) {
		s.Errorf("revoked record: %+v", x)
	}
}

func revokeNothing(s *subject) {
	waiting := s.submit(ff.CreateExecution{Lane: "other"})
	revoked, active := s.start(ff.CreateExecution{}).Execution.ID, s.start(ff.CreateExecution{}).Execution.ID
	_, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: revoked})
	s.must(err)
	wantAlready := func(c ff.RevokeLease, want string) {
		s.Helper()
		r, err := s.RevokeLease(s.Context(), c)
		s.must(err)
		s.equal("the answer", r.Already, want)
	}
	wantAlready(ff.RevokeLease{ID: waiting}, "no_active_lease")
	wantAlready(ff.RevokeLease{ID: revoked}, "already_revoked")
	wantAlready(ff.RevokeLease{ID: active, Instance: "another"}, "different_worker_instance_id")
	_, err = s.RevokeLease(s.Context(), ff.RevokeLease{ID: active, LeaseID: ff.NewLeaseID()})
	s.refused(err, ff.ErrStaleLease)
	s.equal("the ownership", s.read(active).State.Ownership, ff.OwnershipLeased)
	s.pass(ttl)
	wantAlready(ff.RevokeLease{ID: active}, "already_expired")
}

func expiredLeases(s *subject) {
	var want []ff.ExpiredLease
	for range 5 {
		s.Advance(time.Second)
		c := s.start(ff.CreateExecution{})
		l := c.Execution.Lease
		want = append(want, ff.ExpiredLease{ID: c.Execution.ID, LeaseID: l.ID, LeaseEpoch: 1, Instance: "a", ExpiresAt: l.ExpiresAt})
	}
	s.Advance(ttl - time.Second)
	list := func(q ff.ListExpiredLeases) []ff.ExpiredLease {
		q.Limit = 2
		return paged(s, func(cursor string) ([]ff.ExpiredLease, string) {
			q.Cursor = cursor
			r, err := s.ListExpiredLeases(s.Context(), q)
			s.must(err)
			return r.Leases, r.Next
		})
	}
	s.equal("before the loop has come by", list(ff.ListExpiredLeases{}), want[:4])
	s.sweep(ff.SweepLeaseExpiry)
	s.equal("after it", list(ff.ListExpiredLeases{}), want[:4])
	s.equal("as of an earlier instant", list(ff.ListExpiredLeases{AsOf: want[1].ExpiresAt}), want[:2])
	s.equal("taken over", s.claim(ff.Claim{}).Execution.ID, want[0].ID)
	s.equal("after a takeover", list(ff.ListExpiredLeases{}), want[1:4])
	_, err := s.ListExpiredLeases(s.Context(), ff.ListExpiredLeases{Cursor: "nonsense"})
	s.refused(err, ff.ErrInvalidInput)
}

func badLeaseCommands(s *subject) {
	ctx, c := s.Context(), s.start(ff.CreateExecution{})
	ref, percent := c.Ref(), 101
	for name, call := range map[string]func() error{
		"no leases to renew": func() error { _, err := s.RenewLeases(ctx, ff.RenewLeases{TTL: ttl}); return err },
		"a lease too short": func() error {
			_, err := s.RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: 1})
			return err
		},
		"no leases to release": func() error { _, err := s.ReleaseExecutions(ctx, ff.ReleaseExecutions{}); return err },
		"101 percent":          func() error { return s.UpdateProgress(ctx, ff.UpdateProgress{LeaseRef: ref, Percent: &percent}) },
		"no time to delay to":  func() error { _, err := s.DelayExecution(ctx, ff.DelayExecution{LeaseRef: ref}); return err },
		"a negative delay":     func() error { _, err := s.DelayExecution(ctx, ff.DelayExecution{LeaseRef: ref, For: -1}); return err },
		"a reason with a NUL": func() error {
			_, err := s.FailExecution(ctx, ff.FailExecution{LeaseRef: ref, Reason: "a\x00"})
			return err
		},
	} {
		if err := call(); ff.CodeOf(err) != ff.CodeInvalidInput {
			s.Errorf("%s: %v", name, err)
		}
	}
	s.equal("the record", s.read(c.Execution.ID), c.Execution)
}

// holderCommand is a command of the holder of a lease.
type holderCommand struct {
	name string
	send func(*subject, ff.LeaseRef) error
}

var holderCommands = []holderCommand{
	{"renew", func(s *subject, ref ff.LeaseRef) error {
		r, err := s.RenewLeases(s.Context(), ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: ttl})
		if err != nil {
			return err
		}
		return r.Renewals[0].Err
	}},
	{"progress", func(s *subject, ref ff.LeaseRef) error {
		return s.UpdateProgress(s.Context(), ff.UpdateProgress{LeaseRef: ref, Message: "m"})
	}},
	{"complete", func(s *subject, ref ff.LeaseRef) error {
		_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: ref, Result: []byte("r")})
		return err
	}},
	{"fail", func(s *subject, ref ff.LeaseRef) error {
		_, err := s.FailExecution(s.Context(), ff.FailExecution{LeaseRef: ref, Reason: "r"})
		return err
	}},
	{"delay", func(s *subject, ref ff.LeaseRef) error {
		_, err := s.DelayExecution(s.Context(), ff.DelayExecution{LeaseRef: ref, For: time.Second})
		return err
	}},
	{"release", func(s *subject, ref ff.LeaseRef) error {
		r, err := s.ReleaseExecutions(s.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{ref}})
		if err != nil {
			return err
		}
		return r.Errs[0]
	}},
}

var fenceBehaviours = []behaviour{
	{"every command with another fence is refused and changes nothing", otherFences},
	{"every command needs the whole fence", wholeFences},
	{"every command after a lapse is refused and the lapse is recorded", fenceLapsed},
	{"every command after a revocation is refused", fenceRevoked},
	{"every command of an earlier holder is refused", fenceEarlier},
	{"every command after the end is refused with what a caller needs to know", fenceEnded},
	{"an operator may complete and fail without a fence", operatorOverride},
	{"a completion can be repeated by its holder only", repeatCompletion},
	{"a failure can be repeated by its holder only", repeatFailure},
	{"a failure that was retried can be repeated by its holder only", repeatRetriedFailure},
	{"a lease after a replay has full rights", leaseAfterReplay},
}

func otherFences(s *subject) {
	c := s.start(ff.CreateExecution{})
	for _, command := range holderCommands {
		for part, change := range map[string]func(*ff.Fence){
			"lease id":   func(f *ff.Fence) { f.LeaseID = ff.NewLeaseID() },
			"epoch":      func(f *ff.Fence) { f.LeaseEpoch++ },
			"attempt id": func(f *ff.Fence) { f.AttemptID = ff.NewAttemptID() },
		} {
			ref := c.Ref()
			change(&ref.Fence)
			if err := command.send(s, ref); !errors.Is(err, ff.ErrStaleLease) {
				s.Errorf("%s with another %s: %v", command.name, part, err)
			}
		}
	}
	s.equal("the record", s.read(c.Execution.ID), c.Execution)
}

func wholeFences(s *subject) {
	c := s.start(ff.CreateExecution{})
	for _, command := range holderCommands {
		none, partial := c.Ref(), c.Ref()
		none.Fence, partial.Fence.AttemptID = ff.Fence{}, ff.AttemptID{}
		if err := command.send(s, none); !errors.Is(err, ff.ErrFenceRequired) {
			s.Errorf("%s without a fence: %v", command.name, err)
		}
		if err := command.send(s, partial); !errors.Is(err, ff.ErrPartialFenceTriple) {
			s.Errorf("%s with a part of a fence: %v", command.name, err)
		}
	}
	s.equal("the record", s.read(c.Execution.ID), c.Execution)
}

func fenceLapsed(s *subject) {
	for _, command := range holderCommands {
		c := s.start(ff.CreateExecution{Lane: ff.LaneID(command.name)})
		s.Advance(ttl)
		for range 2 {
			if err := command.send(s, c.Ref()); !errors.Is(err, ff.ErrLeaseExpired) {
				s.Errorf("%s after the lapse: %v", command.name, err)
			}
			s.equal(command.name+": the ownership", s.read(c.Execution.ID).State.Ownership, ff.OwnershipLeaseExpired)
		}
		s.claim(ff.Claim{Lanes: []ff.LaneID{c.Execution.Lane}})
	}
}

func fenceRevoked(s *subject) {
	c := s.start(ff.CreateExecution{})
	_, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: c.Execution.ID})
	s.must(err)
	before := s.read(c.Execution.ID)
	for _, command := range holderCommands {
		if err := command.send(s, c.Ref()); !errors.Is(err, ff.ErrLeaseRevoked) {
			s.Errorf("%s after the revocation: %v", command.name, err)
		}
	}
	s.equal("the record", s.read(c.Execution.ID), before)
}

func fenceEarlier(s *subject) {
	lost := s.lose(ff.CreateExecution{})
	now := s.claim(ff.Claim{Claimant: who("b")})
	for _, command := range holderCommands {
		if err := command.send(s, lost.Ref()); !errors.Is(err, ff.ErrStaleLease) {
			s.Errorf("%s by the earlier holder: %v", command.name, err)
		}
	}
	s.equal("the record", s.read(lost.Execution.ID), now.Execution)
}

func fenceEnded(s *subject) {
	c := s.start(ff.CreateExecution{})
	_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: c.Execution.ID})
	s.must(err)
	want := []string{"cancelled", strconv.FormatUint(c.Execution.LeaseEpoch, 10), "terminal", c.Execution.CurrentAttemptID.String()}
	for _, command := range holderCommands {
		err := command.send(s, c.Ref())
		e, ok := ff.AsError(err)
		if !ok || e.Code != ff.CodeExecutionNotActive {
			s.Errorf("%s after the end: %v", command.name, err)
			continue
		}
		s.equal(command.name+": the details", e.Details, want)
	}
}

func operatorOverride(s *subject) {
	ctx := s.Context()
	c := s.start(ff.CreateExecution{})
	_, err := s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: ff.LeaseRef{ID: c.Execution.ID}, Source: ff.SourceOperatorOverride, Result: []byte("by hand")})
	s.must(err)
	s.wantState(c.Execution.ID, ff.StateCompleted)
	c = s.start(ff.CreateExecution{})
	fail := ff.FailExecution{LeaseRef: ff.LeaseRef{ID: c.Execution.ID}, Source: ff.SourceOperatorOverride, Reason: "by hand"}
	_, err = s.FailExecution(ctx, fail)
	s.must(err)
	s.wantState(c.Execution.ID, ff.StateFailed)
	fail.ID = s.submit(ff.CreateExecution{})
	_, err = s.FailExecution(ctx, fail)
	s.refused(err, ff.ErrExecutionNotActive)
	s.wantState(fail.ID, ff.StateWaiting)
}

func repeatCompletion(s *subject) {
	c := s.start(ff.CreateExecution{})
	for i, result := range []string{"first", "second"} {
		r, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte(result)})
		s.must(err)
		s.equal("the answer", r, ff.CompleteExecutionResult{State: ff.StateCompleted, Repeated: i > 0})
		s.Advance(time.Minute)
	}
	stored, err := s.ExecutionResult(s.Context(), c.Execution.ID)
	s.must(err)
	s.equal("the result", string(stored), "first")
	other := c.Ref()
	other.Fence.LeaseEpoch++
	_, err = s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: other})
	s.refused(err, ff.ErrExecutionNotActive)
	_, err = s.FailExecution(s.Context(), ff.FailExecution{LeaseRef: c.Ref()})
	s.refused(err, ff.ErrExecutionNotActive)
}

func repeatFailure(s *subject) {
	c := s.start(ff.CreateExecution{})
	for i, reason := range []string{"first", "second"} {
		r, err := s.FailExecution(s.Context(), ff.FailExecution{LeaseRef: c.Ref(), Reason: reason})
		s.must(err)
		s.equal("the answer", r, ff.FailExecutionResult{State: ff.StateFailed, Repeated: i > 0})
	}
	s.equal("the reason", s.read(c.Execution.ID).FailureReason, "first")
	other := c.Ref()
	other.Fence.AttemptID = ff.NewAttemptID()
	_, err := s.FailExecution(s.Context(), ff.FailExecution{LeaseRef: other})
	s.refused(err, ff.ErrExecutionNotActive)
}

func repeatRetriedFailure(s *subject) {
	c := s.start(policed(func(p *ff.ExecutionPolicy) { p.Retry = ff.FixedRetry(5, time.Minute) }))
	due := s.now().Add(time.Minute)
	for i := range 3 {
		r, err := s.FailExecution(s.Context(), ff.FailExecution{LeaseRef: c.Ref(), Reason: fmt.Sprint(i)})
		s.must(err)
		s.equal("the answer", r, ff.FailExecutionResult{State: ff.StateDelayed, RetryAt: due, Retried: true, Repeated: i > 0})
		s.Advance(time.Second)
	}
	s.equal("retries", s.read(c.Execution.ID).RetryCount, 1)
	other := c.Ref()
	other.Fence.LeaseEpoch++
	_, err := s.FailExecution(s.Context(), ff.FailExecution{LeaseRef: other})
	s.refused(err, ff.ErrExecutionNotActive)
}

func leaseAfterReplay(s *subject) {
	c := s.start(ff.CreateExecution{})
	_, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: c.Execution.ID})
	s.must(err)
	_, err = s.CancelExecution(s.Context(), ff.CancelExecution{ID: c.Execution.ID})
	s.must(err)
	_, err = s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: c.Execution.ID})
	s.must(err)
	again := s.claim(ff.Claim{})
	s.must(s.renew(again.Ref(), ttl).Err)
	s.complete(again)
}

var retryBehaviours = []behaviour{
	{"a failure without a retry policy is final", failFinal},
	{"a failure with retries left waits for its backoff", failRetries},
	{"a handler that always fails runs once more than its retries", failAlways},
	{"an exponential backoff doubles up to its ceiling", failExponential},
	{"jitter takes at most half of the backoff off", failJitter},
	{"a failure of another category is final", failCategories},
	{"the worker may forbid the retry", failNoRetry},
	{"the worker may choose the wait", failRetryAfter},
}

func (s *subject) fail(c ff.Claimed, f ff.FailExecution) ff.FailExecutionResult {
	s.Helper()
	f.LeaseRef = c.Ref()
	r, err := s.FailExecution(s.Context(), f)
	s.must(err)
	return r
}

func retrying(r *ff.RetryPolicy) ff.CreateExecution {
	return policed(func(p *ff.ExecutionPolicy) { p.Retry = r })
}

func failFinal(s *subject) {
	for _, c := range []ff.CreateExecution{{}, retrying(ff.FixedRetry(0, time.Second))} {
		c := s.start(c)
		r := s.fail(c, ff.FailExecution{Reason: "broken", Category: "bug"})
		s.equal("the answer", r, ff.FailExecutionResult{State: ff.StateFailed})
		x := s.wantState(c.Execution.ID, ff.StateFailed)
		if x.FailureReason != "broken" || x.FailureCategory != "bug" || x.CompletedAt.IsZero() || x.Attempt.State != ff.AttemptEndedFailure ||
			x.Attempt.FailureReason != "broken" || x.Attempt.FailureCategory != "bug" {
			s.Errorf("failed record: %+v", x)
		}
	}
}

func failRetries(s *subject) {
	c := s.start(retrying(ff.FixedRetry(1, time.Minute)))
	r := s.fail(c, ff.FailExecution{Reason: "broken"})
	s.equal("the answer", r, ff.FailExecutionResult{State: ff.StateDelayed, RetryAt: s.now().Add(time.Minute), Retried: true})
	x := s.read(c.Execution.ID)
	s.equal("the state", x.State, ff.StateVector{Phase: ff.PhaseRunnable, Ownership: ff.OwnershipUnowned,
		Eligibility: ff.NotEligibleUntilTime, Blocking: ff.WaitingForRetryBackoff, Outcome: ff.OutcomeNone, Attempt: ff.AttemptPendingRetry})
	if x.RetryCount != 1 || !x.Lease.ID.IsZero() || x.Attempt.State != ff.AttemptEndedFailure || !x.DelayUntil.Equal(r.RetryAt) {
		s.Errorf("waiting record: %+v", x)
	}
	s.pass(time.Minute - time.Millisecond)
	s.nothingToClaim()
	s.pass(time.Millisecond)
	again := s.claim(ff.Claim{})
	a := again.Execution.Attempt
	if a.Index != 1 || a.Type != ff.AttemptRetry || a.Cause != "broken" || a.Previous != 0 || again.Execution.LeaseEpoch != 2 || again.Resumed {
		s.Errorf("the retry: %+v", a)
	}
	s.equal("the second failure", s.fail(again, ff.FailExecution{}), ff.FailExecutionResult{State: ff.StateFailed})
}

func failAlways(s *subject) {
	id := s.submit(retrying(ff.FixedRetry(2, 50*time.Millisecond)))
	runs := 0
	for got := s.claimUpTo(ff.Claim{}); len(got) > 0; got = s.claimUpTo(ff.Claim{}) {
		s.equal("the attempt", got[0].Execution.Attempt.Index, runs)
		runs++
		s.fail(got[0], ff.FailExecution{Reason: "always"})
		s.pass(50 * time.Millisecond)
	}
	s.equal("runs", runs, 3)
	s.wantState(id, ff.StateFailed)
	s.equal("attempts", len(s.attempts(id)), 3)
}

func failExponential(s *subject) {
	id := s.submit(retrying(ff.ExponentialRetry(5, time.Second, 6*time.Second)))
	for _, want := range []time.Duration{1, 2, 4, 6, 6} {
		r := s.fail(s.claim(ff.Claim{}), ff.FailExecution{})
		s.equal("the wait", r.RetryAt.Sub(s.now()), want*time.Second)
		s.pass(want * time.Second)
	}
	s.fail(s.claim(ff.Claim{}), ff.FailExecution{})
	s.wantState(id, ff.StateFailed)
}

func failJitter(s *subject) {
	retry := ff.ExponentialRetry(5, 10*time.Second, time.Minute)
	retry.Backoff.Jitter = true
	waits := map[time.Duration]bool{}
	for range 20 {
		r := s.fail(s.start(retrying(retry)), ff.FailExecution{})
		wait := r.RetryAt.Sub(s.now())
		waits[wait] = true
		if wait < 5*time.Second || wait > 10*time.Second {
			s.Errorf("a wait of %s, want 5s to 10s", wait)
		}
	}
	if len(waits) < 10 {
		s.Errorf("20 waits with jitter have %d values", len(waits))
	}
}

func failCategories(s *subject) {
	retry := ff.FixedRetry(5, time.Second)
	retry.RetryableCategories = []string{"network"}
	for category, want := range map[string]ff.PublicState{"network": ff.StateDelayed, "bug": ff.StateFailed, "": ff.StateFailed} {
		r := s.fail(s.start(retrying(retry)), ff.FailExecution{Category: category})
		s.equal("the state after a failure of category "+category, r.State, want)
	}
}

func failNoRetry(s *subject) {
	r := s.fail(s.start(retrying(ff.FixedRetry(5, time.Second))), ff.FailExecution{NoRetry: true})
	s.equal("the answer", r, ff.FailExecutionResult{State: ff.StateFailed})
}

func failRetryAfter(s *subject) {
	r := s.fail(s.start(retrying(ff.FixedRetry(1, time.Second))), ff.FailExecution{RetryAfter: time.Hour})
	s.equal("the wait", r.RetryAt.Sub(s.now()), time.Hour)
	r = s.fail(s.start(ff.CreateExecution{}), ff.FailExecution{RetryAfter: time.Hour})
	s.equal("without a policy", r.State, ff.StateFailed)
}

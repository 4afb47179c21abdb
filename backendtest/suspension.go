package backendtest

import (
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var suspensionBehaviours = []behaviour{
	{"a suspended execution gives up its lease until its signal comes", suspendAndResume},
	{"a signal of another name leaves it suspended", otherSignal},
	{"a suspension repeated by its holder answers the same", suspendRepeated},
	{"a suspension repeated with its key answers the same after it is over", suspendKeyed},
	{"all of several waitpoints must have had their signals", suspendAllOf},
	{"a count needs distinct waitpoints, signals or sources", suspendCounts},
	{"conditions nest", suspendNested},
	{"what no signal meets is resumed by an operator", operatorResumes},
	{"a resumption can be held back", resumeDelays},
	{"the timeout does what the suspension says", suspensionTimeouts},
	{"an escalated suspension waits for an operator", escalation},
	{"an execution that ends while suspended closes its suspension", endsWhileSuspended},
	{"a suspension and what it had is there after a reopening", suspensionReopened},
	{"a suspension that cannot be is refused", badSuspensions},
	{"only the holder suspends", suspendFenced},
}

// suspend suspends a claimed execution and checks that it is.
func (s *subject) suspend(c ff.Claimed, cmd ff.SuspendExecution) ff.SuspendExecutionResult {
	s.Helper()
	cmd.LeaseRef = c.Ref()
	if cmd.Condition.Kind == "" {
		cmd.Condition = ff.AwaitSignal("go")
	}
	r, err := s.SuspendExecution(s.Context(), cmd)
	s.must(err)
	if !r.Satisfied {
		s.wantState(c.Execution.ID, ff.StateSuspended)
	}
	return r
}

// signal delivers a signal and gives its effect.
func (s *subject) signal(id ff.ExecutionID, w ff.IssuedWaitpoint, c ff.DeliverSignal) ff.SignalEffect {
	s.Helper()
	r := s.deliver(id, w, c)
	if r.Duplicate {
		s.Fatalf("signal %q is a duplicate of %s", c.Name, r.SignalID)
	}
	return r.Effect
}

func (s *subject) deliver(id ff.ExecutionID, w ff.IssuedWaitpoint, c ff.DeliverSignal) ff.DeliverSignalResult {
	s.Helper()
	r, err := s.tryDeliver(id, w, c)
	s.must(err)
	return r
}

func (s *subject) tryDeliver(id ff.ExecutionID, w ff.IssuedWaitpoint, c ff.DeliverSignal) (ff.DeliverSignalResult, error) {
	c.ID, c.WaitpointID = id, w.ID
	if c.Token == "" {
		c.Token = w.Token
	}
	if c.Name == "" {
		c.Name = "go"
	}
	return s.DeliverSignal(s.Context(), c)
}

func (s *subject) suspension(id ff.ExecutionID) ff.Suspension {
	s.Helper()
	r, err := s.Suspension(s.Context(), id)
	s.must(err)
	return r
}

// wantEffects delivers signals one after another and checks what they do.
func (s *subject) wantEffects(id ff.ExecutionID, steps []effectStep) {
	s.Helper()
	for i, step := range steps {
		if got := s.signal(id, step.at, step.signal); got != step.want {
			s.Fatalf("signal %d has the effect %s, want %s", i, got, step.want)
		}
	}
}

type effectStep struct {
	at     ff.IssuedWaitpoint
	signal ff.DeliverSignal
	want   ff.SignalEffect
}

func named(name string) ff.DeliverSignal { return ff.DeliverSignal{Name: name} }

func by(source string) ff.DeliverSignal {
	return ff.DeliverSignal{Name: "go", SourceType: "user", SourceIdentity: source}
}

func suspendAndResume(s *subject) {
	c := s.start(ff.CreateExecution{Payload: []byte("in")})
	id := c.Execution.ID
	s.Advance(time.Second)
	r := s.suspend(c, ff.SuspendExecution{Reason: ff.SuspendedForApproval, Continuation: "step 3"})
	w := r.Waitpoints[0]
	x := s.read(id)
	s.equal("the state", x.State, ff.StateVector{Phase: ff.PhaseSuspended, Ownership: ff.OwnershipUnowned,
		Eligibility: ff.EligibilityNotApplicable, Blocking: ff.WaitingForApproval, Outcome: ff.OutcomeNone, Attempt: ff.AttemptInterrupted})
	if !x.Lease.ID.IsZero() || x.Attempt.State != ff.AttemptSuspended || x.Attempt.Suspension != r.SuspensionID.String() ||
		x.SuspensionID != r.SuspensionID || x.WaitpointID != w.ID || !x.SuspensionTimeoutAt.IsZero() {
		s.Errorf("suspended record: %+v", x)
	}
	s.refused(s.renew(c.Ref(), ttl).Err, ff.ErrExecutionNotActive)
	s.pass(48 * time.Hour)
	s.nothingToClaim()

	payload := []byte("\x00 any bytes \xff")
	sig := ff.DeliverSignal{Name: "go", Category: "approval", SourceType: "user", SourceIdentity: "ann", Payload: payload, PayloadEncoding: "raw", CorrelationID: "c-1"}
	if got := s.signal(id, w, sig); got != ff.EffectResumed {
		s.Fatalf("the effect is %s", got)
	}
	x = s.wantState(id, ff.StateWaiting)
	if !x.SuspensionID.IsZero() || !x.WaitpointID.IsZero() {
		s.Errorf("resumed record: %+v", x)
	}
	s.resumed(c, s.claim(ff.Claim{Claimant: who("b")}))

	latest := s.suspension(id)
	if latest.Open() || latest.ID != r.SuspensionID || latest.CloseReason != ff.ClosedResumed || !latest.SatisfiedAt.Equal(s.now()) ||
		latest.Continuation != "step 3" || latest.Reason != ff.SuspendedForApproval || len(latest.ResumedBy) != 1 {
		s.Errorf("the suspension: %+v", latest)
	}
	list, err := s.ListSignals(s.Context(), ff.ListSignals{ID: id, Resumed: true})
	s.must(err)
	if len(list.Signals) != 1 {
		s.Fatalf("%d signals have resumed it", len(list.Signals))
	}
	s.equal("the signal", list.Signals[0], ff.Signal{ID: latest.ResumedBy[0], ExecutionID: id, WaitpointID: w.ID, Name: "go", Category: "approval",
		SourceType: "user", SourceIdentity: "ann", Payload: payload, PayloadEncoding: "raw", CorrelationID: "c-1", TargetScope: "waitpoint",
		CreatedAt: s.now(), AcceptedAt: s.now(), Effect: ff.EffectResumed})
}

func otherSignal(s *subject) {
	c := s.start(ff.CreateExecution{})
	w := s.suspend(c, ff.SuspendExecution{}).Waitpoints[0]
	s.wantEffects(c.Execution.ID, []effectStep{{w, named("stop"), ff.EffectNone}, {w, named("GO"), ff.EffectNone}})
	s.wantState(c.Execution.ID, ff.StateSuspended)
	s.wantEffects(c.Execution.ID, []effectStep{{w, named("go"), ff.EffectResumed}})

	c = s.start(ff.CreateExecution{Lane: "any"})
	w = s.suspend(c, ff.SuspendExecution{Condition: ff.AwaitSignal("")}).Waitpoints[0]
	s.wantEffects(c.Execution.ID, []effectStep{{w, named("whatever"), ff.EffectResumed}})
}

func suspendRepeated(s *subject) {
	c := s.start(ff.CreateExecution{})
	cmd := ff.SuspendExecution{LeaseRef: c.Ref(), SuspensionID: ff.NewSuspensionID(), Condition: ff.AwaitSignal("go"), TimeoutAfter: time.Hour}
	first, err := s.SuspendExecution(s.Context(), cmd)
	s.must(err)
	s.Advance(time.Second)
	again, err := s.SuspendExecution(s.Context(), cmd)
	s.must(err)
	s.equal("the repetition", again, first)
	cmd.SuspensionID = ff.NewSuspensionID()
	_, err = s.SuspendExecution(s.Context(), cmd)
	s.refused(err, ff.ErrExecutionNotActive)
	stale := cmd
	stale.SuspensionID, stale.Fence.LeaseEpoch = first.SuspensionID, 9
	_, err = s.SuspendExecution(s.Context(), stale)
	s.refused(err, ff.ErrExecutionNotActive)
}

func suspendKeyed(s *subject) {
	c := s.start(ff.CreateExecution{})
	cmd := ff.SuspendExecution{LeaseRef: c.Ref(), Condition: ff.AwaitSignal("go"), IdempotencyKey: "step 1", TimeoutAfter: time.Hour}
	first, err := s.SuspendExecution(s.Context(), cmd)
	s.must(err)
	s.signal(c.Execution.ID, first.Waitpoints[0], ff.DeliverSignal{})
	again, err := s.SuspendExecution(s.Context(), cmd)
	s.must(err)
	first.TimeoutAt, again.TimeoutAt = time.Time{}, time.Time{}
	s.equal("the repetition", again, first)
	s.Advance(time.Hour + time.Minute)
	_, err = s.SuspendExecution(s.Context(), cmd)
	s.refused(err, ff.ErrExecutionNotActive)
}

// waitAt suspends a new execution at waitpoints of the given keys.
func (s *subject) waitAt(cond ff.ResumeCondition, keys ...string) (ff.ExecutionID, []ff.IssuedWaitpoint) {
	s.Helper()
	cmd := ff.SuspendExecution{Condition: cond}
	for _, key := range keys {
		cmd.Waitpoints = append(cmd.Waitpoints, ff.WaitpointBinding{Key: key})
	}
	c := s.start(ff.CreateExecution{})
	r := s.suspend(c, cmd)
	if len(r.Waitpoints) != max(1, len(keys)) {
		s.Fatalf("%d waitpoints for %d keys", len(r.Waitpoints), len(keys))
	}
	return c.Execution.ID, r.Waitpoints
}

// resumedHere checks that the execution goes on, and ends it.
func (s *subject) resumedHere(id ff.ExecutionID) {
	s.Helper()
	c := s.claim(ff.Claim{})
	if c.Execution.ID != id || !c.Resumed {
		s.Fatalf("claimed %s (resumed: %t), want %s", c.Execution.ID, c.Resumed, id)
	}
	s.complete(c)
}

func suspendAllOf(s *subject) {
	id, w := s.waitAt(ff.AllOf(ff.AwaitSignal("yes").At("legal"), ff.AwaitSignal("yes").At("finance"), ff.AwaitSignal("").At("any")), "legal", "finance", "any")
	s.wantEffects(id, []effectStep{
		{w[0], named("no"), ff.EffectNotMatched},
		{w[0], named("yes"), ff.EffectAppended},
		{w[0], named("yes"), ff.EffectRepeated},
		{w[2], named("x"), ff.EffectAppended},
	})
	s.wantState(id, ff.StateSuspended)
	s.wantEffects(id, []effectStep{{w[1], named("yes"), ff.EffectResumed}})
	for _, closed := range w {
		_, err := s.tryDeliver(id, closed, named("yes"))
		s.refused(err, ff.ErrTargetNotSignalable)
	}
	if got := len(s.suspension(id).ResumedBy); got != 3 {
		s.Errorf("%d signals have resumed it, want 3", got)
	}
	s.resumedHere(id)
}

func suspendCounts(s *subject) {
	id, w := s.waitAt(ff.AwaitCount(2, ff.DistinctSources))
	s.wantEffects(id, []effectStep{{w[0], by("ann"), ff.EffectAppended}, {w[0], by("ann"), ff.EffectRepeated}, {w[0], by("bob"), ff.EffectResumed}})
	s.resumedHere(id)
	id, w = s.waitAt(ff.AwaitCount(2, ff.DistinctSignals))
	s.wantEffects(id, []effectStep{{w[0], by("ann"), ff.EffectAppended}, {w[0], by("ann"), ff.EffectResumed}})
	s.resumedHere(id)
	id, w = s.waitAt(ff.AwaitCount(2, ff.DistinctWaitpoints, "a", "b", "c").Named("yes"), "a", "b", "c")
	s.wantEffects(id, []effectStep{
		{w[0], named("yes"), ff.EffectAppended}, {w[0], named("yes"), ff.EffectRepeated}, {w[1], named("no"), ff.EffectNotMatched},
		{w[2], named("yes"), ff.EffectResumed},
	})
	s.resumedHere(id)
}

func suspendNested(s *subject) {
	id, w := s.waitAt(ff.AllOf(
		ff.AwaitSignal("start").At("a"),
		ff.AllOf(ff.AwaitCount(2, ff.DistinctSources, "b"), ff.AllOf(ff.AwaitSignal("end").At("a"))),
	), "a", "b")
	s.wantEffects(id, []effectStep{
		{w[1], by("ann"), ff.EffectAppended}, {w[0], named("end"), ff.EffectAppended}, {w[1], by("bob"), ff.EffectAppended},
		{w[1], by("eve"), ff.EffectAppended}, {w[0], named("other"), ff.EffectNotMatched}, {w[0], named("start"), ff.EffectResumed},
	})
	s.resumedHere(id)
}

func operatorResumes(s *subject) {
	for _, cond := range []ff.ResumeCondition{ff.OperatorOnly(), ff.AwaitSignal("go"), ff.AllOf(ff.AwaitSignal("a"), ff.AwaitSignal("b"))} {
		c := s.start(ff.CreateExecution{})
		w := s.suspend(c, ff.SuspendExecution{Condition: cond, Reason: ff.SuspendedForOperatorReview}).Waitpoints[0]
		if cond.Kind == ff.ConditionOperator {
			s.wantEffects(c.Execution.ID, []effectStep{{w, named("go"), ff.EffectNone}})
		}
		r, err := s.ResumeExecution(s.Context(), ff.ResumeExecution{ID: c.Execution.ID})
		s.must(err)
		s.equal("the answer", r, ff.ResumeExecutionResult{State: ff.StateWaiting})
		latest := s.suspension(c.Execution.ID)
		if latest.Open() || latest.CloseReason != ff.ClosedResumed {
			s.Errorf("the suspension: %+v", latest)
		}
		list, err := s.ListSignals(s.Context(), ff.ListSignals{ID: c.Execution.ID, Resumed: true})
		s.must(err)
		s.equal("the signals that have resumed it", len(list.Signals), 0)
		_, err = s.tryDeliver(c.Execution.ID, w, named("go"))
		s.refused(err, ff.ErrTargetNotSignalable)
		_, err = s.ResumeExecution(s.Context(), ff.ResumeExecution{ID: c.Execution.ID})
		s.refused(err, &ff.Error{Code: ff.CodeExecutionNotSuspended})
		s.resumedHere(c.Execution.ID)
	}
	_, err := s.ResumeExecution(s.Context(), ff.ResumeExecution{ID: ff.MakeExecutionID(0, ff.NewLeaseID().UUID())})
	s.refused(err, ff.ErrExecutionNotFound)
}

func resumeDelays(s *subject) {
	resume := map[string]func(id ff.ExecutionID, w ff.IssuedWaitpoint){
		"by the suspension": func(id ff.ExecutionID, w ff.IssuedWaitpoint) { s.signal(id, w, named("go")) },
		"by the signal": func(id ff.ExecutionID, w ff.IssuedWaitpoint) {
			s.signal(id, w, ff.DeliverSignal{ResumeDelay: time.Minute})
		},
		"by the operator": func(id ff.ExecutionID, _ ff.IssuedWaitpoint) {
			_, err := s.ResumeExecution(s.Context(), ff.ResumeExecution{ID: id, Delay: time.Minute})
			s.must(err)
		},
	}
	for how, do := range resume {
		c := s.start(ff.CreateExecution{})
		cmd := ff.SuspendExecution{}
		if how == "by the suspension" {
			cmd.ResumeDelay = time.Minute
		}
		do(c.Execution.ID, s.suspend(c, cmd).Waitpoints[0])
		x := s.wantState(c.Execution.ID, ff.StateDelayed)
		if x.State.Blocking != ff.WaitingForResumeDelay || !x.DelayUntil.Equal(s.now().Add(time.Minute)) {
			s.Errorf("%s: %+v until %s", how, x.State, x.DelayUntil)
		}
		s.pass(time.Minute - time.Millisecond)
		s.nothingToClaim()
		s.pass(time.Millisecond)
		s.resumedHere(c.Execution.ID)
	}
}

func suspensionTimeouts(s *subject) {
	for behaviour, want := range map[ff.TimeoutBehavior]struct {
		state  ff.PublicState
		reason string
	}{
		ff.TimeoutFail:   {ff.StateFailed, ff.ClosedTimedOutFail},
		ff.TimeoutCancel: {ff.StateCancelled, ff.ClosedTimedOutCancel},
		ff.TimeoutExpire: {ff.StateExpired, ff.ClosedTimedOutExpire},
		ff.TimeoutResume: {ff.StateWaiting, ff.ClosedTimedOutResume},
	} {
		c := s.start(retrying(ff.FixedRetry(3, 0)))
		id := c.Execution.ID
		r := s.suspend(c, ff.SuspendExecution{TimeoutAfter: time.Minute, OnTimeout: behaviour})
		at := s.now().Add(time.Minute)
		if x := s.read(id); !x.SuspensionTimeoutAt.Equal(at) || !r.TimeoutAt.Equal(at) {
			s.Errorf("the timeout is %s and %s, want %s", x.SuspensionTimeoutAt, r.TimeoutAt, at)
		}
		s.pass(time.Minute - time.Millisecond)
		s.wantState(id, ff.StateSuspended)
		s.pass(time.Millisecond)
		x := s.wantState(id, want.state)
		latest := s.suspension(id)
		if latest.Open() || latest.CloseReason != want.reason || !latest.ClosedAt.Equal(s.now()) || len(latest.ResumedBy) > 0 {
			s.Errorf("%s: %+v", behaviour, latest)
		}
		_, err := s.tryDeliver(id, r.Waitpoints[0], named("go"))
		s.refused(err, ff.ErrTargetNotSignalable)
		if want.state == ff.StateWaiting {
			if !latest.TimedOut() {
				s.Error("the suspension does not say that it timed out")
			}
			s.resumedHere(id)
			continue
		}
		if reason := "suspension_timeout:" + string(behaviour); x.FailureReason != reason || x.Attempt.FailureReason != reason || x.Attempt.EndedAt.IsZero() {
			s.Errorf("%s: failed with %q, attempt %+v", behaviour, x.FailureReason, x.Attempt)
		}
	}
}

func escalation(s *subject) {
	c := s.start(ff.CreateExecution{})
	w := s.suspend(c, ff.SuspendExecution{TimeoutAt: s.now().Add(time.Minute), OnTimeout: ff.TimeoutEscalate}).Waitpoints[0]
	s.pass(time.Minute)
	x := s.wantState(c.Execution.ID, ff.StateSuspended)
	if x.State.Blocking != ff.PausedByOperator || !x.SuspensionTimeoutAt.IsZero() {
		s.Errorf("escalated: %+v", x)
	}
	if latest := s.suspension(c.Execution.ID); !latest.Open() || latest.Reason != ff.SuspendedForOperatorReview {
		s.Errorf("the suspension: %+v", latest)
	}
	s.pass(time.Hour)
	s.wantEffects(c.Execution.ID, []effectStep{{w, named("go"), ff.EffectResumed}})
	s.resumedHere(c.Execution.ID)
}

func endsWhileSuspended(s *subject) {
	c := s.start(ff.CreateExecution{})
	r := s.suspend(c, ff.SuspendExecution{TimeoutAfter: time.Minute})
	_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: c.Execution.ID, Reason: "enough"})
	s.must(err)
	s.closedWith(c.Execution.ID, r, ff.ClosedCancelled)

	c = s.start(ff.CreateExecution{Deadline: s.now().Add(time.Minute)})
	r = s.suspend(c, ff.SuspendExecution{TimeoutAfter: time.Hour, OnTimeout: ff.TimeoutResume})
	s.pass(time.Minute)
	s.wantState(c.Execution.ID, ff.StateExpired)
	s.closedWith(c.Execution.ID, r, ff.ClosedExpiredPrefix+"execution_deadline")
	s.pass(2 * time.Hour)
	s.nothingToClaim()
}

func (s *subject) closedWith(id ff.ExecutionID, r ff.SuspendExecutionResult, reason string) {
	s.Helper()
	if latest := s.suspension(id); latest.Open() || latest.CloseReason != reason {
		s.Errorf("the suspension: %+v, want it closed with %q", latest, reason)
	}
	if x := s.read(id); !x.SuspensionID.IsZero() || !x.WaitpointID.IsZero() || !x.SuspensionTimeoutAt.IsZero() {
		s.Errorf("the record still names a suspension: %+v", x)
	}
	list, err := s.ListWaitpoints(s.Context(), ff.ListWaitpoints{ID: id})
	s.must(err)
	if len(list.Waitpoints) > 0 {
		s.Errorf("open waitpoints of an ended execution: %+v", list.Waitpoints)
	}
	_, err = s.tryDeliver(id, r.Waitpoints[0], named("go"))
	s.refused(err, ff.ErrTargetNotSignalable)
}

func suspensionReopened(s *subject) {
	if s.Reopen == nil {
		return // Nothing is kept beyond the life of this store.
	}
	id, w := s.waitAt(ff.AwaitCount(2, ff.DistinctSources))
	s.wantEffects(id, []effectStep{{w[0], by("ann"), ff.EffectAppended}})
	timed := s.start(ff.CreateExecution{Lane: "timed"})
	s.suspend(timed, ff.SuspendExecution{TimeoutAfter: time.Minute})
	before := s.suspension(id)
	s.Backend = s.Reopen(s.t)
	s.equal("the suspension", s.suspension(id), before)
	s.wantEffects(id, []effectStep{{w[0], by("ann"), ff.EffectRepeated}, {w[0], by("bob"), ff.EffectResumed}})
	s.resumedHere(id)
	s.pass(time.Minute)
	s.wantState(timed.Execution.ID, ff.StateFailed)
}

func badSuspensions(s *subject) {
	c := s.start(ff.CreateExecution{})
	deep := ff.AwaitSignal("x")
	for range ff.MaxConditionDepth + 1 {
		deep = ff.AllOf(deep)
	}
	for what, cmd := range map[string]ff.SuspendExecution{
		"no condition":              {Condition: ff.ResumeCondition{Kind: "Never"}},
		"an empty all-of":           {Condition: ff.AllOf()},
		"a count of none":           {Condition: ff.AwaitCount(0, ff.DistinctSignals)},
		"a count of too many":       {Condition: ff.AwaitCount(2, ff.DistinctWaitpoints)},
		"a count of what":           {Condition: ff.AwaitCount(1, "DistinctMoods")},
		"too deep a condition":      {Condition: deep},
		"a part of another kind":    {Condition: ff.AllOf(ff.AwaitSignal("x")).Named("y")},
		"a reserved name":           {Condition: ff.AwaitSignal("__operator_only__")},
		"an operator within":        {Condition: ff.AllOf(ff.OperatorOnly())},
		"no deadline for a timeout": {Condition: ff.TimeoutOnly()},
		"a waitpoint not had":       {Condition: ff.AllOf(ff.AwaitSignal("").At("a"), ff.AwaitSignal("").At("b")), Waitpoints: []ff.WaitpointBinding{{Key: "a"}}},
		"a waitpoint not needed":    {Condition: ff.AwaitSignal("").At("a"), Waitpoints: []ff.WaitpointBinding{{Key: "a"}, {Key: "b"}}},
		"a key twice":               {Condition: ff.AwaitSignal("").At("a"), Waitpoints: []ff.WaitpointBinding{{Key: "a"}, {Key: "a"}}},
		"a pending one beside":      {Condition: ff.AwaitSignal("").At("a"), Waitpoints: []ff.WaitpointBinding{{Key: "a"}, {ID: ff.NewWaitpointID(), Pending: true}}},
		"a key with a tab":          {Condition: ff.AwaitSignal(""), Waitpoints: []ff.WaitpointBinding{{Key: "a\tb"}}},
		"two timeouts":              {Condition: ff.AwaitSignal(""), TimeoutAfter: time.Second, TimeoutAt: s.now()},
		"a negative timeout":        {Condition: ff.AwaitSignal(""), TimeoutAfter: -time.Second},
		"another reason":            {Condition: ff.AwaitSignal(""), Reason: "tired"},
		"another behaviour":         {Condition: ff.AwaitSignal(""), OnTimeout: "shrug"},
	} {
		cmd.LeaseRef = c.Ref()
		_, err := s.SuspendExecution(s.Context(), cmd)
		if ff.CodeOf(err) != ff.CodeInvalidInput {
			s.Errorf("%s: %v", what, err)
		}
	}
	s.must(s.renew(c.Ref(), ttl).Err)
	if latest := s.suspension(c.Execution.ID); !latest.ID.IsZero() {
		s.Errorf("there is a suspension: %+v", latest)
	}
}

func suspendFenced(s *subject) {
	c := s.start(ff.CreateExecution{})
	cmd := ff.SuspendExecution{LeaseRef: c.Ref(), Condition: ff.AwaitSignal("go")}
	stale := cmd
	stale.Fence.LeaseEpoch++
	_, err := s.SuspendExecution(s.Context(), stale)
	s.refused(err, ff.ErrStaleLease)
	s.Advance(ttl)
	_, err = s.SuspendExecution(s.Context(), cmd)
	s.refused(err, ff.ErrLeaseExpired)
	cmd.ID = ff.MakeExecutionID(0, ff.NewLeaseID().UUID())
	_, err = s.SuspendExecution(s.Context(), cmd)
	s.refused(err, ff.ErrExecutionNotFound)
}

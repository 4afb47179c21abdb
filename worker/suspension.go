package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// ErrSuspended is what a handler returns after Await has suspended its task: the handler
// is run again, from its beginning, when what it waits for has come.
var ErrSuspended error = &outcome{err: errors.New("suspended"), suspended: true}

// ErrWaitTimeout is what Await answers when the time of a wait that OrResume is over.
var ErrWaitTimeout = errors.New("the time to wait is over and what was waited for has not come")

// ErrResumedByOperator is what Await answers, beside the signals that have come, when a
// person let the execution go on before they met the condition of the wait. It is not an
// approval: whoever takes it for one says so with errors.Is.
var ErrResumedByOperator = errors.New("an operator has resumed the execution before what it waited for had come")

// Wait says what a task waits for and how long. Make one with WaitForSignal,
// WaitForOperator, Sleep or WaitFor; its methods give changed copies. A wait without an
// end may last for ever.
type Wait struct{ c ff.SuspendExecution }

// WaitForSignal waits for a signal of that name, or for any when it is empty.
func WaitForSignal(name string) Wait { return WaitFor(ff.AwaitSignal(name)) }

// WaitForOperator waits until somebody resumes the execution by hand.
func WaitForOperator() Wait {
	return WaitFor(ff.OperatorOnly()).Because(ff.SuspendedForOperatorReview)
}

// Sleep waits for a time. Unlike Delay it can be cut short by an operator.
func Sleep(d time.Duration) Wait { return WaitFor(ff.TimeoutOnly()).Within(d).OrResume() }

// WaitFor waits for a condition. Each key that the condition refers to becomes a
// waitpoint.
func WaitFor(c ff.ResumeCondition) Wait {
	w := Wait{ff.SuspendExecution{Condition: c}}
	if keys := c.WaitpointKeys(); len(keys) > 1 {
		for _, key := range keys {
			w.c.Waitpoints = append(w.c.Waitpoints, ff.WaitpointBinding{Key: key})
		}
	}
	return w
}

// Within ends the wait after a time. The execution fails then, unless one of the Or
// methods says otherwise.
func (w Wait) Within(d time.Duration) Wait { w.c.TimeoutAfter = d; return w }

// Until is Within with an instant.
func (w Wait) Until(at time.Time) Wait { w.c.TimeoutAt = at; return w }

// OrFail lets the execution fail when the time is over, whatever its retry policy says.
func (w Wait) OrFail() Wait { w.c.OnTimeout = ff.TimeoutFail; return w }

// OrCancel lets the execution be cancelled when the time is over.
func (w Wait) OrCancel() Wait { w.c.OnTimeout = ff.TimeoutCancel; return w }

// OrExpire lets the execution expire when the time is over.
func (w Wait) OrExpire() Wait { w.c.OnTimeout = ff.TimeoutExpire; return w }

// OrResume lets the attempt go on when the time is over.
func (w Wait) OrResume() Wait { w.c.OnTimeout = ff.TimeoutResume; return w }

// OrEscalate leaves the execution to an operator when the time is over.
func (w Wait) OrEscalate() Wait { w.c.OnTimeout = ff.TimeoutEscalate; return w }

// Because says why, for the people who look at the execution.
func (w Wait) Because(reason ff.SuspensionReason) Wait { w.c.Reason = reason; return w }

// ResumeAfter holds the execution back for a time after the signal has come.
func (w Wait) ResumeAfter(d time.Duration) Wait { w.c.ResumeDelay = d; return w }

// Leaving keeps a text for whoever takes up the attempt; Task.Suspension has it as
// Continuation.
func (w Wait) Leaving(text string) Wait { w.c.Continuation = text; return w }

// At waits at a waitpoint that Task.Waitpoint has created.
func (w Wait) At(id ff.WaitpointID) Wait {
	w.c.Waitpoints = []ff.WaitpointBinding{{ID: id, Pending: true}}
	return w
}

// Suspend ends this run of the handler until what it waits for has come; the same
// attempt goes on then, with whichever worker claims it. The result has the waitpoints
// and their tokens. When signals to a waitpoint created ahead have come already, the
// result is Satisfied and the task goes on.
func (t *Task) Suspend(ctx context.Context, w Wait) (ff.SuspendExecutionResult, error) {
	c := w.c
	c.LeaseRef = t.ref
	var r ff.SuspendExecutionResult
	if err := c.Validate(); err != nil {
		return r, err
	}
	if !t.beginEnd() {
		return r, ErrEnded
	}
	t.flushOutput(ctx)
	err := t.insist(ctx, func(ctx context.Context) (err error) {
		r, err = t.w.store.SuspendExecution(ctx, c)
		return err
	})
	t.forgetPlaces()
	// What was refused, or not even sent, leaves the task where it was, unless its lease
	// is lost.
	t.noteLoss(err)
	if (err != nil || r.Satisfied) && t.reopen() {
		return r, err
	}
	if err == nil {
		t.count(ctx, "suspended", nil)
		t.noteSuspended()
	}
	t.finish()
	return r, err
}

// Await waits at a place of the handler that the key names, and gives the signals that
// have come there. The first time it suspends the task: it returns ErrSuspended, and so
// must the handler. When the handler is run again it finds at the same key what has
// come: signals that meet the condition; ErrResumedByOperator with those that do not,
// when an operator has resumed the execution; ErrWaitTimeout when the time of a wait that
// OrResume is over. What has come stays for later attempts, until the
// execution is replayed. The condition is over the one waitpoint of that key; whoever
// needs answers from several awaits them one after the other, the order in which they
// come does not matter when Waitpoint has made their waitpoints before.
func (t *Task) Await(ctx context.Context, key string, w Wait) ([]ff.Signal, error) {
	signals, err := t.await(ctx, key, w)
	if e, ok := ff.AsError(err); ok && slices.Contains(closedMeanwhile, e.Code) {
		return t.await(ctx, key, w)
	}
	return signals, err
}

// closedMeanwhile are the codes that refuse a waitpoint whose time was over since the
// places were read: another one is made.
var closedMeanwhile = []ff.Code{ff.CodeWaitpointNotPending, ff.CodePendingWaitpointExpired, ff.CodeWaitpointNotFound, ff.CodeWaitpointClosed}

func (t *Task) await(ctx context.Context, key string, w Wait) ([]ff.Signal, error) {
	at, err := t.placeOf(ctx, key)
	switch {
	case err != nil:
		return nil, err
	case at.open() && len(at.left) > 0:
		wp, err := t.Waitpoint(ctx, key, 0)
		if err != nil {
			return nil, err
		}
		w = w.At(wp.ID)
	case at.waitpoint == nil:
		w.c.Waitpoints = []ff.WaitpointBinding{{Key: key}}
	case at.open():
		w = w.At(at.waitpoint.ID)
	case at.waitpoint.CloseReason == ff.ClosedTimedOutResume:
		return nil, ErrWaitTimeout
	default:
		return t.answered(ctx, at.waitpoint, w)
	}
	r, err := t.Suspend(ctx, w)
	switch {
	case err != nil:
		return nil, err
	case r.Satisfied:
		return t.signalsAt(ctx, r.Waitpoints[0].ID, w)
	}
	return nil, ErrSuspended
}

// answered gives the signals to a waitpoint at which the task has waited. When none of
// them has ended the wait, and those that had come before do not meet the condition, an
// operator did it.
func (t *Task) answered(ctx context.Context, at *ff.Waitpoint, w Wait) ([]ff.Signal, error) {
	signals, err := t.signalsAt(ctx, at.ID, w)
	c := w.c.Condition.Bind(at.Key)
	forSignals := c.Kind != ff.ConditionOperator && c.Kind != ff.ConditionTimeout
	ended := slices.ContainsFunc(signals, func(sig ff.Signal) bool { return sig.Effect == ff.EffectResumed })
	if err == nil && forSignals && !ended && !lifecycle.Met(&c, at, signals) {
		err = ErrResumedByOperator
	}
	return signals, err
}

// Waitpoint is a waitpoint of a task.
type Waitpoint struct {
	ff.IssuedWaitpoint
	// Pending says that nothing has waited here yet: now is the time to tell others. When
	// the handler is interrupted between that and Await it is run again and still finds
	// it pending: others may be told twice, but not never.
	Pending bool
}

// Waitpoint gives the waitpoint of that key and creates it if there is none yet, so that
// others can be given its token before Await waits there: signals that come meanwhile
// are kept for it. It is closed after ttl (0 means a day) if nothing waits at it. A later
// attempt gets another one with another token; the signals that the one before has kept
// are carried over, and it takes no more.
func (t *Task) Waitpoint(ctx context.Context, key string, ttl time.Duration) (Waitpoint, error) {
	at, err := t.placeOf(ctx, key)
	if err != nil {
		return Waitpoint{}, err
	}
	wp := Waitpoint{IssuedWaitpoint: ff.IssuedWaitpoint{Key: key}, Pending: at.open()}
	if at.waitpoint == nil {
		wp.IssuedWaitpoint, err = t.createWaitpoint(ctx, key, ttl)
	} else {
		wp.ID = at.waitpoint.ID
		wp.Token, err = t.w.store.WaitpointToken(ctx, ff.WaitpointRef{ID: t.ref.ID, WaitpointID: wp.ID})
	}
	if err == nil && wp.Pending {
		err = t.carryOver(ctx, at.left, wp.IssuedWaitpoint)
	}
	return wp, err
}

func (t *Task) createWaitpoint(ctx context.Context, key string, ttl time.Duration) (ff.IssuedWaitpoint, error) {
	r, err := t.w.store.CreateWaitpoint(ctx, ff.CreateWaitpoint{LeaseRef: t.ref, Key: key, TTL: ttl})
	t.noteLoss(err)
	t.forgetPlaces()
	return r.IssuedWaitpoint, err
}

// closedSuperseded is why a waitpoint was closed that a later attempt has another one
// for.
const closedSuperseded = "superseded"

// carryOver closes the waitpoints that earlier attempts have left and delivers what they
// have kept to the one of this attempt. It can be repeated: each signal arrives once.
func (t *Task) carryOver(ctx context.Context, left []ff.Waitpoint, to ff.IssuedWaitpoint) error {
	for i := range left {
		from := &left[i]
		if from.State == ff.WaitpointPending {
			_, err := t.w.store.CloseWaitpoint(ctx, ff.CloseWaitpoint{ID: t.ref.ID, WaitpointID: from.ID, Reason: closedSuperseded})
			if err != nil {
				return err
			}
		}
		kept, err := t.listSignals(ctx, ff.ListSignals{ID: t.ref.ID, WaitpointID: from.ID}, func(*ff.Signal) bool { return true })
		if err != nil {
			return err
		}
		for j := range kept {
			if err := t.carry(ctx, &kept[j], to); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Task) carry(ctx context.Context, sig *ff.Signal, to ff.IssuedWaitpoint) error {
	key := sig.IdempotencyKey
	if key == "" {
		key = "carried:" + sig.ID.String()
	}
	_, err := t.w.store.DeliverSignal(ctx, ff.DeliverSignal{
		ID: t.ref.ID, WaitpointID: to.ID, Token: to.Token, Name: sig.Name, Category: sig.Category, SourceType: sig.SourceType,
		SourceIdentity: sig.SourceIdentity, Payload: sig.Payload, PayloadEncoding: sig.PayloadEncoding, CorrelationID: sig.CorrelationID,
		TargetScope: sig.TargetScope, CreatedAt: sig.CreatedAt, IdempotencyKey: key, DedupWindow: ff.MaxSignalDedupWindow,
	})
	return err
}

// Signals are the signals that have resumed the attempt, in the order in which they
// came; none when it was an operator or a timeout.
func (t *Task) Signals(ctx context.Context) ([]ff.Signal, error) {
	return t.listSignals(ctx, ff.ListSignals{ID: t.ref.ID, Resumed: true}, func(*ff.Signal) bool { return true })
}

// Suspension is the latest suspension of the execution; its ID is zero when there was
// none.
func (t *Task) Suspension(ctx context.Context) (ff.Suspension, error) {
	return t.w.store.Suspension(ctx, t.ref.ID)
}

// place is what this run of the execution knows of a key.
type place struct {
	// waitpoint is the latest that counts, nil when there is none.
	waitpoint *ff.Waitpoint
	// left are the waitpoints that earlier attempts have created ahead and never waited
	// at, and those whose time was over with signals before anything waited there.
	left []ff.Waitpoint
}

// open reports whether the task has not waited at the place.
func (p *place) open() bool { return p.waitpoint == nil || p.waitpoint.State == ff.WaitpointPending }

// placeOf finds what is known of a key. The waitpoints are read once: only the holder of
// the lease makes others.
func (t *Task) placeOf(ctx context.Context, key string) (place, error) {
	t.placesMu.Lock()
	defer t.placesMu.Unlock()
	if t.places == nil {
		places, err := t.readPlaces(ctx)
		if err != nil {
			return place{}, err
		}
		t.places = places
	}
	if p := t.places[key]; p != nil {
		return *p, nil
	}
	return place{}, nil
}

func (t *Task) forgetPlaces() {
	t.placesMu.Lock()
	defer t.placesMu.Unlock()
	t.places = nil
}

func (t *Task) readPlaces(ctx context.Context) (map[string]*place, error) {
	since, err := t.firstAttempt(ctx)
	if err != nil {
		return nil, err
	}
	places := map[string]*place{}
	for q := (ff.ListWaitpoints{ID: t.ref.ID, Closed: true, Limit: ff.MaxPageLimit}); ; {
		r, err := t.w.store.ListWaitpoints(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range r.Waitpoints {
			if w := &r.Waitpoints[i]; w.AttemptIndex >= since {
				t.see(places, w)
			}
		}
		if q.After = r.Next; r.Next.IsZero() {
			return places, nil
		}
	}
}

// see notes a waitpoint of this run of the execution. One of an earlier attempt counts
// when its signals have come.
func (t *Task) see(places map[string]*place, w *ff.Waitpoint) {
	p := places[w.Key]
	if p == nil {
		p = &place{}
		places[w.Key] = p
	}
	earlier := w.AttemptIndex < t.Attempt().Index
	switch {
	case w.State == ff.WaitpointPending && earlier, w.CloseReason == closedSuperseded,
		w.CloseReason == ff.ClosedNeverCommitted && w.Signals > 0:
		p.left = append(p.left, *w)
	case w.State == ff.WaitpointPending, w.CloseReason == ff.ClosedResumed, w.CloseReason == ff.ClosedTimedOutResume:
		if p.waitpoint == nil || w.CreatedAt.After(p.waitpoint.CreatedAt) {
			p.waitpoint = w
		}
	}
}

// firstAttempt is the attempt with which this run of the execution has begun: the one of
// its latest replay.
func (t *Task) firstAttempt(ctx context.Context) (int, error) {
	if t.claimed.Execution.ReplayCount == 0 {
		return 0, nil
	}
	list, err := t.w.store.Attempts(ctx, t.ref.ID)
	if err != nil {
		return 0, err
	}
	for _, a := range slices.Backward(list) {
		if a.Type == ff.AttemptReplay {
			return a.Index, nil
		}
	}
	return 0, nil
}

// signalsAt are the signals to a waitpoint that the wait was for.
func (t *Task) signalsAt(ctx context.Context, id ff.WaitpointID, w Wait) ([]ff.Signal, error) {
	c := &w.c.Condition
	return t.listSignals(ctx, ff.ListSignals{ID: t.ref.ID, WaitpointID: id}, func(sig *ff.Signal) bool {
		return sig.Effect.Matched() || sig.Effect == ff.EffectBuffered && takes(c, sig.Name)
	})
}

// takes reports whether a part of a condition takes signals of that name.
func takes(c *ff.ResumeCondition, name string) (does bool) {
	c.Walk(func(n *ff.ResumeCondition, _ string) {
		if n.Kind == ff.ConditionSignal || n.Kind == ff.ConditionCount {
			does = does || n.Signal == "" || n.Signal == name
		}
	})
	return does
}

func (t *Task) listSignals(ctx context.Context, q ff.ListSignals, keep func(*ff.Signal) bool) (list []ff.Signal, err error) {
	for {
		r, err := t.w.store.ListSignals(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range r.Signals {
			if keep(&r.Signals[i]) {
				list = append(list, r.Signals[i])
			}
		}
		if q.Cursor = r.Next; r.Next == "" {
			return list, nil
		}
	}
}

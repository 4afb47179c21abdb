package worker

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	ff "github.com/flowfabric/flowfabric"
)

// ErrEnded is what a Task answers after it was ended.
var ErrEnded = errors.New("the task has been ended")

// Task is an execution that this worker holds. Its lease renews itself. One of
// Complete, Fail, Cancel, Delay, Suspend and Release ends it; Run does that for
// handlers that do not do it themselves.
type Task struct {
	w       *Worker
	claimed *ff.Claimed
	ref     ff.LeaseRef

	// ctx is the handler's: it ends when the work must stop. life ends only when
	// the lease is gone: until then the task can still be ended.
	ctx, life          context.Context
	interrupt, endLife context.CancelCauseFunc

	mu      sync.Mutex
	expiry  *time.Timer
	timeout *time.Timer
	// ending says that the call which ends the task was begun, or that the task
	// was lost; finished that it holds nothing any more.
	ending, finished bool
	// suspended says that it has ended by a suspension.
	suspended bool
	// stream is the output, once it was asked for.
	stream *Stream
	// served says that Run holds the slot until the handler returns.
	served bool

	// chained says that the slot goes on with next, which came with the completion.
	// Only the goroutine of the slot uses them.
	chained bool
	next    *Task

	// places are the waitpoints of the execution by their keys; nil when they are to be
	// read.
	placesMu sync.Mutex
	places   map[string]*place
}

// newTask starts the life of a claimed execution. The store's clock at the claim
// and the local instant of its answer tell how long everything lasts, whatever
// the local clock says.
func newTask(w *Worker, c *ff.Claimed, storeNow, got time.Time, served bool) *Task {
	t := &Task{w: w, claimed: c, ref: c.Ref(), served: served}
	t.life, t.endLife = context.WithCancelCause(context.WithoutCancel(w.drain))
	t.ctx, t.interrupt = context.WithCancelCause(t.life)
	t.ctx = context.WithValue(t.ctx, taskKey{}, t)
	t.mu.Lock()
	defer t.mu.Unlock()
	w.leases.add(t)
	left := c.Execution.Lease.ExpiresAt.Sub(storeNow) - time.Since(got)
	t.expiry = time.AfterFunc(left, func() { t.giveUp(stale(ff.NewError(ff.CodeLeaseExpired, "it could not be renewed in time"))) })
	if end := earliest(c.Execution.AttemptTimeoutAt, c.Execution.Deadline); !end.IsZero() {
		t.timeout = time.AfterFunc(end.Sub(storeNow), func() { t.interrupt(ErrTimeout) })
	}
	return t
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

type taskKey struct{}

// TaskFrom is the task of a handler's context; nil elsewhere.
func TaskFrom(ctx context.Context) *Task {
	t, _ := ctx.Value(taskKey{}).(*Task)
	return t
}

// Context ends when the work must stop; context.Cause says why: ErrStaleLease,
// ErrLeaseRevoked or ErrExecutionNotActive of package flowfabric when the execution
// is no longer this worker's, ErrTimeout or ErrDraining of this package. A lease
// that ran out is ErrStaleLease, and ErrLeaseExpired too.
func (t *Task) Context() context.Context { return t.ctx }

// ID is the execution.
func (t *Task) ID() ff.ExecutionID { return t.ref.ID }

// Execution is the record as it was right after the claim.
func (t *Task) Execution() *ff.Execution { return &t.claimed.Execution }

// Kind is the kind of the execution.
func (t *Task) Kind() string { return t.claimed.Execution.Kind }

// Payload is the input.
func (t *Task) Payload() []byte { return t.claimed.Payload }

// Attempt is the attempt that runs; its index counts from 0.
func (t *Task) Attempt() *ff.Attempt { return &t.claimed.Execution.Attempt }

// Resumed reports whether an attempt that was delayed, suspended or handed back goes
// on.
func (t *Task) Resumed() bool { return t.claimed.Resumed }

// Fence is the proof of the lease, for commands sent past the SDK.
func (t *Task) Fence() ff.Fence { return t.ref.Fence }

// Progress stores how far the attempt is: percent from 0 to 100, and a message
// that may be empty.
func (t *Task) Progress(ctx context.Context, percent int, message string) error {
	err := t.w.store.UpdateProgress(ctx, ff.UpdateProgress{LeaseRef: t.ref, Percent: &percent, Message: message})
	t.noteLoss(err)
	return err
}

// Complete ends the execution with a result, which may be empty.
func (t *Task) Complete(ctx context.Context, result []byte) error {
	return t.complete(ctx, result, nil)
}

// complete ends the execution and makes t.next of what comes with it. The next task
// is known before this one is forgotten: a worker that stops sees one or the other.
func (t *Task) complete(ctx context.Context, result []byte, next *ff.Claim) error {
	c := ff.CompleteExecution{LeaseRef: t.ref, Result: result, Next: next}
	if err := c.Validate(); err != nil {
		return err
	}
	return t.end(ctx, func(ctx context.Context) error {
		r, err := t.w.claims.CompleteExecution(ctx, c)
		got := time.Now()
		// A repetition asks for nothing: each answer that is lost would leave what
		// it gave to the end of its lease.
		c.Next = nil
		t.count(ctx, "ok", err)
		for i := range r.Next.Claimed {
			t.next = newTask(t.w, &r.Next.Claimed[i], r.Next.Now, got, true)
		}
		return err
	})
}

// nextClaim is what to claim with the completion; nil when the slot does not go on.
func (t *Task) nextClaim() *ff.Claim {
	if !t.chained || t.w.drain.Err() != nil {
		return nil
	}
	c := t.w.request(claim{max: 1})
	return &c
}

// Fail ends the attempt. Whether another follows is for the policy of the
// execution to say, unless the options say otherwise; the result tells.
func (t *Task) Fail(ctx context.Context, f Failure) (ff.FailExecutionResult, error) {
	c := ff.FailExecution{LeaseRef: t.ref, Reason: cut(f.Reason, ff.MaxReasonBytes), Category: cut(f.Category, ff.MaxCategoryBytes),
		NoRetry: f.NoRetry, RetryAfter: f.RetryAfter}
	var result ff.FailExecutionResult
	if err := c.Validate(); err != nil {
		return result, err
	}
	err := t.end(ctx, func(ctx context.Context) (err error) {
		result, err = t.w.store.FailExecution(ctx, c)
		outcome := "error"
		if result.Retried {
			outcome = "retry"
		}
		t.count(ctx, outcome, err)
		return err
	})
	return result, err
}

// Failure says how an attempt failed.
type Failure struct {
	Reason, Category string
	// NoRetry makes it final. RetryAfter replaces the backoff of the policy.
	NoRetry    bool
	RetryAfter time.Duration
}

// Cancel ends the execution as cancelled.
func (t *Task) Cancel(ctx context.Context, reason string) error {
	return t.end(ctx, func(ctx context.Context) error {
		_, err := t.w.store.CancelExecution(ctx, ff.CancelExecution{ID: t.ref.ID, Reason: cut(reason, ff.MaxReasonBytes), Fence: t.ref.Fence})
		t.count(ctx, "cancelled", err)
		return err
	})
}

// Delay parks the execution; the same attempt goes on after d, with whichever
// worker claims it.
func (t *Task) Delay(ctx context.Context, d time.Duration) error {
	return t.delay(ctx, ff.DelayExecution{LeaseRef: t.ref, For: max(d, time.Millisecond)})
}

// DelayUntil is Delay with an instant.
func (t *Task) DelayUntil(ctx context.Context, at time.Time) error {
	return t.delay(ctx, ff.DelayExecution{LeaseRef: t.ref, Until: at})
}

func (t *Task) delay(ctx context.Context, c ff.DelayExecution) error {
	if err := c.Validate(); err != nil {
		return err
	}
	return t.end(ctx, t.orParked(func(ctx context.Context) error {
		_, err := t.w.store.DelayExecution(ctx, c)
		return err
	}))
}

// Release hands the execution back: another worker goes on with the attempt at
// once.
func (t *Task) Release(ctx context.Context, reason string) error {
	return t.end(ctx, t.orParked(func(ctx context.Context) error {
		r, err := t.w.store.ReleaseExecutions(ctx, ff.ReleaseExecutions{Leases: []ff.LeaseRef{t.ref}, Reason: cut(reason, ff.MaxReasonBytes)})
		if err == nil {
			err = errors.Join(r.Errs...)
		}
		return err
	}))
}

// end makes the call that ends the task. A call whose arguments are refused
// leaves the task as it was: it can be ended in another way.
func (t *Task) end(ctx context.Context, call func(context.Context) error) error {
	if !t.beginEnd() {
		return ErrEnded
	}
	t.flushOutput(ctx)
	err := t.insist(ctx, call)
	if !refused(err) || !t.reopen() {
		t.finish()
	}
	return err
}

// insist repeats a call that the store could not answer while the lease lives:
// the terminal commands of the same holder may be repeated. Whatever a
// repetition is refused with is final.
func (t *Task) insist(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.life, cancel)() //nolint:contextcheck // ends with either
	pause := pauses(20*time.Millisecond, 2*time.Second)
	for {
		err := call(ctx)
		if err == nil || !unreachable(err) {
			return err
		}
		t.w.log.Warn("ending a task failed; trying again while its lease lives", "execution_id", t.ref.ID, "err", err)
		timer := time.NewTimer(pause.NextBackOff())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if cause := context.Cause(t.life); cause != nil { //nolint:contextcheck // ends with either
				return errors.Join(cause, err)
			}
			return err
		}
	}
}

// orParked makes a call that parks the execution repeatable: when the refusal of
// a repetition shows that this lease was the last one and that the attempt is
// parked, the call before it came through (spec 02 §5).
func (t *Task) orParked(call func(context.Context) error) func(context.Context) error {
	unanswered := false
	return func(ctx context.Context) error {
		err := call(ctx)
		if unanswered && t.parked(err) {
			return nil
		}
		unanswered = unanswered || unreachable(err)
		return err
	}
}

func (t *Task) parked(err error) bool {
	e, ok := ff.AsError(err)
	if !ok || e.Code != ff.CodeExecutionNotActive || len(e.Details) != 4 {
		return false
	}
	epoch, phase, attempt := e.Details[1], e.Details[2], e.Details[3]
	return phase == string(ff.PhaseRunnable) && epoch == strconv.FormatUint(t.ref.Fence.LeaseEpoch, 10) && attempt == t.ref.Fence.AttemptID.String()
}

// count records how the attempt ended, once that is stored (spec 09 §4).
func (t *Task) count(ctx context.Context, outcome string, err error) {
	if err == nil {
		t.w.instruments.outcomes.Add(ctx, 1, metric.WithAttributes(
			attribute.String("lane", string(t.claimed.Execution.Lane)), attribute.String("outcome", outcome)))
	}
}

func (t *Task) noteSuspended() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.suspended = true
}

func (t *Task) hasSuspended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.suspended
}

// beginEnd reports whether the caller is the one who ends the task.
func (t *Task) beginEnd() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.ending
	t.ending = true
	return first
}

// reopen undoes beginEnd; false when the lease was lost meanwhile.
func (t *Task) reopen() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.life.Err() != nil {
		return false
	}
	t.ending = false
	return true
}

// refused reports whether the store refused the arguments of a call, in contrast
// to the lease.
func refused(err error) bool {
	e, ok := ff.AsError(err)
	return ok && e.Kind() == ff.KindValidation
}

// unreachable reports whether the store did not answer, in contrast to refusing.
func unreachable(err error) bool {
	e, ok := ff.AsError(err)
	if !ok {
		return false
	}
	switch e.Kind() {
	case ff.KindTransport, ff.KindUnavailable, ff.KindTimeout, ff.KindResourceExhausted:
		return e.Retryable()
	}
	return e.Code == ff.CodeRetryExhausted
}

// renewed moves the end of the lease by the local clock.
func (t *Task) renewed(until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.finished {
		t.expiry.Reset(time.Until(until))
	}
}

// lose ends a task of which the store said that its lease is gone. A call that
// is ending the task goes on: it may be the reason, and its answer tells.
func (t *Task) lose(cause error) {
	if ff.CodeOf(cause) == ff.CodeLeaseExpired {
		cause = stale(cause)
	}
	t.mu.Lock()
	ending := t.ending
	t.mu.Unlock()
	if !ending {
		t.giveUp(cause)
	}
}

// stale is the cause of the end of a task whose lease has run out. Whether the clock
// of the worker or the store noticed it first, it is stale_lease, because of
// lease_expired.
func stale(lapse error) error { return ff.Errorf(ff.CodeStaleLease, "%w", lapse) }

// giveUp ends a task without the store. A call that is ending it gives up too.
func (t *Task) giveUp(cause error) {
	t.mu.Lock()
	t.endLife(cause)
	first := !t.ending
	t.ending = true
	t.mu.Unlock()
	if first {
		t.w.log.Warn("task lost", "execution_id", t.ref.ID, "kind", t.Kind(), "cause", cause)
		t.finish()
	}
}

// endedBy is why a task that has ended did.
func (t *Task) endedBy() error {
	if cause := context.Cause(t.life); cause != nil {
		return cause
	}
	return ErrEnded
}

// noteLoss ends the task when an answer says that its lease is gone.
func (t *Task) noteLoss(err error) {
	switch ff.CodeOf(err) {
	case ff.CodeStaleLease, ff.CodeLeaseExpired, ff.CodeLeaseRevoked, ff.CodeExecutionNotActive, ff.CodeExecutionNotFound:
		t.lose(err)
	}
}

// finish releases what the task holds in the worker. The slot of a task that Run
// serves is released when its handler returns.
func (t *Task) finish() {
	t.mu.Lock()
	t.finished = true
	t.expiry.Stop()
	if t.timeout != nil {
		t.timeout.Stop()
	}
	served, stream := t.served, t.stream
	t.mu.Unlock()
	if stream != nil {
		stream.close()
	}
	t.w.leases.remove(t)
	if !served {
		<-t.w.slots
	}
	t.interrupt(ErrEnded)
	t.endLife(ErrEnded)
}

// Package flowfabrictest lets users test their handlers without a server, a
// database or waiting: a real store in memory whose clock stands still until the
// test moves it, and a real worker that runs one execution at a time when the
// test says so.
//
//	e := flowfabrictest.New(t, flowfabrictest.Options{})
//	register(e.Worker())
//	id := e.Submit("send", Mail{To: "ann"})
//	e.RunAll()
//	e.RequireState(id, flowfabric.StateCompleted)
//
// Work that waits for its time is run after Advance has moved the clock there, or
// by RunUntilEnded, which moves it as far as needed.
package flowfabrictest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

// Start is what the clock of every engine shows at first.
var Start = time.Date(2030, time.January, 1, 12, 0, 0, 0, time.UTC)

// runAllLimit ends a RunAll whose handlers submit for ever.
const runAllLimit = 100_000

// Options of an engine.
type Options struct {
	// Lanes that the worker serves; the default is the lane default.
	Lanes []ff.LaneID
	// Capabilities that the worker offers.
	Capabilities []string
}

// Engine is a store with one worker. Its methods fail the test when something
// goes wrong that the test is not about. They are for the test's goroutine.
type Engine struct {
	tb     testing.TB
	store  *sqlite.Store
	worker *worker.Worker
	lanes  []ff.LaneID

	mu  sync.Mutex
	now time.Time
}

// New makes an engine that ends with the test.
func New(tb testing.TB, o Options) *Engine {
	tb.Helper()
	if len(o.Lanes) == 0 {
		o.Lanes = []ff.LaneID{"default"}
	}
	e := &Engine{tb: tb, lanes: o.Lanes, now: Start}
	ctx := context.WithoutCancel(tb.Context())
	var err error
	if e.store, err = sqlite.Open(ctx, ":memory:", sqlite.Options{Clock: e.Now}); err != nil {
		tb.Fatalf("flowfabrictest: opening a store in memory: %v", err)
	}
	e.worker, err = worker.Connect(ctx, e.store, worker.Config{
		Worker: "flowfabrictest", Instance: "flowfabrictest", Lanes: o.Lanes, Capabilities: o.Capabilities, LeaseTTL: time.Hour,
		// Handlers may run others, and tasks that a test forgets do not detain it.
		Concurrency: 64, DrainTimeout: time.Millisecond,
	})
	if err != nil {
		_ = e.store.Close()
		tb.Fatalf("flowfabrictest: connecting the worker: %v", err)
	}
	tb.Cleanup(func() {
		if err := e.worker.Close(ctx); err != nil {
			tb.Errorf("flowfabrictest: closing the worker: %v", err)
		}
		if err := e.store.Close(); err != nil {
			tb.Errorf("flowfabrictest: closing the store: %v", err)
		}
	})
	return e
}

// Worker is where the handlers under test are registered.
func (e *Engine) Worker() *worker.Worker { return e.worker }

// Backend is the store, for code under test that submits or steers.
func (e *Engine) Backend() ff.Backend { return e.store }

// Now is what the clock shows.
func (e *Engine) Now() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now
}

// Submit submits an execution to the first lane; edit changes it before. The
// payload is encoded to JSON, []byte as it is, nil to nothing.
func (e *Engine) Submit(kind string, payload any, edit ...func(*ff.CreateExecution)) ff.ExecutionID {
	e.tb.Helper()
	c := ff.CreateExecution{Lane: e.lanes[0], Kind: kind}
	switch p := payload.(type) {
	case nil:
	case []byte:
		c.Payload = p
	default:
		data, err := json.Marshal(payload)
		if err != nil {
			e.tb.Fatalf("flowfabrictest: encoding the payload of %q: %v", kind, err)
		}
		c.Payload = data
	}
	for _, f := range edit {
		f(&c)
	}
	r, err := e.store.CreateExecution(e.tb.Context(), c)
	if err != nil {
		e.tb.Fatalf("flowfabrictest: submitting %q: %v", kind, err)
	}
	return r.ID
}

// RunOne runs the next execution that is due, to the end of its attempt, and
// reports whether there was one.
func (e *Engine) RunOne() bool {
	e.tb.Helper()
	ran, err := e.worker.RunOne(e.tb.Context())
	if err != nil {
		e.tb.Fatalf("flowfabrictest: running: %v", err)
	}
	return ran
}

// RunAll runs executions until none is due, also those that handlers submit, and
// returns how many attempts it ran. Delayed work is not due: see Advance.
func (e *Engine) RunAll() (attempts int) {
	e.tb.Helper()
	for e.RunOne() {
		if attempts++; attempts == runAllLimit {
			e.tb.Fatalf("flowfabrictest: %d attempts and still work to do: do handlers submit for ever?", attempts)
		}
	}
	return attempts
}

// Advance moves the clock, and does what becomes due on the way, each at its
// instant: delays and retries are over, leases, timeouts and deadlines pass,
// retention ends. It runs no handlers.
func (e *Engine) Advance(d time.Duration) {
	e.tb.Helper()
	if d < 0 {
		e.tb.Fatalf("flowfabrictest: the clock cannot go back (by %s)", -d)
	}
	for end := e.Now().Add(d); ; {
		next := e.sweep()
		if next.IsZero() || next.After(end) {
			e.set(end)
			return
		}
		e.set(next)
	}
}

func (e *Engine) set(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = now
}

// sweep does everything that is due now and returns when the next thing is.
func (e *Engine) sweep() (next time.Time) {
	e.tb.Helper()
	for done := true; done; {
		done, next = false, time.Time{}
		for _, kind := range ff.SweepKinds {
			r, err := e.store.Sweep(e.tb.Context(), ff.Sweep{Kind: kind})
			if err != nil || r.Errors > 0 {
				e.tb.Fatalf("flowfabrictest: advancing the clock: %s: %d errors, %v", kind, r.Errors, err)
			}
			// One kind may make another due.
			done = done || r.Processed > 0
			if !r.Next.IsZero() && (next.IsZero() || r.Next.Before(next)) {
				next = r.Next
			}
		}
	}
	return next
}

// RunUntilEnded runs executions, and moves the clock on to the next thing that is
// due whenever nothing can run, until an execution has ended, and returns it. It
// fails the test when nothing is left that could end it.
func (e *Engine) RunUntilEnded(id ff.ExecutionID) ff.Execution {
	e.tb.Helper()
	for steps := 0; ; steps++ {
		x := e.Execution(id)
		if x.Terminal() {
			return x
		}
		if steps == runAllLimit {
			e.tb.Fatalf("flowfabrictest: %s is %s after %d attempts and steps of the clock%s", id, x.PublicState(), steps, because(&x))
		}
		if e.RunOne() {
			continue
		}
		next := e.sweep()
		if next.IsZero() {
			e.tb.Fatalf("flowfabrictest: %s is %s%s, and nothing is left that would move it: does the worker serve lane %q, with the capabilities it needs?",
				id, x.PublicState(), because(&x), x.Lane)
		}
		if next.After(e.Now()) {
			e.set(next)
			e.sweep()
		}
	}
}

// Signal delivers a signal to the first open waitpoint of an execution that takes it, as
// the person or the system would that it waits for, and gives what it did. It fails the
// test when the execution waits nowhere.
func (e *Engine) Signal(id ff.ExecutionID, name string, payload []byte) ff.SignalEffect {
	e.tb.Helper()
	ctx := e.tb.Context()
	open, err := e.store.ListWaitpoints(ctx, ff.ListWaitpoints{ID: id})
	if err != nil || len(open.Waitpoints) == 0 {
		e.tb.Fatalf("flowfabrictest: signal %q: %s waits nowhere (%d open waitpoints, %v)", name, id, len(open.Waitpoints), err)
	}
	var effect ff.SignalEffect
	for _, w := range open.Waitpoints {
		token, err := e.store.WaitpointToken(ctx, ff.WaitpointRef{ID: id, WaitpointID: w.ID})
		if err != nil {
			e.tb.Fatalf("flowfabrictest: signal %q: reading a token of %s: %v", name, id, err)
		}
		r, err := e.store.DeliverSignal(ctx, ff.DeliverSignal{ID: id, WaitpointID: w.ID, Name: name, Payload: payload, Token: token, SourceType: "test", SourceIdentity: e.tb.Name()})
		if err != nil {
			e.tb.Fatalf("flowfabrictest: signal %q to %s: %v", name, id, err)
		}
		effect = r.Effect
		if effect == ff.EffectResumed || effect == ff.EffectAppended || effect == ff.EffectBuffered {
			break
		}
	}
	return effect
}

// Execution is the record of an execution.
func (e *Engine) Execution(id ff.ExecutionID) ff.Execution {
	e.tb.Helper()
	x, err := e.store.Execution(e.tb.Context(), id)
	if err != nil {
		e.tb.Fatalf("flowfabrictest: reading %s: %v", id, err)
	}
	return x
}

// RequireState fails the test unless the execution is in a state.
func (e *Engine) RequireState(id ff.ExecutionID, want ff.PublicState) {
	e.tb.Helper()
	if x := e.Execution(id); x.PublicState() != want {
		e.tb.Fatalf("execution %s of kind %q is %s, want %s%s", id, x.Kind, x.PublicState(), want, because(&x))
	}
}

func because(x *ff.Execution) string {
	for _, why := range []string{x.FailureReason, x.CancellationReason, x.BlockingDetail} {
		if why != "" {
			return fmt.Sprintf(" (%s)", why)
		}
	}
	return ""
}

// Submitted lists the executions of a kind, the oldest first; an empty kind
// means all.
func (e *Engine) Submitted(kind string) (all []ff.Execution) {
	e.tb.Helper()
	q := ff.ListExecutions{Kind: kind, Oldest: true, Limit: ff.MaxPageLimit}
	for {
		r, err := e.store.ListExecutions(e.tb.Context(), q)
		if err != nil {
			e.tb.Fatalf("flowfabrictest: listing %q: %v", kind, err)
		}
		all = append(all, r.Executions...)
		if q.Cursor = r.Next; q.Cursor == "" {
			return slices.Clip(all)
		}
	}
}

// RequireSubmitted fails the test unless exactly one execution of a kind was
// submitted, and returns it.
func (e *Engine) RequireSubmitted(kind string) ff.Execution {
	e.tb.Helper()
	all := e.Submitted(kind)
	if len(all) != 1 {
		e.tb.Fatalf("%d executions of kind %q were submitted, want one", len(all), kind)
	}
	return all[0]
}

// Result decodes the result of an execution from JSON; a []byte gets it as it is.
func Result[T any](e *Engine, id ff.ExecutionID) (v T) {
	e.tb.Helper()
	x, err := e.store.Execution(e.tb.Context(), id)
	if err != nil {
		e.tb.Fatalf("flowfabrictest: reading the result of %s: %v", id, err)
	}
	if !x.Terminal() {
		e.tb.Fatalf("%s of kind %q is %s and has no result yet; run it first, for example with RunAll", id, x.Kind, x.PublicState())
	}
	data, err := e.store.ExecutionResult(e.tb.Context(), id)
	if err != nil {
		e.tb.Fatalf("flowfabrictest: reading the result of %s: %v", id, err)
	}
	return decode[T](e, "result", id, data)
}

// Payload decodes the input of an execution from JSON; a []byte gets it as it is.
func Payload[T any](e *Engine, id ff.ExecutionID) (v T) {
	e.tb.Helper()
	p, err := e.store.ExecutionPayload(e.tb.Context(), id)
	if err != nil {
		e.tb.Fatalf("flowfabrictest: reading the payload of %s: %v", id, err)
	}
	return decode[T](e, "payload", id, p.Payload)
}

func decode[T any](e *Engine, what string, id ff.ExecutionID, data []byte) (v T) {
	e.tb.Helper()
	if raw, ok := any(&v).(*[]byte); ok {
		*raw = data
		return v
	}
	if err := json.Unmarshal(data, &v); err != nil {
		e.tb.Fatalf("the %s of %s is %q, which is no %T: %v", what, id, data, v, err)
	}
	return v
}

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	ff "github.com/flowfabric/flowfabric"
)

// Failure categories of the SDK (spec 10 §14.3).
const (
	CategoryHandlerError  = "handler_error"
	CategoryHandlerPanic  = "handler_panic"
	CategoryNoHandler     = "runtime_no_handler"
	CategoryPayloadDecode = "extractor_payload_decode"
	CategoryResultEncode  = "result_encode"
)

// Handler does the work of a task and returns its result. See Permanent,
// RetryAfter, Delay and Cancel for what its error can say.
type Handler func(ctx context.Context, t *Task) (result []byte, err error)

// Middleware wraps handlers. The first one given to Use is the outermost.
type Middleware func(next Handler) Handler

// Use wraps all handlers, also those registered later. Each middleware is called
// once for each kind, and once for all kinds without a handler. Call Use before
// Run.
func (w *Worker) Use(m ...Middleware) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.middleware = append(w.middleware, m...)
	w.wrapped = nil
}

// Handle registers the handler of a kind of executions. The payload is decoded
// from JSON into In and the result encoded from Out; []byte and json.RawMessage
// are passed as they are, and a payload that is empty leaves In as it is.
// Registering a kind again replaces its handler.
func Handle[In, Out any](w *Worker, kind string, f func(ctx context.Context, in In) (Out, error)) {
	w.HandleTask(kind, func(ctx context.Context, t *Task) ([]byte, error) {
		var in In
		if err := decode(t.Payload(), &in); err != nil {
			return nil, Permanent(WithCategory(fmt.Errorf("extractor: payload decode failed: %w", err), CategoryPayloadDecode))
		}
		out, err := f(ctx, in)
		if err != nil {
			return nil, err
		}
		result, err := encode(out)
		if err != nil {
			return nil, Permanent(WithCategory(fmt.Errorf("result encode failed: %w", err), CategoryResultEncode))
		}
		return result, nil
	})
}

// anyKind is the kind of the handler of all kinds that have none.
const anyKind = ""

// HandleOthers registers the handler of every kind that has none of its own.
func (w *Worker) HandleOthers(h Handler) { w.HandleTask(anyKind, h) }

// HandleTask registers a handler that gets the task itself: raw bytes in and
// out, and full control. A handler that ends the task returns nil.
func (w *Worker) HandleTask(kind string, h Handler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handlers[kind] = h
	w.wrapped = nil
}

func decode(payload []byte, in any) error {
	switch p := in.(type) {
	case *[]byte:
		*p = payload
		return nil
	case *json.RawMessage:
		*p = payload
		return nil
	}
	if len(payload) == 0 {
		return nil
	}
	return json.Unmarshal(payload, in)
}

func encode(out any) ([]byte, error) {
	switch o := out.(type) {
	case []byte:
		return o, nil
	case json.RawMessage:
		return o, nil
	case struct{}:
		return nil, nil
	}
	return json.Marshal(out)
}

// handler is the handler of a kind with its middleware; a kind without one gets
// a handler that fails, by the retry policy: another worker may have the kind.
func (w *Worker) handler(kind string) Handler {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.handlers[kind]
	if h == nil {
		kind, h = anyKind, w.handlers[anyKind]
	}
	if h == nil {
		h = noHandler
	}
	if wrapped, ok := w.wrapped[kind]; ok {
		return wrapped
	}
	h = safely(h)
	for _, m := range slices.Backward(w.middleware) {
		h = m(h)
	}
	if w.wrapped == nil {
		w.wrapped = map[string]Handler{}
	}
	w.wrapped[kind] = safely(h)
	return w.wrapped[kind]
}

func noHandler(_ context.Context, t *Task) ([]byte, error) {
	return nil, WithCategory(fmt.Errorf("runtime: no handler registered for execution_kind %q", t.Kind()), CategoryNoHandler)
}

// panicError is a panic of a handler.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string {
	if p.value == nil {
		return "handler ended its goroutine (runtime.Goexit, or FailNow of a test)"
	}
	return fmt.Sprintf("handler panicked: %v", p.value)
}

// safely turns a panic into an error, so that it fails one attempt and not the
// process.
func safely(h Handler) Handler {
	return func(ctx context.Context, t *Task) (result []byte, err error) {
		defer func() {
			if v := recover(); v != nil {
				result, err = nil, WithCategory(&panicError{v, debug.Stack()}, CategoryHandlerPanic)
			}
		}()
		return h(ctx, t)
	}
}

// occupy serves a task, and in the same slot what comes with its completion, and so
// on. What comes when the worker has begun to stop is handed back.
func (w *Worker) occupy(t *Task) {
	defer func() { <-w.slots }()
	for t != nil {
		t.chained = true
		w.serve(t)
		t = t.next
		if t != nil && w.drain.Err() != nil {
			t.handBack()
			return
		}
	}
}

// handBack releases a task that nobody has begun to work on.
func (t *Task) handBack() {
	if err := t.Release(context.WithoutCancel(t.ctx), "worker_shutdown"); err != nil && !errors.Is(err, ErrEnded) {
		t.w.log.Warn("an execution was not handed back; its lease will run out", "execution_id", t.ID(), "err", err)
	}
}

// serve runs the handler of a task and does what its outcome says. Whatever
// breaks, the task is ended and the process goes on: a middleware may panic while
// it wraps, an error while it is printed, and a handler may end its goroutine.
func (w *Worker) serve(t *Task) {
	returned := false
	defer func() {
		if !returned {
			w.conclude(t, nil, WithCategory(&panicError{recover(), debug.Stack()}, CategoryHandlerPanic))
		}
	}()
	result, err := w.handler(t.Kind())(t.ctx, t)
	w.conclude(t, result, err)
	returned = true
}

// conclude does what the outcome of a handler says.
func (w *Worker) conclude(t *Task, result []byte, err error) {
	var p *panicError
	if errors.As(err, &p) {
		w.log.Error("handler panicked", "execution_id", t.ID(), "kind", t.Kind(), "panic", p.value, "stack", string(p.stack))
	}
	// The end of a task does not depend on the handler's context: it may have
	// ended while the lease lives.
	ctx := context.WithoutCancel(t.ctx)
	w.warnOfDropped(t, result, err)
	stored := t.apply(ctx, result, err)
	if refused(stored) {
		f := Failure{Reason: stored.Error(), Category: CategoryHandlerError}
		if err == nil {
			f.Category, f.NoRetry = CategoryResultEncode, true
		}
		_, stored = t.Fail(ctx, f)
	}
	if stored != nil && !errors.Is(stored, ErrEnded) {
		w.log.Warn("the outcome of a task was not stored", "execution_id", t.ID(), "kind", t.Kind(), "err", stored)
	}
}

// warnOfDropped tells of a handler that has suspended its task and does not return so.
func (w *Worker) warnOfDropped(t *Task, result []byte, err error) {
	if !t.hasSuspended() || errors.Is(err, ErrSuspended) || err == nil && len(result) == 0 {
		return
	}
	attrs := []any{"execution_id", t.ID(), "kind", t.Kind(), "outcome", "suspended"}
	if err != nil {
		attrs = append(attrs, "dropped_err", err)
	} else {
		attrs = append(attrs, "dropped_result_bytes", len(result))
	}
	w.log.Warn("a handler went on after its task was suspended and what it returned is dropped; it must return ErrSuspended", attrs...)
}

func (t *Task) apply(ctx context.Context, result []byte, err error) error {
	if err == nil {
		return t.complete(ctx, result, t.nextClaim())
	}
	var o *outcome
	if !errors.As(err, &o) {
		o = &outcome{}
	}
	switch cause := context.Cause(t.ctx); { //nolint:contextcheck // the handler's, not the caller's
	case o.cancel:
		return t.Cancel(ctx, o.Error())
	case o.delayed && !o.until.IsZero():
		return t.DelayUntil(ctx, o.until)
	case o.delayed:
		return t.Delay(ctx, o.delay)
	case errors.Is(cause, ErrDraining):
		return t.Release(ctx, "worker_shutdown")
	case errors.Is(cause, ErrTimeout):
		// The store ends it at the same time, and says how.
		t.count(ctx, "timeout", nil)
		t.giveUp(ErrTimeout)
		return nil
	}
	_, err = t.Fail(ctx, Failure{Reason: err.Error(), Category: categoryOf(err),
		NoRetry: o.permanent, RetryAfter: min(max(0, o.retryAfter), ff.MaxDelay)})
	return err
}

// outcome is what a handler's error says besides its text.
type outcome struct {
	err        error
	permanent  bool
	cancel     bool
	retryAfter time.Duration
	delayed    bool
	delay      time.Duration
	until      time.Time
	// suspended says that the handler has suspended the task.
	suspended bool
}

func (o *outcome) Error() string { return o.err.Error() }
func (o *outcome) Unwrap() error { return o.err }

// Permanent makes a failure final: no further attempt, whatever the policy says.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &outcome{err: err, permanent: true}
}

// RetryAfter fails the attempt and sets the wait before the next one, if the
// policy allows another.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &outcome{err: err, retryAfter: d}
}

var errDelayed = errors.New("delayed by its handler")

// Delay parks the execution: the same attempt goes on after d. It is not a
// failure and uses no retry.
func Delay(d time.Duration) error { return &outcome{err: errDelayed, delayed: true, delay: d} }

// DelayUntil is Delay with an instant.
func DelayUntil(at time.Time) error { return &outcome{err: errDelayed, delayed: true, until: at} }

// Cancel ends the execution as cancelled.
func Cancel(reason string) error { return &outcome{err: errors.New(reason), cancel: true} }

type categorized struct {
	error
	category string
}

func (c *categorized) Unwrap() error { return c.error }

// WithCategory names the category of a failure; a policy can limit retries to
// some categories.
func WithCategory(err error, category string) error {
	if err == nil {
		return nil
	}
	return &categorized{err, category}
}

func categoryOf(err error) string {
	var c *categorized
	if errors.As(err, &c) {
		return c.category
	}
	return CategoryHandlerError
}

// cut makes a text fit: valid UTF-8 without NUL bytes, at most limit bytes.
func cut(s string, limit int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= limit {
		return s
	}
	s = s[:limit-len("…")]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

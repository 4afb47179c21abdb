package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
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

// Use wraps all handlers, also those registered later. Call it before Run.
func (w *Worker) Use(m ...Middleware) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.middleware = append(w.middleware, m...)
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

// HandleTask registers a handler that gets the task itself: raw bytes in and
// out, and full control. A handler that ends the task returns nil.
func (w *Worker) HandleTask(kind string, h Handler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handlers[kind] = h
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
// a handler that fails.
func (w *Worker) handler(kind string) Handler {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.handlers[kind]
	if h == nil {
		h = func(context.Context, *Task) ([]byte, error) {
			return nil, WithCategory(fmt.Errorf("runtime: no handler registered for execution_kind %q", kind), CategoryNoHandler)
		}
	}
	h = safely(h)
	for i := len(w.middleware) - 1; i >= 0; i-- {
		h = w.middleware[i](h)
	}
	return safely(h)
}

// panicError is a panic of a handler.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("handler panicked: %v", p.value) }

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

// serve runs the handler of a task and does what its outcome says.
func (w *Worker) serve(t *Task) {
	defer func() { <-w.slots }()
	result, err := w.handler(t.Kind())(t.ctx, t)
	var p *panicError
	if errors.As(err, &p) {
		w.log.Error("handler panicked", "execution_id", t.ID(), "kind", t.Kind(), "panic", p.value, "stack", string(p.stack))
	}
	// The end of a task does not depend on the handler's context: it may have
	// ended while the lease lives.
	err = w.conclude(context.WithoutCancel(t.ctx), t, result, err)
	if err != nil && !errors.Is(err, ErrEnded) {
		w.log.Warn("the outcome of a task was not stored", "execution_id", t.ID(), "kind", t.Kind(), "err", err)
	}
}

func (w *Worker) conclude(ctx context.Context, t *Task, result []byte, err error) error {
	if err == nil {
		err := t.Complete(ctx, result)
		if errors.Is(err, ff.ErrPayloadTooLarge) {
			_, err = t.Fail(ctx, Failure{Reason: err.Error(), Category: CategoryResultEncode, NoRetry: true})
		}
		return err
	}
	if errors.Is(context.Cause(t.ctx), ErrDraining) {
		return t.Release(ctx, "worker_shutdown")
	}
	var o *outcome
	errors.As(err, &o)
	switch {
	case o != nil && o.cancel:
		return t.Cancel(ctx, o.Error())
	case o != nil && !o.until.IsZero():
		return t.DelayUntil(ctx, o.until)
	case o != nil && o.delay > 0:
		return t.Delay(ctx, o.delay)
	}
	f := Failure{Reason: err.Error(), Category: categoryOf(err)}
	if o != nil {
		f.NoRetry, f.RetryAfter = o.permanent, o.retryAfter
	}
	_, err = t.Fail(ctx, f)
	return err
}

// outcome is what a handler's error says besides its text.
type outcome struct {
	err        error
	permanent  bool
	cancel     bool
	retryAfter time.Duration
	delay      time.Duration
	until      time.Time
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
func Delay(d time.Duration) error { return &outcome{err: errDelayed, delay: max(d, time.Millisecond)} }

// DelayUntil is Delay with an instant.
func DelayUntil(at time.Time) error { return &outcome{err: errDelayed, until: at} }

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

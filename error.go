package flowfabric

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Kind groups codes by what a caller does about them (spec 02 §6.1).
type Kind string

// The kinds.
const (
	KindNotFound          Kind = "not_found"
	KindValidation        Kind = "validation"
	KindContention        Kind = "contention"
	KindConflict          Kind = "conflict"
	KindState             Kind = "state"
	KindBug               Kind = "bug"
	KindCorruption        Kind = "corruption"
	KindTransport         Kind = "transport"
	KindUnavailable       Kind = "unavailable"
	KindResourceExhausted Kind = "resource_exhausted"
	KindTimeout           Kind = "timeout"
	KindInternal          Kind = "internal"
)

// Class says what a worker does about an error (spec 02 §2).
type Class string

// The classes.
const (
	// ClassTerminal: stop this operation, do not retry.
	ClassTerminal Class = "terminal"
	// ClassRetryable: retry after a backoff, or take another path.
	ClassRetryable Class = "retryable"
	// ClassCooperative: act as the code says, then stop.
	ClassCooperative Class = "cooperative"
	// ClassInformational: nothing to do.
	ClassInformational Class = "informational"
	// ClassBug: must not happen.
	ClassBug Class = "bug"
)

// Error is every error that a command can answer. Compare with errors.Is and
// the sentinels, for example ErrStaleLease.
type Error struct {
	Code Code
	// Field is the argument at fault, in its JSON name; empty when none is.
	Field string
	// Detail says what was wrong, with the value and the limit.
	Detail string
	// Details are the positional details of the wire (spec 02 §3.1).
	Details []string
	// RetryAfter is a hint; zero when there is none.
	RetryAfter time.Duration
	// Err is the cause; it is logged and never shown to callers from outside.
	Err error
}

// NewError makes an error of a code.
func NewError(code Code, detail string) *Error { return &Error{Code: code, Detail: detail} }

// Errorf makes an error of a code with a formatted detail; %w keeps the cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// InvalidInput refuses the value of a field.
func InvalidInput(field, format string, args ...any) *Error {
	e := Errorf(CodeInvalidInput, format, args...)
	e.Field = field
	return e
}

// NotActive is execution_not_active with its four details, by which the holder
// of a lease recognises that its own earlier command came through.
func NotActive(outcome, epoch, phase, attempt string) *Error {
	return &Error{
		Code:    CodeExecutionNotActive,
		Detail:  fmt.Sprintf("lifecycle_phase=%s terminal_outcome=%s lease_epoch=%s attempt_id=%s", phase, outcome, epoch, attempt),
		Details: []string{outcome, epoch, phase, attempt},
	}
}

// Error is the code, the field and what was wrong, or the meaning of the code
// when the error has no detail.
func (e *Error) Error() string {
	text := string(e.Code)
	if e.Field != "" {
		text += ": " + e.Field
	}
	if e.Detail != "" {
		return text + ": " + e.Detail
	}
	return text + ": " + catalogue[e.Code].meaning
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an Error of the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Kind is the kind of the code; internal for a code that the catalogue lacks.
func (e *Error) Kind() Kind {
	if c, ok := catalogue[e.Code]; ok {
		return c.kind
	}
	return KindInternal
}

// Class is the class of the code.
func (e *Error) Class() Class {
	if c, ok := catalogue[e.Code]; ok {
		return c.class
	}
	return ClassTerminal
}

// Meaning is one sentence about the code for people.
func (e *Error) Meaning() string { return catalogue[e.Code].meaning }

// Retryable reports whether the same command may succeed later.
func (e *Error) Retryable() bool { return e.Class() == ClassRetryable }

// AsError finds an Error in a chain.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// CodeOf is the code of an error: empty for nil, internal for an error that is
// not one of ours.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := AsError(err); ok {
		return e.Code
	}
	return CodeInternal
}

// IsRetryable reports whether the same command may succeed later. The end of the
// caller's own context is not retryable.
func IsRetryable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	e, ok := AsError(err)
	return ok && e.Retryable()
}

// stateWords are the kinds of State errors that HTTP clients can tell apart;
// all others are state_conflict (spec 08 §4.3).
var stateWords = map[Code]string{
	CodeExecutionNotTerminal:   "execution_not_terminal",
	CodeMaxReplaysExhausted:    "max_replays_exhausted",
	CodeReplayNotAllowed:       "replay_not_allowed",
	CodeNotRunnable:            "not_runnable",
	CodeTerminal:               "terminal",
	CodeFlowAlreadyTerminal:    "flow_already_terminal",
	CodeBudgetExceeded:         "budget_exceeded",
	CodeBudgetSoftExceeded:     "budget_soft_exceeded",
	CodeDuplicateSignal:        "already_satisfied",
	CodeOKAlreadyApplied:       "already_satisfied",
	CodeAttemptAlreadyTerminal: "already_satisfied",
	CodeStreamAlreadyClosed:    "already_satisfied",
	CodeLeaseExpired:           "already_satisfied",
	CodeLeaseRevoked:           "already_satisfied",
}

// HTTPStatus is the status of the answer (spec 08 §4.2).
func (e *Error) HTTPStatus() int {
	switch e.Kind() {
	case KindNotFound:
		return http.StatusNotFound
	case KindValidation:
		if e.Code == CodePayloadTooLarge {
			return http.StatusRequestEntityTooLarge
		}
		return http.StatusBadRequest
	case KindContention:
		switch e.Code {
		case CodeRateLimitExceeded, CodeConcurrencyLimitExceeded:
			return http.StatusTooManyRequests
		case CodeRetryExhausted:
			return http.StatusServiceUnavailable
		}
		return http.StatusConflict
	case KindConflict, KindState:
		return http.StatusConflict
	case KindResourceExhausted:
		return http.StatusTooManyRequests
	case KindUnavailable, KindTransport:
		return http.StatusServiceUnavailable
	case KindTimeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// HTTPKind is the word in the answer's kind field; empty where the answer has
// none (spec 08 §4.2).
func (e *Error) HTTPKind() string {
	switch kind := e.Kind(); kind {
	case KindNotFound, KindValidation:
		return ""
	case KindContention:
		switch e.Code {
		case CodeRateLimitExceeded, CodeConcurrencyLimitExceeded, CodeRetryExhausted:
			return string(e.Code)
		}
		return string(KindContention)
	case KindState:
		if word, ok := stateWords[e.Code]; ok {
			return word
		}
		return "state_conflict"
	case KindConflict:
		return string(e.Code)
	default:
		return string(kind)
	}
}

// PublicError is the JSON body of an error answer: the fields of spec 08 §4 and
// the code and field that clients of ours read.
type PublicError struct {
	Error     string `json:"error"`
	Kind      string `json:"kind,omitempty"`
	Retryable *bool  `json:"retryable,omitempty"`
	Code      string `json:"code,omitempty"`
	Field     string `json:"field,omitempty"`
}

// Public is the error as callers from outside see it.
func (e *Error) Public() PublicError {
	p := PublicError{Error: e.Error(), Kind: e.HTTPKind(), Code: string(e.Code), Field: e.Field}
	if p.Kind != "" {
		retryable := e.Retryable()
		p.Retryable = &retryable
	}
	switch e.Kind() {
	case KindNotFound:
		p.Error = "not found: " + catalogue[e.Code].entity
	case KindInternal, KindBug:
		p.Error = string(e.Code) + ": " + catalogue[e.Code].meaning
	}
	return p
}

// PublicErrorOf is Public for any error. The text of an error that is not ours
// is hidden: it is for the log.
func PublicErrorOf(err error) (status int, p PublicError) {
	e, ok := AsError(err)
	if !ok {
		e = NewError(CodeInternal, "")
		e.Err = err
		if errors.Is(err, context.DeadlineExceeded) {
			e.Code = CodeTimeout
		}
	}
	return e.HTTPStatus(), e.Public()
}

// Restore rebuilds the error from an answer, so that a remote caller can use
// errors.Is as a local one does.
func (p PublicError) Restore(status int) *Error {
	e := &Error{Code: Code(p.Code), Field: p.Field, Detail: p.Error}
	if _, known := catalogue[e.Code]; known {
		prefix := p.Code + ": "
		if e.Field != "" {
			prefix += e.Field + ": "
		}
		if len(e.Detail) > len(prefix) && e.Detail[:len(prefix)] == prefix {
			e.Detail = e.Detail[len(prefix):]
		}
		return e
	}
	switch {
	case status == http.StatusNotFound:
		e.Code = CodeExecutionNotFound
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Code = CodeUnauthorized
	case status == http.StatusTooManyRequests:
		e.Code = CodeResourceExhausted
	case status == http.StatusGatewayTimeout:
		e.Code = CodeTimeout
	case status >= 500:
		e.Code = CodeUnavailable
	default:
		e.Code = CodeInvalidInput
	}
	return e
}

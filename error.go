package flowfabric

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
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
	// ClassAdvisory: a warning; no code has it.
	ClassAdvisory Class = "advisory"
	// ClassBug: must not happen.
	ClassBug Class = "bug"
	// ClassExpected: a normal empty state; no lifted code has it.
	ClassExpected Class = "expected"
	// ClassSoftError: warn, then go on; no lifted code has it.
	ClassSoftError Class = "soft_error"
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
	cause := errors.Unwrap(err)
	if _, many := err.(interface{ Unwrap() []error }); many { //nolint:errorlint // the type that fmt.Errorf made itself
		cause = err
	}
	return &Error{Code: code, Detail: err.Error(), Err: cause}
}

// InvalidInput refuses the value of a field.
func InvalidInput(field, format string, args ...any) *Error {
	e := Errorf(CodeInvalidInput, format, args...)
	e.Field = field
	return e
}

// BadCursor refuses a cursor that the store has not given.
func BadCursor(cursor string) error {
	return InvalidInput("cursor", "%.64q is not a cursor of this store; start again without one", cursor)
}

// NotActive is execution_not_active with its four details, by which the holder
// of a lease recognises that its own earlier command came through.
func NotActive(outcome, epoch, phase, attempt string) *Error {
	return &Error{
		Code:    CodeExecutionNotActive,
		Detail:  fmt.Sprintf("the execution is %s, its outcome is %s, its lease epoch %s", phase, outcome, epoch),
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
	detail := e.Detail
	if detail == "" {
		detail = e.Meaning()
	}
	if detail == "" {
		return text
	}
	return text + ": " + detail
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

// Variant is the sub-kind of the code in CamelCase (spec 02 §6.2); empty for a
// code that the catalogue lacks.
func (e *Error) Variant() string { return catalogue[e.Code].variant }

// Entity is what was not found: execution, flow, attempt, budget, quota_policy or
// stream; empty for an error of another kind.
func (e *Error) Entity() string { return catalogue[e.Code].entity }

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

// words are the kinds by which HTTP clients tell errors of kind State apart, all
// others being state_conflict, and the one Conflict whose word is not its code
// (spec 08 §4.3).
var words = map[Code]string{
	CodeExecutionNotTerminal:         "execution_not_terminal",
	CodeMaxReplaysExhausted:          "max_replays_exhausted",
	CodeReplayNotAllowed:             "replay_not_allowed",
	CodeNotRunnable:                  "not_runnable",
	CodeTerminal:                     "terminal",
	CodeFlowAlreadyTerminal:          "flow_already_terminal",
	CodeBudgetExceeded:               "budget_exceeded",
	CodeBudgetSoftExceeded:           "budget_soft_exceeded",
	CodeDuplicateSignal:              "already_satisfied",
	CodeOKAlreadyApplied:             "already_satisfied",
	CodeAttemptAlreadyTerminal:       "already_satisfied",
	CodeStreamAlreadyClosed:          "already_satisfied",
	CodeLeaseExpired:                 "already_satisfied",
	CodeLeaseRevoked:                 "already_satisfied",
	CodeAlreadyMemberOfDifferentFlow: "execution_already_in_flow",
}

// statuses are the HTTP statuses of the kinds; 500 for all others.
var statuses = map[Kind]int{
	KindNotFound:          http.StatusNotFound,
	KindValidation:        http.StatusBadRequest,
	KindContention:        http.StatusConflict,
	KindConflict:          http.StatusConflict,
	KindState:             http.StatusConflict,
	KindResourceExhausted: http.StatusTooManyRequests,
	KindUnavailable:       http.StatusServiceUnavailable,
	KindTransport:         http.StatusServiceUnavailable,
	KindTimeout:           http.StatusGatewayTimeout,
}

// HTTPStatus is the status of the answer (spec 08 §4.2). Corruption of stored data
// is 500, not 400 (spec 08 quirk 5), and faults of the store are 503.
func (e *Error) HTTPStatus() int {
	switch e.Code {
	case CodeRateLimitExceeded, CodeConcurrencyLimitExceeded:
		return http.StatusTooManyRequests
	case CodeRetryExhausted:
		return http.StatusInternalServerError
	}
	if status, ok := statuses[e.Kind()]; ok {
		return status
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
		if word, ok := words[e.Code]; ok {
			return word
		}
		return "state_conflict"
	case KindConflict:
		if word, ok := words[e.Code]; ok {
			return word
		}
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
	// Details are those of Error.
	Details []string `json:"details,omitempty"`
}

// Public is the error as callers from outside see it. The text of a fault of the
// server or its store gives way to the meaning of the code when it may quote a
// cause (addresses, paths, SQL): the cause is for the log.
func (e *Error) Public() PublicError {
	p := PublicError{Error: e.Error(), Kind: e.HTTPKind(), Code: string(e.Code), Field: e.Field, Details: e.Details}
	if p.Kind != "" {
		retryable := e.Retryable() && e.Code != CodeRetryExhausted
		p.Retryable = &retryable
	}
	switch kind := e.Kind(); {
	case kind == KindNotFound:
		p.Error = notFoundPrefix + e.Entity()
	case kind == KindInternal, kind == KindBug, e.Err != nil && e.HTTPStatus() >= http.StatusInternalServerError:
		p.Error, p.Details = (&Error{Code: e.Code}).Error(), nil
	}
	return p
}

const notFoundPrefix = "not found: "

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
// errors.Is as a local one does. An answer without a code (the reference server
// sends none) is read by its kind and text, and by its status when those say
// nothing.
func (p PublicError) Restore(status int) *Error {
	e := &Error{Code: Code(p.Code), Field: p.Field, Detail: p.Error, Details: p.Details}
	if _, known := catalogue[e.Code]; !known {
		e.Code = p.guess(status)
		return e
	}
	if e.Kind() == KindNotFound && strings.HasPrefix(e.Detail, notFoundPrefix) {
		e.Detail = ""
		return e
	}
	prefix := p.Code + ": "
	if e.Field != "" {
		prefix += e.Field + ": "
	}
	e.Detail = strings.TrimPrefix(e.Detail, prefix)
	return e
}

// guess is the code of an answer that names none that we know.
func (p PublicError) guess(status int) Code {
	if code, ok := p.codeInText(); ok {
		return code
	}
	if _, known := catalogue[Code(p.Kind)]; known {
		return Code(p.Kind)
	}
	switch {
	case status == http.StatusNotFound:
		return CodeExecutionNotFound
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return CodeUnauthorized
	case status == http.StatusRequestEntityTooLarge:
		return CodePayloadTooLarge
	case status == http.StatusTooManyRequests:
		return CodeResourceExhausted
	case status == http.StatusGatewayTimeout:
		return CodeTimeout
	case status == http.StatusConflict && p.Retryable != nil && *p.Retryable:
		return CodeRetryExhausted
	case status == http.StatusInternalServerError && p.Retryable != nil && !*p.Retryable:
		return CodeInternal
	case status >= http.StatusInternalServerError:
		return CodeUnavailable
	}
	return CodeInvalidInput
}

// transportText precedes the code word in a refusal that the reference server
// reports as a transport fault (spec 08 §4.4).
var transportText = regexp.MustCompile(`^.*transport \([^)]*\): `)

// codeInText finds the code in a text of the reference server: "not found: flow",
// "<code>: …", "contention: <Variant>" or "…transport (…): <code>: …".
func (p PublicError) codeInText() (Code, bool) {
	text := transportText.ReplaceAllString(p.Error, "")
	word, rest, _ := strings.Cut(text, ":")
	rest = strings.TrimSpace(rest)
	if word+": " == notFoundPrefix {
		return codeWhere(func(c entry) bool { return c.kind == KindNotFound && c.entity == rest })
	}
	if _, known := catalogue[Code(word)]; known {
		return Code(word), true
	}
	if p.Kind == "" || word != p.Kind {
		return "", false
	}
	variant := strings.TrimRight(strings.SplitN(rest, " ", 2)[0], "{(")
	return codeWhere(func(c entry) bool {
		return (c.kind == KindContention || c.kind == KindState) && c.variant == variant
	})
}

// codeWhere is the code whose row matches; at most one does.
func codeWhere(match func(entry) bool) (Code, bool) {
	for code, row := range catalogue {
		if match(row) {
			return code, true
		}
	}
	return "", false
}

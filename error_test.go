package flowfabric

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"testing"
)

func TestEveryCodeIsInTheCatalogue(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "error_catalogue.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		lit, ok := spec.Values[0].(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		code, _ := strconv.Unquote(lit.Value)
		n++
		if e, ok := catalogue[Code(code)]; !ok || e.kind == "" || e.class == "" || e.meaning == "" {
			t.Errorf("%s: the catalogue has %+v", code, e)
		}
		return true
	})
	if n != len(catalogue) || n < 102 {
		t.Errorf("%d codes, %d rows", n, len(catalogue))
	}
}

// Classes and statuses after lifting: spec 02 §3.1 and 08 §4.2.
func TestErrorsHaveTheirClassAndHTTPForm(t *testing.T) {
	for _, c := range []struct {
		code      Code
		class     Class
		status    int
		kind      string
		retryable bool
	}{
		{CodeStaleLease, ClassTerminal, 409, "state_conflict", false},
		{CodeLeaseExpired, ClassTerminal, 409, "already_satisfied", false},
		{CodeExecutionNotActive, ClassRetryable, 409, "contention", true},
		{CodeExecutionNotFound, ClassTerminal, 404, "", false},
		{CodeInvalidInput, ClassTerminal, 400, "", false},
		{CodeInvalidPolicyJSON, ClassTerminal, 400, "", false},
		{CodeCapabilityMismatch, ClassTerminal, 400, "", false},
		{CodeFenceRequired, ClassTerminal, 400, "", false},
		{CodePayloadTooLarge, ClassTerminal, 413, "", false},
		{CodeExecutionNotEligible, ClassRetryable, 409, "contention", true},
		{CodeExecutionNotTerminal, ClassTerminal, 409, "execution_not_terminal", false},
		{CodeMaxReplaysExhausted, ClassTerminal, 409, "max_replays_exhausted", false},
		{CodeGrantAlreadyExists, ClassInformational, 409, "state_conflict", false},
		{CodeCycleDetected, ClassTerminal, 409, "cycle_detected", false},
		{CodeRateLimitExceeded, ClassRetryable, 429, "rate_limit_exceeded", true},
		{CodeDuplicateWorkerInstance, ClassTerminal, 409, "duplicate_worker_instance", false},
		{CodeUnavailable, ClassRetryable, 503, "unavailable", true},
		{CodeTransport, ClassRetryable, 503, "transport", true},
		{CodeCorruption, ClassTerminal, 500, "corruption", false},
		{CodeInternal, ClassTerminal, 500, "internal", false},
		{CodeAttemptNotInCreatedState, ClassBug, 500, "bug", false},
	} {
		e := NewError(c.code, "x")
		if e.Class() != c.class || e.HTTPStatus() != c.status || e.HTTPKind() != c.kind || e.Retryable() != c.retryable {
			t.Errorf("%s: class %s, status %d, kind %q, retryable %v", c.code, e.Class(), e.HTTPStatus(), e.HTTPKind(), e.Retryable())
		}
		if p := e.Public(); (p.Retryable == nil) != (c.kind == "") {
			t.Errorf("%s: kind %q goes with retryable %v", c.code, p.Kind, p.Retryable)
		}
	}
}

func TestErrorsAreFoundThroughWrapping(t *testing.T) {
	err := fmt.Errorf("completing: %w", Errorf(CodeStaleLease, "epoch %d", 3))
	if !errors.Is(err, ErrStaleLease) || errors.Is(err, ErrLeaseExpired) || CodeOf(err) != CodeStaleLease {
		t.Errorf("%v is not recognised", err)
	}
	if CodeOf(nil) != "" || CodeOf(errors.New("x")) != CodeInternal {
		t.Error("CodeOf of nil or of a foreign error")
	}
	cause := errors.New("disk full")
	if e := Errorf(CodeUnavailable, "writing: %w", cause); !errors.Is(e, cause) || !IsRetryable(e) {
		t.Errorf("%v lost its cause", e)
	}
	if IsRetryable(fmt.Errorf("%w: %w", ErrUnavailable, context.Canceled)) {
		t.Error("a cancelled call is retryable")
	}
}

func TestErrorsSurviveHTTP(t *testing.T) {
	for _, e := range []*Error{
		InvalidInput("limit", "must be 1 to %d (got %d)", 5, 9),
		NewError(CodeStaleLease, "epoch 3"), NewError(CodeExecutionNotFound, ""), NewError(CodeUnavailable, "closed"),
	} {
		got := e.Public().Restore(e.HTTPStatus())
		if got.Code != e.Code || got.Field != e.Field || (e.Detail != "" && got.Detail != e.Detail) {
			t.Errorf("%v came back as %+v", e, got)
		}
	}
	for status, want := range map[int]Code{404: CodeExecutionNotFound, 401: CodeUnauthorized, 429: CodeResourceExhausted, 502: CodeUnavailable, 400: CodeInvalidInput} {
		if got := (PublicError{Error: "x"}).Restore(status).Code; got != want {
			t.Errorf("status %d without a code is %s, want %s", status, got, want)
		}
	}
}

func TestTextOfForeignErrorsIsHidden(t *testing.T) {
	status, p := PublicErrorOf(errors.New("SELECT secret FROM users"))
	if status != http.StatusInternalServerError || p.Code != "internal" || p.Error != "internal: an internal error; the log of the process that answered has the cause" {
		t.Errorf("%d %+v", status, p)
	}
}

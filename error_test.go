package flowfabric

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"slices"
	"strconv"
	"strings"
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

// Kind, class, variant and entity of the 91 codes of spec 02 §3.1 after lifting,
// with the fence codes and the duplicate edge typed (quirk Q9), then those of
// §3.2 with the kind that the spec suggests.
const lifted = `
stale_lease state terminal StaleLease -
lease_expired state terminal LeaseExpired -
lease_revoked state terminal LeaseRevoked -
execution_not_active contention retryable ExecutionNotActive -
no_active_lease contention retryable NoActiveLease -
active_attempt_exists conflict terminal ActiveAttemptExists -
use_claim_resumed_execution contention retryable UseClaimResumedExecution -
not_a_resumed_execution contention retryable NotAResumedExecution -
execution_not_leaseable contention retryable ExecutionNotLeaseable -
lease_conflict contention retryable LeaseConflict -
invalid_claim_grant contention retryable InvalidClaimGrant -
claim_grant_expired contention retryable ClaimGrantExpired -
no_eligible_execution contention retryable NoEligibleExecution -
budget_exceeded state cooperative BudgetExceeded -
budget_soft_exceeded state informational BudgetSoftExceeded -
execution_not_suspended state informational ExecutionNotSuspended -
already_suspended state informational AlreadySuspended -
waitpoint_closed state informational WaitpointClosed -
waitpoint_not_found contention retryable WaitpointNotFound -
target_not_signalable state terminal TargetNotSignalable -
waitpoint_pending_use_buffer_script contention retryable WaitpointPendingUseBufferScript -
duplicate_signal state informational DuplicateSignal -
payload_too_large validation terminal PayloadTooLarge -
signal_limit_exceeded validation terminal SignalLimitExceeded -
invalid_waitpoint_key validation terminal InvalidWaitpointKey -
invalid_token validation terminal InvalidToken -
invalid_lease_for_suspend validation terminal InvalidLeaseForSuspend -
resume_condition_not_met state terminal ResumeConditionNotMet -
waitpoint_not_pending state informational WaitpointNotPending -
pending_waitpoint_expired state informational PendingWaitpointExpired -
invalid_waitpoint_for_execution validation terminal InvalidWaitpointForExecution -
waitpoint_already_exists conflict terminal WaitpointAlreadyExists -
waitpoint_not_open state informational WaitpointNotOpen -
execution_not_terminal state terminal ExecutionNotTerminal -
max_replays_exhausted state terminal MaxReplaysExhausted -
stream_closed state terminal StreamClosed -
stale_owner_cannot_append state terminal StaleOwnerCannotAppend -
retention_limit_exceeded validation terminal RetentionLimitExceeded -
execution_not_eligible contention retryable ExecutionNotEligible -
execution_not_in_eligible_set contention retryable ExecutionNotInEligibleSet -
grant_already_exists state informational GrantAlreadyExists -
execution_not_reclaimable contention retryable ExecutionNotReclaimable -
invalid_dependency validation terminal InvalidDependency -
stale_graph_revision contention retryable StaleGraphRevision -
execution_already_in_flow conflict terminal ExecutionAlreadyInFlow -
cycle_detected conflict terminal CycleDetected -
flow_not_found not_found terminal NotFound flow
execution_not_in_flow state terminal ExecutionNotInFlow -
dependency_already_exists conflict terminal DependencyAlreadyExists -
self_referencing_edge conflict terminal SelfReferencingEdge -
flow_already_terminal state terminal FlowAlreadyTerminal -
deps_not_satisfied state informational DepsNotSatisfied -
not_blocked_by_deps state informational NotBlockedByDeps -
not_runnable state terminal NotRunnable -
terminal state terminal Terminal -
invalid_blocking_reason validation terminal InvalidBlockingReason -
ok_already_applied state informational OkAlreadyApplied -
attempt_not_found not_found terminal NotFound attempt
attempt_not_in_created_state bug bug AttemptNotInCreatedState -
attempt_not_started state terminal AttemptNotStarted -
attempt_already_terminal state informational AttemptAlreadyTerminal -
execution_not_found not_found terminal NotFound execution
execution_not_eligible_for_attempt state terminal ExecutionNotEligibleForAttempt -
replay_not_allowed state terminal ReplayNotAllowed -
max_retries_exhausted state terminal MaxRetriesExhausted -
stream_not_found not_found terminal NotFound stream
stream_already_closed state informational StreamAlreadyClosed -
invalid_frame_type validation terminal InvalidFrameType -
invalid_offset validation terminal InvalidOffset -
unauthorized validation terminal Unauthorized -
budget_not_found not_found terminal NotFound budget
invalid_budget_scope validation terminal InvalidBudgetScope -
budget_attach_conflict conflict terminal BudgetAttachConflict -
budget_override_not_allowed validation terminal BudgetOverrideNotAllowed -
quota_policy_not_found not_found terminal NotFound quota_policy
rate_limit_exceeded contention retryable RateLimitExceeded -
concurrency_limit_exceeded contention retryable ConcurrencyLimitExceeded -
quota_attach_conflict conflict terminal QuotaAttachConflict -
invalid_quota_spec validation terminal InvalidQuotaSpec -
invalid_input validation terminal InvalidInput -
capability_mismatch validation terminal CapabilityMismatch -
invalid_capabilities validation terminal InvalidCapabilities -
invalid_policy_json validation terminal InvalidPolicyJson -
waitpoint_not_token_bound validation terminal WaitpointNotTokenBound -
invalid_kid validation terminal InvalidKid -
invalid_secret_hex validation terminal InvalidSecretHex -
invalid_grace_ms validation terminal InvalidGraceMs -
rotation_conflict conflict terminal RotationConflict -
invalid_tag_key validation terminal InvalidTagKey -
fence_required validation terminal FenceRequired -
partial_fence_triple validation terminal PartialFenceTriple -
hmac_secret_not_initialized state terminal HmacSecretNotInitialized -
invalid_keys_missing_hmac validation terminal InvalidKeysMissingHmac -
invalid_secret corruption terminal Corruption -
missing_token validation terminal InvalidToken -
token_expired validation terminal InvalidToken -
additional_waitpoint_binding_malformed validation terminal InvalidInput -
use_pending_with_extras_unsupported validation terminal InvalidInput -
already_member_of_different_flow conflict terminal ExecutionAlreadyInFlow -
invariant_violation bug bug InvariantViolation -
invalid_args validation terminal InvalidInput -
corruption corruption terminal Corruption -
`

func TestCatalogueIsTheLiftedTableOfTheSpec(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(lifted), "\n")
	if len(lines) != 102 {
		t.Errorf("%d codes in the table of the spec", len(lines))
	}
	for _, line := range lines {
		code, _, _ := strings.Cut(line, " ")
		e := NewError(Code(code), "")
		entity := e.Entity()
		if entity == "" {
			entity = "-"
		}
		if got := fmt.Sprintf("%s %s %s %s %s", code, e.Kind(), e.Class(), e.Variant(), entity); got != line {
			t.Errorf("the catalogue has %q, the spec %q", got, line)
		}
	}
}

// The code words of spec 08 §4.3.
func TestEveryRefusalHasTheHTTPWordOfTheSpec(t *testing.T) {
	satisfied := strings.Fields("duplicate_signal ok_already_applied attempt_already_terminal stream_already_closed lease_expired lease_revoked")
	stateWords := strings.Fields("execution_not_terminal max_replays_exhausted replay_not_allowed not_runnable terminal flow_already_terminal budget_exceeded budget_soft_exceeded")
	conflictWords := strings.Fields("dependency_already_exists cycle_detected self_referencing_edge execution_already_in_flow waitpoint_already_exists budget_attach_conflict quota_attach_conflict rotation_conflict active_attempt_exists")
	for code := range catalogue {
		e := NewError(code, "")
		status, word := http.StatusConflict, ""
		switch kind := e.Kind(); {
		case slices.Contains(satisfied, string(code)):
			word = "already_satisfied"
		case slices.Contains(stateWords, string(code)), slices.Contains(conflictWords, string(code)):
			word = string(code)
		case kind == KindState:
			word = "state_conflict"
		case kind == KindValidation:
			status = http.StatusBadRequest
		case kind == KindNotFound:
			status = http.StatusNotFound
		default:
			continue
		}
		if e.HTTPStatus() != status || e.HTTPKind() != word {
			t.Errorf("%s: %d %q, want %d %q", code, e.HTTPStatus(), e.HTTPKind(), status, word)
		}
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
		{CodePayloadTooLarge, ClassTerminal, 400, "", false},
		{CodeExecutionNotEligible, ClassRetryable, 409, "contention", true},
		{CodeExecutionNotTerminal, ClassTerminal, 409, "execution_not_terminal", false},
		{CodeMaxReplaysExhausted, ClassTerminal, 409, "max_replays_exhausted", false},
		{CodeGrantAlreadyExists, ClassInformational, 409, "state_conflict", false},
		{CodeCycleDetected, ClassTerminal, 409, "cycle_detected", false},
		{CodeRateLimitExceeded, ClassRetryable, 429, "rate_limit_exceeded", true},
		{CodeRetryExhausted, ClassRetryable, 500, "retry_exhausted", false},
		{CodeResourceExhausted, ClassRetryable, 429, "resource_exhausted", true},
		{CodeConcurrencyLimitExceeded, ClassRetryable, 429, "concurrency_limit_exceeded", true},
		{CodeTimeout, ClassRetryable, 504, "timeout", true},
		{CodeBudgetExceeded, ClassCooperative, 409, "budget_exceeded", false},
		{CodeAlreadyMemberOfDifferentFlow, ClassTerminal, 409, "execution_already_in_flow", false},
		{CodeDuplicateWorkerInstance, ClassTerminal, 409, "duplicate_worker_instance", false},
		{CodeUnavailable, ClassRetryable, 503, "unavailable", true},
		{CodeTransport, ClassRetryable, 503, "transport", true},
		{CodeCorruption, ClassTerminal, 500, "corruption", false},
		{CodeInternal, ClassTerminal, 500, "internal", false},
		{CodeAttemptNotInCreatedState, ClassBug, 500, "bug", false},
	} {
		e := NewError(c.code, "x")
		if e.Class() != c.class || e.HTTPStatus() != c.status || e.HTTPKind() != c.kind || e.Retryable() != (c.class == ClassRetryable) {
			t.Errorf("%s: class %s, status %d, kind %q, retryable %v", c.code, e.Class(), e.HTTPStatus(), e.HTTPKind(), e.Retryable())
		}
		p := e.Public()
		if (p.Retryable == nil) != (c.kind == "") || p.Retryable != nil && *p.Retryable != c.retryable {
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
	if e := Errorf(CodeUnavailable, "%w after %w", context.Canceled, ErrTimeout); !errors.Is(e, context.Canceled) || !errors.Is(e, ErrTimeout) {
		t.Errorf("%v lost one of its causes", e)
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

func TestCausesOfFaultsAreHidden(t *testing.T) {
	e := Errorf(CodeUnavailable, "dial: %w", errors.New("10.0.0.1:5432 refused"))
	if text := e.Public().Error; strings.Contains(text, "10.0.0.1") {
		t.Errorf("%q names the cause", text)
	}
	if text := Errorf(CodeInvalidInput, "body: %w", errors.New("unexpected EOF")).Public().Error; text != "invalid_input: body: unexpected EOF" {
		t.Errorf("%q does not say what was wrong", text)
	}
}

func TestErrorWithoutDetailSaysWhatItMeans(t *testing.T) {
	for e, want := range map[*Error]string{
		ErrFlowNotFound:                    "flow_not_found: there is no such flow: check its id, or create it first",
		InvalidInput("limit", "is %d", 9):  "invalid_input: limit: is 9",
		NewError("from_a_newer_peer", ""):  "from_a_newer_peer",
		NewError("from_a_newer_peer", "x"): "from_a_newer_peer: x",
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
}

func TestNotActiveKeepsItsDetailsInWireOrder(t *testing.T) {
	e := NotActive("success", "1", "terminal", "a1")
	if e.Code != CodeExecutionNotActive || !slices.Equal(e.Details, []string{"success", "1", "terminal", "a1"}) {
		t.Errorf("%+v", e)
	}
}

// Answers of the reference server, which have no code: spec 08 §4.2 to 4.5.
func TestAnswersOfTheReferenceServerAreUnderstood(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		status int
		answer PublicError
		want   Code
	}{
		{404, PublicError{Error: "not found: flow"}, CodeFlowNotFound},
		{400, PublicError{Error: "invalid_token"}, CodeInvalidToken},
		{400, PublicError{Error: "capability_mismatch: cuda"}, CodeCapabilityMismatch},
		{409, PublicError{Error: "contention: StaleGraphRevision", Kind: "contention", Retryable: &yes}, CodeStaleGraphRevision},
		{409, PublicError{Error: `contention: ExecutionNotActive { terminal_outcome: "success" }`, Kind: "contention", Retryable: &yes}, CodeExecutionNotActive},
		{409, PublicError{Error: "state_conflict: StaleLease", Kind: "state_conflict", Retryable: &no}, CodeStaleLease},
		{409, PublicError{Error: "already_satisfied: LeaseRevoked", Kind: "already_satisfied", Retryable: &no}, CodeLeaseRevoked},
		{409, PublicError{Error: `rotation_conflict: RotationConflict("k2")`, Kind: "rotation_conflict", Retryable: &no}, CodeRotationConflict},
		{409, PublicError{Error: "contention: Newer", Kind: "contention", Retryable: &yes}, CodeRetryExhausted},
		{500, PublicError{Error: "engine: cancel_execution: parse: transport (valkey): execution_not_found: execution does not exist", Retryable: &yes}, CodeExecutionNotFound},
		{500, PublicError{Error: "engine: x: transport (valkey): broken pipe", Retryable: &yes}, CodeUnavailable},
		{500, PublicError{Error: "engine: bug", Retryable: &no}, CodeInternal},
		{503, PublicError{Error: "backend op unavailable: x", Kind: "unavailable", Retryable: &no}, CodeUnavailable},
	} {
		if got := c.answer.Restore(c.status).Code; got != c.want {
			t.Errorf("%d %q is %s, want %s", c.status, c.answer.Error, got, c.want)
		}
	}
}

func TestEveryCodeSurvivesHTTP(t *testing.T) {
	for code := range catalogue {
		e := NewError(code, "")
		if got := e.Public().Restore(e.HTTPStatus()); !errors.Is(got, e) || strings.Count(got.Error(), string(code)+": ") != 1 {
			t.Errorf("%s came back as %q", code, got)
		}
	}
}

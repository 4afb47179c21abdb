package flowfabric

// Code is the machine-readable name of an error, the same on every store
// (spec 02 §3).
type Code string

// The codes. Some are reserved by the wire and answered by nothing yet.
const (
	CodeStaleLease                          Code = "stale_lease"
	CodeLeaseExpired                        Code = "lease_expired"
	CodeLeaseRevoked                        Code = "lease_revoked"
	CodeExecutionNotActive                  Code = "execution_not_active"
	CodeNoActiveLease                       Code = "no_active_lease"
	CodeActiveAttemptExists                 Code = "active_attempt_exists"
	CodeUseClaimResumedExecution            Code = "use_claim_resumed_execution"
	CodeNotAResumedExecution                Code = "not_a_resumed_execution"
	CodeExecutionNotLeaseable               Code = "execution_not_leaseable"
	CodeLeaseConflict                       Code = "lease_conflict"
	CodeInvalidClaimGrant                   Code = "invalid_claim_grant"
	CodeClaimGrantExpired                   Code = "claim_grant_expired"
	CodeNoEligibleExecution                 Code = "no_eligible_execution"
	CodeBudgetExceeded                      Code = "budget_exceeded"
	CodeBudgetSoftExceeded                  Code = "budget_soft_exceeded"
	CodeExecutionNotSuspended               Code = "execution_not_suspended"
	CodeAlreadySuspended                    Code = "already_suspended"
	CodeWaitpointClosed                     Code = "waitpoint_closed"
	CodeWaitpointNotFound                   Code = "waitpoint_not_found"
	CodeTargetNotSignalable                 Code = "target_not_signalable"
	CodeWaitpointPendingUseBufferScript     Code = "waitpoint_pending_use_buffer_script"
	CodeDuplicateSignal                     Code = "duplicate_signal"
	CodePayloadTooLarge                     Code = "payload_too_large"
	CodeSignalLimitExceeded                 Code = "signal_limit_exceeded"
	CodeInvalidWaitpointKey                 Code = "invalid_waitpoint_key"
	CodeInvalidToken                        Code = "invalid_token"
	CodeInvalidLeaseForSuspend              Code = "invalid_lease_for_suspend"
	CodeResumeConditionNotMet               Code = "resume_condition_not_met"
	CodeWaitpointNotPending                 Code = "waitpoint_not_pending"
	CodePendingWaitpointExpired             Code = "pending_waitpoint_expired"
	CodeInvalidWaitpointForExecution        Code = "invalid_waitpoint_for_execution"
	CodeWaitpointAlreadyExists              Code = "waitpoint_already_exists"
	CodeWaitpointNotOpen                    Code = "waitpoint_not_open"
	CodeExecutionNotTerminal                Code = "execution_not_terminal"
	CodeMaxReplaysExhausted                 Code = "max_replays_exhausted"
	CodeStreamClosed                        Code = "stream_closed"
	CodeStaleOwnerCannotAppend              Code = "stale_owner_cannot_append"
	CodeRetentionLimitExceeded              Code = "retention_limit_exceeded"
	CodeExecutionNotEligible                Code = "execution_not_eligible"
	CodeExecutionNotInEligibleSet           Code = "execution_not_in_eligible_set"
	CodeGrantAlreadyExists                  Code = "grant_already_exists"
	CodeExecutionNotReclaimable             Code = "execution_not_reclaimable"
	CodeInvalidDependency                   Code = "invalid_dependency"
	CodeStaleGraphRevision                  Code = "stale_graph_revision"
	CodeExecutionAlreadyInFlow              Code = "execution_already_in_flow"
	CodeCycleDetected                       Code = "cycle_detected"
	CodeFlowNotFound                        Code = "flow_not_found"
	CodeExecutionNotInFlow                  Code = "execution_not_in_flow"
	CodeDependencyAlreadyExists             Code = "dependency_already_exists"
	CodeSelfReferencingEdge                 Code = "self_referencing_edge"
	CodeFlowAlreadyTerminal                 Code = "flow_already_terminal"
	CodeDepsNotSatisfied                    Code = "deps_not_satisfied"
	CodeNotBlockedByDeps                    Code = "not_blocked_by_deps"
	CodeNotRunnable                         Code = "not_runnable"
	CodeTerminal                            Code = "terminal"
	CodeInvalidBlockingReason               Code = "invalid_blocking_reason"
	CodeOKAlreadyApplied                    Code = "ok_already_applied"
	CodeAttemptNotFound                     Code = "attempt_not_found"
	CodeAttemptNotInCreatedState            Code = "attempt_not_in_created_state"
	CodeAttemptNotStarted                   Code = "attempt_not_started"
	CodeAttemptAlreadyTerminal              Code = "attempt_already_terminal"
	CodeExecutionNotFound                   Code = "execution_not_found"
	CodeExecutionNotEligibleForAttempt      Code = "execution_not_eligible_for_attempt"
	CodeReplayNotAllowed                    Code = "replay_not_allowed"
	CodeMaxRetriesExhausted                 Code = "max_retries_exhausted"
	CodeStreamNotFound                      Code = "stream_not_found"
	CodeStreamAlreadyClosed                 Code = "stream_already_closed"
	CodeInvalidFrameType                    Code = "invalid_frame_type"
	CodeInvalidOffset                       Code = "invalid_offset"
	CodeUnauthorized                        Code = "unauthorized"
	CodeBudgetNotFound                      Code = "budget_not_found"
	CodeInvalidBudgetScope                  Code = "invalid_budget_scope"
	CodeBudgetAttachConflict                Code = "budget_attach_conflict"
	CodeBudgetOverrideNotAllowed            Code = "budget_override_not_allowed"
	CodeQuotaPolicyNotFound                 Code = "quota_policy_not_found"
	CodeRateLimitExceeded                   Code = "rate_limit_exceeded"
	CodeConcurrencyLimitExceeded            Code = "concurrency_limit_exceeded"
	CodeQuotaAttachConflict                 Code = "quota_attach_conflict"
	CodeInvalidQuotaSpec                    Code = "invalid_quota_spec"
	CodeInvalidInput                        Code = "invalid_input"
	CodeCapabilityMismatch                  Code = "capability_mismatch"
	CodeInvalidCapabilities                 Code = "invalid_capabilities"
	CodeInvalidPolicyJSON                   Code = "invalid_policy_json"
	CodeWaitpointNotTokenBound              Code = "waitpoint_not_token_bound"
	CodeInvalidKid                          Code = "invalid_kid"
	CodeInvalidSecretHex                    Code = "invalid_secret_hex"
	CodeInvalidGraceMS                      Code = "invalid_grace_ms"
	CodeRotationConflict                    Code = "rotation_conflict"
	CodeInvalidTagKey                       Code = "invalid_tag_key"
	CodeFenceRequired                       Code = "fence_required"
	CodePartialFenceTriple                  Code = "partial_fence_triple"
	CodeHMACSecretNotInitialized            Code = "hmac_secret_not_initialized"
	CodeInvalidKeysMissingHMAC              Code = "invalid_keys_missing_hmac"
	CodeInvalidSecret                       Code = "invalid_secret"
	CodeMissingToken                        Code = "missing_token"
	CodeTokenExpired                        Code = "token_expired"
	CodeAdditionalWaitpointBindingMalformed Code = "additional_waitpoint_binding_malformed"
	CodeUsePendingWithExtrasUnsupported     Code = "use_pending_with_extras_unsupported"
	CodeAlreadyMemberOfDifferentFlow        Code = "already_member_of_different_flow"
	CodeInvariantViolation                  Code = "invariant_violation"
	CodeInvalidArgs                         Code = "invalid_args"
	CodeCorruption                          Code = "corruption"
	CodeRetryExhausted                      Code = "retry_exhausted"
	CodeUnavailable                         Code = "unavailable"
	CodeResourceExhausted                   Code = "resource_exhausted"
	CodeTimeout                             Code = "timeout"
	CodeTransport                           Code = "transport"
	CodeInternal                            Code = "internal"
	CodeDuplicateWorkerInstance             Code = "duplicate_worker_instance"
	CodeUnsupportedStore                    Code = "unsupported_store"
)

// entry is what the catalogue knows about a code.
type entry struct {
	kind    Kind
	entity  string
	variant string
	class   Class
	meaning string
}

// catalogue has the one table of all stores: the class is that of the lifted
// error in spec 02 §3.1.
var catalogue = map[Code]entry{
	CodeStaleLease:                          {KindState, "", "StaleLease", ClassTerminal, "another lease is in force now: stop working on this execution"},
	CodeLeaseExpired:                        {KindState, "", "LeaseExpired", ClassTerminal, "the lease ended before the command came: stop working on this execution"},
	CodeLeaseRevoked:                        {KindState, "", "LeaseRevoked", ClassTerminal, "an operator took the lease away: stop working on this execution"},
	CodeExecutionNotActive:                  {KindContention, "", "ExecutionNotActive", ClassRetryable, "the execution is not being worked on; read its state"},
	CodeNoActiveLease:                       {KindContention, "", "NoActiveLease", ClassRetryable, "nobody holds a lease on the execution: claim it first"},
	CodeActiveAttemptExists:                 {KindConflict, "", "ActiveAttemptExists", ClassTerminal, "an attempt is running already: wait until it ends or its lease lapses"},
	CodeUseClaimResumedExecution:            {KindContention, "", "UseClaimResumedExecution", ClassRetryable, "the attempt was interrupted: take it up with the resumed claim"},
	CodeNotAResumedExecution:                {KindContention, "", "NotAResumedExecution", ClassRetryable, "the attempt was not interrupted: use the normal claim"},
	CodeExecutionNotLeaseable:               {KindContention, "", "ExecutionNotLeaseable", ClassRetryable, "the execution changed and cannot be claimed now: claim another"},
	CodeLeaseConflict:                       {KindContention, "", "LeaseConflict", ClassRetryable, "another worker holds the execution: claim another"},
	CodeInvalidClaimGrant:                   {KindContention, "", "InvalidClaimGrant", ClassRetryable, "there is no grant for this worker; ask for a new one"},
	CodeClaimGrantExpired:                   {KindContention, "", "ClaimGrantExpired", ClassRetryable, "the grant has lapsed; ask for a new one"},
	CodeNoEligibleExecution:                 {KindContention, "", "NoEligibleExecution", ClassRetryable, "there is nothing to claim: wait for work"},
	CodeBudgetExceeded:                      {KindState, "", "BudgetExceeded", ClassCooperative, "a hard budget limit is reached: fail the execution with category budget_exceeded, or raise the limit"},
	CodeBudgetSoftExceeded:                  {KindState, "", "BudgetSoftExceeded", ClassInformational, "a soft budget limit is reached"},
	CodeExecutionNotSuspended:               {KindState, "", "ExecutionNotSuspended", ClassInformational, "the execution is not suspended"},
	CodeAlreadySuspended:                    {KindState, "", "AlreadySuspended", ClassInformational, "the execution is suspended already"},
	CodeWaitpointClosed:                     {KindState, "", "WaitpointClosed", ClassInformational, "the waitpoint is closed"},
	CodeWaitpointNotFound:                   {KindContention, "", "WaitpointNotFound", ClassRetryable, "there is no such waitpoint: check its id, or retry if it is being created"},
	CodeTargetNotSignalable:                 {KindState, "", "TargetNotSignalable", ClassTerminal, "the execution cannot take signals now: it has ended or does not wait for one"},
	CodeWaitpointPendingUseBufferScript:     {KindContention, "", "WaitpointPendingUseBufferScript", ClassRetryable, "the waitpoint is still pending: the signal must be buffered"},
	CodeDuplicateSignal:                     {KindState, "", "DuplicateSignal", ClassInformational, "the signal was delivered before"},
	CodePayloadTooLarge:                     {KindValidation, "", "PayloadTooLarge", ClassTerminal, "the payload is larger than allowed"},
	CodeSignalLimitExceeded:                 {KindValidation, "", "SignalLimitExceeded", ClassTerminal, "the execution has taken as many signals as it may"},
	CodeInvalidWaitpointKey:                 {KindValidation, "", "InvalidWaitpointKey", ClassTerminal, "the waitpoint key does not match"},
	CodeInvalidToken:                        {KindValidation, "", "InvalidToken", ClassTerminal, "the token is not valid for this waitpoint: use the one that suspending answered"},
	CodeInvalidLeaseForSuspend:              {KindValidation, "", "InvalidLeaseForSuspend", ClassTerminal, "the attempt is not the current one"},
	CodeResumeConditionNotMet:               {KindState, "", "ResumeConditionNotMet", ClassTerminal, "the resume condition is not met"},
	CodeWaitpointNotPending:                 {KindState, "", "WaitpointNotPending", ClassInformational, "the waitpoint is not pending"},
	CodePendingWaitpointExpired:             {KindState, "", "PendingWaitpointExpired", ClassInformational, "the pending waitpoint has expired"},
	CodeInvalidWaitpointForExecution:        {KindValidation, "", "InvalidWaitpointForExecution", ClassTerminal, "the waitpoint belongs to another execution or attempt"},
	CodeWaitpointAlreadyExists:              {KindConflict, "", "WaitpointAlreadyExists", ClassTerminal, "the waitpoint exists already"},
	CodeWaitpointNotOpen:                    {KindState, "", "WaitpointNotOpen", ClassInformational, "the waitpoint is not open"},
	CodeExecutionNotTerminal:                {KindState, "", "ExecutionNotTerminal", ClassTerminal, "only an execution that has ended can be replayed: wait for it or cancel it"},
	CodeMaxReplaysExhausted:                 {KindState, "", "MaxReplaysExhausted", ClassTerminal, "the execution has been replayed as often as its policy allows: submit a new one"},
	CodeStreamClosed:                        {KindState, "", "StreamClosed", ClassTerminal, "the stream is closed: only a running attempt can append"},
	CodeStaleOwnerCannotAppend:              {KindState, "", "StaleOwnerCannotAppend", ClassTerminal, "only the holder of the lease can append"},
	CodeRetentionLimitExceeded:              {KindValidation, "", "RetentionLimitExceeded", ClassTerminal, "the frame is larger than allowed"},
	CodeExecutionNotEligible:                {KindContention, "", "ExecutionNotEligible", ClassRetryable, "the execution is not waiting for a worker"},
	CodeExecutionNotInEligibleSet:           {KindContention, "", "ExecutionNotInEligibleSet", ClassRetryable, "another scheduler has taken the execution"},
	CodeGrantAlreadyExists:                  {KindState, "", "GrantAlreadyExists", ClassInformational, "the execution is granted to a worker until its grant lapses"},
	CodeExecutionNotReclaimable:             {KindContention, "", "ExecutionNotReclaimable", ClassRetryable, "the lease of the execution is not lost: leave it to its holder"},
	CodeInvalidDependency:                   {KindValidation, "", "InvalidDependency", ClassTerminal, "the execution has no such dependency"},
	CodeStaleGraphRevision:                  {KindContention, "", "StaleGraphRevision", ClassRetryable, "the graph has changed: read it again and retry"},
	CodeExecutionAlreadyInFlow:              {KindConflict, "", "ExecutionAlreadyInFlow", ClassTerminal, "the execution belongs to another flow"},
	CodeCycleDetected:                       {KindConflict, "", "CycleDetected", ClassTerminal, "the edge would close a cycle: leave it out"},
	CodeFlowNotFound:                        {KindNotFound, "flow", "NotFound", ClassTerminal, "there is no such flow: check its id, or create it first"},
	CodeExecutionNotInFlow:                  {KindState, "", "ExecutionNotInFlow", ClassTerminal, "the execution is not a member of the flow: add it first"},
	CodeDependencyAlreadyExists:             {KindConflict, "", "DependencyAlreadyExists", ClassTerminal, "the edge exists already"},
	CodeSelfReferencingEdge:                 {KindConflict, "", "SelfReferencingEdge", ClassTerminal, "an execution cannot depend on itself"},
	CodeFlowAlreadyTerminal:                 {KindState, "", "FlowAlreadyTerminal", ClassTerminal, "the flow has ended: create a new one"},
	CodeDepsNotSatisfied:                    {KindState, "", "DepsNotSatisfied", ClassInformational, "dependencies are still open"},
	CodeNotBlockedByDeps:                    {KindState, "", "NotBlockedByDeps", ClassInformational, "the execution does not wait for dependencies"},
	CodeNotRunnable:                         {KindState, "", "NotRunnable", ClassTerminal, "the execution is not runnable"},
	CodeTerminal:                            {KindState, "", "Terminal", ClassTerminal, "the execution has ended"},
	CodeInvalidBlockingReason:               {KindValidation, "", "InvalidBlockingReason", ClassTerminal, "the blocking reason is not one of admission"},
	CodeOKAlreadyApplied:                    {KindState, "", "OkAlreadyApplied", ClassInformational, "the report was applied before"},
	CodeAttemptNotFound:                     {KindNotFound, "attempt", "NotFound", ClassTerminal, "there is no such attempt"},
	CodeAttemptNotInCreatedState:            {KindBug, "", "AttemptNotInCreatedState", ClassBug, "the attempt was started already"},
	CodeAttemptNotStarted:                   {KindState, "", "AttemptNotStarted", ClassTerminal, "the attempt was not started"},
	CodeAttemptAlreadyTerminal:              {KindState, "", "AttemptAlreadyTerminal", ClassInformational, "the attempt has ended"},
	CodeExecutionNotFound:                   {KindNotFound, "execution", "NotFound", ClassTerminal, "there is no such execution; it may have been deleted by retention"},
	CodeExecutionNotEligibleForAttempt:      {KindState, "", "ExecutionNotEligibleForAttempt", ClassTerminal, "the execution cannot start an attempt"},
	CodeReplayNotAllowed:                    {KindState, "", "ReplayNotAllowed", ClassTerminal, "the execution cannot be replayed"},
	CodeMaxRetriesExhausted:                 {KindState, "", "MaxRetriesExhausted", ClassTerminal, "the execution was taken over as often as its policy allows and has failed"},
	CodeStreamNotFound:                      {KindNotFound, "stream", "NotFound", ClassTerminal, "there is no such stream"},
	CodeStreamAlreadyClosed:                 {KindState, "", "StreamAlreadyClosed", ClassInformational, "the stream is closed already"},
	CodeInvalidFrameType:                    {KindValidation, "", "InvalidFrameType", ClassTerminal, "the frame type is not valid"},
	CodeInvalidOffset:                       {KindValidation, "", "InvalidOffset", ClassTerminal, "the stream position is not valid"},
	CodeUnauthorized:                        {KindValidation, "", "Unauthorized", ClassTerminal, "the caller may not do this"},
	CodeBudgetNotFound:                      {KindNotFound, "budget", "NotFound", ClassTerminal, "there is no such budget: check its id, or create it first"},
	CodeInvalidBudgetScope:                  {KindValidation, "", "InvalidBudgetScope", ClassTerminal, "the budget scope is not valid"},
	CodeBudgetAttachConflict:                {KindConflict, "", "BudgetAttachConflict", ClassTerminal, "the budget is attached already"},
	CodeBudgetOverrideNotAllowed:            {KindValidation, "", "BudgetOverrideNotAllowed", ClassTerminal, "the budget cannot be overridden"},
	CodeQuotaPolicyNotFound:                 {KindNotFound, "quota_policy", "NotFound", ClassTerminal, "there is no such quota policy: check its id, or create it first"},
	CodeRateLimitExceeded:                   {KindContention, "", "RateLimitExceeded", ClassRetryable, "the rate limit is reached: retry later"},
	CodeConcurrencyLimitExceeded:            {KindContention, "", "ConcurrencyLimitExceeded", ClassRetryable, "the concurrency limit is reached: retry later"},
	CodeQuotaAttachConflict:                 {KindConflict, "", "QuotaAttachConflict", ClassTerminal, "the quota policy is attached already"},
	CodeInvalidQuotaSpec:                    {KindValidation, "", "InvalidQuotaSpec", ClassTerminal, "the quota policy is not valid"},
	CodeInvalidInput:                        {KindValidation, "", "InvalidInput", ClassTerminal, "a value is not valid"},
	CodeCapabilityMismatch:                  {KindValidation, "", "CapabilityMismatch", ClassTerminal, "the worker lacks capabilities that the execution requires: leave it to a worker that has them"},
	CodeInvalidCapabilities:                 {KindValidation, "", "InvalidCapabilities", ClassTerminal, "the capability list is not valid"},
	CodeInvalidPolicyJSON:                   {KindValidation, "", "InvalidPolicyJson", ClassTerminal, "the policy is not valid"},
	CodeWaitpointNotTokenBound:              {KindValidation, "", "WaitpointNotTokenBound", ClassTerminal, "the pending waitpoint has no token"},
	CodeInvalidKid:                          {KindValidation, "", "InvalidKid", ClassTerminal, "the key id is empty or contains ':'"},
	CodeInvalidSecretHex:                    {KindValidation, "", "InvalidSecretHex", ClassTerminal, "the secret is not an even number of hex digits"},
	CodeInvalidGraceMS:                      {KindValidation, "", "InvalidGraceMs", ClassTerminal, "the grace period is not a valid number of milliseconds"},
	CodeRotationConflict:                    {KindConflict, "", "RotationConflict", ClassTerminal, "the key id is in use with another secret"},
	CodeInvalidTagKey:                       {KindValidation, "", "InvalidTagKey", ClassTerminal, "a tag key must look like namespace.name"},
	CodeFenceRequired:                       {KindValidation, "", "FenceRequired", ClassTerminal, "the command needs the lease id, epoch and attempt id of its caller"},
	CodePartialFenceTriple:                  {KindValidation, "", "PartialFenceTriple", ClassTerminal, "lease id, epoch and attempt id must be given together"},
	CodeHMACSecretNotInitialized:            {KindState, "", "HmacSecretNotInitialized", ClassTerminal, "no waitpoint secret is installed: rotate one in"},
	CodeInvalidKeysMissingHMAC:              {KindValidation, "", "InvalidKeysMissingHmac", ClassTerminal, "the call lacks the key of the waitpoint secret"},
	CodeInvalidSecret:                       {KindCorruption, "", "Corruption", ClassTerminal, "the stored waitpoint secret is not hex"},
	CodeMissingToken:                        {KindValidation, "", "InvalidToken", ClassTerminal, "the waitpoint token is missing: send the one that suspending answered"},
	CodeTokenExpired:                        {KindValidation, "", "InvalidToken", ClassTerminal, "the key that signed the token has been retired"},
	CodeAdditionalWaitpointBindingMalformed: {KindValidation, "", "InvalidInput", ClassTerminal, "an extra waitpoint lacks its id or key"},
	CodeUsePendingWithExtrasUnsupported:     {KindValidation, "", "InvalidInput", ClassTerminal, "a pending waitpoint cannot be combined with extra waitpoints"},
	CodeAlreadyMemberOfDifferentFlow:        {KindConflict, "", "ExecutionAlreadyInFlow", ClassTerminal, "the execution belongs to another flow"},
	CodeInvariantViolation:                  {KindBug, "", "InvariantViolation", ClassBug, "stored counters contradict each other"},
	CodeInvalidArgs:                         {KindValidation, "", "InvalidInput", ClassTerminal, "a required argument is empty"},
	CodeCorruption:                          {KindCorruption, "", "Corruption", ClassTerminal, "stored data cannot be decoded: restore it from a backup or report it"},
	CodeRetryExhausted:                      {KindContention, "", "RetryExhausted", ClassRetryable, "the transaction kept conflicting with others: retry later"},
	CodeUnavailable:                         {KindUnavailable, "", "Unavailable", ClassRetryable, "the store cannot serve the command now: retry with backoff"},
	CodeResourceExhausted:                   {KindResourceExhausted, "", "ResourceExhausted", ClassRetryable, "too many concurrent calls: retry with backoff"},
	CodeTimeout:                             {KindTimeout, "", "Timeout", ClassRetryable, "the command took too long: it may have been applied; repeat it or read the state"},
	CodeTransport:                           {KindTransport, "", "Transport", ClassRetryable, "the store cannot be reached: retry with backoff, and check its address if that does not help"},
	CodeInternal:                            {KindInternal, "", "Internal", ClassTerminal, "an internal error; the log of the process that answered has the cause"},
	CodeDuplicateWorkerInstance:             {KindConflict, "", "DuplicateWorkerInstance", ClassTerminal, "another live process holds this worker instance id: choose another or wait until it has lapsed"},
	CodeUnsupportedStore:                    {KindUnavailable, "", "UnsupportedStore", ClassTerminal, "the store cannot be used by this process: its file is newer than this program, damaged or held by another process"},
}

// Sentinels for errors.Is: they match every error of their code.
var (
	ErrStaleLease               = &Error{Code: CodeStaleLease}
	ErrLeaseExpired             = &Error{Code: CodeLeaseExpired}
	ErrLeaseRevoked             = &Error{Code: CodeLeaseRevoked}
	ErrExecutionNotActive       = &Error{Code: CodeExecutionNotActive}
	ErrExecutionNotFound        = &Error{Code: CodeExecutionNotFound}
	ErrFlowNotFound             = &Error{Code: CodeFlowNotFound}
	ErrNoEligibleExecution      = &Error{Code: CodeNoEligibleExecution}
	ErrCapabilityMismatch       = &Error{Code: CodeCapabilityMismatch}
	ErrInvalidInput             = &Error{Code: CodeInvalidInput}
	ErrInvalidPolicyJSON        = &Error{Code: CodeInvalidPolicyJSON}
	ErrInvalidCapabilities      = &Error{Code: CodeInvalidCapabilities}
	ErrFenceRequired            = &Error{Code: CodeFenceRequired}
	ErrPartialFenceTriple       = &Error{Code: CodePartialFenceTriple}
	ErrExecutionNotEligible     = &Error{Code: CodeExecutionNotEligible}
	ErrExecutionNotReclaimable  = &Error{Code: CodeExecutionNotReclaimable}
	ErrExecutionNotTerminal     = &Error{Code: CodeExecutionNotTerminal}
	ErrMaxReplaysExhausted      = &Error{Code: CodeMaxReplaysExhausted}
	ErrMaxRetriesExhausted      = &Error{Code: CodeMaxRetriesExhausted}
	ErrGrantAlreadyExists       = &Error{Code: CodeGrantAlreadyExists}
	ErrInvalidClaimGrant        = &Error{Code: CodeInvalidClaimGrant}
	ErrClaimGrantExpired        = &Error{Code: CodeClaimGrantExpired}
	ErrUseClaimResumedExecution = &Error{Code: CodeUseClaimResumedExecution}
	ErrNotAResumedExecution     = &Error{Code: CodeNotAResumedExecution}
	ErrExecutionNotLeaseable    = &Error{Code: CodeExecutionNotLeaseable}
	ErrLeaseConflict            = &Error{Code: CodeLeaseConflict}
	ErrPayloadTooLarge          = &Error{Code: CodePayloadTooLarge}
	ErrInvalidTagKey            = &Error{Code: CodeInvalidTagKey}
	ErrTargetNotSignalable      = &Error{Code: CodeTargetNotSignalable}
	ErrInvalidToken             = &Error{Code: CodeInvalidToken}
	ErrWaitpointNotFound        = &Error{Code: CodeWaitpointNotFound}
	ErrStreamClosed             = &Error{Code: CodeStreamClosed}
	ErrStaleOwnerCannotAppend   = &Error{Code: CodeStaleOwnerCannotAppend}
	ErrRetentionLimitExceeded   = &Error{Code: CodeRetentionLimitExceeded}
	ErrUnavailable              = &Error{Code: CodeUnavailable}
	ErrTimeout                  = &Error{Code: CodeTimeout}
	ErrTransport                = &Error{Code: CodeTransport}
	ErrBudgetExceeded           = &Error{Code: CodeBudgetExceeded}
	ErrDuplicateWorkerInstance  = &Error{Code: CodeDuplicateWorkerInstance}
	ErrUnsupportedStore         = &Error{Code: CodeUnsupportedStore}
)

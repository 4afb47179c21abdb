package flowfabric

import "time"

// Limits of what one command may carry. Every entrance (SDK, HTTP, CLI)
// enforces them through the Validate methods of the commands, so that an
// oversized value is refused with the same error everywhere.
const (
	// MaxPayloadBytes bounds the input of one execution.
	MaxPayloadBytes = 8 << 20
	// MaxResultBytes bounds the result of one execution.
	MaxResultBytes = 8 << 20
	// MaxKindBytes bounds the name of an execution kind.
	MaxKindBytes = 256
	// MaxCreatorBytes bounds the creator identity.
	MaxCreatorBytes = 256
	// MaxIdempotencyKeyBytes bounds an idempotency key.
	MaxIdempotencyKeyBytes = 512
	// MaxEncodingBytes bounds the name of a payload encoding.
	MaxEncodingBytes = 64
	// MaxReasonBytes bounds the reason of a failure, cancellation, revocation
	// or delay. Longer reasons of handlers are cut by the worker SDK.
	MaxReasonBytes = 4096
	// MaxCategoryBytes bounds the category of a failure.
	MaxCategoryBytes = 256
	// MaxProgressMessageBytes bounds a progress message.
	MaxProgressMessageBytes = 4096
	// MaxTags bounds the number of tags of one execution.
	MaxTags = 64
	// MaxTagKeyBytes bounds one tag key.
	MaxTagKeyBytes = 128
	// MaxTagValueBytes bounds one tag value.
	MaxTagValueBytes = 1024
	// MaxPriority is the highest priority; higher values are lowered to it,
	// negative ones are raised to 0 (spec 01 §5.10).
	MaxPriority = 9000
	// MaxBatch bounds the number of items in one batch command.
	MaxBatch = 1000
	// MaxBatchBytes bounds the payloads and tags of one batch of submits.
	MaxBatchBytes = 64 << 20
	// MaxClaim bounds how many executions one claim may return.
	MaxClaim = 256
	// MaxClaimBytes bounds the payloads of one claim: a claim that has reached it
	// returns what it has.
	MaxClaimBytes = 64 << 20
	// MaxClaimWait bounds how long one claim may wait for work.
	MaxClaimWait = time.Minute
	// MaxClaimLanes bounds the number of lanes of one claim or registration.
	MaxClaimLanes = 64
	// MaxPageLimit bounds one page of any listing.
	MaxPageLimit = 1000
	// DefaultPageLimit is the page size when none is given.
	DefaultPageLimit = 50

	// MinLeaseTTL and MaxLeaseTTL bound a lease.
	MinLeaseTTL = 100 * time.Millisecond
	MaxLeaseTTL = 24 * time.Hour
	// DefaultLeaseTTL is the lease when none is given (spec 09 §2).
	DefaultLeaseTTL = 30 * time.Second
	// MinGrantTTL and MaxGrantTTL bound a claim grant (spec 08 §3.12).
	MinGrantTTL = time.Millisecond
	MaxGrantTTL = time.Minute
	// MaxDelay bounds how far in the future an execution may be delayed or its
	// deadline may lie.
	MaxDelay = 10 * 365 * 24 * time.Hour

	// IdempotencyWindow is how long an idempotency key refers to the execution
	// that it first created, unless the policy has a dedup window (spec 01 §5.1).
	IdempotencyWindow = 24 * time.Hour
	// DefaultRetention is how long a terminal execution is kept, unless its
	// policy has a retention (spec 06).
	DefaultRetention = 24 * time.Hour
)

// PageLimit is the size of a page of which limit was asked for, 0 for the default.
func PageLimit(limit int) int {
	if limit == 0 {
		return DefaultPageLimit
	}
	return limit
}

package sqlstore_test

import (
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func word[S ~string](rt *rapid.T, label string, list []S) S {
	return rapid.SampledFrom(list).Draw(rt, label)
}

func someText[S ~string](rt *rapid.T, label string) S {
	return S(rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-zäß'"\\{} ]{1,20}`)).Draw(rt, label))
}

func someTime(rt *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(rt, label+" unset") {
		return time.Time{}
	}
	return time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(rt, label)).UTC()
}

func someUUID[U ~[16]byte](rt *rapid.T, label string) (id U) {
	copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, label))
	return id
}

func someCount(rt *rapid.T, label string) int { return rapid.IntRange(0, 1<<40).Draw(rt, label) }

func someAttempt(rt *rapid.T) ff.Attempt {
	return ff.Attempt{
		ID: someUUID[ff.AttemptID](rt, "attempt"), Index: someCount(rt, "index"), Type: word(rt, "type", ff.AttemptTypes),
		State: word(rt, "attempt state", ff.AttemptStates), CreatedAt: someTime(rt, "created"), StartedAt: someTime(rt, "started"),
		EndedAt: someTime(rt, "ended"), SuspendedAt: someTime(rt, "suspended"), ResumedAt: someTime(rt, "resumed"),
		Worker: someText[ff.WorkerID](rt, "worker"), Instance: someText[ff.WorkerInstanceID](rt, "instance"),
		LeaseID: someUUID[ff.LeaseID](rt, "lease"), LeaseEpoch: uint64(someCount(rt, "epoch")), Suspension: someText[string](rt, "suspension"),
		FailureReason: someText[string](rt, "reason"), FailureCategory: someText[string](rt, "category"),
		Cause: someText[string](rt, "cause"), RequestedBy: someText[string](rt, "by"), Previous: rapid.IntRange(-1, 9).Draw(rt, "previous"),
	}
}

func someExecution(rt *rapid.T) ff.Execution {
	x := ff.Execution{
		Priority: rapid.IntRange(0, ff.MaxPriority).Draw(rt, "priority"),
		State: ff.StateVector{
			Phase: word(rt, "phase", ff.LifecyclePhases), Ownership: word(rt, "ownership", ff.OwnershipStates),
			Eligibility: word(rt, "eligibility", ff.EligibilityStates), Blocking: word(rt, "blocking", ff.BlockingReasons),
			Outcome: word(rt, "outcome", ff.TerminalOutcomes), Attempt: word(rt, "phase of attempt", ff.AttemptPhases),
		},
		FlowID: someUUID[ff.FlowID](rt, "flow"), BlockingDetail: someText[string](rt, "detail"), Attempt: someAttempt(rt),
		CurrentAttemptID: someUUID[ff.AttemptID](rt, "current"), TotalAttempts: someCount(rt, "attempts"), RetryCount: someCount(rt, "retries"),
		ReplayCount: someCount(rt, "replays"), ReclaimCount: someCount(rt, "reclaims"),
		Lease: ff.Lease{
			ID: someUUID[ff.LeaseID](rt, "lease id"), Worker: someText[ff.WorkerID](rt, "lease worker"),
			Instance: someText[ff.WorkerInstanceID](rt, "lease instance"), AcquiredAt: someTime(rt, "acquired"),
			ExpiresAt: someTime(rt, "expires"), RenewedAt: someTime(rt, "renewed"), RenewBefore: someTime(rt, "renew before"),
		},
		LeaseEpoch: uint64(someCount(rt, "lease epoch")), LeaseExpiredAt: someTime(rt, "expired"), LeaseRevokedAt: someTime(rt, "revoked"),
		LeaseRevokeReason: someText[string](rt, "revoke reason"), PendingRetryReason: someText[string](rt, "retry reason"),
		PendingReplayReason: someText[string](rt, "replay reason"), PendingReplayBy: someText[string](rt, "replay by"),
		PendingPreviousAttempt: rapid.IntRange(-1, 9).Draw(rt, "pending previous"), StartedAt: someTime(rt, "x started"),
		CompletedAt: someTime(rt, "x completed"), LastTransitionAt: someTime(rt, "transition"), LastMutationAt: someTime(rt, "mutation"),
		DelayUntil: someTime(rt, "delay"), Deadline: someTime(rt, "deadline"), AttemptTimeoutAt: someTime(rt, "timeout"),
		CapabilityMismatchAt: someTime(rt, "mismatch"), FailureReason: someText[string](rt, "failure"),
		FailureCategory: someText[string](rt, "failure category"), CancellationReason: someText[string](rt, "cancellation"),
		CancelledBy: someText[ff.CancelSource](rt, "cancelled by"),
		Progress:    ff.Progress{Message: someText[string](rt, "message"), UpdatedAt: someTime(rt, "progress")},
	}
	if rapid.Bool().Draw(rt, "has percent") {
		p := rapid.IntRange(0, 100).Draw(rt, "percent")
		x.Progress.Percent = &p
	}
	if rapid.Bool().Draw(rt, "has tags") {
		x.Tags = rapid.MapOfN(rapid.StringMatching(`[a-z"']{1,5}`), rapid.String().Filter(func(s string) bool { return strings.ToValidUTF8(s, "") == s }), 1, 3).Draw(rt, "tags")
	}
	if rapid.Bool().Draw(rt, "has grant") {
		x.Grant = ff.Grant{Worker: "w", Instance: "i", ExpiresAt: someTime(rt, "grant ends"), CreatedAt: someTime(rt, "granted"),
			Capability: someText[string](rt, "capability"), RouteJSON: someText[string](rt, "route"), AdmissionSum: someText[string](rt, "admission")}
	}
	return x
}

func TestARecordReadsAsItWasSaved(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	caps := must[ff.CapabilitySet](t)(ff.NewCapabilitySet("gpu", "eu"))
	rapid.Check(t, func(rt *rapid.T) {
		policy := ff.DefaultExecutionPolicy()
		policy.Retry = ff.ExponentialRetry(3, time.Second, time.Minute)
		policy.Routing = &ff.RoutingRequirements{RequiredCapabilities: caps}
		created, err := s.CreateExecution(ctx, ff.CreateExecution{
			Lane: "main", Kind: "k", Namespace: "n", Creator: "me", PayloadEncoding: "json", Policy: policy})
		if err != nil {
			rt.Fatal(err)
		}
		before, err := s.Execution(ctx, created.ID)
		if err != nil {
			rt.Fatal(err)
		}
		for range 2 {
			want := someExecution(rt)
			if err := s.Overwrite(ctx, created.ID, want); err != nil {
				rt.Fatal(err)
			}
			want.ID, want.Namespace, want.Lane, want.Kind = before.ID, before.Namespace, before.Lane, before.Kind
			want.Creator, want.PayloadEncoding, want.CreatedAt = "me", "json", before.CreatedAt
			want.Policy, want.Required = policy, caps
			got, err := s.Execution(ctx, created.ID)
			if err != nil {
				rt.Fatal(err)
			}
			opts := cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b ff.ExecutionID) bool { return a == b }),
				cmp.Comparer(func(a, b ff.CapabilitySet) bool { return a == b })}
			if d := cmp.Diff(want, got, opts); d != "" {
				rt.Fatalf("read (-saved +read):\n%s", d)
			}
		}
	})
}

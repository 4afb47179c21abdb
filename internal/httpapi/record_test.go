package httpapi

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
)

// same compares what went over the wire: empty and missing collections are alike.
var same = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b ff.ExecutionID) bool { return a == b }),
	cmp.Comparer(func(a, b ff.CapabilitySet) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

// draw makes the values of a record.
type draw struct{ *rapid.T }

func (d draw) text(label string) string { return rapid.String().Draw(d.T, label) }

func (d draw) count(label string) int { return rapid.IntRange(0, 1<<40).Draw(d.T, label) }

func (d draw) epoch(label string) uint64 { return rapid.Uint64().Draw(d.T, label) }

// instant is unset, or a millisecond from 1970 to 9999.
func (d draw) instant(label string) time.Time {
	if ms := rapid.Int64Range(-1, maxMillis).Draw(d.T, label); ms >= 0 {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

func (d draw) id(label string) uuid.UUID {
	return uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(d.T, label))
}

func word[W any](d draw, label string, words ...W) W {
	return rapid.SampledFrom(words).Draw(d.T, label)
}

func (d draw) attempt() ff.Attempt {
	return ff.Attempt{
		ID: ff.AttemptID(d.id("attempt id")), Index: d.count("index"), Type: word(d, "type", ff.AttemptTypes...),
		State: word(d, "state", ff.AttemptStates...), CreatedAt: d.instant("created"), StartedAt: d.instant("started"),
		EndedAt: d.instant("ended"), SuspendedAt: d.instant("suspended"), ResumedAt: d.instant("resumed"), Worker: ff.WorkerID(d.text("worker")),
		Instance: ff.WorkerInstanceID(d.text("instance")), LeaseID: ff.LeaseID(d.id("lease")), LeaseEpoch: d.epoch("epoch"), Suspension: d.text("suspension"),
		FailureReason: d.text("reason"), FailureCategory: d.text("category"), Cause: d.text("cause"), RequestedBy: d.text("by"), Previous: d.count("previous") - 1,
	}
}

func (d draw) policy() *ff.ExecutionPolicy {
	if !rapid.Bool().Draw(d.T, "policy") {
		return nil
	}
	p := ff.DefaultExecutionPolicy()
	p.MaxReplays = rapid.IntRange(0, 1000).Draw(d.T, "max replays")
	p.Retry = word(d, "retry", nil, ff.FixedRetry(2, time.Second), ff.ExponentialRetry(7, time.Millisecond, time.Hour))
	p.Timeout = word(d, "timeout", nil, &ff.TimeoutPolicy{Attempt: time.Minute, MaxReclaims: 3})
	return p
}

func (d draw) execution() ff.Execution {
	caps, err := ff.NewCapabilitySet(rapid.SliceOfN(rapid.StringMatching(`[a-z0-9.-]{1,8}`), 0, 4).Draw(d.T, "capabilities")...)
	if err != nil {
		d.Fatal(err)
	}
	x := ff.Execution{
		ID: ff.MakeExecutionID(rapid.Uint16().Draw(d.T, "partition"), d.id("execution")), Namespace: ff.Namespace(d.text("namespace")), Lane: ff.LaneID(rapid.StringMatching(`[ -~]{1,64}`).Draw(d.T, "lane")),
		Kind: d.text("kind"), Priority: d.count("priority"), Creator: d.text("creator"), PayloadEncoding: d.text("encoding"), Policy: d.policy(), Required: caps,
		Tags: rapid.MapOf(rapid.String(), rapid.String()).Draw(d.T, "tags"), FlowID: ff.FlowID(d.id("flow")),
		SuspensionID: ff.SuspensionID(d.id("suspension")), WaitpointID: ff.WaitpointID(d.id("waitpoint")), SuspensionTimeoutAt: d.instant("suspension timeout"),
		State: ff.StateVector{Phase: word(d, "phase", ff.LifecyclePhases...), Ownership: word(d, "ownership", ff.OwnershipStates...), Eligibility: word(d, "eligibility", ff.EligibilityStates...),
			Blocking: word(d, "blocking", ff.BlockingReasons...), Outcome: word(d, "outcome", ff.TerminalOutcomes...), Attempt: word(d, "attempt phase", ff.AttemptPhases...)},
		BlockingDetail: d.text("blocking"), CurrentAttemptID: ff.AttemptID(d.id("current")), TotalAttempts: d.count("attempts"), RetryCount: d.count("retries"),
		ReplayCount: d.count("replays"), ReclaimCount: d.count("reclaims"), LeaseEpoch: d.epoch("epoch"), LeaseExpiredAt: d.instant("expired"), LeaseRevokedAt: d.instant("revoked"),
		LeaseRevokeReason: d.text("revoke reason"), PendingRetryReason: d.text("retry reason"), PendingReplayReason: d.text("replay reason"), PendingReplayBy: d.text("replay by"),
		PendingPreviousAttempt: d.count("previous"), CreatedAt: d.instant("created"), StartedAt: d.instant("started"), CompletedAt: d.instant("completed"),
		LastTransitionAt: d.instant("transition"), LastMutationAt: d.instant("mutation"), DelayUntil: d.instant("delay"), Deadline: d.instant("deadline"),
		AttemptTimeoutAt: d.instant("timeout"), CapabilityMismatchAt: d.instant("mismatch"), FailureReason: d.text("failure"), FailureCategory: d.text("category"),
		CancellationReason: d.text("cancellation"), CancelledBy: ff.CancelSource(d.text("cancelled by")),
		Progress: ff.Progress{Percent: word(d, "percent", nil, new(0), new(100)), Message: d.text("message"), UpdatedAt: d.instant("progress")},
	}
	if x.TotalAttempts > 0 {
		x.Attempt = d.attempt()
	}
	if rapid.Bool().Draw(d.T, "leased") {
		x.Lease = ff.Lease{ID: ff.NewLeaseID(), Worker: "w", Instance: ff.WorkerInstanceID(d.text("holder")), AcquiredAt: d.instant("acquired"),
			ExpiresAt: d.instant("expires"), RenewedAt: d.instant("renewed"), RenewBefore: d.instant("renew before")}
	}
	if rapid.Bool().Draw(d.T, "granted") {
		x.Grant = ff.Grant{Worker: "w", Instance: ff.WorkerInstanceID(d.text("grantee")), ExpiresAt: d.instant("grant end"), CreatedAt: d.instant("granted"),
			Capability: d.text("hash"), RouteJSON: d.text("route"), AdmissionSum: d.text("admission")}
	}
	return x
}

// overTheWire writes a value and reads it again.
func overTheWire[T any](t interface{ Fatal(...any) }, v T) (back T) {
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, &back)
	}
	if err != nil {
		t.Fatal(fmt.Sprintf("%s: %v", data, err))
	}
	return back
}

func TestNothingOfAnExecutionIsLostOnTheWire(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := draw{rt}.execution()
		r := overTheWire(rt, RecordOf(&x))
		if d := cmp.Diff(x, r.Execution(), same); d != "" {
			rt.Fatalf("(-sent +received)\n%s", d)
		}
	})
}

func TestNothingOfAnEventOrAWorkerIsLostOnTheWire(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := draw{rt}
		e := ff.Event{Cursor: ff.EventCursor(d.text("cursor")), Family: ff.FamilyLease, Type: ff.EventRevoked, ID: ff.MakeExecutionID(3, d.id("execution")), At: d.instant("at"),
			FlowID: ff.FlowID(d.id("flow")), LeaseID: ff.LeaseID(d.id("lease")), LeaseEpoch: d.epoch("epoch"), AttemptID: ff.AttemptID(d.id("attempt")), AttemptIndex: d.count("index"),
			Worker: ff.WorkerID(d.text("worker")), Instance: ff.WorkerInstanceID(d.text("instance")), Reason: d.text("reason"), Outcome: ff.OutcomeSuccess,
			SignalID: ff.SignalID(d.id("signal")), WaitpointID: ff.WaitpointID(d.id("waitpoint")), Source: d.text("source")}
		wire := overTheWire(rt, EventOf(e))
		if diff := cmp.Diff(e, wire.Event(), same); diff != "" {
			rt.Fatalf("(-sent +received)\n%s", diff)
		}
		w := ff.WorkerInfo{Worker: e.Worker, Instance: e.Instance, Namespace: ff.Namespace(d.text("namespace")), Lanes: []ff.LaneID{"a", "b"}, LivenessTTL: time.Minute,
			RegisteredAt: d.instant("registered"), HeartbeatAt: d.instant("heartbeat"), ExpiresAt: d.instant("expires"), Leases: d.count("leases")}
		info := overTheWire(rt, WorkerInfoOf(&w))
		if diff := cmp.Diff(w, info.Worker(), same); diff != "" {
			rt.Fatalf("(-sent +received)\n%s", diff)
		}
	})
}

func TestAnExecutionInfoHasTheFieldsOfTheReferenceInItsOrder(t *testing.T) {
	x := ff.Execution{ID: ff.MakeExecutionID(7, uuid.MustParse("11111111-1111-4111-8111-111111111111")), Namespace: "ns", Lane: "default", Kind: "k",
		State: ff.StateVector{Phase: ff.PhaseRunnable, Ownership: ff.OwnershipUnowned, Eligibility: ff.EligibleNow, Blocking: ff.WaitingForWorker,
			Outcome: ff.OutcomeNone, Attempt: ff.AttemptPendingFirst}, CreatedAt: time.UnixMilli(1795476796092)}
	got, err := json.Marshal(ExecutionInfoOf(&x))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"execution_id":"{fp:7}:11111111-1111-4111-8111-111111111111","namespace":"ns","lane_id":"default","priority":0,"execution_kind":"k","state_vector":{"lifecycle_phase":"runnable","ownership_state":"unowned","eligibility_state":"eligible_now","blocking_reason":"waiting_for_worker","terminal_outcome":"none","attempt_state":"pending_first_attempt","public_state":"waiting"},"public_state":"waiting","created_at":"1795476796092","current_attempt_index":0,"flow_id":null,"blocking_detail":""}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAnswersAreTaggedByTheirVariant(t *testing.T) {
	id := ff.MakeExecutionID(7, uuid.MustParse("11111111-1111-4111-8111-111111111111"))
	lease := ff.LeaseID(uuid.MustParse("22222222-2222-4222-8222-222222222222"))
	for want, v := range map[string]any{
		`{"Created":{"execution_id":"{fp:7}:11111111-1111-4111-8111-111111111111","public_state":"delayed"}}`: CreateExecutionAnswerOf(ff.CreateExecutionResult{ID: id, State: ff.StateDelayed}),
		`{"Duplicate":{"execution_id":"{fp:7}:11111111-1111-4111-8111-111111111111"}}`:                        CreateExecutionAnswerOf(ff.CreateExecutionResult{ID: id, Duplicate: true}),
		`{"Revoked":{"lease_id":"22222222-2222-4222-8222-222222222222","lease_epoch":"3"}}`:                   RevokeLeaseAnswerOf(ff.RevokeLeaseResult{LeaseID: lease, LeaseEpoch: 3}),
		`{"AlreadySatisfied":{"reason":"no_active_lease"}}`:                                                   RevokeLeaseAnswerOf(ff.RevokeLeaseResult{Already: "no_active_lease"}),
		`{"execution_id":"{fp:7}:11111111-1111-4111-8111-111111111111","partition_key":"{fp:7}","grant_key":"ff:exec:{fp:7}:{fp:7}:11111111-1111-4111-8111-111111111111:claim_grant","expires_at_ms":1795476826572}`: GrantAnswerOf(ff.GrantResult{ID: id, ExpiresAt: time.UnixMilli(1795476826572)}),
		`[104,105,0,255]`: Bytes{104, 105, 0, 255},
		`[]`:              Bytes(nil),
	} {
		got, err := json.Marshal(v)
		if err != nil || string(got) != want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, want)
		}
	}
}

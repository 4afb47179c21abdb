package valkey

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	ff "github.com/flowfabric/flowfabric"
)

// TestCallsHaveTheKeysAndArgumentsOfTheSpec compares every builder with the counts of
// spec 03 §2, 04b §1 and 05a §1, and checks that all keys are of the execution's
// partition, as a cluster needs.
func TestCallsHaveTheKeysAndArgumentsOfTheSpec(t *testing.T) {
	id, edge := ff.MakeExecutionID(7, uuid.New()), uuid.NewString()
	ref := ff.LeaseRef{ID: id, Fence: ff.Fence{LeaseID: ff.NewLeaseID(), LeaseEpoch: 3, AttemptID: ff.NewAttemptID()}}
	who, now := &ff.Claimant{Worker: "w", Instance: "i"}, time.UnixMilli(1_700_000_000_000)
	h := holding{lane: "main", attempt: 2, waitpoint: ff.NewWaitpointID(), instance: "i"}
	f, l := [3]string(fenceArgs(ref.Fence)), &lease{id: ff.NewLeaseID(), attempt: ff.NewAttemptID(), ttl: time.Minute, timeout: time.Second}
	submit := &submission{id: id, policy: "{}", c: ff.CreateExecution{Lane: "main", Kind: "k", IdempotencyKey: "key", Tags: map[string]string{"a.b": "c"}}}
	for _, c := range []struct {
		call       call
		function   string
		keys, args int
	}{
		{callCompatibleCreate(submit, now, now), "ff_create_execution", 8, 13},
		{callCompatibleCreate(&submission{id: id, c: ff.CreateExecution{Lane: "main"}}, time.Time{}, time.Time{}), "ff_create_execution", 8, 13},
		{callClaimFresh(id, "main", 0, who, l), "ff_claim_execution", 14, 12},
		{callCompatibleComplete(id, f, h, "", []byte("out")), "ff_complete_execution", 12, 6},
		{callCompatibleCancel(&ff.CancelExecution{ID: id}, h), "ff_cancel_execution", 21, 5},
		{callCompatibleDelay(id, f, h, "", now), "ff_delay_execution", 9, 6},
		{callCompatibleFail(id, f, h, "", "reason", "category", ""), "ff_fail_execution", 12, 8},
		{callReclaim(id, "main", 0, 1, who, l), "ff_reclaim_execution", 14, 9},
		{callExpire(id, h, "attempt_timeout"), "ff_expire_execution", 14, 2},
		{callSetExecutionTags(&ff.SetExecutionTags{ID: id, Tags: map[string]string{"a.b": "1", "c.d": "2"}}), "ff_set_execution_tags", 2, 4},
		{callRenewLease(ref, 2, time.Minute), "ff_renew_lease", 4, 7},
		{callMarkLeaseExpired(id), "ff_mark_lease_expired_if_due", 4, 1},
		{callRevokeLease(id, ref.Fence.LeaseID, "i", "reason"), "ff_revoke_lease", 5, 3},
		{callIssueClaimGrant(id, "main", who, time.Second), "ff_issue_claim_grant", 3, 9},
		{callCompatiblePriority(&ff.ChangePriority{ID: id}, "main"), "ff_change_priority", 2, 2},
		{callUpdateProgress(&ff.UpdateProgress{LeaseRef: ref}), "ff_update_progress", 1, 5},
		{callPromoteDelayed(id, "main", now), "ff_promote_delayed", 3, 2},
		{callIssueReclaimGrant(&ff.GrantReclaim{ID: id}, "main"), "ff_issue_reclaim_grant", 3, 9},
		{callClaimResumed(id, "main", 0, who, l), "ff_claim_resumed_execution", 11, 8},
		{callReplayExecution(id, "main", now), "ff_replay_execution", 4, 2},
		{callReplaySkipped(id, "main", []string{edge, edge}, now), "ff_replay_execution", 7 + 2, 2 + 2},
		{callAppendFrame(&ff.AppendFrames{LeaseRef: ref}, &ff.NewFrame{}, 2), "ff_append_frame", 4, 19},
		{callRegisterWorker(&ff.RegisterWorker{Claimant: *who}, now), "ff_register_worker", 3, 6},
	} {
		if c.call.function != c.function || len(c.call.keys) != c.keys || len(c.call.args) != c.args {
			t.Errorf("%s with %d keys and %d arguments, want %s with %d and %d", c.call.function, len(c.call.keys), len(c.call.args), c.function, c.keys, c.args)
		}
		for i, key := range c.call.keys {
			if c.function != "ff_register_worker" && !strings.Contains(key, "{fp:7}") {
				t.Errorf("%s: key %d is %q", c.function, i+1, key)
			}
		}
	}
}

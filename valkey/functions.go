package valkey

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// The calls of the compatible functions, with the keys and arguments of spec 03.

// holding is what compatible functions want to know of an execution beforehand.
type holding struct {
	lane      ff.LaneID
	attempt   int
	waitpoint ff.WaitpointID
	instance  ff.WorkerInstanceID
}

func callCompatibleCancel(c *ff.CancelExecution, h holding) call {
	k, t := keysOf(c.ID), tagOf(c.ID.Partition())
	source := c.Source
	if source == "" {
		source = ff.SourceOperatorOverride
	}
	keys := []string{k.core(), k.attempt(h.attempt), k.streamMeta(h.attempt), k.leaseCurrent(), k.leaseHistory(), t.leaseExpiry(),
		t.workerLeases(h.instance), k.suspension(), t.waitpoint(h.waitpoint), t.waitpointCondition(h.waitpoint), t.suspensionTimeout(),
		t.lane(h.lane, laneTerminal), t.attemptTimeout(), t.executionDeadline(), t.lane(h.lane, laneEligible), t.lane(h.lane, laneDelayed),
		t.lane(h.lane, laneBlockedDependencies), t.lane(h.lane, laneBlockedBudget), t.lane(h.lane, laneBlockedQuota),
		t.lane(h.lane, laneBlockedRoute), t.lane(h.lane, laneBlockedOperator)}
	f := fenceArgs(c.Fence)
	return call{"ff_cancel_execution", keys, []string{c.ID.String(), c.Reason, string(source), f[0], f[1]}}
}

func callExpire(id ff.ExecutionID, h holding, reason string) call {
	k, t := keysOf(id), tagOf(id.Partition())
	keys := []string{k.core(), k.attempt(h.attempt), k.streamMeta(h.attempt), k.leaseCurrent(), k.leaseHistory(), t.leaseExpiry(),
		t.workerLeases(""), t.lane(h.lane, laneActive), t.lane(h.lane, laneTerminal), t.attemptTimeout(), t.executionDeadline(),
		t.lane(h.lane, laneSuspended), t.suspensionTimeout(), k.suspension()}
	return call{"ff_expire_execution", keys, []string{id.String(), reason}}
}

func callReplaySkipped(id ff.ExecutionID, lane ff.LaneID, edges []string, now time.Time) call {
	k, t := keysOf(id), tagOf(id.Partition())
	c := call{"ff_replay_execution", []string{k.core(), t.lane(lane, laneTerminal), t.lane(lane, laneEligible), k.leaseHistory(),
		t.lane(lane, laneBlockedDependencies), k.base + ":deps:meta", k.base + ":deps:unresolved"}, []string{id.String(), ms(now)}}
	for _, e := range edges {
		c.keys, c.args = append(c.keys, k.base+":dep:"+e), append(c.args, e)
	}
	return c
}

func callRegisterWorker(c *ff.RegisterWorker, now time.Time) call {
	return call{"ff_register_worker", []string{workerAliveKey(c.Namespace, c.Instance), workerCapsKey(c.Namespace, c.Instance), workersKey(c.Namespace)},
		[]string{string(c.Instance), string(c.Worker), lanesCSV(c.Lanes), c.Capabilities.CSV(), millis(c.LivenessTTL), ms(now)}}
}

// The calls that only the compatible store makes. Lane, attempt and instance were
// read before; the functions compare what matters with the record.

func callCompatibleCreate(p *submission, due, deadline time.Time) call {
	k, t, c := keysOf(p.id), tagOf(p.id.Partition()), &p.c
	index, key, window, tags := laneEligible, t.noop(), "", ""
	if !due.IsZero() {
		index = laneDelayed
	}
	if c.IdempotencyKey != "" {
		// A key lives through the millisecond in which it expires.
		key, window = t.idempotency(c.Namespace, c.IdempotencyKey), millis(max(p.c.DedupWindow()-time.Millisecond, time.Millisecond))
	}
	if len(c.Tags) > 0 {
		tags = jsonText(c.Tags)
	}
	return call{"ff_create_execution",
		[]string{k.core(), k.payload(), k.policy(), k.tags(), t.lane(c.Lane, index), key, t.executionDeadline(), t.allExecutions()},
		[]string{p.id.String(), string(c.Namespace), string(c.Lane), c.Kind, strconv.Itoa(min(max(c.Priority, 0), ff.MaxPriority)), c.Creator,
			p.policy, valkey.BinaryString(c.Payload), ms(due), window, tags, ms(deadline), strconv.Itoa(int(p.id.Partition()))}}
}

func callIssueClaimGrant(id ff.ExecutionID, lane ff.LaneID, who *ff.Claimant, ttl time.Duration) call {
	k := keysOf(id)
	return call{"ff_issue_claim_grant", []string{k.core(), k.claimGrant(), tagOf(id.Partition()).lane(lane, laneEligible)},
		[]string{id.String(), string(who.Worker), string(who.Instance), string(lane), "", millis(ttl), "", "", who.Capabilities.CSV()}}
}

func callIssueReclaimGrant(g *ff.GrantReclaim, lane ff.LaneID) call {
	k := keysOf(g.ID)
	return call{"ff_issue_reclaim_grant", []string{k.core(), k.claimGrant(), tagOf(g.ID.Partition()).leaseExpiry()},
		[]string{g.ID.String(), string(g.Worker), string(g.Instance), string(lane), g.Capability, millis(g.TTL), g.RouteJSON, g.AdmissionSum,
			g.Capabilities.CSV()}}
}

// lease is what a claim gives.
type lease struct {
	id      ff.LeaseID
	attempt ff.AttemptID
	ttl     time.Duration
	// timeout bounds the attempt; zero for no bound.
	timeout time.Duration
}

func (l *lease) attemptTimeout() string {
	if l.timeout <= 0 {
		return ""
	}
	return millis(l.timeout)
}

// callClaimFresh starts attempt n.
func callClaimFresh(id ff.ExecutionID, lane ff.LaneID, n int, who *ff.Claimant, l *lease) call {
	k, t := keysOf(id), tagOf(id.Partition())
	keys := []string{k.core(), k.claimGrant(), t.lane(lane, laneEligible), t.leaseExpiry(), t.workerLeases(who.Instance), k.attempt(n),
		k.attemptUsage(n), k.attemptPolicy(n), k.attemptList(), k.leaseCurrent(), k.leaseHistory(), t.lane(lane, laneActive), t.attemptTimeout(),
		t.executionDeadline()}
	return call{"ff_claim_execution", keys, []string{id.String(), string(who.Worker), string(who.Instance), string(lane), "", l.id.String(),
		millis(l.ttl), millis(l.ttl * 2 / 3), l.attempt.String(), "{}", l.attemptTimeout(), ""}}
}

// callClaimResumed goes on with attempt n.
func callClaimResumed(id ff.ExecutionID, lane ff.LaneID, n int, who *ff.Claimant, l *lease) call {
	k, t := keysOf(id), tagOf(id.Partition())
	keys := []string{k.core(), k.claimGrant(), t.lane(lane, laneEligible), t.leaseExpiry(), t.workerLeases(who.Instance), k.attempt(n),
		k.leaseCurrent(), k.leaseHistory(), t.lane(lane, laneActive), t.attemptTimeout(), t.executionDeadline()}
	return call{"ff_claim_resumed_execution", keys, []string{id.String(), string(who.Worker), string(who.Instance), string(lane), "",
		l.id.String(), millis(l.ttl), l.attemptTimeout()}}
}

// callReclaim takes over from attempt old with attempt n.
func callReclaim(id ff.ExecutionID, lane ff.LaneID, old, n int, who *ff.Claimant, l *lease) call {
	k, t := keysOf(id), tagOf(id.Partition())
	keys := []string{k.core(), k.claimGrant(), k.attempt(old), k.streamMeta(old), k.attempt(n), k.attemptUsage(n), k.attemptList(),
		k.leaseCurrent(), k.leaseHistory(), t.leaseExpiry(), t.workerLeases(who.Instance), t.lane(lane, laneActive), t.attemptTimeout(),
		t.executionDeadline()}
	return call{"ff_reclaim_execution", keys, []string{id.String(), string(who.Worker), string(who.Instance), string(lane), l.id.String(),
		millis(l.ttl), l.attempt.String(), "{}", strconv.Itoa(ff.DefaultMaxReclaims)}}
}

// historyGrace is how long the record of a lease outlives it.
const historyGrace = 5 * time.Second

func callRenewLease(ref ff.LeaseRef, attempt int, ttl time.Duration) call {
	k, f := keysOf(ref.ID), fenceArgs(ref.Fence)
	return call{"ff_renew_lease", []string{k.core(), k.leaseCurrent(), k.leaseHistory(), tagOf(ref.ID.Partition()).leaseExpiry()},
		[]string{ref.ID.String(), strconv.Itoa(attempt), f[2], f[0], f[1], millis(ttl), millis(historyGrace)}}
}

func callMarkLeaseExpired(id ff.ExecutionID) call {
	k := keysOf(id)
	return call{"ff_mark_lease_expired_if_due", []string{k.core(), k.leaseCurrent(), tagOf(id.Partition()).leaseExpiry(), k.leaseHistory()},
		[]string{id.String()}}
}

func callRevokeLease(id ff.ExecutionID, expected ff.LeaseID, instance ff.WorkerInstanceID, reason string) call {
	k, t := keysOf(id), tagOf(id.Partition())
	return call{"ff_revoke_lease", []string{k.core(), k.leaseCurrent(), k.leaseHistory(), t.leaseExpiry(), t.workerLeases(instance)},
		[]string{id.String(), expected.String(), reason}}
}

// callUpdateProgress compares the lease only: the caller has compared the attempt.
func callUpdateProgress(c *ff.UpdateProgress) call {
	f, percent := fenceArgs(c.Fence), ""
	if c.Percent != nil {
		percent = strconv.Itoa(*c.Percent)
	}
	return call{"ff_update_progress", []string{keysOf(c.ID).core()}, []string{c.ID.String(), f[0], f[1], percent, c.Message}}
}

func callCompatibleComplete(id ff.ExecutionID, f [3]string, h holding, source ff.CancelSource, output []byte) call {
	k, t := keysOf(id), tagOf(id.Partition())
	keys := []string{k.core(), k.attempt(h.attempt), t.leaseExpiry(), t.workerLeases(h.instance), t.lane(h.lane, laneTerminal), k.leaseCurrent(),
		k.leaseHistory(), t.lane(h.lane, laneActive), k.streamMeta(h.attempt), k.result(), t.attemptTimeout(), t.executionDeadline()}
	return call{"ff_complete_execution", keys, []string{id.String(), f[0], f[1], f[2], valkey.BinaryString(output), string(source)}}
}

// callCompatibleFail fails an attempt; retry is the policy by which the function
// plans another, empty for none.
func callCompatibleFail(id ff.ExecutionID, f [3]string, h holding, source ff.CancelSource, reason, category, retry string) call {
	k, t := keysOf(id), tagOf(id.Partition())
	keys := []string{k.core(), k.attempt(h.attempt), t.leaseExpiry(), t.workerLeases(h.instance), t.lane(h.lane, laneTerminal),
		t.lane(h.lane, laneDelayed), k.leaseCurrent(), k.leaseHistory(), t.lane(h.lane, laneActive), k.streamMeta(h.attempt), t.attemptTimeout(),
		t.executionDeadline()}
	return call{"ff_fail_execution", keys, []string{id.String(), f[0], f[1], f[2], reason, category, retry, string(source)}}
}

func callCompatibleDelay(id ff.ExecutionID, f [3]string, h holding, source ff.CancelSource, until time.Time) call {
	k, t := keysOf(id), tagOf(id.Partition())
	keys := []string{k.core(), k.attempt(h.attempt), k.leaseCurrent(), k.leaseHistory(), t.leaseExpiry(), t.workerLeases(h.instance),
		t.lane(h.lane, laneActive), t.lane(h.lane, laneDelayed), t.attemptTimeout()}
	return call{"ff_delay_execution", keys, []string{id.String(), f[0], f[1], f[2], ms(until), string(source)}}
}

// What frames have when their writer does not say it.
const (
	defaultEncoding = "utf8"
	defaultSource   = "worker"
)

func modeOf(n *ff.NewFrame) ff.FrameMode {
	return ff.FrameMode(orElse(string(n.Mode), string(ff.FrameDurable)))
}

// frameTTL is the TTL of a best-effort frame.
func frameTTL(n *ff.NewFrame) string {
	switch {
	case n.Mode != ff.FrameBestEffort:
		return "0"
	case n.TTL == 0:
		return millis(ff.DefaultFrameTTL)
	}
	return millis(max(n.TTL, time.Millisecond))
}

// callAppendFrame appends to the stream of an attempt. Whether that is the attempt of
// the lease is compared by the caller.
func callAppendFrame(c *ff.AppendFrames, n *ff.NewFrame, attempt int) call {
	k, f := keysOf(c.ID), fenceArgs(c.Fence)
	kind := ""
	if n.Mode == ff.FrameSummary {
		kind = "json-merge-patch"
	}
	return call{"ff_append_frame", []string{k.core(), k.stream(attempt), k.streamMeta(attempt), k.summary(attempt)},
		[]string{c.ID.String(), strconv.Itoa(attempt), f[0], f[1], n.Type, ms(n.At), valkey.BinaryString(n.Payload), orElse(n.Encoding, defaultEncoding),
			n.CorrelationID, orElse(n.Source, defaultSource), strconv.Itoa(c.Retention), f[2], strconv.Itoa(ff.MaxFramePayloadBytes), string(modeOf(n)),
			kind, frameTTL(n), "0", "0", "0"}}
}

func callPromoteDelayed(id ff.ExecutionID, lane ff.LaneID, now time.Time) call {
	t := tagOf(id.Partition())
	return call{"ff_promote_delayed", []string{keysOf(id).core(), t.lane(lane, laneDelayed), t.lane(lane, laneEligible)},
		[]string{id.String(), ms(now)}}
}

func callReplayExecution(id ff.ExecutionID, lane ff.LaneID, now time.Time) call {
	k, t := keysOf(id), tagOf(id.Partition())
	return call{"ff_replay_execution", []string{k.core(), t.lane(lane, laneTerminal), t.lane(lane, laneEligible), k.leaseHistory()},
		[]string{id.String(), ms(now)}}
}

func callCompatiblePriority(c *ff.ChangePriority, lane ff.LaneID) call {
	return call{"ff_change_priority", []string{keysOf(c.ID).core(), tagOf(c.ID.Partition()).lane(lane, laneEligible)},
		[]string{c.ID.String(), strconv.Itoa(c.Priority)}}
}

func callSetExecutionTags(c *ff.SetExecutionTags) call {
	k := keysOf(c.ID)
	args := make([]string, 0, 2*len(c.Tags))
	for _, name := range slices.Sorted(maps.Keys(c.Tags)) {
		args = append(args, name, c.Tags[name])
	}
	return call{"ff_set_execution_tags", []string{k.core(), k.tags()}, args}
}

// jsonText writes what cannot fail: texts and numbers.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

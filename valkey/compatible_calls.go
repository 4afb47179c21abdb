package valkey

import (
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// The calls of the compatible functions of suspensions and signals, with the keys and
// arguments of spec 04a and 04b.

// historyLength is how many entries of a lease history are kept.
const historyLength = "1000"

// callCompatibleSuspend wants the timeout as an instant; at is its store's clock.
func callCompatibleSuspend(c *ff.SuspendExecution, condition string, h holding, now time.Time) call {
	k, t, f := keysOf(c.ID), tagOf(c.ID.Partition()), fenceArgs(c.Fence)
	first, ahead, dedup, window := c.Waitpoints[0], "", t.noop(), "0"
	if first.Pending {
		ahead = "1"
	}
	if c.IdempotencyKey != "" {
		// A key lives through the millisecond in which it expires.
		dedup, window = k.suspendDedup(c.IdempotencyKey), millis(c.IdempotencyWindow(now)-time.Millisecond)
	}
	others := c.Waitpoints[1:]
	x := call{"ff_suspend_execution",
		[]string{k.core(), k.attempt(h.attempt), k.leaseCurrent(), k.leaseHistory(), t.leaseExpiry(), t.workerLeases(h.instance), k.suspension(),
			t.waitpoint(first.ID), t.waitpointSignals(first.ID), t.suspensionTimeout(), t.pendingWaitpoints(), t.lane(h.lane, laneActive),
			t.lane(h.lane, laneSuspended), k.waitpoints(), t.waitpointCondition(first.ID), t.attemptTimeout(), t.secrets(), dedup},
		[]string{c.ID.String(), strconv.Itoa(h.attempt), f[2], f[0], f[1], c.SuspensionID.String(), first.ID.String(), first.Key, string(c.Reason),
			string(c.RequestedBy), ms(c.Timeout(now)), condition, policyOf(c.ResumeDelay), c.Continuation, ahead, string(c.OnTimeout), historyLength,
			c.IdempotencyKey, window, strconv.Itoa(len(others))}}
	for _, w := range others {
		x.keys = append(x.keys, t.waitpoint(w.ID), t.waitpointSignals(w.ID), t.waitpointCondition(w.ID))
		x.args = append(x.args, w.ID.String(), w.Key)
	}
	return x
}

func callCompatibleResume(id ff.ExecutionID, h holding, delay time.Duration) call {
	k, t := keysOf(id), tagOf(id.Partition())
	return call{"ff_resume_execution", []string{k.core(), k.suspension(), t.waitpoint(h.waitpoint), t.waitpointSignals(h.waitpoint),
		t.suspensionTimeout(), t.lane(h.lane, laneEligible), t.lane(h.lane, laneDelayed), t.lane(h.lane, laneSuspended)},
		[]string{id.String(), "operator", millis(delay)}}
}

func callCreatePendingWaitpoint(c *ff.CreateWaitpoint, attempt int, expires time.Time) call {
	t := tagOf(c.ID.Partition())
	return call{"ff_create_pending_waitpoint", []string{keysOf(c.ID).core(), t.waitpoint(c.WaitpointID), t.pendingWaitpoints(), t.secrets()},
		[]string{c.ID.String(), strconv.Itoa(attempt), c.WaitpointID.String(), c.Key, ms(expires)}}
}

func callExpireSuspension(id ff.ExecutionID, h holding) call {
	k, t := keysOf(id), tagOf(id.Partition())
	return call{"ff_expire_suspension", []string{k.core(), k.suspension(), t.waitpoint(h.waitpoint), t.waitpointCondition(h.waitpoint),
		k.attempt(h.attempt), k.streamMeta(h.attempt), t.suspensionTimeout(), t.lane(h.lane, laneSuspended), t.lane(h.lane, laneTerminal),
		t.lane(h.lane, laneEligible), t.lane(h.lane, laneDelayed), k.leaseHistory()}, []string{id.String()}}
}

func callCompatibleCloseWaitpoint(id ff.ExecutionID, waitpoint ff.WaitpointID, reason string) call {
	t := tagOf(id.Partition())
	return call{"ff_close_waitpoint", []string{keysOf(id).core(), t.waitpoint(waitpoint), t.pendingWaitpoints()}, []string{waitpoint.String(), reason}}
}

// signalDedup is where the idempotency key of a signal is.
func signalDedup(c *ff.DeliverSignal) string {
	t := tagOf(c.ID.Partition())
	if c.IdempotencyKey == "" {
		return t.noop()
	}
	return t.signalDedup(c.WaitpointID, c.IdempotencyKey)
}

// callCompatibleDeliver delivers to an active waitpoint; delay holds the execution back.
func callCompatibleDeliver(c *ff.DeliverSignal, lane ff.LaneID, delay time.Duration) call {
	k, t := keysOf(c.ID), tagOf(c.ID.Partition())
	args := signalArgs(c)
	args[14] = millis(delay)
	return call{"ff_deliver_signal", []string{k.core(), t.waitpointCondition(c.WaitpointID), t.waitpointSignals(c.WaitpointID), k.signals(),
		t.signal(c.SignalID), t.signal(c.SignalID) + ":payload", signalDedup(c), t.waitpoint(c.WaitpointID), k.suspension(),
		t.lane(lane, laneEligible), t.lane(lane, laneSuspended), t.lane(lane, laneDelayed), t.suspensionTimeout(), t.secrets(), t.signalDelivery()}, args}
}

// callBuffer keeps a signal for a pending waitpoint.
func callBuffer(c *ff.DeliverSignal) call {
	k, t := keysOf(c.ID), tagOf(c.ID.Partition())
	return call{"ff_buffer_signal_for_pending_waitpoint", []string{k.core(), t.waitpointCondition(c.WaitpointID), t.waitpointSignals(c.WaitpointID),
		k.signals(), t.signal(c.SignalID), t.signal(c.SignalID) + ":payload", signalDedup(c), t.waitpoint(c.WaitpointID), t.secrets()}, signalArgs(c)}
}

func callRotateSecret(p uint16, c *ff.RotateWaitpointSecret) call {
	return call{"ff_rotate_waitpoint_hmac_secret", []string{tagOf(p).secrets()}, []string{c.KeyID, c.Secret, millis(c.Grace)}}
}

package valkey

import (
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"

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

func (s *Store) holding(ctx context.Context, id ff.ExecutionID) (h holding, err error) {
	v, err := s.client.Do(ctx, s.client.B().Hmget().Key(keysOf(id).core()).Field("lane_id", "current_attempt_index", "current_waitpoint_id",
		"current_worker_instance_id").Build()).ToArray()
	if err != nil {
		return h, s.lift(ctx, err)
	}
	r := reply(v)
	h = holding{lane: ff.LaneID(r.text(0)), instance: ff.WorkerInstanceID(r.text(3))}
	h.attempt, _ = strconv.Atoi(r.text(1))
	if h.waitpoint, err = ff.ParseWaitpointID(r.text(2)); err != nil || h.waitpoint.IsZero() {
		h.waitpoint = ff.WaitpointID(uuid.New())
	}
	if h.lane == "" {
		h.lane = "default"
	}
	return h, nil
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

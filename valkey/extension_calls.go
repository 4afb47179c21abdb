package valkey

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// The calls of the extension functions. Their keys serve to find the node: the
// functions make further keys of the same slot themselves.

func callCreate(items []submission) call {
	c := call{function: "ffx_create", keys: []string{keysOf(items[0].id).core()}, args: make([]string, 0, 20*len(items))}
	for i := range items {
		c.args = items[i].appendTo(c.args)
	}
	return c
}

func (p *submission) appendTo(args []string) []string {
	c := &p.c
	t := tagOf(p.id.Partition())
	delay, deadline, key, required := "", "", "", ""
	if c.Delay > 0 {
		delay = millis(c.Delay)
	}
	if c.Policy != nil {
		if c.Policy.Timeout != nil && c.Policy.Timeout.Deadline > 0 {
			deadline = millis(c.Policy.Timeout.Deadline)
		}
		if c.Policy.Routing != nil {
			required = c.Policy.Routing.RequiredCapabilities.CSV()
		}
	}
	if c.IdempotencyKey != "" {
		key = t.idempotency(c.Namespace, c.IdempotencyKey)
	}
	args = append(args, p.id.String(), string(c.Namespace), string(c.Lane), c.Kind, strconv.Itoa(min(max(c.Priority, 0), ff.MaxPriority)), c.Creator,
		p.policy, valkey.BinaryString(c.Payload), c.PayloadEncoding, required, ms(p.due()), delay, ms(c.Deadline), deadline,
		key, millis(p.c.DedupWindow()), p.newLane, strconv.Itoa(len(c.Tags)))
	for k, v := range c.Tags {
		args = append(args, k, v)
	}
	return args
}

func callRead(ids []ff.ExecutionID) call {
	c := call{function: "ffx_read", keys: []string{keysOf(ids[0]).core()}}
	for _, id := range ids {
		c.args = append(c.args, id.String())
	}
	return c
}

func callClaim(at place, c *ff.Claim, limit, maxBytes int, skipped [2]int64) call {
	t := tagOf(at.partition)
	args := append(make([]string, 0, 9+2*limit), string(at.lane), string(c.Worker), string(c.Instance), c.Capabilities.CSV(), millis(c.LeaseTTL),
		strconv.Itoa(limit), strconv.Itoa(maxBytes), itoa(skipped[0]), itoa(skipped[1]))
	for range limit {
		args = append(args, ff.NewLeaseID().String(), ff.NewAttemptID().String())
	}
	return call{function: "ffx_claim", keys: []string{t.lane(at.lane, laneEligible), t.lost(at.lane)}, args: args}
}

func callClaimGranted(c *ff.ClaimGranted) call {
	return call{function: "ffx_claim_granted", keys: []string{keysOf(c.ID).core()}, args: []string{c.ID.String(), string(c.Worker), string(c.Instance),
		c.Capabilities.CSV(), millis(c.LeaseTTL), ff.NewLeaseID().String(), ff.NewAttemptID().String()}}
}

func callGrantNext(partition uint16, c *ff.GrantNext, skipped int64) call {
	return call{function: "ffx_grant_next", keys: []string{tagOf(partition).lane(c.Lane, laneEligible)}, args: []string{string(c.Lane), string(c.Worker),
		string(c.Instance), c.Capabilities.CSV(), millis(c.TTL), itoa(skipped)}}
}

func callGrantReclaim(c *ff.GrantReclaim) call {
	return call{function: "ffx_grant_reclaim", keys: []string{keysOf(c.ID).core()}, args: []string{c.ID.String(), string(c.Worker), string(c.Instance),
		c.Capabilities.CSV(), millis(c.TTL), c.Capability, c.RouteJSON, c.AdmissionSum}}
}

// fenceArgs are the lease id, epoch and attempt id; empty for an operator.
func fenceArgs(f ff.Fence) []string {
	if f.IsZero() {
		return []string{"", "", ""}
	}
	return []string{f.LeaseID.String(), strconv.FormatUint(f.LeaseEpoch, 10), f.AttemptID.String()}
}

// holderCall is a call by the holder of a lease: id and fence come first.
func holderCall(function string, ref ff.LeaseRef, more ...string) call {
	return call{function: function, keys: []string{keysOf(ref.ID).core()}, args: slices.Concat([]string{ref.ID.String()}, fenceArgs(ref.Fence), more)}
}

// batchCall is a call about several leases, with an argument in front.
func batchCall(function, first string, leases []ff.LeaseRef) call {
	c := call{function: function, keys: []string{keysOf(leases[0].ID).core()}, args: append(make([]string, 0, 1+4*len(leases)), first)}
	for _, l := range leases {
		c.args = append(append(c.args, l.ID.String()), fenceArgs(l.Fence)...)
	}
	return c
}

func callProgress(c *ff.UpdateProgress) call {
	percent := ""
	if c.Percent != nil {
		percent = strconv.Itoa(*c.Percent)
	}
	return holderCall("ffx_progress", c.LeaseRef, percent, c.Message)
}

func callComplete(c *ff.CompleteExecution) call {
	return holderCall("ffx_complete", c.LeaseRef, string(c.Source), valkey.BinaryString(c.Result))
}

// callCompleteAndClaim is callComplete with the claim of callClaim, of a lane on the
// partition of the completed execution.
func callCompleteAndClaim(c *ff.CompleteExecution, lane ff.LaneID) call {
	both, claim := callComplete(c), callClaim(place{lane, c.ID.Partition()}, c.Next, c.Next.Max, ff.MaxClaimBytes, [2]int64{})
	both.keys, both.args = append(both.keys, claim.keys...), append(both.args, claim.args...)
	return both
}

func callAppend(c *ff.AppendFrames) call {
	f := fenceArgs(c.Fence)
	args := append(make([]string, 0, 6+8*len(c.Frames)), c.ID.String(), f[0], f[1], f[2], strconv.Itoa(c.Retention), strconv.Itoa(ff.MaxSummaryBytes))
	for i := range c.Frames {
		n := &c.Frames[i]
		args = append(args, n.Type, ms(n.At), valkey.BinaryString(n.Payload), orElse(n.Encoding, defaultEncoding), orElse(n.Source, defaultSource),
			n.CorrelationID, string(modeOf(n)), frameTTL(n))
	}
	return call{function: "ffx_append", keys: []string{keysOf(c.ID).core()}, args: args}
}

func callFail(c *ff.FailExecution) call {
	final, after := "", ""
	if c.NoRetry {
		final = "1"
	}
	if c.RetryAfter > 0 {
		after = millis(c.RetryAfter)
	}
	return holderCall("ffx_fail", c.LeaseRef, string(c.Source), c.Reason, c.Category, final, after)
}

func callDelay(c *ff.DelayExecution) call {
	relative := ""
	if c.For > 0 {
		relative = millis(c.For)
	}
	return holderCall("ffx_delay", c.LeaseRef, string(c.Source), ms(c.Until), relative)
}

func callRevoke(c *ff.RevokeLease) call {
	lease := ""
	if !c.LeaseID.IsZero() {
		lease = c.LeaseID.String()
	}
	return call{function: "ffx_revoke", keys: []string{keysOf(c.ID).core()}, args: []string{c.ID.String(), lease, string(c.Instance), c.Reason}}
}

func callCancel(c *ff.CancelExecution) call {
	return call{function: "ffx_cancel", keys: []string{keysOf(c.ID).core()},
		args: slices.Concat([]string{c.ID.String(), c.Reason, string(c.Source)}, fenceArgs(c.Fence))}
}

func callChangePriority(c *ff.ChangePriority) call {
	return call{function: "ffx_change_priority", keys: []string{keysOf(c.ID).core()}, args: []string{c.ID.String(), strconv.Itoa(c.Priority)}}
}

func callSetTags(c *ff.SetExecutionTags) call {
	k := keysOf(c.ID)
	args := []string{strconv.Itoa(ff.MaxTags)}
	for name, v := range c.Tags {
		args = append(args, name, v)
	}
	return call{function: "ffx_set_tags", keys: []string{k.core(), k.tags()}, args: args}
}

func callReplay(c *ff.ReplayExecution) call {
	replace := ""
	if c.Payload != nil {
		replace = "1"
	}
	return call{function: "ffx_replay", keys: []string{keysOf(c.ID).core()},
		args: []string{c.ID.String(), c.Reason, c.RequestedBy, replace, valkey.BinaryString(c.Payload)}}
}

func callDue(partition uint16, kind ff.SweepKind, retention, until string) call {
	return call{function: "ffx_due", keys: []string{tagOf(partition).allExecutions()}, args: []string{string(kind), retention, until}}
}

func callSweep(partition uint16, kind ff.SweepKind, retention string, at *round, limit int) call {
	return call{function: "ffx_sweep", keys: []string{tagOf(partition).allExecutions()},
		args: []string{string(kind), retention, at.from(), strconv.Itoa(limit), at.place[0], at.place[1], at.place[2]}}
}

func callEvents(partition uint16, first string, limit int) call {
	return call{function: "ffx_events", keys: []string{tagOf(partition).events()}, args: []string{first, strconv.Itoa(limit)}}
}

func callReconcile(partition uint16, cursor, what string) call {
	return call{function: "ffx_reconcile", keys: []string{tagOf(partition).allExecutions()}, args: []string{cursor, what}}
}

func callPlaces(partition uint16) call {
	return call{function: "ffx_places", keys: []string{tagOf(partition).allExecutions()}}
}

func callCounts(partition uint16) call {
	return call{function: "ffx_counts", keys: []string{tagOf(partition).allExecutions()}}
}

func callGather(partition uint16, q *ff.ListExecutions, most int) call {
	return call{function: "ffx_gather", keys: []string{tagOf(partition).allExecutions()},
		args: []string{string(q.Lane), q.Kind, string(q.Namespace), string(q.State), strconv.Itoa(most)}}
}

func callList(index string, q *ff.ListExecutions, after entry, limit int) call {
	order := "newest"
	if q.Oldest {
		order = "oldest"
	}
	return call{function: "ffx_list", keys: []string{index}, args: []string{string(q.Lane), q.Kind, string(q.Namespace), string(q.State), order,
		after.score, after.id, strconv.Itoa(limit)}}
}

// policyText is a policy on the wire; empty when there is none.
func policyText(p *ff.ExecutionPolicy) (string, error) {
	if p == nil {
		return "", nil
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "", ff.NewError(ff.CodeInvalidPolicyJSON, err.Error())
	}
	return string(b), nil
}

package lifecycle

import (
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Create makes the record of a new execution (spec 03 §4). The command has been
// validated and id minted. There are no events: the record itself says that it
// was created.
//
// Priorities are clamped to 0..MaxPriority. A DelayUntil that has passed means
// now, so that work is never parked for a time that is over (quirk 03 Q1).
func Create(c *ff.CreateExecution, id ff.ExecutionID, now time.Time) ff.Execution {
	x := ff.Execution{
		ID: id, Namespace: c.Namespace, Lane: c.Lane, Kind: c.Kind, Creator: c.Creator,
		PayloadEncoding: c.PayloadEncoding, Policy: c.Policy, Tags: c.Tags,
		Priority: clampPriority(c.Priority), CreatedAt: now, Deadline: deadline(c, now),
	}
	if c.Policy != nil && c.Policy.Routing != nil {
		x.Required = c.Policy.Routing.RequiredCapabilities
	}
	if due := delayUntil(c, now); due.After(now) {
		x.DelayUntil = due
		setState(&x, delayed(ff.WaitingForDelay, ff.AttemptPendingFirst), "delayed until "+ms(due), now)
		return x
	}
	setState(&x, eligible(ff.AttemptPendingFirst), "", now)
	return x
}

func delayUntil(c *ff.CreateExecution, now time.Time) time.Time {
	switch {
	case c.Delay > 0:
		return now.Add(c.Delay)
	case !c.DelayUntil.IsZero():
		return c.DelayUntil
	case c.Policy != nil:
		return c.Policy.DelayUntil
	}
	return time.Time{}
}

// deadline is the absolute deadline: the earlier of the command's and the
// policy's.
func deadline(c *ff.CreateExecution, now time.Time) time.Time {
	at := c.Deadline
	if c.Policy != nil && c.Policy.Timeout != nil && c.Policy.Timeout.Deadline > 0 {
		if d := now.Add(c.Policy.Timeout.Deadline); at.IsZero() || d.Before(at) {
			at = d
		}
	}
	return at
}

func clampPriority(p int) int { return min(max(p, 0), ff.MaxPriority) }

// Score orders the executions of a lane: the lowest is claimed first, that is
// the highest priority and then the oldest (spec 01 §5.10).
func Score(x *ff.Execution) int64 {
	return x.CreatedAt.UnixMilli() - int64(x.Priority)*1_000_000_000_000
}

// ChangePriority moves a waiting execution (spec 03 §18). Errors:
// execution_not_eligible when it is not waiting for a worker.
func ChangePriority(x *ff.Execution, priority int, now time.Time) (old, applied int, err error) {
	if x.State.Phase != ff.PhaseRunnable || x.State.Eligibility != ff.EligibleNow {
		return 0, 0, notEligible(x)
	}
	old = x.Priority
	x.Priority, x.LastMutationAt = clampPriority(priority), now
	return old, x.Priority, nil
}

func notEligible(x *ff.Execution) error {
	return ff.Errorf(ff.CodeExecutionNotEligible, "the execution is %s, not waiting for a worker", x.PublicState())
}

// SetTags adds or overwrites tags (spec 03 §13).
func SetTags(x *ff.Execution, tags map[string]string, now time.Time) error {
	merged := ff.CloneTags(x.Tags)
	if merged == nil {
		merged = make(map[string]string, len(tags))
	}
	for k, v := range tags {
		merged[k] = v
	}
	if len(merged) > ff.MaxTags {
		return ff.InvalidInput("tags", "more than %d tags (got %d)", ff.MaxTags, len(merged))
	}
	x.Tags, x.LastMutationAt = merged, now
	return nil
}

func ms(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

package valkey

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// CancelExecution ends an execution. The rule checks the fence, of which the
// function looks at a part only (quirk 03 Q4).
func (s *compatible) CancelExecution(ctx context.Context, c ff.CancelExecution) (ff.CancelExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CancelExecutionResult{}, err
	}
	r := ff.CancelExecutionResult{State: ff.StateCancelled}
	_, err := s.commit(ctx, []string{keysOf(c.ID).core()}, func(ctx context.Context, conn valkey.DedicatedClient) (deed, error) {
		before, now, err := s.describeWatched(ctx, conn, c.ID)
		if err != nil {
			return deed{}, err
		}
		after, repeated := before.x, false
		if r.Previous, repeated, _, err = lifecycle.Cancel(&after, &c, now); err != nil || repeated {
			return deed{}, err
		}
		command := c
		command.Source, command.Fence = after.CancelledBy, ff.Fence{}
		if before.x.State.Ownership == ff.OwnershipLeaseRevoked {
			command.Source = ff.SourceOperatorOverride // the function refuses others
		}
		call := callCompatibleCancel(&command, before.holding())
		more, err := s.abandoning(ctx, conn, &before.x, &after, now)
		if err != nil {
			return deed{}, err
		}
		more = append(more, s.ending(&before.x, &after, now)...)
		return deed{call: &call, after: append(more, hset(conn.B(), keysOf(c.ID).core(), "cancelled_by", string(after.CancelledBy)))}, nil
	})
	if err != nil {
		return ff.CancelExecutionResult{}, s.noteLapse(ctx, c.ID, err)
	}
	return r, nil
}

// ending is what belongs to the end of an execution and is not done by the functions
// that end one: the attempt that was interrupted ends, grants end, an own retention
// is noted.
func (s *compatible) ending(before, after *ff.Execution, now time.Time) []valkey.Completed {
	id, t, b := before.ID, tagOf(before.ID.Partition()), s.client.B()
	commands := []valkey.Completed{b.Del().Key(keysOf(id).claimGrant()).Build(), b.Zrem().Key(t.grants()).Member(id.String()).Build(),
		b.Zrem().Key(t.lost(before.Lane)).Member(id.String()).Build()}
	if before.TotalAttempts > 0 && before.Attempt.EndedAt.IsZero() {
		a := &after.Attempt
		commands = append(commands, hset(b, keysOf(id).attempt(a.Index), "attempt_state", string(a.State), "ended_at", ms(now),
			"failure_reason", a.FailureReason, "failure_category", a.FailureCategory))
	}
	if after.FailureCategory != before.FailureCategory {
		commands = append(commands, hset(b, keysOf(id).core(), "failure_category", after.FailureCategory))
	}
	return append(commands, s.retaining(after, now)...)
}

// retaining notes when an execution that has ended by now may be deleted, if that is
// sooner or later than the retention of the store.
func (s *compatible) retaining(x *ff.Execution, now time.Time) []valkey.Completed {
	if x.Policy == nil || x.Policy.Stream == nil || x.Policy.Stream.RetentionTTL <= 0 {
		return nil
	}
	at := now.Add(x.Policy.Stream.RetentionTTL)
	return []valkey.Completed{s.client.B().Zadd().Key(tagOf(x.ID.Partition()).retention()).ScoreMember().ScoreMember(float64(at.UnixMilli()), x.ID.String()).Build()}
}

// ChangePriority moves a waiting execution.
func (s *compatible) ChangePriority(ctx context.Context, c ff.ChangePriority) (ff.ChangePriorityResult, error) {
	if err := s.checkID(c.ID); err != nil {
		return ff.ChangePriorityResult{}, err
	}
	g, _, err := s.glimpse(ctx, c.ID, "lane_id")
	if err != nil {
		return ff.ChangePriorityResult{}, err
	}
	call := callCompatiblePriority(&c, g.holding().lane)
	r, err := s.answer(ctx, &call)
	return ff.ChangePriorityResult{Old: int(r.number(0)), New: int(r.number(1))}, err
}

// ReplayExecution starts a terminal execution again. Nobody can claim it before its
// input and the cause of the replay are written.
func (s *compatible) ReplayExecution(ctx context.Context, c ff.ReplayExecution) (ff.ReplayExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReplayExecutionResult{}, err
	}
	state, lane := ff.StateWaiting, ff.LaneID("")
	_, err := s.commit(ctx, []string{keysOf(c.ID).core()}, func(ctx context.Context, conn valkey.DedicatedClient) (deed, error) {
		before, now, err := s.describeWatched(ctx, conn, c.ID)
		if err != nil {
			return deed{}, err
		}
		after := before.x
		if _, err := lifecycle.Replay(&after, &c, now); err != nil {
			return deed{}, err
		}
		lane = before.x.Lane
		call := callReplayExecution(c.ID, lane, now)
		if before.x.State.Outcome == ff.OutcomeSkipped && !before.x.FlowID.IsZero() {
			edges, err := conn.Do(ctx, conn.B().Smembers().Key(tagOf(c.ID.Partition()).incoming(before.x.FlowID, c.ID)).Build()).AsStrSlice()
			if err != nil {
				return deed{}, s.lift(ctx, err)
			}
			state = ff.StateWaitingChildren
			call = callReplaySkipped(c.ID, lane, edges, now)
		}
		return deed{call: &call, after: s.replaying(&before.x, &after, &c)}, nil
	})
	if err != nil {
		return ff.ReplayExecutionResult{}, err
	}
	if state == ff.StateWaiting {
		s.wake(ctx, c.ID.Partition(), lane)
	}
	return ff.ReplayExecutionResult{State: state}, nil
}

// replaying is what belongs to a replay and ff_replay_execution does not do.
func (s *compatible) replaying(before, after *ff.Execution, c *ff.ReplayExecution) []valkey.Completed {
	k, t, b, id := keysOf(c.ID), tagOf(c.ID.Partition()), s.client.B(), c.ID.String()
	commands := []valkey.Completed{
		hset(b, k.core(), "pending_replay_reason", c.Reason, "pending_replay_requested_by", c.RequestedBy,
			"pending_previous_attempt_index", strconv.Itoa(after.PendingPreviousAttempt), "execution_deadline_at", ms(after.Deadline),
			"cancellation_reason", "", "cancelled_by", "", "delay_until", "", "lease_expired_at", "", "lease_revoked_at", "", "lease_revoke_reason", ""),
		b.Del().Key(k.result()).Build(),
		b.Zrem().Key(t.retention()).Member(id).Build(),
		b.Zrem().Key(t.outcome(before.Lane, before.State.Outcome)).Member(id).Build(),
	}
	if !after.Deadline.IsZero() {
		commands = append(commands, b.Zadd().Key(t.executionDeadline()).ScoreMember().ScoreMember(float64(after.Deadline.UnixMilli()), id).Build())
	}
	switch {
	case c.Payload == nil:
	case len(c.Payload) == 0:
		commands = append(commands, b.Del().Key(k.payload()).Build())
	default:
		commands = append(commands, b.Set().Key(k.payload()).Value(valkey.BinaryString(c.Payload)).Build())
	}
	return commands
}

// SetExecutionTags adds tags.
func (s *compatible) SetExecutionTags(ctx context.Context, c ff.SetExecutionTags) (ff.SetExecutionTagsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SetExecutionTagsResult{}, err
	}
	var all map[string]string
	_, err := s.commit(ctx, []string{keysOf(c.ID).tags()}, func(ctx context.Context, conn valkey.DedicatedClient) (deed, error) {
		stored, err := conn.Do(ctx, conn.B().Hgetall().Key(keysOf(c.ID).tags()).Build()).AsStrMap()
		if err != nil {
			return deed{}, s.lift(ctx, err)
		}
		if all = stored; all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, c.Tags)
		if len(all) > ff.MaxTags {
			return deed{}, ff.InvalidInput("tags", "more than %d tags (got %d)", ff.MaxTags, len(all))
		}
		call := callSetExecutionTags(&c)
		return deed{call: &call}, nil
	})
	if err != nil {
		return ff.SetExecutionTagsResult{}, err
	}
	return ff.SetExecutionTagsResult{Tags: all}, nil
}

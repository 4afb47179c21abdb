package valkey

import (
	"context"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// markLapsed marks leases whose time is over. What has a timeout or a deadline that
// came before is left to that.
func (s *compatible) markLapsed(ctx context.Context, batch []*dueEntry) []fate {
	fates := make([]fate, len(batch))
	var commands []valkey.Completed
	for _, e := range batch {
		t := tagOf(e.index.p)
		commands = append(commands, s.client.B().Zscore().Key(t.attemptTimeout()).Member(e.text).Build(),
			s.client.B().Zscore().Key(t.executionDeadline()).Member(e.text).Build())
	}
	earlier := make([]bool, len(batch))
	for i, r := range s.send(ctx, commands...) {
		at, err := r.AsFloat64()
		if err == nil && int64(at) < batch[i/2].score {
			earlier[i/2] = true
		}
	}
	var calls []call
	var at []int
	for i, e := range batch {
		if fates[i].left = earlier[i]; !earlier[i] {
			calls, at = append(calls, callMarkLeaseExpired(e.id)), append(at, i)
		}
	}
	var ids []ff.ExecutionID
	for n, answer := range s.doMulti(ctx, calls) {
		f, r := &fates[at[n]], reply(nil)
		if f.err = answer.err; f.err == nil {
			r, f.err = readReply(calls[n].function, &answer.m)
		}
		switch r.text(0) {
		case "marked_expired":
			f.done, f.left = true, true
			ids = append(ids, batch[at[n]].id)
		case "already_expired":
			f.left = true
			ids = append(ids, batch[at[n]].id)
		case "already_revoked", "not_yet_expired":
			f.left = true
		}
	}
	if len(ids) > 0 {
		if _, err := s.noteLost(ctx, ids); err != nil {
			s.log.Warn("claims do not know yet of leases that were lost", "err", err)
		}
	}
	return fates
}

// promoteDue lines up what was delayed until now, and ends grants.
func (s *compatible) promoteDue(ctx context.Context, batch []*dueEntry, now time.Time) []fate {
	fates := make([]fate, len(batch))
	var calls []call
	var at []int
	woken := map[place]bool{}
	for i, e := range batch {
		if e.index.lane == "" {
			fates[i].done, fates[i].left, fates[i].err = s.endGrant(ctx, e, now)
			continue
		}
		calls, at = append(calls, callPromoteDelayed(e.id, e.index.lane, now)), append(at, i)
	}
	for n, answer := range s.doMulti(ctx, calls) {
		f, r := &fates[at[n]], reply(nil)
		if f.err = answer.err; f.err == nil {
			r, f.err = readReply(calls[n].function, &answer.m)
		}
		switch r.text(0) {
		case "promoted":
			f.done = true
			woken[place{batch[at[n]].index.lane, batch[at[n]].index.p}] = true
		case "not_yet_due":
			f.left = true
		}
	}
	for at := range woken {
		s.wake(ctx, at.partition, at.lane)
	}
	return fates
}

// endGrant ends a grant that has lapsed. Its key ends by itself, unless an extension
// has written it.
func (s *compatible) endGrant(ctx context.Context, e *dueEntry, now time.Time) (done, left bool, err error) {
	key, core := keysOf(e.id).claimGrant(), keysOf(e.id).core()
	answers, err := s.watched(ctx, []string{key, core}, func(ctx context.Context, c valkey.DedicatedClient) ([]valkey.Completed, error) {
		commands := []valkey.Completed{c.B().Zrem().Key(e.index.key).Member(e.text).Build()}
		ends, err := c.Do(ctx, c.B().Hget().Key(key).Field("grant_expires_at").Build()).AsInt64()
		if err == nil && time.UnixMilli(ends).After(now) {
			return nil, nil // a later grant, whose entry is not there yet
		}
		if err == nil {
			commands = append(commands, c.B().Del().Key(key).Build())
			there, err := c.Do(ctx, c.B().Exists().Key(core).Build()).AsInt64()
			if err != nil {
				return nil, s.lift(ctx, err)
			}
			if there == 1 {
				commands = append(commands, c.B().Hset().Key(core).FieldValue().FieldValue("last_mutation_at", ms(now)).Build())
			}
		}
		if valkey.IsValkeyNil(err) {
			err = nil
		}
		return commands, s.lift(ctx, err)
	})
	if err != nil || len(answers) == 0 {
		return false, true, err
	}
	n, err := answers[0].AsInt64()
	if err != nil || n == 0 {
		return false, false, s.lift(ctx, err)
	}
	if g, _, err := s.glimpse(ctx, e.id, "lane_id"); err == nil {
		s.wake(ctx, e.index.p, g.holding().lane)
	}
	return true, false, nil
}

// pastLease is how far a lease that ended after the attempt had timed out is moved,
// so that the function still sees it in force: the timeout came first.
const pastLease = time.Minute

// timeOut does what a timeout or a deadline says, if it is what is due next. The rule
// decides; the function does not look at the time (quirk 03 Q17).
func (s *compatible) timeOut(ctx context.Context, e *dueEntry, kind ff.SweepKind) (done, left bool, err error) {
	var after ff.Execution
	r, err := s.commit(ctx, []string{keysOf(e.id).core()}, func(ctx context.Context, c valkey.DedicatedClient) (deed, error) {
		before, now, err := s.describeWatched(ctx, c, e.id)
		if left = false; ff.CodeOf(err) == ff.CodeExecutionNotFound {
			return deed{after: []valkey.Completed{c.B().Zrem().Key(e.index.key).Member(e.text).Build()}}, nil
		}
		if err != nil {
			return deed{}, err
		}
		due, any := lifecycle.NextDue(&before.x, s.retention)
		if !any || due.Kind != kind || due.At.After(now) {
			if left = !strayed(&before.x, kind); left {
				return deed{}, nil
			}
			return deed{after: []valkey.Completed{c.B().Zrem().Key(e.index.key).Member(e.text).Build()}}, nil
		}
		after = before.x
		lifecycle.Advance(&after, s.retention, now)
		if after.Terminal() {
			call := callExpire(e.id, before.holding(), string(kind))
			more, err := s.abandoning(ctx, c, &before.x, &after, now)
			return deed{call: &call, after: append(more, s.ending(&before.x, &after, now)...)}, err
		}
		return s.retryAfterTimeout(&before, &after, now), nil
	})
	if err != nil || r == nil {
		return false, left, err
	}
	switch {
	case after.Terminal():
	case after.State.Eligibility == ff.NotEligibleUntilTime:
		s.tellDue(ctx, after.DelayUntil)
	default:
		s.wake(ctx, e.index.p, after.Lane)
	}
	return true, false, nil
}

// strayed reports whether an entry has no business in the index of a kind.
func strayed(x *ff.Execution, kind ff.SweepKind) bool {
	if kind == ff.SweepAttemptTimeout {
		return x.State.Phase != ff.PhaseActive
	}
	return x.Terminal()
}

// retryAfterTimeout fails the attempt so that another follows.
func (s *compatible) retryAfterTimeout(before *record, after *ff.Execution, now time.Time) deed {
	x, b, wait := &before.x, s.client.B(), lifecycle.Backoff(&before.x)
	core := keysOf(x.ID).core()
	f := [3]string{x.Lease.ID.String(), strconv.FormatUint(x.LeaseEpoch, 10), x.CurrentAttemptID.String()}
	fail := callCompatibleFail(x.ID, f, before.holding(), ff.SourceOperatorOverride, after.FailureReason, after.FailureCategory, retryText(x, true, wait))
	d := deed{call: &fail, after: []valkey.Completed{hset(b, core, "failure_category", after.FailureCategory)}}
	if !x.Lease.ExpiresAt.After(now) {
		d.before = []valkey.Completed{hset(b, core, "lease_expires_at", ms(now.Add(pastLease)))}
	}
	if wait <= 0 {
		promote := callPromoteDelayed(x.ID, x.Lane, now)
		d.after = append(d.after, s.completed(&promote))
	}
	return d
}

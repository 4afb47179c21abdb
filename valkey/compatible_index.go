package valkey

import (
	"context"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// repairIndexes finds executions that are missing in the index where they belong, and
// those whose lease was lost without claims knowing (spec 06 §5.17). Partitions whose
// counts agree are not scanned.
func (s *compatible) repairIndexes(ctx context.Context, r *ff.SweepResult) error {
	lanes, err := s.readLanes(ctx)
	if err != nil {
		return err
	}
	for _, lane := range lanes {
		if err := s.findLostOf(ctx, lane, r); err != nil {
			return err
		}
	}
	partial, err := s.partial(ctx, lanes)
	if err != nil {
		return err
	}
	for _, p := range partial {
		if s.rounds.resting(p) {
			continue
		}
		before := r.Processed
		if err := s.scanPartition(ctx, p, r); err != nil {
			return err
		}
		s.rounds.rest(p, r.Processed == before)
	}
	if r.Processed > 0 {
		s.log.Info("indexes were repaired", "executions", r.Processed, "unreadable", r.Errors)
	}
	return nil
}

// findLostOf looks through the running executions of a lane whose lease may be over.
func (s *compatible) findLostOf(ctx context.Context, lane ff.LaneID, r *ff.SweepResult) error {
	commands := make([]valkey.Completed, s.partitions.Flow)
	for p := range s.partitions.Flow {
		commands[p] = s.client.B().Zrangebyscore().Key(tagOf(p).lane(lane, laneActive)).Min("-inf").Max(ms(r.Now)).Limit(0, 1000).Build()
	}
	var ids []ff.ExecutionID
	for _, answer := range s.send(ctx, commands...) {
		list, err := answer.AsStrSlice()
		if err != nil {
			return s.lift(ctx, err)
		}
		for _, text := range list {
			if id, err := ff.ParseExecutionID(text); err == nil {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	found, err := s.noteLost(ctx, ids)
	for _, l := range found {
		if l.news {
			r.Processed++
		}
	}
	return err
}

// partial are the partitions where not every execution is in one index of its lane, by
// counting.
func (s *compatible) partial(ctx context.Context, lanes []ff.LaneID) (list []uint16, err error) {
	n := 1 + len(lanes)*len(laneIndexes)
	commands := make([]valkey.Completed, 0, n*int(s.partitions.Flow))
	for p := range s.partitions.Flow {
		commands = append(commands, s.client.B().Scard().Key(tagOf(p).allExecutions()).Build())
		for _, lane := range lanes {
			for _, name := range laneIndexes {
				commands = append(commands, s.client.B().Zcard().Key(tagOf(p).lane(lane, name)).Build())
			}
		}
	}
	missing := int64(0)
	for i, r := range s.send(ctx, commands...) {
		count, err := r.AsInt64()
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		if i%n == 0 {
			missing = count
		} else {
			missing -= count
		}
		if i%n == n-1 && missing != 0 {
			list = append(list, uint16(i/n))
		}
	}
	return list, nil
}

// scanPartition restores every execution of a partition that is not where it belongs.
func (s *compatible) scanPartition(ctx context.Context, p uint16, r *ff.SweepResult) error {
	for cursor := uint64(0); ; {
		scan, err := s.client.Do(ctx, s.client.B().Sscan().Key(tagOf(p).allExecutions()).Cursor(cursor).Count(500).Build()).AsScanEntry()
		if err != nil {
			return s.lift(ctx, err)
		}
		missing, err := s.misplaced(ctx, scan.Elements)
		if err != nil {
			return err
		}
		for _, id := range missing {
			changed, err := s.restore(ctx, id)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				r.Errors++
				s.log.Error("an execution cannot be put where it belongs", "execution", id, "err", err)
			} else if changed {
				r.Processed++
			}
		}
		if cursor = scan.Cursor; cursor == 0 {
			return nil
		}
	}
}

// misplaced are those that are not where they belong, and those that are gone or
// cannot be read.
func (s *compatible) misplaced(ctx context.Context, texts []string) (list []ff.ExecutionID, err error) {
	var ids []ff.ExecutionID
	for _, text := range texts {
		id, err := ff.ParseExecutionID(text)
		if err != nil {
			s.log.Error("an index has something that is no execution", "value", text)
			continue
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	var commands []valkey.Completed
	var placed []ff.ExecutionID
	glimpses := make([]valkey.Completed, len(ids))
	for i, id := range ids {
		glimpses[i] = s.glimpseCommand(id, placeFields)
	}
	for i, r := range s.send(ctx, glimpses...) {
		g, err := glimpseOf(r, placeFields)
		index := ""
		if err == nil && g != nil {
			index, _, err = placeOf(ids[i], g)
		}
		switch {
		case err != nil || g == nil:
			list = append(list, ids[i])
		case index != "":
			placed = append(placed, ids[i])
			commands = append(commands, s.client.B().Zscore().Key(tagOf(ids[i].Partition()).lane(g.holding().lane, index)).Member(ids[i].String()).Build())
		}
	}
	for i, r := range s.send(ctx, commands...) {
		if valkey.IsValkeyNil(r.Error()) {
			list = append(list, placed[i])
		}
	}
	return list, ctx.Err()
}

var placeFields = []string{"lifecycle_phase", "eligibility_state", "lane_id", "created_at", "priority", "delay_until", "lease_expires_at", "completed_at"}

// restore puts one execution into the index where it belongs, unless it is there. One
// that is gone leaves the list of all.
func (s *compatible) restore(ctx context.Context, id ff.ExecutionID) (changed bool, err error) {
	t, core := tagOf(id.Partition()), keysOf(id).core()
	var waits glimpse
	answers, err := s.watched(ctx, []string{core}, func(ctx context.Context, c valkey.DedicatedClient) ([]valkey.Completed, error) {
		waits = nil
		g, err := glimpseOf(c.Do(ctx, s.glimpseCommand(id, placeFields)), placeFields)
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		if g == nil {
			return []valkey.Completed{c.B().Srem().Key(t.allExecutions()).Member(id.String()).Build()}, nil
		}
		index, score, err := placeOf(id, g)
		if err != nil || index == "" {
			return nil, err
		}
		key := t.lane(g.holding().lane, index)
		if index == laneEligible {
			waits = g
		}
		return []valkey.Completed{c.B().Zadd().Key(key).Nx().ScoreMember().ScoreMember(score, id.String()).Build()}, nil
	})
	if err != nil || len(answers) == 0 {
		return false, err
	}
	n, err := answers[0].AsInt64()
	if n == 1 && waits != nil {
		s.wake(ctx, id.Partition(), waits.holding().lane)
	}
	return n == 1, s.lift(ctx, err)
}

// homes are the indexes of what waits, by its eligibility.
var homes = map[ff.EligibilityState]string{ff.EligibleNow: laneEligible, ff.NotEligibleUntilTime: laneDelayed,
	ff.BlockedByDependencies: laneBlockedDependencies, ff.BlockedByBudget: laneBlockedBudget, ff.BlockedByQuota: laneBlockedQuota,
	ff.BlockedByRoute: laneBlockedRoute, ff.BlockedByOperator: laneBlockedOperator}

// placeOf is the index where an execution belongs, and its score there.
func placeOf(id ff.ExecutionID, g glimpse) (index string, score float64, err error) {
	f := fieldsOf(id, g)
	instant := func(name string) float64 { return float64(f.instant(name).UnixMilli()) }
	switch ff.LifecyclePhase(g["lifecycle_phase"]) {
	case ff.PhaseActive:
		index, score = laneActive, instant("lease_expires_at")
	case ff.PhaseSuspended:
		index, score = laneSuspended, suspendedScore
	case ff.PhaseTerminal:
		index, score = laneTerminal, instant("completed_at")
	case ff.PhaseRunnable:
		switch index = homes[ff.EligibilityState(g["eligibility_state"])]; index {
		case laneEligible:
			score = float64(lifecycle.Score(&ff.Execution{CreatedAt: f.instant("created_at"), Priority: int(f.number("priority"))}))
		case laneDelayed:
			score = instant("delay_until")
		default:
			score = instant("created_at")
		}
	}
	return index, score, f.err
}

// suspendedScore stands for a suspension without an end.
const suspendedScore = 9999999999999

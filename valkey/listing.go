package valkey

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// entry is a position in an index by age: the instant of creation and the id.
type entry struct{ score, id string }

func (e entry) created() int64 {
	n, _ := strconv.ParseFloat(e.score, 64)
	return int64(n)
}

func (e entry) compare(o entry) int {
	return cmp.Or(cmp.Compare(e.created(), o.created()), cmp.Compare(e.id, o.id))
}

func (e entry) cursor() string { return itoa(e.created()) + "-" + e.id }

func parseListCursor(cursor string) (entry, error) {
	if cursor == "" {
		return entry{}, nil
	}
	score, id, ok := strings.Cut(cursor, "-")
	_, err1 := strconv.ParseUint(score, 10, 63)
	_, err2 := ff.ParseExecutionID(id)
	if !ok || err1 != nil || err2 != nil {
		return entry{}, ff.BadCursor(cursor)
	}
	return entry{score, id}, nil
}

// mostGathered bounds the executions of a state that are gathered and sorted: of
// more, the index by age is read.
const mostGathered = 1000

// ListExecutions lists in the order of creation. Each partition has an index by
// age, and each lane one of the executions that ended other than by success; the
// filter picks which are read, and they are merged.
func (s *Store) ListExecutions(ctx context.Context, c ff.ListExecutions) (ff.ListExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListExecutionsResult{}, err
	}
	after, err := parseListCursor(c.Cursor)
	if err != nil {
		return ff.ListExecutionsResult{}, err
	}
	sources, err := s.listSources(ctx, &c, after)
	if err != nil {
		return ff.ListExecutionsResult{}, err
	}
	limit := ff.PageLimit(c.Limit)
	found, err := s.merge(ctx, &c, sources, limit+1)
	if err != nil {
		return ff.ListExecutionsResult{}, err
	}
	var r ff.ListExecutionsResult
	if len(found) > limit {
		found = found[:limit]
		r.Next = found[limit-1].cursor()
	}
	r.Executions, err = s.readAll(ctx, found)
	return r, err
}

// source is one index that a listing reads, in pages.
type source struct {
	key   string
	found []entry
	after entry
	ended bool
}

// listSources are the indexes that have what is asked for. What is gathered at once
// comes as a source that has ended.
func (s *Store) listSources(ctx context.Context, c *ff.ListExecutions, after entry) (list []*source, err error) {
	outcome := map[ff.PublicState]ff.TerminalOutcome{ff.StateFailed: ff.OutcomeFailed, ff.StateCancelled: ff.OutcomeCancelled,
		ff.StateExpired: ff.OutcomeExpired, ff.StateSkipped: ff.OutcomeSkipped}[c.State]
	switch {
	case outcome != "":
		return s.outcomeSources(ctx, c, outcome, after)
	case c.State == "" || c.State == ff.StateCompleted:
		places, err := s.placesOf(ctx, c.Lane)
		for _, p := range places {
			list = append(list, &source{key: tagOf(p).created(), after: after})
		}
		return list, err
	}
	if _, err := s.lanesByPartition(ctx); err != nil {
		return nil, err
	}
	for p, answer := range s.eachPartition(ctx, func(p uint16) call { return callGather(p, c, mostGathered) }) {
		if answer.err != nil {
			return nil, answer.err
		}
		if answer.m.IsNil() {
			list = append(list, &source{key: tagOf(uint16(p)).created(), after: after})
			continue
		}
		pairs, err := answer.m.AsStrSlice()
		if err != nil {
			return nil, ff.Errorf(ff.CodeInternal, "ffx_gather: %w", err)
		}
		if found := gathered(pairs, c.Oldest, after); len(found) > 0 {
			list = append(list, &source{found: found, ended: true})
		}
	}
	return list, nil
}

// gathered sorts pairs and keeps those behind the cursor.
func gathered(pairs []string, oldest bool, after entry) (found []entry) {
	for i := 0; i+1 < len(pairs); i += 2 {
		e := entry{pairs[i], pairs[i+1]}
		if after.id == "" || (e.compare(after) > 0) == oldest && e != after {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, order(oldest))
	return found
}

func order(oldest bool) func(a, b entry) int {
	if oldest {
		return entry.compare
	}
	return func(a, b entry) int { return b.compare(a) }
}

// placesOf are the partitions that have executions of a lane; all when none is
// asked for.
func (s *Store) placesOf(ctx context.Context, lane ff.LaneID) (list []uint16, err error) {
	lanes, err := s.lanesByPartition(ctx)
	for p, here := range lanes {
		if lane == "" && len(here) > 0 || lane != "" && slices.Contains(here, string(lane)) {
			list = append(list, uint16(p))
		}
	}
	return list, err
}

// lanesByPartition are the lanes that each partition has executions of. A partition
// whose index by age lacks some, because a peer created them, is completed first,
// unless that was in vain not long ago.
func (s *Store) lanesByPartition(ctx context.Context) ([][]string, error) {
	for again := true; ; again = false {
		lists := make([][]string, s.partitions.Flow)
		var partial []uint16
		for p, answer := range s.eachPartition(ctx, callPlaces) {
			if answer.err != nil {
				return nil, answer.err
			}
			list, err := answer.m.ToArray()
			if err == nil && len(list) == 2 {
				lists[p], err = list[1].AsStrSlice()
			}
			if err != nil || len(list) != 2 {
				return nil, ff.NewError(ff.CodeInternal, "ffx_places answered something unexpected")
			}
			if again && reply(list).number(0) == 0 && !s.repairs.resting(uint16(p)) {
				partial = append(partial, uint16(p))
			}
		}
		if len(partial) == 0 {
			return lists, nil
		}
		if err := s.completeAges(ctx, partial); err != nil {
			return nil, err
		}
	}
}

func (s *Store) outcomeSources(ctx context.Context, c *ff.ListExecutions, o ff.TerminalOutcome, after entry) (list []*source, err error) {
	lanes, err := s.lanesByPartition(ctx)
	for p, here := range lanes {
		for _, lane := range here {
			if c.Lane == "" || lane == string(c.Lane) {
				list = append(list, &source{key: tagOf(uint16(p)).outcome(ff.LaneID(lane), o), after: after})
			}
		}
	}
	return list, err
}

// merge takes entries from the sources in order. All sources that have run dry are
// read together.
func (s *Store) merge(ctx context.Context, c *ff.ListExecutions, sources []*source, limit int) (found []entry, err error) {
	before := order(c.Oldest)
	for len(found) < limit {
		if err := s.fill(ctx, c, sources, limit-len(found)); err != nil {
			return nil, err
		}
		sources = slices.DeleteFunc(sources, func(src *source) bool { return src.ended && len(src.found) == 0 })
		if len(sources) == 0 {
			return found, nil
		}
		for len(found) < limit {
			var best *source
			for _, src := range sources {
				if len(src.found) == 0 {
					if !src.ended {
						best = nil
						break
					}
					continue
				}
				if best == nil || before(src.found[0], best.found[0]) < 0 {
					best = src
				}
			}
			if best == nil {
				break
			}
			found, best.found = append(found, best.found[0]), best.found[1:]
		}
	}
	return found, nil
}

func (s *Store) fill(ctx context.Context, c *ff.ListExecutions, sources []*source, limit int) error {
	var dry []*source
	var calls []call
	for _, src := range sources {
		if len(src.found) == 0 && !src.ended {
			dry = append(dry, src)
			calls = append(calls, callList(src.key, c, src.after, limit))
		}
	}
	if len(calls) == 0 {
		return nil
	}
	for i, answer := range s.doMulti(ctx, calls) {
		if answer.err != nil {
			return answer.err
		}
		list, err := answer.m.ToArray()
		if err != nil || len(list) != 4 {
			return ff.NewError(ff.CodeInternal, "ffx_list answered something unexpected")
		}
		a := reply(list)
		pairs, err := a[3].AsStrSlice()
		if err != nil {
			return ff.Errorf(ff.CodeInternal, "ffx_list: %w", err)
		}
		dry[i].after, dry[i].ended = entry{a.text(0), a.text(1)}, a.number(2) == 1
		for j := 0; j+1 < len(pairs); j += 2 {
			dry[i].found = append(dry[i].found, entry{pairs[j], pairs[j+1]})
		}
	}
	return nil
}

// readAll reads the records of a page, in one call per partition. What is gone
// since, or damaged, is left out.
func (s *Store) readAll(ctx context.Context, page []entry) ([]ff.Execution, error) {
	ids := make([]ff.ExecutionID, 0, len(page))
	for _, e := range page {
		id, err := ff.ParseExecutionID(e.id)
		if err != nil {
			s.log.Error("an index has something that is no execution", "value", e.id)
			continue
		}
		ids = append(ids, id)
	}
	byPartition := map[uint16][]int{}
	for i, id := range ids {
		byPartition[id.Partition()] = append(byPartition[id.Partition()], i)
	}
	calls, at := make([]call, 0, len(byPartition)), make([][]int, 0, len(byPartition))
	for _, some := range byPartition {
		part := make([]ff.ExecutionID, len(some))
		for i, n := range some {
			part[i] = ids[n]
		}
		calls, at = append(calls, callRead(part)), append(at, some)
	}
	records := make([]*ff.Execution, len(ids))
	for i, answer := range s.doMulti(ctx, calls) {
		if answer.err != nil {
			return nil, answer.err
		}
		list, err := answer.m.ToArray()
		if err != nil || len(list) != len(at[i]) {
			return nil, ff.NewError(ff.CodeInternal, "ffx_read answered something unexpected")
		}
		for j, n := range at[i] {
			x, err := described(ids[n], &list[j])
			switch code := ff.CodeOf(err); {
			case err == nil:
				records[n] = &x
			case code == ff.CodeCorruption:
				s.log.Error("an execution cannot be read and is left out of a listing", "execution", ids[n], "err", err)
			case code != ff.CodeExecutionNotFound:
				return nil, err
			}
		}
	}
	list := make([]ff.Execution, 0, len(records))
	for _, x := range records {
		if x != nil {
			list = append(list, *x)
		}
	}
	return list, nil
}

// ListPartition lists the ids of one partition in ascending order. A partition that
// does not exist is empty.
func (s *Store) ListPartition(ctx context.Context, c ff.ListPartition) (ff.ListPartitionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListPartitionResult{}, err
	}
	limit := ff.PageLimit(c.Limit)
	var page []ff.ExecutionID
	for cursor := uint64(0); ; {
		scan, err := s.client.Do(ctx, s.client.B().Sscan().Key(tagOf(c.Partition).allExecutions()).Cursor(cursor).Count(1000).Build()).AsScanEntry()
		if err != nil {
			return ff.ListPartitionResult{}, s.lift(ctx, err)
		}
		for _, text := range scan.Elements {
			id, err := ff.ParseExecutionID(text)
			if err != nil {
				s.log.Error("an index has something that is no execution", "key", tagOf(c.Partition).allExecutions(), "value", text)
				continue
			}
			if c.After.IsZero() || text > c.After.String() {
				page = append(page, id)
			}
		}
		if cursor = scan.Cursor; cursor == 0 || len(page) > 4*limit {
			slices.SortFunc(page, func(a, b ff.ExecutionID) int { return cmp.Compare(a.String(), b.String()) })
			page = slices.Compact(page)
			page = page[:min(len(page), limit+1)]
		}
		if cursor == 0 {
			break
		}
	}
	r := ff.ListPartitionResult{IDs: page}
	if len(page) > limit {
		r.IDs = page[:limit]
		r.Next = r.IDs[limit-1]
	}
	return r, nil
}

// countedIndexes are the sizes that ffx_counts gives per lane, by public state.
var countedIndexes = []ff.PublicState{ff.StateWaiting, ff.StateDelayed, ff.StateActive, ff.StateCompleted, ff.StateSuspended,
	ff.StateWaitingChildren, ff.StateRateLimited, ff.StateRateLimited, ff.StateWaiting, ff.StateWaiting}

// Lanes lists the lanes with their counts, which are the sizes of their indexes.
func (s *Store) Lanes(ctx context.Context) ([]ff.LaneStatus, error) {
	known, err := s.readLanes(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.lanesByPartition(ctx); err != nil {
		return nil, err
	}
	lanes := map[ff.LaneID]*ff.LaneStatus{}
	for _, lane := range known {
		lanes[lane] = &ff.LaneStatus{Lane: lane}
	}
	for _, answer := range s.eachPartition(ctx, callCounts) {
		if answer.err != nil {
			return nil, answer.err
		}
		rows, err := answer.m.ToArray()
		if err != nil {
			return nil, ff.Errorf(ff.CodeInternal, "ffx_counts: %w", err)
		}
		for i := range rows {
			row, err := rows[i].ToArray()
			if err != nil || len(row) != 1+len(countedIndexes)+4+1 {
				return nil, ff.NewError(ff.CodeInternal, "ffx_counts answered something unexpected")
			}
			addCounts(lanes, row)
		}
	}
	list := make([]ff.LaneStatus, 0, len(lanes))
	for _, l := range lanes {
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b ff.LaneStatus) int { return cmp.Compare(a.Lane, b.Lane) })
	return list, nil
}

func addCounts(lanes map[ff.LaneID]*ff.LaneStatus, row reply) {
	name := ff.LaneID(row.text(0))
	l := lanes[name]
	if l == nil {
		l = &ff.LaneStatus{Lane: name}
		lanes[name] = l
	}
	if l.Counts == nil {
		l.Counts = map[ff.PublicState]int{}
	}
	add := func(state ff.PublicState, n int64) {
		if n != 0 {
			l.Counts[state] += int(n)
		}
	}
	for i, state := range countedIndexes {
		add(state, row.number(1+i))
	}
	for i, state := range []ff.PublicState{ff.StateFailed, ff.StateCancelled, ff.StateExpired, ff.StateSkipped} {
		n := row.number(1 + len(countedIndexes) + i)
		add(state, n)
		add(ff.StateCompleted, -n)
	}
	if l.Counts[ff.StateCompleted] == 0 {
		delete(l.Counts, ff.StateCompleted)
	}
	if n := row.number(len(row) - 1); n > 0 {
		if at := time.UnixMilli(n); l.Oldest.IsZero() || at.Before(l.Oldest) {
			l.Oldest = at
		}
	}
}

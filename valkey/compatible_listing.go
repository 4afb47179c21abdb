package valkey

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// Listings without an index by age: what may match is read in chunks, and the page is
// kept while reading. That costs time in proportion to all executions, or to those of
// a state when one is asked for; memory only for the page.

// scanChunk is how many members of an index one step reads.
const scanChunk = 500

// stateIndexes are the indexes of a lane that have what is of a public state.
var stateIndexes = map[ff.PublicState][]string{
	ff.StateWaiting: {laneEligible, laneBlockedRoute, laneBlockedOperator}, ff.StateDelayed: {laneDelayed}, ff.StateActive: {laneActive},
	ff.StateSuspended: {laneSuspended}, ff.StateWaitingChildren: {laneBlockedDependencies}, ff.StateRateLimited: {laneBlockedBudget, laneBlockedQuota},
	ff.StateCompleted: {laneTerminal}, ff.StateFailed: {laneTerminal}, ff.StateCancelled: {laneTerminal}, ff.StateExpired: {laneTerminal},
	ff.StateSkipped: {laneTerminal},
}

// ListExecutions lists in the order of creation.
func (s *compatible) ListExecutions(ctx context.Context, c ff.ListExecutions) (ff.ListExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListExecutionsResult{}, err
	}
	after, err := parseListCursor(c.Cursor)
	if err != nil {
		return ff.ListExecutionsResult{}, err
	}
	scans, err := s.scans(ctx, &c)
	if err != nil {
		return ff.ListExecutionsResult{}, err
	}
	limit := ff.PageLimit(c.Limit)
	p := &page{limit: limit + 1, order: order(c.Oldest), after: after}
	for len(scans) > 0 {
		var texts []string
		if texts, scans, err = s.scanOn(ctx, scans); err != nil {
			return ff.ListExecutionsResult{}, err
		}
		if err := s.collect(ctx, &c, texts, p); err != nil {
			return ff.ListExecutionsResult{}, err
		}
	}
	found := p.sorted()
	var r ff.ListExecutionsResult
	if len(found) > limit {
		found = found[:limit]
		r.Next = found[limit-1].cursor()
	}
	r.Executions, err = s.readPage(ctx, found)
	return r, err
}

// page keeps the first entries of an order behind a cursor.
type page struct {
	limit int
	order func(a, b entry) int
	after entry
	found []entry
}

// add takes an entry, and drops the last ones now and then.
func (p *page) add(e entry) {
	if p.after.id != "" && p.order(e, p.after) <= 0 {
		return
	}
	if p.found = append(p.found, e); len(p.found) > 4*p.limit {
		p.found = p.sorted()
	}
}

// sorted are the entries in order, each once.
func (p *page) sorted() []entry {
	slices.SortFunc(p.found, p.order)
	p.found = slices.CompactFunc(p.found, func(a, b entry) bool { return a.id == b.id })
	p.found = p.found[:min(len(p.found), p.limit)]
	return p.found
}

// scan goes through one index, a set or a sorted set.
type scan struct {
	key    string
	scored bool
	cursor uint64
}

// scans are the indexes that have what is asked for.
func (s *compatible) scans(ctx context.Context, c *ff.ListExecutions) (list []*scan, err error) {
	if c.State == "" && c.Lane == "" {
		for p := range s.partitions.Flow {
			list = append(list, &scan{key: tagOf(p).allExecutions()})
		}
		return list, nil
	}
	lanes := []ff.LaneID{c.Lane}
	if c.Lane == "" {
		if lanes, err = s.readLanes(ctx); err != nil {
			return nil, err
		}
	}
	names := laneIndexes
	if c.State != "" {
		names = stateIndexes[c.State]
	}
	for p := range s.partitions.Flow {
		for _, lane := range lanes {
			for _, name := range names {
				list = append(list, &scan{key: tagOf(p).lane(lane, name), scored: true})
			}
		}
	}
	return list, nil
}

// scanOn reads a chunk of each scan. Those that go on are given back.
func (s *compatible) scanOn(ctx context.Context, scans []*scan) (texts []string, rest []*scan, err error) {
	commands := make([]valkey.Completed, len(scans))
	for i, x := range scans {
		if x.scored {
			commands[i] = s.client.B().Zscan().Key(x.key).Cursor(x.cursor).Count(scanChunk).Build()
		} else {
			commands[i] = s.client.B().Sscan().Key(x.key).Cursor(x.cursor).Count(scanChunk).Build()
		}
	}
	for i, r := range s.send(ctx, commands...) {
		got, err := r.AsScanEntry()
		if err != nil {
			return nil, nil, s.lift(ctx, err)
		}
		step := 1
		if scans[i].scored {
			step = 2
		}
		for j := 0; j < len(got.Elements); j += step {
			texts = append(texts, got.Elements[j])
		}
		if scans[i].cursor = got.Cursor; got.Cursor != 0 {
			rest = append(rest, scans[i])
		}
	}
	return texts, rest, nil
}

var filterFields = []string{"created_at", "lane_id", "execution_kind", "namespace", "lifecycle_phase", "ownership_state", "eligibility_state",
	"blocking_reason", "terminal_outcome", "attempt_state"}

// collect adds those that are what is asked for.
func (s *compatible) collect(ctx context.Context, c *ff.ListExecutions, texts []string, p *page) error {
	return s.eachState(ctx, texts, func(id string, g glimpse, state ff.PublicState) {
		if (c.Lane == "" || g["lane_id"] == string(c.Lane)) && (c.Kind == "" || g["execution_kind"] == c.Kind) &&
			(c.Namespace == "" || g["namespace"] == string(c.Namespace)) && (c.State == "" || state == c.State) {
			p.add(entry{g["created_at"], id})
		}
	})
}

// eachState reads what listings filter by, in chunks. What is gone or cannot be read
// is left out.
func (s *compatible) eachState(ctx context.Context, texts []string, do func(id string, g glimpse, state ff.PublicState)) error {
	for some := range slices.Chunk(texts, scanChunk) {
		var ids []ff.ExecutionID
		var commands []valkey.Completed
		for _, text := range some {
			id, err := ff.ParseExecutionID(text)
			if err != nil {
				s.log.Error("an index has something that is no execution", "value", text)
				continue
			}
			ids = append(ids, id)
			commands = append(commands, s.glimpseCommand(id, filterFields))
		}
		for i, r := range s.send(ctx, commands...) {
			g, err := glimpseOf(r, filterFields)
			if err != nil && ff.CodeOf(s.lift(ctx, err)) != ff.CodeCorruption {
				return s.lift(ctx, err)
			}
			if _, bad := strconv.ParseUint(g["created_at"], 10, 63); err == nil && bad == nil {
				do(ids[i].String(), g, stateOf(g))
			}
		}
	}
	return nil
}

func stateOf(g glimpse) ff.PublicState {
	v := ff.StateVector{Phase: ff.LifecyclePhase(g["lifecycle_phase"]), Ownership: ff.OwnershipState(g["ownership_state"]),
		Eligibility: ff.EligibilityState(g["eligibility_state"]), Blocking: ff.BlockingReason(g["blocking_reason"]),
		Outcome: ff.TerminalOutcome(g["terminal_outcome"]), Attempt: ff.AttemptPhase(g["attempt_state"])}
	return v.Public()
}

// readPage reads the records of a page. What is gone since, or damaged, is left out.
func (s *compatible) readPage(ctx context.Context, found []entry) ([]ff.Execution, error) {
	ids := make([]ff.ExecutionID, len(found))
	for i, e := range found {
		ids[i], _ = ff.ParseExecutionID(e.id)
	}
	list := make([]ff.Execution, 0, len(ids))
	for i, r := range s.describe(ctx, ids) {
		switch code := ff.CodeOf(r.err); {
		case r.err == nil:
			list = append(list, r.x)
		case code == ff.CodeCorruption:
			s.log.Error("an execution cannot be read and is left out of a listing", "execution", ids[i], "err", r.err)
		case code != ff.CodeExecutionNotFound:
			return nil, r.err
		}
	}
	return list, nil
}

// Lanes lists the lanes with their counts: the sizes of their indexes, but for what
// has ended, which is read, because the functions keep no counts by outcome. That is
// slow where many are kept.
func (s *compatible) Lanes(ctx context.Context) ([]ff.LaneStatus, error) {
	lanes, err := s.readLanes(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(lanes)
	list := make([]ff.LaneStatus, len(lanes))
	for i, lane := range lanes {
		list[i] = ff.LaneStatus{Lane: lane}
		if err := s.countLane(ctx, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// indexStates are the public states of what is in each of laneIndexes; terminal ones
// have several.
var indexStates = map[string]ff.PublicState{laneEligible: ff.StateWaiting, laneDelayed: ff.StateDelayed, laneActive: ff.StateActive,
	laneSuspended: ff.StateSuspended, laneBlockedDependencies: ff.StateWaitingChildren, laneBlockedBudget: ff.StateRateLimited,
	laneBlockedQuota: ff.StateRateLimited, laneBlockedRoute: ff.StateWaiting, laneBlockedOperator: ff.StateWaiting}

func (s *compatible) countLane(ctx context.Context, l *ff.LaneStatus) error {
	var commands []valkey.Completed
	for p := range s.partitions.Flow {
		for _, name := range laneIndexes {
			commands = append(commands, s.client.B().Zcard().Key(tagOf(p).lane(l.Lane, name)).Build())
		}
	}
	l.Counts = map[ff.PublicState]int{}
	var ended []*scan
	for i, r := range s.send(ctx, commands...) {
		n, err := r.AsInt64()
		if err != nil {
			return s.lift(ctx, err)
		}
		p, name := uint16(i/len(laneIndexes)), laneIndexes[i%len(laneIndexes)]
		switch {
		case n == 0:
		case name == laneTerminal:
			ended = append(ended, &scan{key: tagOf(p).lane(l.Lane, name), scored: true})
		default:
			l.Counts[indexStates[name]] += int(n)
			if name == laneEligible {
				err = s.oldestWaiting(ctx, p, l)
			}
		}
		if err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for len(ended) > 0 {
		texts, rest, err := s.scanOn(ctx, ended)
		if err != nil {
			return err
		}
		err = s.eachState(ctx, texts, func(id string, _ glimpse, state ff.PublicState) {
			if !seen[id] {
				l.Counts[state]++
			}
			seen[id] = true
		})
		if ended = rest; err != nil {
			return err
		}
	}
	return nil
}

// priorityStep is how far apart the scores of two priorities are (spec 03 §29.1), and
// priorityRoom how far a clock may be behind that by which executions were created.
const (
	priorityStep = 1_000_000_000_000
	priorityRoom = int64(time.Hour / time.Millisecond)
)

// oldestWaiting finds the longest waiting of a partition: the first of each priority
// that there is, from the highest down.
func (s *compatible) oldestWaiting(ctx context.Context, p uint16, l *ff.LaneStatus) error {
	now, err := s.Now(ctx)
	if err != nil {
		return err
	}
	for after := "-inf"; ; {
		list, err := s.client.Do(ctx, s.client.B().Zrangebyscore().Key(tagOf(p).lane(l.Lane, laneEligible)).Min(after).Max("+inf").Withscores().
			Limit(0, 1).Build()).AsZScores()
		if err != nil || len(list) == 0 {
			return s.lift(ctx, err)
		}
		latest := now.UnixMilli() + priorityRoom
		score := int64(list[0].Score)
		priority := (latest - score) / priorityStep
		at := time.UnixMilli(score + priority*priorityStep)
		if l.Oldest.IsZero() || at.Before(l.Oldest) {
			l.Oldest = at
		}
		after = "(" + itoa(latest-priority*priorityStep)
	}
}

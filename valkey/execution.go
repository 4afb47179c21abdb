package valkey

import (
	"context"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// submission is a checked command with its id and policy as they are written.
type submission struct {
	c      ff.CreateExecution
	id     ff.ExecutionID
	policy string
	// newLane is not empty when the partition may have no execution of the lane.
	newLane string
}

// place is where the execution will be.
func (p *submission) place() place { return place{p.c.Lane, p.id.Partition()} }

// due is until when the execution is held back, when it is not relative.
func (p *submission) due() time.Time {
	switch {
	case p.c.Delay > 0:
		return time.Time{}
	case !p.c.DelayUntil.IsZero():
		return p.c.DelayUntil
	case p.c.Policy != nil:
		return p.c.Policy.DelayUntil
	}
	return time.Time{}
}

// prepare checks a command.
func (s *Store) prepare(c *ff.CreateExecution) (p submission, err error) {
	if err := c.Validate(); err != nil {
		return p, err
	}
	if p.id, err = c.Identify(s.partitions); err != nil {
		return p, err
	}
	p.c = *c
	p.policy, err = policyText(c.Policy)
	return p, err
}

// CreateExecution stores an execution.
func (s *Store) CreateExecution(ctx context.Context, c ff.CreateExecution) (ff.CreateExecutionResult, error) {
	p, err := s.prepare(&c)
	if err != nil {
		return ff.CreateExecutionResult{}, err
	}
	results, err := s.create(ctx, []submission{p})
	if err != nil {
		return ff.CreateExecutionResult{}, err
	}
	return results[0], nil
}

// CreateExecutions stores many executions, all or none. On a cluster that holds
// for those of one partition; the partitions are written one after another, and
// what an error leaves unwritten may be submitted again with the same ids.
func (s *Store) CreateExecutions(ctx context.Context, c ff.CreateExecutions) (ff.CreateExecutionsResult, error) {
	items, err := s.prepareAll(&c)
	if err != nil {
		return ff.CreateExecutionsResult{}, err
	}
	results, err := s.inGroups(items, func(some []submission) ([]ff.CreateExecutionResult, error) { return s.create(ctx, some) })
	return ff.CreateExecutionsResult{Results: results}, err
}

// prepareAll checks a batch.
func (s *Store) prepareAll(c *ff.CreateExecutions) ([]submission, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	items := make([]submission, len(c.Executions))
	for i := range c.Executions {
		p, err := s.prepare(&c.Executions[i])
		if err != nil {
			return nil, ff.AtItem("executions", i, err)
		}
		items[i] = p
	}
	return items, nil
}

// inGroups creates a batch in the groups that may be created together.
func (s *Store) inGroups(items []submission, create func([]submission) ([]ff.CreateExecutionResult, error)) ([]ff.CreateExecutionResult, error) {
	results := make([]ff.CreateExecutionResult, len(items))
	for _, group := range s.groups(len(items), func(i int) uint16 { return items[i].id.Partition() }) {
		some := make([]submission, len(group))
		for i, at := range group {
			some[i] = items[at]
		}
		got, err := create(some)
		if err != nil {
			return nil, err
		}
		for i, at := range group {
			results[at] = got[i]
		}
	}
	return results, nil
}

// groups divides the items of a batch into those that one call may have: all of
// them, or on a cluster those of a partition.
func (s *Store) groups(n int, partition func(int) uint16) [][]int {
	var groups [][]int
	at := map[uint16]int{}
	for i := range n {
		p := uint16(0)
		if s.cluster {
			p = partition(i)
		}
		g, ok := at[p]
		if !ok {
			g = len(groups)
			at[p], groups = g, append(groups, nil)
		}
		groups[g] = append(groups[g], i)
	}
	return groups
}

func (s *Store) create(ctx context.Context, items []submission) ([]ff.CreateExecutionResult, error) {
	lanes := make([]ff.LaneID, len(items))
	for i := range items {
		lanes[i] = items[i].c.Lane
		if !s.lanes.isAt(items[i].place()) {
			items[i].newLane = "1"
		}
	}
	if err := s.announce(ctx, lanes...); err != nil {
		return nil, err
	}
	c := callCreate(items)
	m, err := s.do(ctx, &c)
	if err != nil {
		return nil, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 3*len(items) {
		return nil, ff.NewError(ff.CodeInternal, "ffx_create answered something unexpected")
	}
	results := make([]ff.CreateExecutionResult, len(items))
	for i := range results {
		r := reply(list[3*i : 3*i+3])
		id, err := ff.ParseExecutionID(r.text(1))
		if err != nil {
			return nil, ff.Errorf(ff.CodeCorruption, "the idempotency key %.60q names %.60q, which is no execution", items[i].c.IdempotencyKey, r.text(1))
		}
		results[i] = ff.CreateExecutionResult{ID: id, State: ff.PublicState(r.text(2)), Duplicate: r.number(0) == 1}
		s.lanes.put(items[i].place())
		if lane := items[i].c.Lane; id.Partition() != s.partitions.LanePartition(lane) {
			s.wakeups.hint(lane, id.Partition())
		}
	}
	return results, nil
}

// Execution reads the record.
func (s *Store) Execution(ctx context.Context, id ff.ExecutionID) (ff.Execution, error) {
	if err := s.checkID(id); err != nil {
		return ff.Execution{}, err
	}
	c := callRead([]ff.ExecutionID{id})
	m, err := s.do(ctx, &c)
	if err != nil {
		return ff.Execution{}, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 1 {
		return ff.Execution{}, ff.NewError(ff.CodeInternal, "ffx_read answered something unexpected")
	}
	return described(id, &list[0])
}

func (s *Store) checkID(id ff.ExecutionID) error {
	if id.IsZero() {
		return ff.InvalidInput("execution_id", "must not be empty")
	}
	return nil
}

// ExecutionPayload reads the input.
func (s *Store) ExecutionPayload(ctx context.Context, id ff.ExecutionID) (ff.ExecutionPayload, error) {
	x, err := s.Execution(ctx, id)
	if err != nil {
		return ff.ExecutionPayload{}, err
	}
	input, err := s.blob(ctx, keysOf(id).payload())
	return ff.ExecutionPayload{Payload: input, Encoding: x.PayloadEncoding, Kind: x.Kind, Tags: x.Tags}, err
}

// ExecutionResult reads the result; nil when there is none.
func (s *Store) ExecutionResult(ctx context.Context, id ff.ExecutionID) ([]byte, error) {
	if err := s.exists(ctx, id); err != nil {
		return nil, err
	}
	return s.blob(ctx, keysOf(id).result())
}

func (s *Store) exists(ctx context.Context, id ff.ExecutionID) error {
	if err := s.checkID(id); err != nil {
		return err
	}
	m, err := s.plain(ctx, s.client.B().Exists().Key(keysOf(id).core()).Build())
	if err != nil {
		return err
	}
	if n, _ := m.AsInt64(); n == 0 {
		return ff.NewError(ff.CodeExecutionNotFound, id.String())
	}
	return nil
}

func (s *Store) blob(ctx context.Context, key string) ([]byte, error) {
	b, err := s.client.Do(ctx, s.client.B().Get().Key(key).Build()).AsBytes()
	if valkey.IsValkeyNil(err) {
		return nil, nil
	}
	return b, s.lift(ctx, err)
}

// Attempts lists the attempts in order.
func (s *Store) Attempts(ctx context.Context, id ff.ExecutionID) ([]ff.Attempt, error) {
	x, err := s.Execution(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.attemptsOf(ctx, &x)
}

func (s *Store) attemptsOf(ctx context.Context, x *ff.Execution) (list []ff.Attempt, err error) {
	if x.TotalAttempts == 0 {
		return nil, nil
	}
	for len(list) < x.TotalAttempts { // in parts: the number may be damaged
		commands := make([]valkey.Completed, min(attemptsTogether, x.TotalAttempts-len(list)))
		for i := range commands {
			commands[i] = s.client.B().Hgetall().Key(keysOf(x.ID).attempt(len(list) + i)).Build()
		}
		for _, r := range s.client.DoMulti(ctx, commands...) {
			hash, err := r.AsStrMap()
			if err != nil {
				return nil, damage(x.ID, s.lift(ctx, err))
			}
			a, err := attemptOf("execution "+x.ID.String(), hash)
			if err != nil {
				return nil, err
			}
			if n := len(list); n > 0 {
				endFollowed(&list[n-1], &a)
			}
			list = append(list, a)
		}
	}
	endLast(&list[len(list)-1], x)
	return list, nil
}

const attemptsTogether = 500

// damage names the execution in an error that says that data cannot be read.
func damage(id ff.ExecutionID, err error) error {
	if ff.CodeOf(err) != ff.CodeCorruption {
		return err
	}
	return ff.Errorf(ff.CodeCorruption, "execution %s cannot be read: %w", id, err)
}

// CancelExecution ends an execution.
func (s *Store) CancelExecution(ctx context.Context, c ff.CancelExecution) (ff.CancelExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CancelExecutionResult{}, err
	}
	call := callCancel(&c)
	r, err := s.answer(ctx, &call)
	if err != nil {
		return ff.CancelExecutionResult{}, err
	}
	return ff.CancelExecutionResult{State: ff.StateCancelled, Previous: ff.LifecyclePhase(r.text(0))}, nil
}

// useCompatible is what an extension answers when the compatible function must do
// it, because it knows parts of a record that the extension does not.
const useCompatible = "use_compatible"

// ChangePriority moves a waiting execution.
func (s *Store) ChangePriority(ctx context.Context, c ff.ChangePriority) (ff.ChangePriorityResult, error) {
	if err := s.checkID(c.ID); err != nil {
		return ff.ChangePriorityResult{}, err
	}
	call := callChangePriority(&c)
	r, err := s.answer(ctx, &call)
	return ff.ChangePriorityResult{Old: int(r.number(0)), New: int(r.number(1))}, err
}

// ReplayExecution starts a terminal execution again.
func (s *Store) ReplayExecution(ctx context.Context, c ff.ReplayExecution) (ff.ReplayExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReplayExecutionResult{}, err
	}
	call := callReplay(&c)
	r, err := s.answer(ctx, &call)
	if err != nil {
		return ff.ReplayExecutionResult{}, err
	}
	if r.text(0) == useCompatible {
		return s.replaySkipped(ctx, &c)
	}
	return ff.ReplayExecutionResult{State: ff.StateWaiting}, nil
}

// replaySkipped replays a member of a flow that was skipped: it waits for its
// dependencies again (spec 07 §8.3).
func (s *Store) replaySkipped(ctx context.Context, c *ff.ReplayExecution) (ff.ReplayExecutionResult, error) {
	x, err := s.Execution(ctx, c.ID)
	if err != nil {
		return ff.ReplayExecutionResult{}, err
	}
	edges, err := s.client.Do(ctx, s.client.B().Smembers().Key(tagOf(c.ID.Partition()).incoming(x.FlowID, c.ID)).Build()).AsStrSlice()
	if err != nil {
		return ff.ReplayExecutionResult{}, s.lift(ctx, err)
	}
	now, err := s.Now(ctx)
	if err != nil {
		return ff.ReplayExecutionResult{}, err
	}
	call := callReplaySkipped(c.ID, x.Lane, edges, now)
	if _, err := s.answer(ctx, &call); err != nil {
		return ff.ReplayExecutionResult{}, err
	}
	x, err = s.Execution(ctx, c.ID)
	return ff.ReplayExecutionResult{State: x.PublicState()}, err
}

// SetExecutionTags adds tags.
func (s *Store) SetExecutionTags(ctx context.Context, c ff.SetExecutionTags) (ff.SetExecutionTagsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SetExecutionTagsResult{}, err
	}
	call := callSetTags(&c)
	r, err := s.answer(ctx, &call)
	if err != nil {
		return ff.SetExecutionTagsResult{}, err
	}
	tags, err := pairsOf(&r[0])
	return ff.SetExecutionTagsResult{Tags: tags}, err
}

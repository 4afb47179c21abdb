package valkey

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// CreateExecution stores an execution.
func (s *compatible) CreateExecution(ctx context.Context, c ff.CreateExecution) (ff.CreateExecutionResult, error) {
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
func (s *compatible) CreateExecutions(ctx context.Context, c ff.CreateExecutions) (ff.CreateExecutionsResult, error) {
	items, err := s.prepareAll(&c)
	if err != nil {
		return ff.CreateExecutionsResult{}, err
	}
	results, err := s.inGroups(items, func(some []submission) ([]ff.CreateExecutionResult, error) { return s.create(ctx, some) })
	return ff.CreateExecutionsResult{Results: results}, err
}

// create stores executions together, and again those whose idempotency key named an
// execution that is gone.
func (s *compatible) create(ctx context.Context, items []submission) ([]ff.CreateExecutionResult, error) {
	lanes := make([]ff.LaneID, len(items))
	for i := range items {
		lanes[i] = items[i].c.Lane
	}
	if err := s.announce(ctx, lanes...); err != nil {
		return nil, err
	}
	results := make([]ff.CreateExecutionResult, len(items))
	todo := make([]int, len(items))
	for i := range items {
		todo[i] = i
	}
	for try := 0; len(todo) > 0; try++ {
		if try == watchTries {
			return nil, ff.NewError(ff.CodeRetryExhausted, "the idempotency keys change all the time: retry")
		}
		some := make([]submission, len(todo))
		for n, i := range todo {
			some[n] = items[i]
		}
		got, err := s.createOnce(ctx, some)
		if err != nil {
			return nil, err
		}
		var again []int
		for n, i := range todo {
			if results[i] = got[n]; got[n].State == "" {
				again = append(again, i)
			}
		}
		todo = again
	}
	return results, nil
}

// createOnce makes the calls. A result without a state is a key whose execution is
// gone; the key is then gone as well.
func (s *compatible) createOnce(ctx context.Context, items []submission) ([]ff.CreateExecutionResult, error) {
	calls, due, err := s.createCalls(ctx, items)
	if err != nil {
		return nil, err
	}
	replies, err := s.sendCreates(ctx, items, calls)
	if err != nil {
		return nil, err
	}
	results := make([]ff.CreateExecutionResult, len(items))
	var follow []valkey.Completed
	var known []int
	for i, r := range replies {
		if results[i].ID, err = ff.ParseExecutionID(r.text(0)); err != nil {
			return nil, ff.Errorf(ff.CodeCorruption, "the idempotency key %.60q names %.60q, which is no execution", items[i].c.IdempotencyKey, r.text(0))
		}
		if len(r) == 1 {
			results[i].Duplicate = true
			known = append(known, i)
			continue
		}
		if lane, p := items[i].c.Lane, items[i].id.Partition(); p != s.partitions.LanePartition(lane) {
			s.wakeups.hint(lane, p)
			s.noteLane(ctx, items[i].place())
		}
		switch results[i].State = ff.PublicState(r.text(1)); {
		case due[i].IsZero():
		case results[i].State == ff.StateDelayed:
			follow = append(follow, s.dueCommand(due[i]))
		default:
			s.lineUp(ctx, &items[i])
		}
	}
	s.follow(ctx, follow...)
	return results, s.readKnown(ctx, items, results, known)
}

// createCalls are the calls, and until when each is held back. The clock is read
// when something depends on it.
func (s *compatible) createCalls(ctx context.Context, items []submission) (calls []call, due []time.Time, err error) {
	var now time.Time
	for i := range items {
		if items[i].timed() && now.IsZero() {
			if now, err = s.Now(ctx); err != nil {
				return nil, nil, err
			}
		}
	}
	for i := range items {
		at, deadline := items[i].instants(now)
		calls, due = append(calls, callCompatibleCreate(&items[i], at, deadline)), append(due, at)
	}
	return calls, due, nil
}

// timed reports whether the execution depends on what time it is.
func (p *submission) timed() bool {
	relative := p.c.Policy != nil && p.c.Policy.Timeout != nil && p.c.Policy.Timeout.Deadline > 0
	return relative || p.c.Delay > 0 || !p.due().IsZero()
}

// instants are until when the execution is held back, zero when that is over, and
// its deadline: the earlier of the command's and the policy's.
func (p *submission) instants(now time.Time) (due, deadline time.Time) {
	if due = p.due(); p.c.Delay > 0 {
		due = now.Add(p.c.Delay)
	}
	if !due.After(now) {
		due = time.Time{}
	}
	deadline = p.c.Deadline
	if p.c.Policy != nil && p.c.Policy.Timeout != nil && p.c.Policy.Timeout.Deadline > 0 {
		if at := now.Add(p.c.Policy.Timeout.Deadline); deadline.IsZero() || at.Before(deadline) {
			deadline = at
		}
	}
	return due, deadline
}

// sendCreates makes one call as it is; several, and those with fields of this
// implementation, in a transaction, so that nobody sees a part of them.
func (s *compatible) sendCreates(ctx context.Context, items []submission, calls []call) ([]reply, error) {
	own := make([][]string, len(items))
	plain := len(items) == 1
	for i := range items {
		own[i] = ownFields(&items[i], &calls[i])
		plain = plain && len(own[i]) == 0
	}
	if plain {
		r, err := s.answer(ctx, &calls[0])
		return []reply{r}, err
	}
	var keys []string
	for i := range calls {
		keys = append(keys, calls[i].keys[0], calls[i].keys[5])
	}
	var at []int
	answers, err := s.watched(ctx, keys, func(ctx context.Context, c valkey.DedicatedClient) (batch []valkey.Completed, err error) {
		there, err := s.present(ctx, c, keys)
		if err == nil && len(calls) > 1 {
			err = s.misfit(ctx, c, calls)
		}
		if err != nil {
			return nil, err
		}
		at = at[:0]
		for i := range calls {
			core, key := calls[i].keys[0], calls[i].keys[5]
			at, batch = append(at, len(batch)), append(batch, s.completed(&calls[i]))
			named := items[i].c.IdempotencyKey != ""
			if there[core] || named && there[key] {
				continue // a duplicate: it keeps its own fields
			}
			if there[core] = true; named {
				there[key] = true
			}
			if len(own[i]) > 0 {
				batch = append(batch, hset(s.client.B(), core, own[i]...))
			}
		}
		return batch, nil
	})
	if err != nil {
		return nil, err
	}
	replies := make([]reply, len(calls))
	for i, n := range at {
		err := answers[n].Error()
		if err != nil {
			err = s.lift(ctx, err)
		} else {
			replies[i], err = readReply(calls[i].function, &answers[n])
		}
		if err != nil {
			return nil, ff.AtItem("executions", i, err)
		}
	}
	return replies, nil
}

// noteLane notes that a partition has executions of a lane. Who waits for the lane has
// no mark there before.
func (s *compatible) noteLane(ctx context.Context, at place) {
	if s.lanes.isAt(at) {
		return
	}
	n, err := s.client.Do(ctx, s.client.B().Sadd().Key(tagOf(at.partition).lanes()).Member(string(at.lane)).Build()).AsInt64()
	if err != nil {
		s.log.Warn("a lane could not be noted; who waits for it polls", "lane", at.lane, "partition", at.partition, "err", err)
		return
	}
	if s.lanes.put(at); n == 1 {
		s.follow(ctx, s.client.B().Publish().Channel(wakeChannel).Message(string(tagOf(at.partition))+string(at.lane)).Build())
	}
}

// ownFields are the fields of the core that ff_create_execution does not write.
func ownFields(p *submission, c *call) (pairs []string) {
	if p.c.PayloadEncoding != "" {
		pairs = append(pairs, "payload_encoding", p.c.PayloadEncoding)
	}
	if deadline := c.args[11]; deadline != "" {
		pairs = append(pairs, "execution_deadline_at", deadline)
	}
	return pairs
}

// hset writes pairs of fields and values.
func hset(b valkey.Builder, key string, pairs ...string) valkey.Completed {
	command := b.Hset().Key(key).FieldValue()
	for i := 0; i < len(pairs); i += 2 {
		command = command.FieldValue(pairs[i], pairs[i+1])
	}
	return command.Build()
}

// present tells which keys there are.
func (s *compatible) present(ctx context.Context, c valkey.DedicatedClient, keys []string) (map[string]bool, error) {
	commands := make([]valkey.Completed, len(keys))
	for i, key := range keys {
		commands[i] = c.B().Exists().Key(key).Build()
	}
	there := make(map[string]bool, len(keys))
	for i, r := range c.DoMulti(ctx, commands...) {
		n, err := r.AsInt64()
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		there[keys[i]] = n == 1
	}
	return there, nil
}

// createTypes are the types of the keys of ff_create_execution that it cannot use
// when they have another.
var createTypes = map[int]string{0: "hash", 3: "hash", 4: "zset", 5: "string", 6: "zset", 7: "set"}

// misfit finds keys of other types than the calls want: a transaction does not undo
// what it did before the call that meets one.
func (s *compatible) misfit(ctx context.Context, c valkey.DedicatedClient, calls []call) error {
	want := map[string]string{}
	for i := range calls {
		for n, kind := range createTypes {
			want[calls[i].keys[n]] = kind
		}
	}
	keys := slices.Sorted(maps.Keys(want))
	commands := make([]valkey.Completed, len(keys))
	for i, key := range keys {
		commands[i] = c.B().Type().Key(key).Build()
	}
	for i, r := range c.DoMulti(ctx, commands...) {
		kind, err := r.ToString()
		if err != nil {
			return s.lift(ctx, err)
		}
		if kind != "none" && kind != want[keys[i]] {
			return ff.Errorf(ff.CodeCorruption, "%s: %s is a %s instead of a %s", replyAdvice["WRONGTYPE"].advice, keys[i], kind, want[keys[i]])
		}
	}
	return nil
}

// lineUp moves an execution whose delay ended between the look at the clock and its
// creation to where it is claimed from (quirk 03 Q1).
func (s *compatible) lineUp(ctx context.Context, p *submission) {
	if _, err := s.restore(ctx, p.id); err != nil {
		s.log.Warn("an execution whose delay is over is claimed only after the next repair of the indexes", "execution", p.id, "err", err)
	}
}

// readKnown completes the answers about duplicates. A key whose execution is gone
// is removed.
func (s *compatible) readKnown(ctx context.Context, items []submission, results []ff.CreateExecutionResult, known []int) error {
	if len(known) == 0 {
		return nil
	}
	ids := make([]ff.ExecutionID, len(known))
	for n, i := range known {
		ids[n] = results[i].ID
	}
	states, _, err := s.glimpses(ctx, ids, "public_state")
	if err != nil {
		return err
	}
	for n, i := range known {
		if results[i].State = ff.PublicState(states[n]["public_state"]); states[n] == nil {
			key := tagOf(items[i].id.Partition()).idempotency(items[i].c.Namespace, items[i].c.IdempotencyKey)
			if err := s.dropKey(ctx, key, results[i].ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropKey removes an idempotency key if it still names an execution that is gone.
func (s *compatible) dropKey(ctx context.Context, key string, id ff.ExecutionID) error {
	_, err := s.watched(ctx, []string{key}, func(ctx context.Context, c valkey.DedicatedClient) ([]valkey.Completed, error) {
		named, err := c.Do(ctx, c.B().Get().Key(key).Build()).ToString()
		if err != nil && !valkey.IsValkeyNil(err) || named != id.String() {
			return nil, s.lift(ctx, err)
		}
		return []valkey.Completed{c.B().Del().Key(key).Build()}, nil
	})
	return err
}

package valkey

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// Reading of records: what the extension reads in one call takes two pipelines here.

// partCommands read the parts of a record but for the attempt.
func (s *compatible) partCommands(id ff.ExecutionID) []valkey.Completed {
	k, t, b := keysOf(id), tagOf(id.Partition()), s.client.B()
	return []valkey.Completed{
		b.Hgetall().Key(k.core()).Build(), b.Get().Key(k.policy()).Build(), b.Hgetall().Key(k.tags()).Build(),
		b.Hgetall().Key(k.claimGrant()).Build(), b.Zscore().Key(t.executionDeadline()).Member(id.String()).Build(),
		b.Zscore().Key(t.attemptTimeout()).Member(id.String()).Build(), b.Zscore().Key(t.suspensionTimeout()).Member(id.String()).Build(),
	}
}

const partCount = 7

// readParts reads the answers to partCommands. Found is false when there is no such
// execution.
func readParts(r []valkey.ValkeyResult) (p parts, found bool, err error) {
	if p.core, err = r[0].AsStrMap(); err != nil || len(p.core) == 0 {
		return p, false, err
	}
	if p.policy, err = r[1].ToString(); err != nil && !valkey.IsValkeyNil(err) {
		return p, true, err
	}
	if p.tags, err = r[2].AsStrMap(); err != nil {
		return p, true, err
	}
	if p.grant, err = r[3].AsStrMap(); err != nil {
		return p, true, err
	}
	if p.deadline, err = scoreText(r[4]); err != nil {
		return p, true, err
	}
	if p.attemptTimeout, err = scoreText(r[5]); err != nil {
		return p, true, err
	}
	p.core["suspension_timeout_at"], err = scoreText(r[6])
	p.followIndexes()
	return p, true, err
}

// scoreText is a score in plain digits; empty when there is none.
func scoreText(r valkey.ValkeyResult) (string, error) {
	score, err := r.AsFloat64()
	if valkey.IsValkeyNil(err) {
		return "", nil
	}
	return strconv.FormatFloat(score, 'f', -1, 64), err
}

// attemptCommand reads the latest attempt; false when there is none.
func (s *compatible) attemptCommand(id ff.ExecutionID, p *parts) (valkey.Completed, bool) {
	n, err := strconv.Atoi(p.core["current_attempt_index"])
	if err != nil || n < 0 {
		return valkey.Completed{}, false
	}
	return s.client.B().Hgetall().Key(keysOf(id).attempt(n)).Build(), true
}

// record is one that was asked for.
type record struct {
	x     ff.Execution
	parts parts
	err   error
}

// describeTries bounds how often a record that changes while it is read is read
// again.
const describeTries = 4

// describe reads records. Errors of one: execution_not_found, corruption.
func (s *compatible) describe(ctx context.Context, ids []ff.ExecutionID) []record {
	list := make([]record, len(ids))
	todo := make([]int, len(ids))
	for i := range ids {
		todo[i] = i
	}
	for try := 1; len(todo) > 0; try++ {
		todo = s.describeOnce(ctx, ids, list, todo, try == describeTries)
	}
	return list
}

// describeOnce reads the records of todo and gives those that changed in between.
func (s *compatible) describeOnce(ctx context.Context, ids []ff.ExecutionID, list []record, todo []int, last bool) (changed []int) {
	var commands []valkey.Completed
	for _, i := range todo {
		commands = append(commands, s.partCommands(ids[i])...)
	}
	results := s.send(ctx, commands...)
	commands = commands[:0:0]
	var running []int
	for n, i := range todo {
		p, found, err := readParts(results[n*partCount : (n+1)*partCount])
		list[i] = record{parts: p, err: s.recordError(ctx, ids[i], found, err)}
		if list[i].err != nil {
			continue
		}
		if attempt, any := s.attemptCommand(ids[i], &p); any {
			running = append(running, i)
			commands = append(commands, attempt, s.client.B().Hgetall().Key(keysOf(ids[i]).core()).Build())
		} else {
			list[i].x, list[i].err = list[i].parts.execution(ids[i])
		}
	}
	for n, r := range s.send(ctx, commands...) {
		i := running[n/2]
		switch n % 2 {
		case 0:
			var err error
			list[i].parts.attempt, err = r.AsStrMap()
			list[i].err = s.recordError(ctx, ids[i], true, err)
		case 1:
			now, err := r.AsStrMap()
			if err == nil && !last && !maps.Equal(now, list[i].parts.core) {
				changed = append(changed, i)
			} else if list[i].err == nil {
				list[i].x, list[i].err = list[i].parts.execution(ids[i])
			}
		}
	}
	return changed
}

// recordError is why a record could not be read.
func (s *compatible) recordError(ctx context.Context, id ff.ExecutionID, found bool, err error) error {
	if err == nil && !found {
		return ff.NewError(ff.CodeExecutionNotFound, id.String())
	}
	return damage(id, s.lift(ctx, err))
}

// describeWatched reads a record, and the clock, on a connection that watches it.
func (s *compatible) describeWatched(ctx context.Context, c valkey.DedicatedClient, id ff.ExecutionID) (r record, now time.Time, err error) {
	results := c.DoMulti(ctx, append(s.partCommands(id), c.B().Time().Build())...)
	p, found, err := readParts(results)
	if err := s.recordError(ctx, id, found, err); err != nil {
		return r, now, err
	}
	if now, err = instantOf(results[partCount]); err != nil {
		return r, now, s.lift(ctx, err)
	}
	if attempt, any := s.attemptCommand(id, &p); any {
		if p.attempt, err = c.Do(ctx, attempt).AsStrMap(); err != nil {
			return r, now, s.recordError(ctx, id, true, err)
		}
	}
	r.parts = p
	r.x, err = p.execution(id)
	return r, now, err
}

// holding is where the execution is and who has it.
func (r *record) holding() holding { return glimpse(r.parts.core).holding() }

// Execution reads the record.
func (s *compatible) Execution(ctx context.Context, id ff.ExecutionID) (ff.Execution, error) {
	if err := s.checkID(id); err != nil {
		return ff.Execution{}, err
	}
	r := s.describe(ctx, []ff.ExecutionID{id})[0]
	return r.x, r.err
}

// ExecutionPayload reads the input.
func (s *compatible) ExecutionPayload(ctx context.Context, id ff.ExecutionID) (ff.ExecutionPayload, error) {
	x, err := s.Execution(ctx, id)
	if err != nil {
		return ff.ExecutionPayload{}, err
	}
	input, err := s.blob(ctx, keysOf(id).payload())
	return ff.ExecutionPayload{Payload: input, Encoding: x.PayloadEncoding, Kind: x.Kind, Tags: x.Tags}, err
}

// Attempts lists the attempts in order.
func (s *compatible) Attempts(ctx context.Context, id ff.ExecutionID) ([]ff.Attempt, error) {
	x, err := s.Execution(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.attemptsOf(ctx, &x)
}

package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

var (
	insertPayload  = statement("insert into payloads (seq, input) values ($1, $2)")
	replacePayload = statement("insert into payloads (seq, input) values ($1, $2) on conflict (seq) do update set input = excluded.input")
	deletePayload  = statement("delete from payloads where seq = $1")
	selectPayload  = statement("select input from payloads where seq = $1")

	insertResult = statement("insert into results (seq, result) values ($1, $2)")
	deleteResult = statement("delete from results where seq = $1")
	selectResult = statement("select result from results where seq = $1")

	selectKey = statement("select seq, expires_at from idempotency where namespace = $1 and partition = $2 and key = $3")
	upsertKey = statement(`insert into idempotency (namespace, partition, key, seq, expires_at) values ($1, $2, $3, $4, $5)
on conflict (namespace, partition, key) do update set seq = excluded.seq, expires_at = excluded.expires_at`)
)

// CreateExecution stores an execution.
func (s *Store) CreateExecution(ctx context.Context, c ff.CreateExecution) (ff.CreateExecutionResult, error) {
	p, err := s.prepare(&c)
	if err != nil {
		return ff.CreateExecutionResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.CreateExecutionResult, error) { return t.create(&p) })
}

// CreateExecutions stores many executions, all or none.
func (s *Store) CreateExecutions(ctx context.Context, c ff.CreateExecutions) (ff.CreateExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CreateExecutionsResult{}, err
	}
	prepared := make([]submission, len(c.Executions))
	for i := range c.Executions {
		p, err := s.prepare(&c.Executions[i])
		if err != nil {
			return ff.CreateExecutionsResult{}, ff.AtItem("executions", i, err)
		}
		prepared[i] = p
	}
	return write(ctx, s, func(t *tx) (ff.CreateExecutionsResult, error) {
		// Nothing below refuses: everything was checked, duplicates are answers.
		results := make([]ff.CreateExecutionResult, len(prepared))
		for i := range prepared {
			r, err := t.create(&prepared[i])
			if err != nil {
				return ff.CreateExecutionsResult{}, err
			}
			results[i] = r
		}
		return ff.CreateExecutionsResult{Results: results}, nil
	})
}

// submission is a checked command with what can be made of it outside the
// writer.
type submission struct {
	c      ff.CreateExecution
	id     ff.ExecutionID
	policy string
}

// prepare checks a command.
func (s *Store) prepare(c *ff.CreateExecution) (submission, error) {
	if err := c.Validate(); err != nil {
		return submission{}, err
	}
	id, err := c.Identify(s.partitions)
	if err != nil {
		return submission{}, err
	}
	p := submission{c: *c, id: id}
	p.c.DelayUntil, p.c.Deadline = round(c.DelayUntil), round(c.Deadline)
	if c.Policy != nil {
		b, err := json.Marshal(c.Policy)
		if err != nil {
			return submission{}, ff.NewError(ff.CodeInvalidPolicyJSON, err.Error())
		}
		p.policy = string(b)
	}
	return p, nil
}

func (t *tx) create(p *submission) (ff.CreateExecutionResult, error) {
	known, err := t.s.selectRecord(t.c, p.id)
	if err != nil {
		return ff.CreateExecutionResult{}, err
	}
	if known == nil && p.c.IdempotencyKey != "" {
		known, err = t.byKey(p)
		if err != nil {
			return ff.CreateExecutionResult{}, err
		}
	}
	if known != nil {
		return ff.CreateExecutionResult{ID: known.x.ID, State: known.x.PublicState(), Duplicate: true}, nil
	}
	rec, err := t.insert(p)
	if err != nil {
		return ff.CreateExecutionResult{}, err
	}
	return ff.CreateExecutionResult{ID: rec.x.ID, State: rec.x.PublicState()}, nil
}

// byKey finds the execution that an idempotency key names, nil when its window
// has passed.
func (t *tx) byKey(p *submission) (*record, error) {
	namespace, ok := t.s.names.id(string(p.c.Namespace))
	if !ok {
		return nil, nil
	}
	var seq int64
	args := []Value{integer(namespace), integer(int64(p.id.Partition())), text(p.c.IdempotencyKey)}
	err := t.query(selectKey, args, func(r Row) error {
		if readInstant(r, 1).After(t.now) {
			seq = r.Int(0)
		}
		return nil
	})
	if err != nil || seq == 0 {
		return nil, err
	}
	return t.bySeq(seq)
}

func (t *tx) insert(p *submission) (*record, error) {
	x := lifecycle.Create(&p.c, p.id, t.now)
	rec := &record{x: x, policy: p.policy, key: p.c.IdempotencyKey}
	if err := t.name(rec); err != nil {
		return nil, err
	}
	var err error
	if rec.seq, err = t.seqs.take(t); err != nil {
		return nil, err
	}
	rec.derived = derive(&rec.x, t.s.retention)
	t.args = insertValues(t.args[:0], rec)
	if err := t.exec(insertExecution, t.args...); err != nil {
		return nil, err
	}
	if len(p.c.Payload) > 0 {
		if err := t.exec(insertPayload, integer(rec.seq), borrow(p.c.Payload)); err != nil {
			return nil, err
		}
	}
	if rec.key != "" {
		if err := t.exec(upsertKey, integer(rec.namespace), integer(int64(rec.x.ID.Partition())), text(rec.key),
			integer(rec.seq), instant(t.now.Add(p.c.DedupWindow()))); err != nil {
			return nil, err
		}
	}
	t.note(rec, &derived{}, "")
	return rec, nil
}

// name fills in the numbers of the record's names.
func (t *tx) name(rec *record) (err error) {
	for _, n := range []struct {
		into *int64
		text string
	}{{&rec.namespace, string(rec.x.Namespace)}, {&rec.lane, string(rec.x.Lane)}, {&rec.kind, rec.x.Kind}} {
		if *n.into, err = t.intern(t.s.names, insertName, n.text); err != nil {
			return err
		}
	}
	rec.caps, err = t.intern(t.s.capabilities.interned, insertCapabilitySet, rec.x.Required.CSV())
	return err
}

// Execution reads the record.
func (s *Store) Execution(ctx context.Context, id ff.ExecutionID) (ff.Execution, error) {
	rec, err := read(ctx, s, func(c Conn) (*record, error) { return s.existing(c, id) })
	if err != nil {
		return ff.Execution{}, err
	}
	return rec.x, nil
}

// ExecutionPayload reads the input.
func (s *Store) ExecutionPayload(ctx context.Context, id ff.ExecutionID) (ff.ExecutionPayload, error) {
	return read(ctx, s, func(c Conn) (ff.ExecutionPayload, error) {
		rec, err := s.existing(c, id)
		if err != nil {
			return ff.ExecutionPayload{}, err
		}
		input, err := readBlob(c, selectPayload, rec.seq)
		return ff.ExecutionPayload{Payload: input, Encoding: rec.x.PayloadEncoding, Kind: rec.x.Kind, Tags: rec.x.Tags}, err
	})
}

// ExecutionResult reads the result; nil when there is none.
func (s *Store) ExecutionResult(ctx context.Context, id ff.ExecutionID) ([]byte, error) {
	return read(ctx, s, func(c Conn) ([]byte, error) {
		rec, err := s.existing(c, id)
		if err != nil {
			return nil, err
		}
		return readBlob(c, selectResult, rec.seq)
	})
}

func readBlob(c Conn, q *Statement, seq int64) (b []byte, err error) {
	err = c.Query(q, []Value{integer(seq)}, func(r Row) error {
		b = r.Blob(0)
		return nil
	})
	return b, err
}

// Attempts lists the attempts in order.
func (s *Store) Attempts(ctx context.Context, id ff.ExecutionID) ([]ff.Attempt, error) {
	return read(ctx, s, func(c Conn) ([]ff.Attempt, error) {
		rec, err := s.existing(c, id)
		if err != nil || rec.x.TotalAttempts == 0 {
			return nil, err
		}
		list := make([]ff.Attempt, 0, rec.x.TotalAttempts)
		err = c.Query(selectAttempts, []Value{integer(rec.seq)}, func(r Row) error {
			list = append(list, readAttempt(r))
			return nil
		})
		return append(list, rec.x.Attempt), err
	})
}

// readAttempt reads a row of attemptColumns.
func readAttempt(r Row) (a ff.Attempt) {
	for i := range attemptColumns {
		attemptColumns[i].get(&a, r, i)
	}
	return a
}

// CancelExecution ends an execution.
func (s *Store) CancelExecution(ctx context.Context, c ff.CancelExecution) (ff.CancelExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CancelExecutionResult{}, err
	}
	return write(ctx, s, func(t *tx) (r ff.CancelExecutionResult, err error) {
		rec, err := t.load(c.ID)
		if err != nil {
			return r, err
		}
		err = t.apply(rec, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
			r.Previous, _, fx, err = lifecycle.Cancel(x, &c, t.now)
			return fx, err
		})
		if err == nil && r.Previous == ff.PhaseSuspended {
			err = t.abandon(rec)
		}
		if err != nil {
			return ff.CancelExecutionResult{}, err
		}
		r.State = rec.x.PublicState()
		return r, nil
	})
}

// ChangePriority moves a waiting execution.
func (s *Store) ChangePriority(ctx context.Context, c ff.ChangePriority) (ff.ChangePriorityResult, error) {
	if c.ID.IsZero() {
		return ff.ChangePriorityResult{}, ff.InvalidInput("execution_id", "must not be empty")
	}
	return write(ctx, s, func(t *tx) (r ff.ChangePriorityResult, err error) {
		rec, err := t.load(c.ID)
		if err != nil {
			return r, err
		}
		err = t.apply(rec, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
			r.Old, r.New, err = lifecycle.ChangePriority(x, c.Priority, t.now)
			return fx, err
		})
		return r, err
	})
}

// ReplayExecution starts a terminal execution again. Its result is removed.
func (s *Store) ReplayExecution(ctx context.Context, c ff.ReplayExecution) (ff.ReplayExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReplayExecutionResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.ReplayExecutionResult, error) {
		rec, err := t.load(c.ID)
		if err != nil {
			return ff.ReplayExecutionResult{}, err
		}
		err = t.apply(rec, func(x *ff.Execution) (lifecycle.Effects, error) { return lifecycle.Replay(x, &c, t.now) })
		if err != nil {
			return ff.ReplayExecutionResult{}, err
		}
		if err := t.exec(deleteResult, integer(rec.seq)); err != nil {
			return ff.ReplayExecutionResult{}, err
		}
		return ff.ReplayExecutionResult{State: rec.x.PublicState()}, t.replaceInput(rec.seq, c.Payload)
	})
}

// replaceInput stores another input; nil leaves it, an empty one removes it.
func (t *tx) replaceInput(seq int64, input []byte) error {
	switch {
	case input == nil:
		return nil
	case len(input) == 0:
		return t.exec(deletePayload, integer(seq))
	}
	return t.exec(replacePayload, integer(seq), borrow(input))
}

// SetExecutionTags adds tags.
func (s *Store) SetExecutionTags(ctx context.Context, c ff.SetExecutionTags) (ff.SetExecutionTagsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SetExecutionTagsResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.SetExecutionTagsResult, error) {
		rec, err := t.load(c.ID)
		if err != nil {
			return ff.SetExecutionTagsResult{}, err
		}
		err = t.apply(rec, func(x *ff.Execution) (lifecycle.Effects, error) {
			return lifecycle.Effects{}, lifecycle.SetTags(x, c.Tags, t.now)
		})
		if err != nil {
			return ff.SetExecutionTagsResult{}, err
		}
		return ff.SetExecutionTagsResult{Tags: rec.x.Tags}, nil
	})
}

// purge deletes an execution with everything that belongs to it. When it has more than
// so many frames, as many are deleted and the rest stays for later. It reports whether
// it deleted anything.
func (t *tx) purge(rec *record, frames *int64) (changed bool, err error) {
	if *frames == 0 {
		return false, nil
	}
	if empty, err := t.purgeStreams(rec.seq, frames); err != nil || !empty {
		return err == nil, err
	}
	if rec.key != "" {
		if err := t.exec(deleteKey, integer(rec.namespace), integer(int64(rec.x.ID.Partition())), text(rec.key), integer(rec.seq)); err != nil {
			return false, err
		}
	}
	for _, s := range purgeStatements {
		if err := t.exec(s, integer(rec.seq)); err != nil {
			return false, fmt.Errorf("purge of execution %s: %w", rec.x.ID, err)
		}
	}
	t.deltas[rec.count(rec.public)]--
	return true, nil
}

var (
	deleteKey       = statement("delete from idempotency where namespace = $1 and partition = $2 and key = $3 and seq = $4")
	purgeStatements = []*Statement{
		statement("delete from events where seq = $1"),
		statement("delete from attempts where seq = $1"),
		statement("delete from summaries where seq = $1"),
		statement("delete from signal_keys where waitpoint in (select uuid from waitpoints where seq = $1)"),
		statement("delete from suspend_keys where seq = $1"),
		statement("delete from signals where seq = $1"),
		statement("delete from waitpoints where seq = $1"),
		statement("delete from suspensions where seq = $1"),
		deletePayload,
		deleteResult,
		statement("delete from executions where seq = $1"),
	}
)

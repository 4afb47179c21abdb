package sqlstore

import (
	"context"
	"errors"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// Queries are the texts of all statements that a store may run: the fixed ones
// and the updates that it has made so far.
func (s *Store) Queries(ctx context.Context) ([]string, error) {
	var list []string
	for _, q := range statements {
		list = append(list, q.SQL)
	}
	return write(ctx, s, func(t *tx) ([]string, error) {
		for _, q := range t.updates {
			list = append(list, q.SQL)
		}
		return list, nil
	})
}

// Rows runs a query that returns one text per row.
func (s *Store) Rows(ctx context.Context, sql string, col int) ([]string, error) {
	return read(ctx, s, func(c Conn) (rows []string, err error) {
		err = c.Query(&Statement{SQL: sql}, nil, func(r Row) error {
			rows = append(rows, r.Text(col))
			return nil
		})
		return rows, err
	})
}

// Damage runs a statement in the writer's transaction.
func (s *Store) Damage(ctx context.Context, sql string, args ...Value) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) { return struct{}{}, t.exec(&Statement{SQL: sql}, args...) })
	return err
}

// Overwrite replaces what a command may change of a record.
func (s *Store) Overwrite(ctx context.Context, id ff.ExecutionID, with ff.Execution) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		_, err := t.applyTo(id, func(x *ff.Execution) (lifecycle.Effects, error) {
			with.ID, with.Namespace, with.Lane, with.Kind = x.ID, x.Namespace, x.Lane, x.Kind
			with.Creator, with.PayloadEncoding, with.CreatedAt = x.Creator, x.PayloadEncoding, x.CreatedAt
			with.Policy, with.Required = x.Policy, x.Required
			*x = with
			return lifecycle.Effects{}, nil
		})
		return struct{}{}, err
	})
	return err
}

// Hold keeps the writer busy until release is called.
func (s *Store) Hold() (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = write(context.Background(), s, func(*tx) (struct{}, error) {
			close(held)
			<-free
			return struct{}{}, nil
		})
	}()
	<-held
	return func() { close(free) }
}

// Queued is how many commands wait for the writer.
func (s *Store) Queued() int { return len(s.writer.queue) }

// Transactions are how many batches the writer has served.
func (s *Store) Transactions(ctx context.Context) (int64, error) {
	return write(ctx, s, func(*tx) (int64, error) { return s.writer.batches, nil })
}

// Break sends a command that writes and then fails as a database does.
func (s *Store) Break(ctx context.Context) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		if err := t.exec(upsertMeta, text("broken"), integer(1)); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, errors.New("broken on purpose")
	})
	return err
}

// BreakAfterKeys sends a command that takes n keys of executions and then fails
// as a database does.
func (s *Store) BreakAfterKeys(ctx context.Context, n int) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		for range n {
			if _, err := t.seqs.take(t); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, errors.New("broken on purpose")
	})
	return err
}

// Panic sends a command that panics.
func (s *Store) Panic(ctx context.Context) error {
	_, err := write(ctx, s, func(*tx) (struct{}, error) { panic("on purpose") })
	return err
}

// Words are the words of each dimension by code, the first of which is 1.
func Words() map[string][]string {
	return map[string][]string{
		"phase": texts(phases), "ownership": texts(ownerships), "eligibility": texts(eligibilities),
		"blocking": texts(blockings), "outcome": texts(outcomes), "attempt_phase": texts(attemptPhases),
		"public_state": texts(publicStates), "attempt_type": texts(attemptTypes), "attempt_state": texts(attemptStates),
		"due_kind": texts(sweepKinds), "event_type": texts(eventTypes), "frame_mode": texts(frameModes),
	}
}

func texts[T ~string](w words[T]) (list []string) {
	for _, s := range w[1:] {
		list = append(list, string(s))
	}
	return list
}

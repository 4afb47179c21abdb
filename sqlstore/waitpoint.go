package sqlstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

var (
	selectWaitpoint = statement("select record from waitpoints where uuid = $1")
	upsertWaitpoint = statement(`insert into waitpoints (uuid, seq, open, pending_until, record) values ($1, $2, $3, $4, $5)
on conflict (uuid) do update set open = excluded.open, pending_until = excluded.pending_until, record = excluded.record`)
	selectWaitpoints     = statement("select record from waitpoints where seq = $1 and uuid > $2 order by uuid limit $3")
	selectOpenWaitpoints = statement("select record from waitpoints where open = 1 and seq = $1 and uuid > $2 order by uuid limit $3")

	selectOverdue     = statement("select seq, uuid, record from waitpoints where pending_until <= $1 order by pending_until limit $2")
	selectNextOverdue = statement("select pending_until from waitpoints where pending_until is not null order by pending_until limit 1")

	// forgetOverdue takes a waitpoint that cannot be read out of the way of the others.
	forgetOverdue = statement("update waitpoints set pending_until = null where uuid = $1")

	selectSecrets = statement("select kid, secret, current, expires_at from waitpoint_secrets where kid > ''")
	upsertSecret  = statement(`insert into waitpoint_secrets (kid, secret, current, expires_at) values ($1, $2, $3, $4)
on conflict (kid) do update set secret = excluded.secret, current = excluded.current, expires_at = excluded.expires_at`)
	deleteSecrets = statement("delete from waitpoint_secrets where kid > ''")
)

// readRecord reads a JSON object that this package has written.
func readRecord(r Row, col int, what string, into any) error {
	if err := json.Unmarshal([]byte(r.Text(col)), into); err != nil {
		return ff.Errorf(ff.CodeCorruption, "a %s cannot be read: %v", what, err)
	}
	return nil
}

// waitpoint reads a waitpoint; nil when there is none.
func (s *Store) waitpoint(c Conn, id ff.WaitpointID) (w *lifecycle.Waitpoint, err error) {
	err = c.Query(selectWaitpoint, []Value{blob(id[:])}, func(r Row) error {
		w = &lifecycle.Waitpoint{}
		return readRecord(r, 0, "waitpoint", w)
	})
	return w, err
}

func (t *tx) saveWaitpoint(seq int64, w *lifecycle.Waitpoint) error {
	var open, until Value
	if w.Open() {
		open = integer(1)
	}
	if w.State == ff.WaitpointPending {
		until = instant(w.ExpiresAt)
		t.dueAt(pendingWaitpoints, w.ExpiresAt)
	}
	return t.exec(upsertWaitpoint, blob(w.ID[:]), integer(seq), open, until, text(mustJSON(w)))
}

// CreateWaitpoint creates a waitpoint ahead of its suspension.
func (s *Store) CreateWaitpoint(ctx context.Context, c ff.CreateWaitpoint) (ff.CreateWaitpointResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CreateWaitpointResult{}, err
	}
	return write(ctx, s, func(t *tx) (r ff.CreateWaitpointResult, err error) {
		rec, err := t.load(c.ID)
		if err != nil {
			return r, err
		}
		existing, err := s.waitpoint(t.c, c.WaitpointID)
		if err != nil {
			return r, err
		}
		keys, err := t.keyring()
		if err != nil {
			return r, err
		}
		var w *lifecycle.Waitpoint
		err = t.apply(rec, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
			w, fx, err = lifecycle.CreateWaitpoint(x, existing, &c, keys, t.now)
			return fx, err
		})
		if err != nil {
			return r, err
		}
		if w != existing {
			err = t.saveWaitpoint(rec.seq, w)
		}
		return ff.CreateWaitpointResult{IssuedWaitpoint: ff.IssuedWaitpoint{ID: w.ID, Key: w.Key, Token: w.Token}, ExpiresAt: w.ExpiresAt}, err
	})
}

// CloseWaitpoint closes a pending waitpoint.
func (s *Store) CloseWaitpoint(ctx context.Context, c ff.CloseWaitpoint) (ff.CloseWaitpointResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CloseWaitpointResult{}, err
	}
	return write(ctx, s, func(t *tx) (r ff.CloseWaitpointResult, err error) {
		rec, w, err := s.waitpointOf(t.c, ff.WaitpointRef{ID: c.ID, WaitpointID: c.WaitpointID})
		if err != nil {
			return r, err
		}
		r.AlreadyClosed, err = lifecycle.CloseWaitpoint(w, c.Reason, t.now)
		if err != nil || r.AlreadyClosed {
			return r, err
		}
		return r, t.saveWaitpoint(rec.seq, w)
	})
}

// waitpointOf reads a waitpoint of an execution. Errors: execution_not_found,
// waitpoint_not_found.
func (s *Store) waitpointOf(c Conn, ref ff.WaitpointRef) (*record, *lifecycle.Waitpoint, error) {
	rec, err := s.existing(c, ref.ID)
	if err != nil {
		return nil, nil, err
	}
	w, err := s.waitpoint(c, ref.WaitpointID)
	if err == nil && (w == nil || w.ExecutionID != ref.ID) {
		err = ff.Errorf(ff.CodeWaitpointNotFound, "execution %s has no waitpoint %s", ref.ID, ref.WaitpointID)
	}
	return rec, w, err
}

// WaitpointToken reads the token of a waitpoint.
func (s *Store) WaitpointToken(ctx context.Context, ref ff.WaitpointRef) (ff.WaitpointToken, error) {
	if err := ref.Validate(); err != nil {
		return "", err
	}
	return read(ctx, s, func(c Conn) (ff.WaitpointToken, error) {
		_, w, err := s.waitpointOf(c, ref)
		if err != nil {
			return "", err
		}
		keys, err := readKeyring(c)
		if err != nil {
			return "", err
		}
		return keys.Reissue(w.Token, w.ID, w.Key, w.CreatedAt, s.now())
	})
}

// ListWaitpoints lists the waitpoints of an execution, ordered by id.
func (s *Store) ListWaitpoints(ctx context.Context, c ff.ListWaitpoints) (ff.ListWaitpointsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListWaitpointsResult{}, err
	}
	query, limit := selectOpenWaitpoints, ff.PageLimit(c.Limit)
	if c.Closed {
		query = selectWaitpoints
	}
	return read(ctx, s, func(conn Conn) (r ff.ListWaitpointsResult, err error) {
		rec, err := s.existing(conn, c.ID)
		if err != nil {
			return r, err
		}
		args := []Value{integer(rec.seq), blob(c.After[:]), integer(int64(limit + 1))}
		err = conn.Query(query, args, func(row Row) error {
			if len(r.Waitpoints) == limit {
				r.Next = r.Waitpoints[limit-1].ID
				return nil
			}
			var w lifecycle.Waitpoint
			if err := readRecord(row, 0, "waitpoint", &w); err != nil {
				return err
			}
			r.Waitpoints = append(r.Waitpoints, w.Waitpoint)
			return nil
		})
		return r, err
	})
}

// overdue is a pending waitpoint whose time is over; w is nil when it cannot be read.
type overdue struct {
	seq int64
	id  ff.WaitpointID
	w   *lifecycle.Waitpoint
}

func (t *tx) overdue(limit int) (list []overdue, err error) {
	err = t.query(selectOverdue, []Value{instant(t.now), integer(int64(limit))}, func(r Row) error {
		o := overdue{seq: r.Int(0), id: readUUID(r, 1), w: &lifecycle.Waitpoint{}}
		if err := readRecord(r, 2, "waitpoint", o.w); err != nil {
			t.s.log.Error("a pending waitpoint cannot be read", "waitpoint", o.id, "err", err)
			o.w = nil
		}
		list = append(list, o)
		return nil
	})
	return list, err
}

// sweepWaitpoints closes pending waitpoints whose time is over.
func (t *tx) sweepWaitpoints(limit int) (closed int, err error) {
	list, err := t.overdue(limit)
	for _, o := range list {
		if o.w == nil {
			err = t.exec(forgetOverdue, blob(o.id[:]))
		} else if _, err = lifecycle.CloseWaitpoint(o.w, ff.ClosedNeverCommitted, t.now); err == nil {
			err = t.saveWaitpoint(o.seq, o.w)
		}
		if err != nil {
			return closed, err
		}
		closed++
	}
	return closed, err
}

// sweepPending is Sweep for waitpoints, which have an index of their own.
func (s *Store) sweepPending(ctx context.Context, limit int) (r ff.SweepResult, err error) {
	s.due.Looking(ff.SweepPendingWaitpoints)
	if r.Next, err = s.firstOf(ctx, selectNextOverdue); err != nil {
		return r, err
	}
	if !r.Next.IsZero() && !r.Next.After(s.now()) {
		r.Processed, err = write(ctx, s, func(t *tx) (int, error) { return t.sweepWaitpoints(min(limit, sweepBatch)) })
		if err != nil {
			return r, err
		}
		if r.Next, err = s.firstOf(ctx, selectNextOverdue); err != nil {
			return r, err
		}
	}
	r.Now = s.now()
	r.More = r.Processed > 0 && !r.Next.IsZero() && !r.Next.After(r.Now)
	s.due.Known(ff.SweepPendingWaitpoints, r.Next)
	return r, nil
}

// initialKeyID names the secret that a store makes when it has none.
const initialKeyID = "k1"

// keyring reads the secrets. A store without any makes one.
func (t *tx) keyring() (*lifecycle.Keyring, error) {
	k, err := readKeyring(t.c)
	if err != nil || k.Current != "" {
		return k, err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	k.Current, k.Secrets = initialKeyID, map[string]lifecycle.Secret{initialKeyID: {Hex: hex.EncodeToString(secret)}}
	return k, t.saveKeyring(k)
}

func readKeyring(c Conn) (*lifecycle.Keyring, error) {
	k := &lifecycle.Keyring{Secrets: map[string]lifecycle.Secret{}}
	err := c.Query(selectSecrets, nil, func(r Row) error {
		kid := r.Text(0)
		k.Secrets[kid] = lifecycle.Secret{Hex: r.Text(1), ExpiresAt: readInstant(r, 3)}
		if !r.Null(2) {
			k.Current = kid
		}
		return nil
	})
	return k, err
}

func (t *tx) saveKeyring(k *lifecycle.Keyring) error {
	if err := t.exec(deleteSecrets); err != nil {
		return err
	}
	for kid, s := range k.Secrets {
		var current Value
		if kid == k.Current {
			current = integer(1)
		}
		if err := t.exec(upsertSecret, text(kid), text(s.Hex), current, instant(s.ExpiresAt)); err != nil {
			return err
		}
	}
	return nil
}

// RotateWaitpointSecret installs the secret that signs from now on.
func (s *Store) RotateWaitpointSecret(ctx context.Context, c ff.RotateWaitpointSecret) (ff.RotateWaitpointSecretResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RotateWaitpointSecretResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.RotateWaitpointSecretResult, error) {
		k, err := readKeyring(t.c)
		if err != nil {
			return ff.RotateWaitpointSecretResult{}, err
		}
		r, err := k.Rotate(&c, t.now)
		if err != nil || r.Unchanged {
			return r, err
		}
		return r, t.saveKeyring(k)
	})
}

// SeedWaitpointSecret installs the first secret.
func (s *Store) SeedWaitpointSecret(ctx context.Context, c ff.SeedWaitpointSecret) (ff.SeedWaitpointSecretResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SeedWaitpointSecretResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.SeedWaitpointSecretResult, error) {
		k, err := readKeyring(t.c)
		if err != nil {
			return ff.SeedWaitpointSecretResult{}, err
		}
		r := k.Seed(&c)
		if !r.Seeded {
			return r, nil
		}
		return r, t.saveKeyring(k)
	})
}

// WaitpointSecrets lists the ids of the secrets in force.
func (s *Store) WaitpointSecrets(ctx context.Context) (ff.WaitpointSecrets, error) {
	return read(ctx, s, func(c Conn) (ff.WaitpointSecrets, error) {
		k, err := readKeyring(c)
		if err != nil {
			return ff.WaitpointSecrets{}, err
		}
		return k.List(s.now()), nil
	})
}

package valkey

import (
	"context"
	"slices"
	"strconv"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// readWaitpoints reads those of the waitpoints that exist.
func (s *compatible) readWaitpoints(ctx context.Context, send sender, p uint16, ids []ff.WaitpointID) (list []*lifecycle.Waitpoint, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var commands []valkey.Completed
	for _, id := range ids {
		commands = append(commands, s.client.B().Hgetall().Key(tagOf(p).waitpoint(id)).Build(),
			s.client.B().Hgetall().Key(tagOf(p).waitpointCondition(id)).Build())
	}
	results := send(ctx, commands...)
	for i, id := range ids {
		hash, err := results[2*i].AsStrMap()
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		condition, err := results[2*i+1].AsStrMap()
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		if len(hash) == 0 {
			continue
		}
		owner, err := ff.ParseExecutionID(hash["execution_id"])
		if err != nil {
			return nil, ff.Errorf(ff.CodeCorruption, "waitpoint %s: %w", id, err)
		}
		w, err := waitpointOf(owner, hash, namesOf(condition))
		if err != nil {
			return nil, err
		}
		if w.ID != id {
			return nil, ff.Errorf(ff.CodeCorruption, "waitpoint %s of execution %s has the id %s", id, owner, w.ID)
		}
		list = append(list, &lifecycle.Waitpoint{Waitpoint: w, Token: ff.WaitpointToken(hash["waitpoint_token"])})
	}
	return list, nil
}

// namesOf are the names that a plain condition waits for.
func namesOf(condition map[string]string) (names []string) {
	for i := 0; ; i++ {
		name, ok := condition["matcher:"+strconv.Itoa(i)+":name"]
		if !ok {
			return names
		}
		if name != "" {
			names = append(names, name)
		}
	}
}

// waitpointIn reads a waitpoint in a transaction; nil when there is none of that id.
func (s *compatible) waitpointIn(ctx context.Context, send sender, ref ff.WaitpointRef) (*lifecycle.Waitpoint, error) {
	list, err := s.readWaitpoints(ctx, send, ref.ID.Partition(), []ff.WaitpointID{ref.WaitpointID})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// CreateWaitpoint creates a waitpoint ahead of its suspension. The function looks at a
// part of the fence only (quirk 04a S10).
func (s *compatible) CreateWaitpoint(ctx context.Context, c ff.CreateWaitpoint) (r ff.CreateWaitpointResult, err error) {
	if err := c.Validate(); err != nil {
		return r, err
	}
	err = s.signing(ctx, func() error {
		r, err = s.createWaitpoint(ctx, &c)
		return err
	})
	return r, s.noteLapse(ctx, c.ID, err)
}

func (s *compatible) createWaitpoint(ctx context.Context, c *ff.CreateWaitpoint) (ff.CreateWaitpointResult, error) {
	k, t := keysOf(c.ID), tagOf(c.ID.Partition())
	var w *lifecycle.Waitpoint
	a, err := s.commit(ctx, []string{k.core(), t.waitpoint(c.WaitpointID)}, func(ctx context.Context, conn valkey.DedicatedClient) (deed, error) {
		before, now, err := s.describeWatched(ctx, conn, c.ID)
		if err != nil {
			return deed{}, err
		}
		existing, err := s.waitpointIn(ctx, conn.DoMulti, ff.WaitpointRef{ID: c.ID, WaitpointID: c.WaitpointID})
		if err != nil {
			return deed{}, err
		}
		keys, err := s.keyring(ctx, conn.DoMulti, c.ID.Partition())
		if err != nil {
			return deed{}, err
		}
		x := before.x
		if w, _, err = lifecycle.CreateWaitpoint(&x, existing, c, keys, now); err != nil || w == existing {
			return deed{}, err
		}
		call := callCreatePendingWaitpoint(c, before.holding().attempt, w.ExpiresAt)
		return deed{call: &call, after: []valkey.Completed{conn.B().Sadd().Key(k.waitpoints()).Member(w.ID.String()).Build()}}, nil
	})
	if err != nil {
		return ff.CreateWaitpointResult{}, err
	}
	r := ff.CreateWaitpointResult{IssuedWaitpoint: ff.IssuedWaitpoint{ID: w.ID, Key: w.Key, Token: w.Token}, ExpiresAt: w.ExpiresAt}
	if a != nil { // the function has signed it, by its own clock
		r.Token = ff.WaitpointToken(a.text(2))
	}
	return r, nil
}

// CloseWaitpoint closes a pending waitpoint.
func (s *compatible) CloseWaitpoint(ctx context.Context, c ff.CloseWaitpoint) (r ff.CloseWaitpointResult, err error) {
	if err := c.Validate(); err != nil {
		return r, err
	}
	ref := ff.WaitpointRef{ID: c.ID, WaitpointID: c.WaitpointID}
	keys := []string{keysOf(c.ID).core(), tagOf(c.ID.Partition()).waitpoint(c.WaitpointID)}
	_, err = s.commit(ctx, keys, func(ctx context.Context, conn valkey.DedicatedClient) (deed, error) {
		_, now, err := s.describeWatched(ctx, conn, c.ID)
		if err != nil {
			return deed{}, err
		}
		w, err := s.waitpointIn(ctx, conn.DoMulti, ref)
		if err == nil && (w == nil || w.ExecutionID != c.ID) {
			err = noWaitpoint(ref)
		}
		if err != nil {
			return deed{}, err
		}
		if r.AlreadyClosed, err = lifecycle.CloseWaitpoint(w, c.Reason, now); err != nil || r.AlreadyClosed {
			return deed{}, err
		}
		call := callCompatibleCloseWaitpoint(c.ID, c.WaitpointID, w.CloseReason)
		return deed{call: &call}, nil
	})
	return r, err
}

// ListWaitpoints lists the waitpoints of an execution, ordered by id.
func (s *compatible) ListWaitpoints(ctx context.Context, c ff.ListWaitpoints) (out ff.ListWaitpointsResult, err error) {
	if err := c.Validate(); err != nil {
		return out, err
	}
	if err := s.exists(ctx, c.ID); err != nil {
		return out, err
	}
	texts, err := s.client.Do(ctx, s.client.B().Smembers().Key(keysOf(c.ID).waitpoints()).Build()).AsStrSlice()
	if err != nil {
		return out, damage(c.ID, s.lift(ctx, err))
	}
	slices.Sort(texts)
	var ids []ff.WaitpointID
	for _, text := range texts {
		id, err := ff.ParseWaitpointID(text)
		if err != nil {
			return out, ff.Errorf(ff.CodeCorruption, "the waitpoints of execution %s: %w", c.ID, err)
		}
		if c.After.IsZero() || text > c.After.String() {
			ids = append(ids, id)
		}
	}
	limit := ff.PageLimit(c.Limit)
	for some := range slices.Chunk(ids, limit+1) {
		list, err := s.readWaitpoints(ctx, s.send, c.ID.Partition(), some)
		if err != nil {
			return ff.ListWaitpointsResult{}, err
		}
		for _, w := range list {
			if !c.Closed && !w.Open() {
				continue
			}
			if len(out.Waitpoints) == limit {
				out.Next = out.Waitpoints[limit-1].ID
				return out, nil
			}
			out.Waitpoints = append(out.Waitpoints, w.Waitpoint)
		}
	}
	return out, nil
}

// expireWaitpoints closes pending waitpoints that no suspension took up.
func (s *compatible) expireWaitpoints(ctx context.Context, batch []dueEntry) []fate {
	fates := make([]fate, len(batch))
	for i := range batch {
		fates[i].done, fates[i].err = s.expireWaitpoint(ctx, &batch[i])
		fates[i].left = fates[i].err != nil
	}
	return fates
}

func (s *compatible) expireWaitpoint(ctx context.Context, e *dueEntry) (done bool, err error) {
	key := "ff:wp:" + string(tagOf(e.index.p)) + ":" + e.text
	_, err = s.watched(ctx, []string{key}, func(ctx context.Context, conn valkey.DedicatedClient) ([]valkey.Completed, error) {
		done = false
		results := conn.DoMulti(ctx, conn.B().Hmget().Key(key).Field("state", "execution_id").Build(), conn.B().Time().Build())
		g, err := glimpseOf(results[0], []string{"state", "execution_id"})
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		now, err := instantOf(results[1])
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		commands := []valkey.Completed{conn.B().Zrem().Key(e.index.key).Member(e.text).Build()}
		if done = g["state"] == string(ff.WaitpointPending); !done {
			return commands, nil
		}
		id, err := ff.ParseExecutionID(g["execution_id"])
		if err != nil {
			return nil, err
		}
		n, err := conn.Do(ctx, conn.B().Exists().Key(keysOf(id).core()).Build()).AsInt64()
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		if n == 0 { // its execution was deleted
			return append(commands, conn.B().Unlink().Key(key, key+":signals", key+":condition").Build()), nil
		}
		return append(commands, hset(conn.B(), key, "state", string(ff.WaitpointClosed), "closed_at", ms(now), "close_reason", ff.ClosedNeverCommitted),
			conn.B().Sadd().Key(keysOf(id).waitpoints()).Member(e.text).Build()), nil
	})
	return done, err
}

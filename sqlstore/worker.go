package sqlstore

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

const workerColumns = "namespace, instance, worker, lanes, capabilities, ttl, registered_at, heartbeat_at, expires_at"

var (
	upsertWorker = statement("insert into workers (" + workerColumns + `) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (namespace, instance) do update set worker = excluded.worker, lanes = excluded.lanes,
capabilities = excluded.capabilities, ttl = excluded.ttl, registered_at = excluded.registered_at,
heartbeat_at = excluded.heartbeat_at, expires_at = excluded.expires_at`)
	heartbeatWorker = statement("update workers set heartbeat_at = $1, expires_at = $2 where namespace = $3 and instance = $4")
	deleteWorker    = statement("delete from workers where namespace = $1 and instance = $2")
	selectWorker    = statement("select " + workerColumns + " from workers where namespace = $1 and instance = $2")
	selectWorkersOf = statement("select " + workerColumns + ` from workers
where namespace = $1 and instance > $2 order by instance limit $3`)
	selectWorkers = statement("select " + workerColumns + ` from workers
where (namespace, instance) > ($1, $2) order by namespace, instance limit $3`)
)

func readWorker(r Row) (ff.WorkerInfo, error) {
	w := ff.WorkerInfo{
		Namespace: ff.Namespace(r.Text(0)), Instance: ff.WorkerInstanceID(r.Text(1)), Worker: ff.WorkerID(r.Text(2)),
		LivenessTTL: time.Duration(r.Int(5)) * time.Millisecond, RegisteredAt: readInstant(r, 6),
		HeartbeatAt: readInstant(r, 7), ExpiresAt: readInstant(r, 8),
	}
	if err := json.Unmarshal([]byte(r.Text(3)), &w.Lanes); err != nil {
		return w, err
	}
	var err error
	w.Capabilities, err = ff.ParseCapabilityCSV(r.Text(4))
	return w, err
}

// liveWorker finds a registration that has not lapsed.
func (t *tx) liveWorker(namespace ff.Namespace, instance ff.WorkerInstanceID) (w ff.WorkerInfo, live bool, err error) {
	err = t.query(selectWorker, []Value{text(string(namespace)), text(string(instance))}, func(r Row) (err error) {
		w, err = readWorker(r)
		live = w.ExpiresAt.After(t.now)
		return err
	})
	return w, live, err
}

// RegisterWorker announces a process.
func (s *Store) RegisterWorker(ctx context.Context, c ff.RegisterWorker) (ff.RegisterWorkerResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RegisterWorkerResult{}, err
	}
	lanes := mustJSON(append([]ff.LaneID{}, c.Lanes...))
	return write(ctx, s, func(t *tx) (ff.RegisterWorkerResult, error) {
		before, live, err := t.liveWorker(c.Namespace, c.Instance)
		switch {
		case err != nil:
			return ff.RegisterWorkerResult{}, err
		case live && before.Worker != c.Worker:
			return ff.RegisterWorkerResult{}, ff.InvalidInput("worker_instance_id", "instance_id reassigned: %q is live under worker %q until %s", c.Instance, before.Worker, before.ExpiresAt.Format(time.RFC3339Nano))
		case live && c.Exclusive:
			return ff.RegisterWorkerResult{}, ff.Errorf(ff.CodeDuplicateWorkerInstance, "instance %q is registered until %s; give each process its own instance id", c.Instance, before.ExpiresAt.Format(time.RFC3339Nano))
		}
		r := ff.RegisterWorkerResult{Refreshed: live, ExpiresAt: round(t.now.Add(c.LivenessTTL))}
		registered := t.now
		if live {
			registered = before.RegisteredAt
		}
		return r, t.exec(upsertWorker, text(string(c.Namespace)), text(string(c.Instance)), text(string(c.Worker)),
			text(lanes), text(c.Capabilities.CSV()), integer(c.LivenessTTL.Milliseconds()),
			instant(registered), instant(t.now), instant(r.ExpiresAt))
	})
}

// HeartbeatWorker keeps a registration alive.
func (s *Store) HeartbeatWorker(ctx context.Context, c ff.HeartbeatWorker) (ff.HeartbeatWorkerResult, error) {
	if err := c.Instance.Validate(); err != nil {
		return ff.HeartbeatWorkerResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.HeartbeatWorkerResult, error) {
		w, live, err := t.liveWorker(c.Namespace, c.Instance)
		if err != nil || !live {
			return ff.HeartbeatWorkerResult{}, err
		}
		r := ff.HeartbeatWorkerResult{Registered: true, ExpiresAt: t.now.Add(w.LivenessTTL)}
		return r, t.exec(heartbeatWorker, instant(t.now), instant(r.ExpiresAt), text(string(c.Namespace)), text(string(c.Instance)))
	})
}

// MarkWorkerDead removes a registration.
func (s *Store) MarkWorkerDead(ctx context.Context, c ff.MarkWorkerDead) (ff.MarkWorkerDeadResult, error) {
	if err := c.Validate(); err != nil {
		return ff.MarkWorkerDeadResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.MarkWorkerDeadResult, error) {
		_, live, err := t.liveWorker(c.Namespace, c.Instance)
		if err != nil {
			return ff.MarkWorkerDeadResult{}, err
		}
		if !live {
			return ff.MarkWorkerDeadResult{}, nil
		}
		return ff.MarkWorkerDeadResult{Marked: true}, t.exec(deleteWorker, text(string(c.Namespace)), text(string(c.Instance)))
	})
}

// ListWorkers lists live workers. Registrations that lapsed are skipped here and
// deleted by the retention sweep.
func (s *Store) ListWorkers(ctx context.Context, c ff.ListWorkers) (ff.ListWorkersResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListWorkersResult{}, err
	}
	namespace, instance := string(c.Namespace), ""
	if c.Cursor != "" {
		var ok bool
		if namespace, instance, ok = strings.Cut(c.Cursor, " "); !ok || !c.AllNamespaces && namespace != string(c.Namespace) {
			return ff.ListWorkersResult{}, ff.BadCursor(c.Cursor)
		}
	} else if c.AllNamespaces {
		namespace = ""
	}
	limit, now := ff.PageLimit(c.Limit), s.now()
	return read(ctx, s, func(conn Conn) (r ff.ListWorkersResult, err error) {
		query := selectWorkersOf
		if c.AllNamespaces {
			query = selectWorkers
		}
		for more := true; more; {
			n := 0
			err := conn.Query(query, []Value{text(namespace), text(instance), integer(int64(limit))}, func(row Row) error {
				n++
				if len(r.Workers) == limit {
					r.Next = namespace + " " + instance
					return nil
				}
				namespace, instance = row.Text(0), row.Text(1)
				w, err := readWorker(row)
				if err == nil && w.ExpiresAt.After(now) {
					w.Leases = s.counts.held(w.Instance)
					r.Workers = append(r.Workers, w)
				}
				return err
			})
			if err != nil {
				return ff.ListWorkersResult{}, err
			}
			more = n == limit && r.Next == ""
		}
		return r, nil
	})
}

package sqlstore

import (
	"context"
	"slices"
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

const eventColumns = "e.id, e.type, e.at, e.flow_id, e.lease_id, e.lease_epoch, e.attempt_id, e.attempt_index, e.worker, e.instance, e.reason, e.outcome, x.partition, x.uuid, e.signal_id, e.waitpoint_id, e.source"

var (
	insertEvent = statement(`insert into events (id, seq, type, at, flow_id, lease_id, lease_epoch, attempt_id, attempt_index, worker, instance, reason, outcome, signal_id, waitpoint_id, source)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`)
	selectEvents = statement("select " + eventColumns + ` from events as e join executions as x on x.seq = e.seq
where e.id > $1 order by e.id limit $2`)
	selectEventsOf = statement("select " + eventColumns + ` from events as e join executions as x on x.seq = e.seq
where e.seq = $1 and e.id > $2 order by e.id limit $3`)
)

func (t *tx) insertEvent(seq int64, e *ff.Event) error {
	id, err := t.events.take(t)
	if err != nil {
		return err
	}
	t.happened = true
	t.args = append(t.args[:0], integer(id), integer(seq), integer(eventTypes.code(e.Type)), instant(e.At),
		uuidOrNull(e.FlowID), uuidOrNull(e.LeaseID), integer(int64(e.LeaseEpoch)), uuidOrNull(e.AttemptID),
		integer(int64(e.AttemptIndex)), textOrNull(string(e.Worker)), textOrNull(string(e.Instance)),
		textOrNull(e.Reason), integer(outcomes.code(e.Outcome)), uuidOrNull(e.SignalID), uuidOrNull(e.WaitpointID), textOrNull(e.Source))
	return t.exec(insertEvent, t.args...)
}

func readEvent(r Row) ff.Event {
	e := ff.Event{
		Cursor: eventCursor(r.Int(0)), Type: eventTypes.word(r.Int(1)), Family: ff.FamilyLease,
		ID: ff.MakeExecutionID(uint16(r.Int(12)), readUUID(r, 13)), At: readInstant(r, 2), FlowID: readUUID(r, 3),
		LeaseID: readUUID(r, 4), LeaseEpoch: uint64(r.Int(5)), AttemptID: readUUID(r, 6), AttemptIndex: int(r.Int(7)),
		Worker: ff.WorkerID(r.Text(8)), Instance: ff.WorkerInstanceID(r.Text(9)), Reason: r.Text(10),
		Outcome: outcomes.word(r.Int(11)), SignalID: readUUID(r, 14), WaitpointID: readUUID(r, 15), Source: r.Text(16),
	}
	switch e.Type {
	case ff.EventCompletion:
		e.Family = ff.FamilyCompletion
	case ff.EventSignal, ff.EventResumed, ff.EventEscalated:
		e.Family = ff.FamilySignal
	}
	return e
}

// eventCursor is the decimal id of the last event that was read.
func eventCursor(id int64) ff.EventCursor { return ff.EventCursor(strconv.FormatInt(id, 10)) }

func parseEventCursor(c ff.EventCursor) (int64, error) {
	if c == "" {
		return 0, nil
	}
	id, err := strconv.ParseInt(string(c), 10, 64)
	if err != nil || id < 0 {
		return 0, ff.InvalidInput("after", "%.64q is not an event cursor of this store; start again with an empty one", string(c))
	}
	return id, nil
}

// ReadEvents reads on from a cursor. With a family, Next also moves past events
// of the other family, so that they are not read again.
func (s *Store) ReadEvents(ctx context.Context, c ff.ReadEvents) (ff.ReadEventsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReadEventsResult{}, err
	}
	after, err := parseEventCursor(c.After)
	if err != nil {
		return ff.ReadEventsResult{}, err
	}
	if last := s.lastEvent.Load(); after > last {
		// A file restored from a backup, or another one.
		return ff.ReadEventsResult{}, ff.InvalidInput("after", "%d is beyond the last event of this store, which is %d; start again with an empty one", after, last)
	}
	end := time.NewTimer(c.Wait)
	defer end.Stop()
	for {
		w := s.events.Wait([]struct{}{{}}, nil)
		page, last, err := s.eventPage(ctx, &c, after)
		if err != nil || len(page) > 0 || c.Wait == 0 {
			w.Stop()
			return eventResult(&c, page, last), err
		}
		after = last
		_, again, err := s.await(ctx, w.C(), end.C)
		w.Stop()
		if !again {
			return eventResult(&c, nil, last), err
		}
	}
}

func eventResult(c *ff.ReadEvents, page []ff.Event, last int64) ff.ReadEventsResult {
	r := ff.ReadEventsResult{Events: page, Next: c.After}
	if before, _ := parseEventCursor(c.After); last > before {
		r.Next = eventCursor(last)
	}
	return r
}

// eventPage reads until the page is full or the log ends; last is the last
// event that was looked at.
func (s *Store) eventPage(ctx context.Context, c *ff.ReadEvents, after int64) (page []ff.Event, last int64, err error) {
	limit := ff.PageLimit(c.Limit)
	last = after
	_, err = read(ctx, s, func(conn Conn) (struct{}, error) {
		query, first := selectEvents, []Value{}
		if !c.ID.IsZero() {
			rec, err := s.selectRecord(conn, c.ID)
			if err != nil || rec == nil {
				return struct{}{}, err
			}
			query, first = selectEventsOf, []Value{integer(rec.seq)}
		}
		for more := true; more && len(page) < limit; {
			n := 0
			args := slices.Concat(first, []Value{integer(last), integer(int64(limit))})
			err := conn.Query(query, args, func(r Row) error {
				n++
				if len(page) == limit {
					return nil
				}
				last = r.Int(0)
				if e := readEvent(r); c.Family == "" || c.Family == e.Family {
					page = append(page, e)
				}
				return nil
			})
			if err != nil {
				return struct{}{}, err
			}
			more = n == limit
		}
		return struct{}{}, nil
	})
	return page, last, err
}

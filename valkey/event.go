package valkey

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// The log of events is a stream per partition. All streams are read as one log, in
// the order of the milliseconds in which their entries were added. A cursor is a
// millisecond and, per partition, the last entry of that millisecond that was
// delivered: partitions add entries of one millisecond independently, so entries of
// the cursor's own millisecond may still come.
//
// On a cluster whose nodes' clocks differ, an entry of a slow node may come behind
// the cursor of a reader who has seen a fast one; readers therefore stay behind the
// slowest clock.

// eventPosition is an entry of one stream.
type eventPosition struct {
	ms, seq   uint64
	partition uint16
}

func (p eventPosition) compare(o eventPosition) int {
	return cmp.Or(cmp.Compare(p.ms, o.ms), cmp.Compare(p.partition, o.partition), cmp.Compare(p.seq, o.seq))
}

func (p eventPosition) id() string {
	return strconv.FormatUint(p.ms, 10) + "-" + strconv.FormatUint(p.seq, 10)
}

func parseStreamID(s string) (p eventPosition, ok bool) {
	a, b, found := strings.Cut(s, "-")
	var err1, err2 error
	p.ms, err1 = strconv.ParseUint(a, 10, 64)
	p.seq, err2 = strconv.ParseUint(b, 10, 64)
	return p, found && err1 == nil && err2 == nil
}

// eventCursor is where a reader is.
type eventCursor struct {
	ms   uint64
	seen map[uint16]uint64
}

func (c *eventCursor) pass(p eventPosition) {
	if p.ms > c.ms || c.seen == nil {
		c.ms, c.seen = p.ms, map[uint16]uint64{}
	}
	c.seen[p.partition] = p.seq
}

// after is the id from which a partition is to be read, inclusive.
func (c *eventCursor) after(p uint16) string {
	if c.seen == nil {
		return "-"
	}
	if seq, ok := c.seen[p]; ok {
		return eventPosition{ms: c.ms, seq: seq + 1}.id()
	}
	return eventPosition{ms: c.ms}.id()
}

func (c *eventCursor) String() string {
	if c.seen == nil {
		return ""
	}
	parts := make([]string, 0, len(c.seen))
	for p, seq := range c.seen {
		parts = append(parts, fmt.Sprintf("%d:%d", p, seq))
	}
	slices.Sort(parts)
	return strconv.FormatUint(c.ms, 10) + "." + strings.Join(parts, ".")
}

func parseEventCursor(text ff.EventCursor) (*eventCursor, error) {
	c := &eventCursor{}
	if text == "" {
		return c, nil
	}
	bad := ff.InvalidInput("after", "%.64q is not a cursor of this store; start again with an empty one", string(text))
	parts := strings.Split(string(text), ".")
	ms, err := strconv.ParseUint(parts[0], 10, 64)
	if err != nil || len(parts) < 2 || len(parts) > 1<<16 {
		return nil, bad
	}
	c.ms, c.seen = ms, map[uint16]uint64{}
	for _, part := range parts[1:] {
		a, b, ok := strings.Cut(part, ":")
		p, err1 := strconv.ParseUint(a, 10, 16)
		seq, err2 := strconv.ParseUint(b, 10, 64)
		if !ok || err1 != nil || err2 != nil {
			return nil, bad
		}
		c.seen[uint16(p)] = seq
	}
	return c, nil
}

// ReadEvents reads on from a cursor.
func (s *Store) ReadEvents(ctx context.Context, c ff.ReadEvents) (ff.ReadEventsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReadEventsResult{}, err
	}
	at, err := parseEventCursor(c.After)
	if err != nil {
		return ff.ReadEventsResult{}, err
	}
	read := func() ([]ff.Event, error) { return s.eventPage(ctx, &c, at) }
	if !c.ID.IsZero() {
		read = func() ([]ff.Event, error) { return s.eventsOf(ctx, &c, at) }
	}
	page, err := read()
	if err != nil || len(page) > 0 || c.Wait == 0 {
		return eventResult(&c, page, at), err
	}
	return s.waitForEvents(ctx, &c, at, read)
}

func (s *Store) waitForEvents(ctx context.Context, c *ff.ReadEvents, at *eventCursor, read func() ([]ff.Event, error)) (ff.ReadEventsResult, error) {
	s.wakeups.start(ctx)
	var marks []string
	if c.ID.IsZero() {
		for p := range s.partitions.Flow {
			marks = append(marks, tagOf(p).eventsWaiting())
		}
	} else {
		marks = []string{tagOf(c.ID.Partition()).eventsWaiting()}
	}
	end := time.NewTimer(c.Wait)
	defer end.Stop()
	for {
		w := s.wakeups.events.Wait([]struct{}{{}}, nil)
		_, err := s.wakeups.mark(ctx, marks)
		var page []ff.Event
		if err == nil {
			page, err = read()
		}
		if err != nil || len(page) > 0 {
			w.Stop()
			return eventResult(c, page, at), err
		}
		again, err := s.await(ctx, w.C(), end.C)
		w.Stop()
		if !again {
			return eventResult(c, nil, at), err
		}
	}
}

func eventResult(c *ff.ReadEvents, page []ff.Event, at *eventCursor) ff.ReadEventsResult {
	r := ff.ReadEventsResult{Events: page, Next: c.After}
	if text := at.String(); text != "" {
		r.Next = ff.EventCursor(text)
	}
	return r
}

type storedEvent struct {
	at eventPosition
	e  ff.Event
}

// eventPage reads the next events of all partitions, and on while they are of
// another family than is asked for. It moves the cursor.
func (s *Store) eventPage(ctx context.Context, c *ff.ReadEvents, at *eventCursor) ([]ff.Event, error) {
	limit := pageLimit(c.Limit)
	var page []ff.Event
	for len(page) < limit {
		found, err := s.nextEvents(ctx, at, limit)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if len(page) == limit {
				return page, nil
			}
			at.pass(f.at)
			if c.Family == "" || c.Family == f.e.Family {
				f.e.Cursor = ff.EventCursor(at.String())
				page = append(page, f.e)
			}
		}
		if len(found) < limit {
			return page, nil
		}
	}
	return page, nil
}

// nextEvents are up to limit events behind the cursor, in order.
func (s *Store) nextEvents(ctx context.Context, at *eventCursor, limit int) ([]storedEvent, error) {
	horizon, err := s.horizon(ctx)
	if err != nil {
		return nil, err
	}
	commands := make([]valkey.Completed, s.partitions.Flow)
	for p := range s.partitions.Flow {
		commands[p] = s.client.B().Xrange().Key(tagOf(p).events()).Start(at.after(p)).End(horizon).Count(int64(limit)).Build()
	}
	var found []storedEvent
	for p, r := range s.client.DoMulti(ctx, commands...) {
		entries, err := r.AsXRange()
		if err != nil && !valkey.IsValkeyNil(err) {
			return nil, s.lift(ctx, err)
		}
		for _, entry := range entries {
			f, err := storedEventOf(uint16(p), entry)
			if err != nil {
				s.log.Error("an event cannot be read and is left out", "partition", p, "entry", entry.ID, "err", err)
				continue
			}
			found = append(found, f)
		}
	}
	slices.SortFunc(found, func(a, b storedEvent) int { return a.at.compare(b.at) })
	return found[:min(limit, len(found))], nil
}

// horizon is the last entry that may be read: on a cluster that of the slowest
// clock.
func (s *Store) horizon(ctx context.Context) (string, error) {
	if !s.cluster {
		return "+", nil
	}
	slowest := int64(1<<63 - 1)
	for _, node := range s.primaries() {
		list, err := node.Do(ctx, node.B().Time().Build()).AsIntSlice()
		if err != nil || len(list) < 2 {
			return "", s.lift(ctx, err)
		}
		slowest = min(slowest, list[0]*1000+list[1]/1000)
	}
	return itoa(slowest), nil
}

// The parts of an entry, as the functions write them.
const eventParts = 12

func storedEventOf(p uint16, entry valkey.XRangeEntry) (storedEvent, error) {
	at, ok := parseStreamID(entry.ID)
	at.partition = p
	v := strings.Split(entry.FieldValues["e"], "\x00")
	if !ok || len(v) != eventParts {
		return storedEvent{}, ff.Errorf(ff.CodeCorruption, "an event of %d parts, want %d", len(v), eventParts)
	}
	f := &fields{hash: "event " + entry.ID, m: map[string]string{"at": v[0], "lease_id": v[3], "lease_epoch": v[4], "attempt_id": v[5],
		"attempt_index": v[6], "flow_id": v[11], "execution_id": v[2]}}
	e := ff.Event{Family: ff.FamilyLease, Type: ff.EventType(v[1]), ID: parsed(f, "execution_id", ff.ParseExecutionID), At: f.instant("at"),
		FlowID: parsed(f, "flow_id", ff.ParseFlowID), LeaseID: parsed(f, "lease_id", ff.ParseLeaseID), LeaseEpoch: f.epoch("lease_epoch"),
		AttemptID: parsed(f, "attempt_id", ff.ParseAttemptID), AttemptIndex: f.count("attempt_index"), Worker: ff.WorkerID(v[7]),
		Instance: ff.WorkerInstanceID(v[8]), Reason: v[9], Outcome: ff.TerminalOutcome(v[10])}
	if e.Type == ff.EventCompletion {
		e.Family = ff.FamilyCompletion
	}
	return storedEvent{at, e}, f.err
}

// eventsOf reads the events of one execution: it has the list of their entries.
func (s *Store) eventsOf(ctx context.Context, c *ff.ReadEvents, at *eventCursor) ([]ff.Event, error) {
	p := c.ID.Partition()
	if p >= s.partitions.Flow {
		return nil, nil
	}
	list, err := s.blob(ctx, keysOf(c.ID).events())
	if err != nil {
		return nil, err
	}
	var commands []valkey.Completed
	limit := pageLimit(c.Limit)
	var page []ff.Event
	ids := strings.Fields(string(list))
	for len(page) < limit && len(ids) > 0 {
		commands = commands[:0]
		for len(ids) > 0 && len(commands) < limit {
			if position, ok := parseStreamID(ids[0]); ok && !at.passed(eventPosition{position.ms, position.seq, p}) {
				commands = append(commands, s.client.B().Xrange().Key(tagOf(p).events()).Start(ids[0]).End(ids[0]).Build())
			}
			ids = ids[1:]
		}
		for _, r := range s.client.DoMulti(ctx, commands...) {
			entries, err := r.AsXRange()
			if err != nil && !valkey.IsValkeyNil(err) {
				return nil, s.lift(ctx, err)
			}
			for _, entry := range entries {
				f, err := storedEventOf(p, entry)
				if err != nil {
					return nil, err
				}
				if len(page) == limit {
					return page, nil
				}
				at.pass(f.at)
				if c.Family == "" || c.Family == f.e.Family {
					f.e.Cursor = ff.EventCursor(at.String())
					page = append(page, f.e)
				}
			}
		}
	}
	return page, nil
}

// passed reports whether an entry is before the cursor.
func (c *eventCursor) passed(p eventPosition) bool {
	if c.seen == nil || p.ms > c.ms {
		return false
	}
	if p.ms < c.ms {
		return true
	}
	seq, ok := c.seen[p.partition]
	return ok && p.seq <= seq
}

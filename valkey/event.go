package valkey

import (
	"cmp"
	"context"
	"fmt"
	"math"
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
// The partitions are not read in one instant, and on a cluster their nodes' clocks
// differ. Readers therefore stay behind the earliest clock that a partition was read
// at: whatever is added to it later comes behind the cursor.

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
	limit := ff.PageLimit(c.Limit)
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
			if f.e.Type != "" && (c.Family == "" || c.Family == f.e.Family) {
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

// nextEvents are up to limit events behind the cursor, in order. Each partition says
// at which of its milliseconds it was read, and only what all of them had by then is
// taken: an event that one of them adds after it was read is then not before the
// cursor.
func (s *Store) nextEvents(ctx context.Context, at *eventCursor, limit int) ([]storedEvent, error) {
	var found []storedEvent
	horizon := uint64(math.MaxUint64)
	for p, r := range s.eachPartition(ctx, func(p uint16) call { return callEvents(p, at.after(p), limit) }) {
		if r.err != nil {
			return nil, r.err
		}
		list, err := r.m.ToArray()
		if err != nil || len(list) != 2 {
			return nil, errEventsAnswer
		}
		entries, err := list[1].AsStrSlice()
		if err != nil {
			return nil, errEventsAnswer
		}
		horizon = min(horizon, uint64(reply(list).number(0)))
		for i := 0; i+1 < len(entries); i += 2 {
			f, err := storedEventOf(uint16(p), entries[i], entries[i+1])
			if err != nil {
				s.log.Error("an event cannot be read and is left out", "partition", p, "entry", entries[i], "err", err)
				f.e = ff.Event{} // the cursor passes it
			}
			found = append(found, f)
		}
	}
	found = slices.DeleteFunc(found, func(e storedEvent) bool { return e.at.ms > horizon })
	slices.SortFunc(found, func(a, b storedEvent) int { return a.at.compare(b.at) })
	return found[:min(limit, len(found))], nil
}

var errEventsAnswer = ff.NewError(ff.CodeInternal, "ffx_events answered something unexpected")

// The parts of an entry, as the functions write them. Those of a signal have three more.
const (
	eventParts  = 12
	signalParts = eventParts + 3
)

var eventFamilies = map[ff.EventType]ff.EventFamily{ff.EventCompletion: ff.FamilyCompletion, ff.EventSignal: ff.FamilySignal,
	ff.EventResumed: ff.FamilySignal, ff.EventEscalated: ff.FamilySignal}

func storedEventOf(p uint16, entry, event string) (storedEvent, error) {
	at, ok := parseStreamID(entry)
	at.partition = p
	v := strings.Split(event, "\x00")
	if !ok || len(v) != eventParts && len(v) != signalParts {
		return storedEvent{at: at}, ff.Errorf(ff.CodeCorruption, "an event of %d parts, want %d", len(v), eventParts)
	}
	f := &fields{hash: "event " + entry, m: map[string]string{"at": v[0], "lease_id": v[3], "lease_epoch": v[4], "attempt_id": v[5],
		"attempt_index": v[6], "flow_id": v[11], "execution_id": v[2]}}
	e := ff.Event{Family: ff.FamilyLease, Type: ff.EventType(v[1]), ID: parsed(f, "execution_id", ff.ParseExecutionID), At: f.instant("at"),
		FlowID: parsed(f, "flow_id", ff.ParseFlowID), LeaseID: parsed(f, "lease_id", ff.ParseLeaseID), LeaseEpoch: f.epoch("lease_epoch"),
		AttemptID: parsed(f, "attempt_id", ff.ParseAttemptID), AttemptIndex: f.count("attempt_index"), Worker: ff.WorkerID(v[7]),
		Instance: ff.WorkerInstanceID(v[8]), Reason: v[9], Outcome: ff.TerminalOutcome(v[10])}
	if family, other := eventFamilies[e.Type]; other {
		e.Family = family
	}
	if len(v) == signalParts {
		f.m["signal_id"], f.m["waitpoint_id"], e.Source = v[12], v[13], v[14]
		e.SignalID, e.WaitpointID = parsed(f, "signal_id", ff.ParseSignalID), parsed(f, "waitpoint_id", ff.ParseWaitpointID)
	}
	return storedEvent{at, e}, f.err
}

// eventsOf reads the events of one execution: those of the log, of which it has a
// list, and those that compatible functions left in its lease history. Each change
// is in one of the two.
func (s *Store) eventsOf(ctx context.Context, c *ff.ReadEvents, at *eventCursor) ([]ff.Event, error) {
	if c.ID.Partition() >= s.partitions.Flow {
		return nil, nil
	}
	all, err := s.positionsOf(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(e storedEvent) bool { return at.passed(e.at) })
	limit := ff.PageLimit(c.Limit)
	var page []ff.Event
	for len(page) < limit && len(all) > 0 {
		some := all[:min(limit, len(all))]
		all = all[len(some):]
		if err := s.readEntries(ctx, some); err != nil {
			return nil, err
		}
		for _, f := range some {
			if len(page) == limit {
				return page, nil
			}
			at.pass(f.at)
			if f.e.Type != "" && (c.Family == "" || c.Family == f.e.Family) {
				f.e.Cursor = ff.EventCursor(at.String())
				page = append(page, f.e)
			}
		}
	}
	return page, nil
}

// positionsOf are all events of an execution, in order; those of the log without
// their contents.
func (s *Store) positionsOf(ctx context.Context, id ff.ExecutionID) (all []storedEvent, err error) {
	k := keysOf(id)
	replies := s.client.DoMulti(ctx, s.client.B().Get().Key(k.events()).Build(), s.client.B().Xrange().Key(k.leaseHistory()).Start("-").End("+").Build(),
		s.client.B().Hmget().Key(k.core()).Field(endFields...).Build())
	list, err := replies[0].AsBytes()
	if err != nil && !valkey.IsValkeyNil(err) {
		return nil, s.lift(ctx, err)
	}
	for _, entry := range strings.Fields(string(list)) {
		if position, ok := parseStreamID(entry); ok {
			position.partition = id.Partition()
			all = append(all, storedEvent{at: position})
		}
	}
	history, err := replies[1].AsXRange()
	if err != nil && !valkey.IsValkeyNil(err) {
		return nil, s.lift(ctx, err)
	}
	for _, entry := range history {
		e, err := historyEvent(id, entry)
		if err != nil {
			s.log.Error("an entry of a lease history cannot be read and is left out", "execution", id, "entry", entry.ID, "err", err)
			continue
		}
		all = append(all, e)
	}
	end, err := replies[2].ToArray()
	if err != nil {
		return nil, s.lift(ctx, err)
	}
	slices.SortStableFunc(all, func(a, b storedEvent) int { return a.at.compare(b.at) })
	if e, ok := endEvent(id, end); ok {
		// Whoever ended it while it was held has told so.
		from, _ := slices.BinarySearchFunc(all, eventPosition{ms: e.at.ms}, func(s storedEvent, p eventPosition) int { return cmp.Compare(s.at.ms, p.ms) })
		if err := s.readEntries(ctx, all[from:]); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all[from:], func(s storedEvent) bool { return s.e.Type == ff.EventCompletion }) {
			all = append(all, e)
		}
	}
	return all, nil
}

// readEntries reads the contents of those events that are in the log. What has been
// trimmed stays without.
func (s *Store) readEntries(ctx context.Context, some []storedEvent) error {
	var commands []valkey.Completed
	var missing []int
	for i, e := range some {
		if e.e.Type == "" {
			missing = append(missing, i)
			commands = append(commands, s.client.B().Xrange().Key(tagOf(e.at.partition).events()).Start(e.at.id()).End(e.at.id()).Build())
		}
	}
	if len(commands) == 0 {
		return nil
	}
	for i, r := range s.client.DoMulti(ctx, commands...) {
		entries, err := r.AsXRange()
		if err != nil && !valkey.IsValkeyNil(err) {
			return s.lift(ctx, err)
		}
		for _, entry := range entries {
			if some[missing[i]], err = storedEventOf(some[missing[i]].at.partition, entry.ID, entry.FieldValues["e"]); err != nil {
				return err
			}
		}
	}
	return nil
}

// historyPartition stands in cursors for the lease history of the execution. No
// partition has this number as long as there are fewer than the most.
const historyPartition = 1<<16 - 1

// releaseOutcomes are the ends that the history knows as releases.
var releaseOutcomes = map[string]ff.TerminalOutcome{"completed": ff.OutcomeSuccess, "cancelled": ff.OutcomeCancelled, "failed_terminal": ff.OutcomeFailed}

// historyEvent reads an entry of a lease history (spec 01 §6.3).
func historyEvent(id ff.ExecutionID, entry valkey.XRangeEntry) (storedEvent, error) {
	at, ok := parseStreamID(entry.ID)
	at.partition = historyPartition
	v := entry.FieldValues
	f := &fields{hash: "lease history of " + id.String(), m: v}
	e := ff.Event{Family: ff.FamilyLease, Type: ff.EventType(v["event"]), ID: id, At: f.instant("ts"), LeaseID: parsed(f, "lease_id", ff.ParseLeaseID),
		LeaseEpoch: uint64(f.number("lease_epoch")), AttemptID: parsed(f, "attempt_id", ff.ParseAttemptID), AttemptIndex: f.count("attempt_index"),
		Worker: ff.WorkerID(v["worker_id"]), Instance: ff.WorkerInstanceID(v["worker_instance_id"]), Reason: v["reason"]}
	switch e.Type {
	case ff.EventAcquired, ff.EventLeaseExpired, ff.EventRevoked:
	case ff.EventReleased:
		e.Outcome = releaseOutcomes[e.Reason]
		if rest, expired := strings.CutPrefix(e.Reason, "expired:"); expired {
			e.Outcome, e.Reason = ff.OutcomeExpired, rest
		}
		if e.Outcome != "" {
			e.Family, e.Type = ff.FamilyCompletion, ff.EventCompletion
		}
	case ff.EventReclaimed:
		e.LeaseID, e.LeaseEpoch = parsed(f, "new_lease_id", ff.ParseLeaseID), uint64(f.number("new_lease_epoch"))
		e.AttemptID, e.AttemptIndex = parsed(f, "new_attempt_id", ff.ParseAttemptID), f.count("new_attempt_index")
	case ff.EventReplayInitiated:
		e.Reason = v["replay_type"]
	default:
		f.fail("event", fmt.Sprintf("event is %.40q, which is not known", v["event"]))
	}
	if !ok || e.At.IsZero() {
		f.fail("ts", "the entry has no time")
	}
	return storedEvent{at, e}, f.err
}

var endFields = []string{"lifecycle_phase", "terminal_outcome", "completed_at", "cancellation_reason", "failure_reason", "current_attempt_index", "flow_id"}

// endEvent is the completion of an execution that a compatible function ended while
// nobody held it, which leaves no entry.
func endEvent(id ff.ExecutionID, end reply) (storedEvent, bool) {
	f := &fields{hash: "execution " + id.String(), m: map[string]string{}}
	for i, name := range endFields {
		f.m[name] = end.text(i)
	}
	e := ff.Event{Family: ff.FamilyCompletion, Type: ff.EventCompletion, ID: id, At: f.instant("completed_at"), FlowID: parsed(f, "flow_id", ff.ParseFlowID),
		AttemptIndex: f.count("current_attempt_index"), Reason: f.m["failure_reason"], Outcome: ff.TerminalOutcome(f.m["terminal_outcome"])}
	if f.err != nil || f.m["lifecycle_phase"] != string(ff.PhaseTerminal) || e.At.IsZero() {
		return storedEvent{}, false
	}
	if e.Outcome == ff.OutcomeCancelled {
		e.Reason = f.m["cancellation_reason"]
	}
	return storedEvent{eventPosition{ms: uint64(e.At.UnixMilli()), seq: endSequence, partition: historyPartition}, e}, true
}

// endSequence is behind the entries of the same millisecond.
const endSequence = 1 << 32

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

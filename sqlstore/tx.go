package sqlstore

import (
	"fmt"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// tx is the transaction of one batch and what the writer keeps between batches.
// Only the goroutine of the writer uses it.
type tx struct {
	s *Store
	c Conn
	// now is the store's clock at the start of the command's batch.
	now   time.Time
	begun bool

	ready ready
	// spent are the marks of ready that this transaction has cleared.
	spent []laneCaps
	// unreadable are damaged rows that claims have met and pass over, until the
	// store is opened anew.
	unreadable map[int64]bool
	seqs       sequence
	events     sequence
	updates    map[mask]*Statement
	args       []Value
	// old is the record before the rule of the current command.
	old        ff.Execution
	oldDerived derived

	// What the transaction did, published after its commit.
	deltas   map[countKey]int64
	leases   map[ff.WorkerInstanceID]int
	woken    map[laneCaps]int
	dues     map[int64]int64
	tailed   map[tailed]bool
	happened bool
	interned []func()
}

type laneCaps struct{ lane, caps int64 }

func (t *tx) init(s *Store, c Conn) error {
	*t = tx{
		s: s, updates: map[mask]*Statement{}, ready: ready{}, unreadable: map[int64]bool{},
		seqs: sequence{name: "execution"}, events: sequence{name: "event"},
		deltas: map[countKey]int64{}, leases: map[ff.WorkerInstanceID]int{}, woken: map[laneCaps]int{}, dues: map[int64]int64{},
		tailed: map[tailed]bool{},
	}
	if err := t.seqs.load(c); err != nil {
		return err
	}
	if err := t.events.load(c); err != nil {
		return err
	}
	return t.ready.load(c)
}

func (t *tx) start(c Conn) {
	t.c, t.begun, t.now = c, false, t.s.now()
	t.reset()
}

func (t *tx) reset() {
	clear(t.interned)
	t.interned, t.happened, t.spent = t.interned[:0], false, t.spent[:0]
	clear(t.deltas)
	clear(t.leases)
	clear(t.woken)
	clear(t.dues)
	clear(t.tailed)
}

// query reads. It sees what this transaction wrote.
func (t *tx) query(s *Statement, args []Value, row func(Row) error) error {
	return t.c.Query(s, args, row)
}

// exec writes. The first write of a batch begins the transaction, so that
// batches which only look cost no commit.
func (t *tx) exec(s *Statement, args ...Value) error {
	if !t.begun {
		if err := t.c.Begin(); err != nil {
			return err
		}
		t.begun = true
	}
	return t.c.Query(s, args, nil)
}

func (t *tx) commit() error {
	if !t.begun {
		return nil
	}
	if err := t.writeCounts(); err != nil {
		t.rollback()
		return err
	}
	// Before the commit: a reader that sees an event at once may go on from it.
	t.s.lastEvent.Store(t.events.next - 1)
	if err := t.c.Commit(); err != nil {
		t.rollback()
		return err
	}
	t.seqs.committed()
	t.events.committed()
	t.publish()
	return nil
}

func (t *tx) rollback() {
	if t.begun {
		if err := t.c.Rollback(); err != nil {
			t.s.log.Error("a rollback failed", "error", err)
		}
		t.begun = false
	}
	for _, undo := range t.interned {
		undo()
	}
	// What made a look find nothing is undone as well.
	for _, at := range t.spent {
		t.ready.add(at)
	}
	t.seqs.rolledBack()
	t.events.rolledBack()
	t.reset()
}

var upsertCount = statement(`insert into counts (namespace, lane, kind, state, n) values ($1, $2, $3, $4, $5)
on conflict (namespace, lane, kind, state) do update set n = n + excluded.n`)

func (t *tx) writeCounts() error {
	for k, n := range t.deltas {
		if n == 0 {
			continue
		}
		if err := t.exec(upsertCount, integer(k.namespace), integer(k.lane), integer(k.kind), integer(k.state), integer(n)); err != nil {
			return err
		}
	}
	return nil
}

// publish tells the rest of the process what was committed.
func (t *tx) publish() {
	t.s.counts.add(t.deltas, t.leases)
	for at, n := range t.woken {
		t.s.claims.Wake(ff.LaneID(t.s.names.name(at.lane)), t.s.capabilities.set(at.caps), n)
	}
	for kind, at := range t.dues {
		t.s.due.Stored(sweepKinds.word(kind), time.UnixMilli(at))
	}
	for at := range t.tailed {
		t.s.tails.WakeAll(at.id, at.attempt)
	}
	if t.happened {
		t.s.events.WakeAll(struct{}{}, struct{}{})
	}
}

// load reads an execution. Records are not kept between commands: a cache of
// them saved allocations but no measurable time. Errors: execution_not_found.
func (t *tx) load(id ff.ExecutionID) (*record, error) { return t.s.existing(t.c, id) }

// bySeq reads an execution by its key; nil when it is gone.
func (t *tx) bySeq(seq int64) (*record, error) {
	return t.s.oneRecord(t.c, selectBySeq, integer(seq))
}

// existing reads an execution. Errors: execution_not_found.
func (s *Store) existing(c Conn, id ff.ExecutionID) (*record, error) {
	rec, err := s.selectRecord(c, id)
	if err == nil && rec == nil {
		err = ff.Errorf(ff.CodeExecutionNotFound, "there is no execution %s", id)
	}
	return rec, err
}

// selectRecord reads an execution; nil when there is none of this very id.
func (s *Store) selectRecord(c Conn, id ff.ExecutionID) (*record, error) {
	uuid := id.UUID()
	rec, err := s.oneRecord(c, selectByID, integer(int64(id.Partition())), blob(uuid[:]))
	if rec != nil && rec.x.ID != id {
		return nil, err
	}
	return rec, err
}

func (s *Store) oneRecord(c Conn, q *Statement, args ...Value) (rec *record, err error) {
	err = c.Query(q, args, func(r Row) error {
		rec, err = s.readRecord(r)
		return err
	})
	return rec, err
}

// apply runs a rule on a record and saves what it changed, also when the rule
// refused and recorded something (see package lifecycle). The error is the
// rule's, or one of the database.
func (t *tx) apply(rec *record, rule func(x *ff.Execution) (lifecycle.Effects, error)) error {
	t.old, t.oldDerived = rec.x, rec.derived
	fx, refused := rule(&rec.x)
	if refused != nil && len(fx.Events) == 0 {
		rec.x = t.old
		return refused
	}
	if err := t.save(rec, &fx); err != nil {
		return err
	}
	return refused
}

// save writes the difference between the record and t.old, and the effects.
func (t *tx) save(rec *record, fx *lifecycle.Effects) error {
	rec.derived = derive(&rec.x, t.s.retention)
	m := changes(&t.old, &rec.x, &t.oldDerived, &rec.derived)
	if err := t.update(rec, m); err != nil {
		return err
	}
	if fx.Superseded != nil {
		if err := t.insertAttempt(rec.seq, fx.Superseded); err != nil {
			return err
		}
	}
	for i := range fx.Events {
		if err := t.insertEvent(rec.seq, &fx.Events[i]); err != nil {
			return err
		}
	}
	if lifecycle.StreamsMayClose(&t.old, &rec.x) {
		t.tailed[tailed{rec.x.ID, anyAttempt}] = true
	}
	t.note(rec, &t.oldDerived, heldBy(&t.old))
	return nil
}

// maxUpdates bounds the prepared updates. Commands make a few dozen; beyond the
// bound all columns are written.
const maxUpdates = 128

func (t *tx) update(rec *record, m mask) error {
	if m.count() == 0 {
		return nil
	}
	s, ok := t.updates[m]
	if !ok && len(t.updates) >= maxUpdates {
		m = everyColumn
		s, ok = t.updates[m]
	}
	if !ok {
		s = updateStatement(m)
		t.updates[m] = s
	}
	t.args = updateValues(t.args[:0], m, rec)
	return t.exec(s, t.args...)
}

// note collects what a change means for the counts, the waiting claimers and
// the loops. A zero before means that the record is new.
func (t *tx) note(rec *record, before *derived, holder ff.WorkerInstanceID) {
	if rec.public != before.public {
		if before.public != 0 {
			t.deltas[rec.count(before.public)]--
		}
		t.deltas[rec.count(rec.public)]++
	}
	if now := heldBy(&rec.x); now != holder {
		t.leases[holder]--
		t.leases[now]++
	}
	if rec.claimable != 0 && before.claimable == 0 {
		at := laneCaps{rec.lane, rec.caps}
		t.ready.add(at)
		t.woken[at]++
	}
	if rec.dueKind != 0 && (rec.dueKind != before.dueKind || rec.dueAt != before.dueAt) {
		t.dueMs(rec.dueKind, rec.dueAt)
	}
}

// dueAt remembers that something of a kind is due, for the loops.
func (t *tx) dueAt(kind int64, at time.Time) { t.dueMs(kind, at.UnixMilli()) }

func (t *tx) dueMs(kind, at int64) {
	if known, ok := t.dues[kind]; !ok || at < known {
		t.dues[kind] = at
	}
}

// heldBy is the process that holds the lease in force; empty when none does.
func heldBy(x *ff.Execution) ff.WorkerInstanceID {
	if x.State.Phase == ff.PhaseActive && x.State.Ownership == ff.OwnershipLeased {
		return x.Lease.Instance
	}
	return ""
}

func (t *tx) insertAttempt(seq int64, a *ff.Attempt) error {
	t.args = append(t.args[:0], integer(seq))
	for i := range attemptColumns {
		t.args = append(t.args, attemptColumns[i].put(a))
	}
	return t.exec(insertAttempt, t.args...)
}

// intern gives the number of a text, writing it when it is new.
func (t *tx) intern(n *interned, insert *Statement, s string) (int64, error) {
	if id, ok := n.id(s); ok {
		return id, nil
	}
	n.mu.Lock()
	n.last++
	id := n.last
	n.mu.Unlock()
	if err := t.exec(insert, integer(id), text(s)); err != nil {
		return 0, err
	}
	n.put(id, s)
	t.interned = append(t.interned, func() { n.drop(id) })
	return id, nil
}

// sequence hands out keys that are never used twice, also when the rows with
// the highest keys are deleted: it reserves blocks in the table meta.
type sequence struct {
	name string
	// next is the next key; keys from limit on are not reserved.
	next, limit int64
	// safe is the limit that is committed.
	safe int64
}

const sequenceBlock = 4096

var (
	selectMeta = statement("select value from meta where name = $1")
	upsertMeta = statement("insert into meta (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value")
)

func (q *sequence) load(c Conn) error {
	q.next = 1
	err := c.Query(selectMeta, []Value{text(q.name)}, func(r Row) error {
		q.next = r.Int(0)
		return nil
	})
	q.limit, q.safe = q.next, q.next
	return err
}

func (q *sequence) take(t *tx) (int64, error) {
	if q.next >= q.limit {
		// After an undone batch next may be far beyond the limit.
		limit := q.next + sequenceBlock
		if err := t.exec(upsertMeta, text(q.name), integer(limit)); err != nil {
			return 0, err
		}
		q.limit = limit
	}
	n := q.next
	q.next++
	return n, nil
}

func (q *sequence) committed()  { q.safe = q.limit }
func (q *sequence) rolledBack() { q.limit = q.safe }

// errMissing reports a row that another row refers to.
func errMissing(what string, seq int64) error {
	return fmt.Errorf("%s of execution number %d is missing", what, seq)
}

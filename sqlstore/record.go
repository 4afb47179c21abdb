package sqlstore

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// record is one row of executions in memory.
type record struct {
	// seq is the key of the row; it grows with every execution created.
	seq int64
	// The interned names of the namespace, the lane, the kind and the set of
	// required capabilities.
	namespace, lane, kind, caps int64
	// policy is the stored text of x.Policy.
	policy string
	// key is the idempotency key, kept so that the purge finds its entry.
	key string
	x   ff.Execution
	derived
}

// derived are the columns that the indexes need; each follows from the record.
type derived struct {
	public, score, claimable, dueKind, dueAt int64
}

func derive(x *ff.Execution, retention time.Duration) derived {
	d := derived{public: publicStates.code(x.PublicState()), score: lifecycle.Score(x)}
	if lifecycle.Claimable(x) {
		d.claimable = 1
	}
	if due, ok := lifecycle.NextDue(x, retention); ok {
		// 0 would be stored as NULL, which no loop finds.
		d.dueKind, d.dueAt = sweepKinds.code(due.Kind), max(due.At.UnixMilli(), 1)
	}
	return d
}

// column maps one field of T to one column.
type column[T any] struct {
	name string
	same func(a, b *T) bool
	// put gives the stored form. It may round the field to what is stored.
	put func(x *T) Value
	get func(x *T, r Row, col int)
}

func textColumn[T any, S ~string](name string, field func(*T) *S) column[T] {
	return column[T]{name,
		func(a, b *T) bool { return *field(a) == *field(b) },
		func(x *T) Value { return textOrNull(string(*field(x))) },
		func(x *T, r Row, col int) { *field(x) = S(r.Text(col)) }}
}

func wordColumn[T any, S ~string](name string, w words[S], field func(*T) *S) column[T] {
	return column[T]{name,
		func(a, b *T) bool { return *field(a) == *field(b) },
		func(x *T) Value { return integer(w.code(*field(x))) },
		func(x *T, r Row, col int) { *field(x) = w.word(r.Int(col)) }}
}

func intColumn[T any, N ~int | ~uint64](name string, field func(*T) *N) column[T] {
	return column[T]{name,
		func(a, b *T) bool { return *field(a) == *field(b) },
		func(x *T) Value { return integer(int64(*field(x))) },
		func(x *T, r Row, col int) { *field(x) = N(r.Int(col)) }}
}

func timeColumn[T any](name string, field func(*T) *time.Time) column[T] {
	return column[T]{name,
		func(a, b *T) bool { return field(a).Equal(*field(b)) },
		func(x *T) Value { *field(x) = round(*field(x)); return instant(*field(x)) },
		func(x *T, r Row, col int) { *field(x) = readInstant(r, col) }}
}

func uuidColumn[T any, U ~[16]byte](name string, field func(*T) *U) column[T] {
	return column[T]{name,
		func(a, b *T) bool { return *field(a) == *field(b) },
		func(x *T) Value { return uuidOrNull(*field(x)) },
		func(x *T, r Row, col int) { *field(x) = U(readUUID(r, col)) }}
}

// within makes columns of a part into columns of the whole.
func within[T, P any](prefix string, part func(*T) *P, columns []column[P]) []column[T] {
	out := make([]column[T], len(columns))
	for i, c := range columns {
		out[i] = column[T]{prefix + c.name,
			func(a, b *T) bool { return c.same(part(a), part(b)) },
			func(x *T) Value { return c.put(part(x)) },
			func(x *T, r Row, col int) { c.get(part(x), r, col) }}
	}
	return out
}

var attemptColumns = []column[ff.Attempt]{
	uuidColumn("id", func(a *ff.Attempt) *ff.AttemptID { return &a.ID }),
	intColumn("index", func(a *ff.Attempt) *int { return &a.Index }),
	wordColumn("type", attemptTypes, func(a *ff.Attempt) *ff.AttemptType { return &a.Type }),
	wordColumn("state", attemptStates, func(a *ff.Attempt) *ff.AttemptState { return &a.State }),
	timeColumn("created_at", func(a *ff.Attempt) *time.Time { return &a.CreatedAt }),
	timeColumn("started_at", func(a *ff.Attempt) *time.Time { return &a.StartedAt }),
	timeColumn("ended_at", func(a *ff.Attempt) *time.Time { return &a.EndedAt }),
	textColumn("worker", func(a *ff.Attempt) *ff.WorkerID { return &a.Worker }),
	textColumn("instance", func(a *ff.Attempt) *ff.WorkerInstanceID { return &a.Instance }),
	uuidColumn("lease_id", func(a *ff.Attempt) *ff.LeaseID { return &a.LeaseID }),
	intColumn("lease_epoch", func(a *ff.Attempt) *uint64 { return &a.LeaseEpoch }),
	intColumn("previous", func(a *ff.Attempt) *int { return &a.Previous }),
	timeColumn("suspended_at", func(a *ff.Attempt) *time.Time { return &a.SuspendedAt }),
	timeColumn("resumed_at", func(a *ff.Attempt) *time.Time { return &a.ResumedAt }),
	textColumn("suspension", func(a *ff.Attempt) *string { return &a.Suspension }),
	textColumn("failure_reason", func(a *ff.Attempt) *string { return &a.FailureReason }),
	textColumn("failure_category", func(a *ff.Attempt) *string { return &a.FailureCategory }),
	textColumn("cause", func(a *ff.Attempt) *string { return &a.Cause }),
	textColumn("requested_by", func(a *ff.Attempt) *string { return &a.RequestedBy }),
}

var leaseColumns = []column[ff.Lease]{
	uuidColumn("id", func(l *ff.Lease) *ff.LeaseID { return &l.ID }),
	textColumn("worker", func(l *ff.Lease) *ff.WorkerID { return &l.Worker }),
	textColumn("instance", func(l *ff.Lease) *ff.WorkerInstanceID { return &l.Instance }),
	timeColumn("acquired_at", func(l *ff.Lease) *time.Time { return &l.AcquiredAt }),
	timeColumn("expires_at", func(l *ff.Lease) *time.Time { return &l.ExpiresAt }),
	timeColumn("renewed_at", func(l *ff.Lease) *time.Time { return &l.RenewedAt }),
	timeColumn("renew_before", func(l *ff.Lease) *time.Time { return &l.RenewBefore }),
}

type xcolumn = column[ff.Execution]

// stateColumns are the columns that commands change. Those that most rows leave
// NULL come last, where they cost nearly nothing.
var stateColumns = concat(
	[]xcolumn{
		wordColumn("phase", phases, func(x *ff.Execution) *ff.LifecyclePhase { return &x.State.Phase }),
		wordColumn("ownership", ownerships, func(x *ff.Execution) *ff.OwnershipState { return &x.State.Ownership }),
		wordColumn("eligibility", eligibilities, func(x *ff.Execution) *ff.EligibilityState { return &x.State.Eligibility }),
		wordColumn("blocking", blockings, func(x *ff.Execution) *ff.BlockingReason { return &x.State.Blocking }),
		wordColumn("outcome", outcomes, func(x *ff.Execution) *ff.TerminalOutcome { return &x.State.Outcome }),
		wordColumn("attempt_phase", attemptPhases, func(x *ff.Execution) *ff.AttemptPhase { return &x.State.Attempt }),
		intColumn("priority", func(x *ff.Execution) *int { return &x.Priority }),
		uuidColumn("current_attempt_id", func(x *ff.Execution) *ff.AttemptID { return &x.CurrentAttemptID }),
		intColumn("total_attempts", func(x *ff.Execution) *int { return &x.TotalAttempts }),
		intColumn("retry_count", func(x *ff.Execution) *int { return &x.RetryCount }),
		intColumn("replay_count", func(x *ff.Execution) *int { return &x.ReplayCount }),
		intColumn("reclaim_count", func(x *ff.Execution) *int { return &x.ReclaimCount }),
		intColumn("lease_epoch", func(x *ff.Execution) *uint64 { return &x.LeaseEpoch }),
		timeColumn("started_at", func(x *ff.Execution) *time.Time { return &x.StartedAt }),
		timeColumn("completed_at", func(x *ff.Execution) *time.Time { return &x.CompletedAt }),
		timeColumn("last_transition_at", func(x *ff.Execution) *time.Time { return &x.LastTransitionAt }),
		timeColumn("last_mutation_at", func(x *ff.Execution) *time.Time { return &x.LastMutationAt }),
	},
	within("lease_", func(x *ff.Execution) *ff.Lease { return &x.Lease }, leaseColumns),
	within("attempt_", func(x *ff.Execution) *ff.Attempt { return &x.Attempt }, attemptColumns),
	[]xcolumn{
		uuidColumn("flow_id", func(x *ff.Execution) *ff.FlowID { return &x.FlowID }),
		textColumn("blocking_detail", func(x *ff.Execution) *string { return &x.BlockingDetail }),
		timeColumn("delay_until", func(x *ff.Execution) *time.Time { return &x.DelayUntil }),
		timeColumn("deadline", func(x *ff.Execution) *time.Time { return &x.Deadline }),
		timeColumn("attempt_timeout_at", func(x *ff.Execution) *time.Time { return &x.AttemptTimeoutAt }),
		tagsColumn,
		percentColumn,
		textColumn("progress_message", func(x *ff.Execution) *string { return &x.Progress.Message }),
		timeColumn("progress_updated_at", func(x *ff.Execution) *time.Time { return &x.Progress.UpdatedAt }),
		textColumn("failure_reason", func(x *ff.Execution) *string { return &x.FailureReason }),
		textColumn("failure_category", func(x *ff.Execution) *string { return &x.FailureCategory }),
		textColumn("cancellation_reason", func(x *ff.Execution) *string { return &x.CancellationReason }),
		textColumn("cancelled_by", func(x *ff.Execution) *ff.CancelSource { return &x.CancelledBy }),
		timeColumn("lease_expired_at", func(x *ff.Execution) *time.Time { return &x.LeaseExpiredAt }),
		timeColumn("lease_revoked_at", func(x *ff.Execution) *time.Time { return &x.LeaseRevokedAt }),
		textColumn("lease_revoke_reason", func(x *ff.Execution) *string { return &x.LeaseRevokeReason }),
		textColumn("pending_retry_reason", func(x *ff.Execution) *string { return &x.PendingRetryReason }),
		textColumn("pending_replay_reason", func(x *ff.Execution) *string { return &x.PendingReplayReason }),
		textColumn("pending_replay_by", func(x *ff.Execution) *string { return &x.PendingReplayBy }),
		intColumn("pending_previous_attempt", func(x *ff.Execution) *int { return &x.PendingPreviousAttempt }),
		timeColumn("capability_mismatch_at", func(x *ff.Execution) *time.Time { return &x.CapabilityMismatchAt }),
		grantColumn,
		uuidColumn("suspension_id", func(x *ff.Execution) *ff.SuspensionID { return &x.SuspensionID }),
		uuidColumn("waitpoint_id", func(x *ff.Execution) *ff.WaitpointID { return &x.WaitpointID }),
		timeColumn("suspension_timeout_at", func(x *ff.Execution) *time.Time { return &x.SuspensionTimeoutAt }),
	})

// tagsColumn holds the tags as a JSON object.
var tagsColumn = xcolumn{"tags",
	func(a, b *ff.Execution) bool { return sameTags(a.Tags, b.Tags) },
	func(x *ff.Execution) Value {
		if len(x.Tags) == 0 {
			return Value{}
		}
		return text(mustJSON(x.Tags))
	},
	func(x *ff.Execution, r Row, col int) {
		if !r.Null(col) {
			readJSON(r, col, &x.Tags)
		}
	}}

func sameTags(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// percentColumn tells 0 percent from "never reported".
var percentColumn = xcolumn{"progress_percent",
	func(a, b *ff.Execution) bool {
		p, q := a.Progress.Percent, b.Progress.Percent
		return p == q || p != nil && q != nil && *p == *q
	},
	func(x *ff.Execution) Value {
		if x.Progress.Percent == nil {
			return Value{}
		}
		return integer(int64(*x.Progress.Percent))
	},
	func(x *ff.Execution, r Row, col int) {
		if !r.Null(col) {
			p := int(r.Int(col))
			x.Progress.Percent = &p
		}
	}}

// grantColumn holds the rare and short-lived grant as one JSON object.
var grantColumn = xcolumn{"claim_grant",
	func(a, b *ff.Execution) bool { return a.Grant == b.Grant },
	func(x *ff.Execution) Value {
		if x.Grant == (ff.Grant{}) {
			return Value{}
		}
		x.Grant.ExpiresAt, x.Grant.CreatedAt = round(x.Grant.ExpiresAt), round(x.Grant.CreatedAt)
		return text(mustJSON(x.Grant))
	},
	func(x *ff.Execution, r Row, col int) {
		if !r.Null(col) {
			readJSON(r, col, &x.Grant)
		}
	}}

// mustJSON encodes values that always have a JSON form.
func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("sqlstore: %T has no JSON form: %v", v, err))
	}
	return string(b)
}

// readJSON reads what mustJSON wrote; text that somebody else damaged reads as
// the zero value.
func readJSON(r Row, col int, into any) { _ = json.Unmarshal([]byte(r.Text(col)), into) }

func concat[T any](lists ...[]T) (out []T) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func columnNames[T any](columns []column[T]) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = quoted(c.name)
	}
	return strings.Join(names, ", ")
}

// quoted protects the one column whose name is a word of SQL.
func quoted(name string) string {
	if name == "index" {
		return `"index"`
	}
	return name
}

// placeholders is "$from, …" with n parameters.
func placeholders(from, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", from+i)
	}
	return b.String()
}

// fixedColumns never change after the insert.
const fixedColumns = "seq, partition, uuid, namespace, lane, kind, caps, creator, encoding, policy, idempotency_key, created_at"

const fixedCount = 12

// derivedColumns are written with the state and never read.
var derivedColumns = []struct {
	name string
	of   func(d *derived) int64
	// null says that 0 is stored as NULL, which keeps the row out of the partial
	// index.
	null bool
}{
	{"public_state", func(d *derived) int64 { return d.public }, false},
	{"score", func(d *derived) int64 { return d.score }, false},
	{"claimable", func(d *derived) int64 { return d.claimable }, true},
	{"due_kind", func(d *derived) int64 { return d.dueKind }, true},
	{"due_at", func(d *derived) int64 { return d.dueAt }, true},
}

func derivedValue(d *derived, i int) Value {
	n := derivedColumns[i].of(d)
	if n == 0 && derivedColumns[i].null {
		return Value{}
	}
	return integer(n)
}

func derivedNames() string {
	names := make([]string, len(derivedColumns))
	for i, c := range derivedColumns {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

var (
	recordColumns = fixedColumns + ", " + columnNames(stateColumns)

	insertExecution = statement("insert into executions (" + recordColumns + ", " + derivedNames() + ") values (" +
		placeholders(1, fixedCount+len(stateColumns)+len(derivedColumns)) + ")")

	selectByID  = statement("select " + recordColumns + " from executions where partition = $1 and uuid = $2")
	selectBySeq = statement("select " + recordColumns + " from executions where seq = $1")

	insertAttempt = statement("insert into attempts (seq, " + columnNames(attemptColumns) + ") values (" +
		placeholders(1, 1+len(attemptColumns)) + ")")
	selectAttempts = statement("select " + columnNames(attemptColumns) + ` from attempts where seq = $1 order by "index"`)
)

// mask marks the state columns, then the derived ones.
type mask [2]uint64

func (m *mask) set(i int)     { m[i/64] |= 1 << (i % 64) }
func (m mask) has(i int) bool { return m[i/64]&(1<<(i%64)) != 0 }
func (m mask) count() int     { return bits.OnesCount64(m[0]) + bits.OnesCount64(m[1]) }

// everyColumn marks all.
var everyColumn = func() (m mask) {
	for i := range len(stateColumns) + len(derivedColumns) {
		m.set(i)
	}
	return m
}()

// changes says which columns differ between two states of a record.
func changes(a, b *ff.Execution, da, db *derived) (m mask) {
	for i := range stateColumns {
		if !stateColumns[i].same(a, b) {
			m.set(i)
		}
	}
	for i := range derivedColumns {
		if c := derivedColumns[i]; c.of(da) != c.of(db) {
			m.set(len(stateColumns) + i)
		}
	}
	return m
}

// updateStatement is the UPDATE of the marked columns; its last parameter is
// the seq.
func updateStatement(m mask) *Statement {
	var b strings.Builder
	b.WriteString("update executions set ")
	n := 0
	for i := range len(stateColumns) + len(derivedColumns) {
		if !m.has(i) {
			continue
		}
		if n++; n > 1 {
			b.WriteString(", ")
		}
		name := ""
		if i < len(stateColumns) {
			name = stateColumns[i].name
		} else {
			name = derivedColumns[i-len(stateColumns)].name
		}
		fmt.Fprintf(&b, "%s = $%d", name, n)
	}
	fmt.Fprintf(&b, " where seq = $%d", n+1)
	return &Statement{SQL: b.String()}
}

// updateValues appends the parameters of updateStatement.
func updateValues(args []Value, m mask, rec *record) []Value {
	for i := range stateColumns {
		if m.has(i) {
			args = append(args, stateColumns[i].put(&rec.x))
		}
	}
	for i := range derivedColumns {
		if m.has(len(stateColumns) + i) {
			args = append(args, derivedValue(&rec.derived, i))
		}
	}
	return append(args, integer(rec.seq))
}

// insertValues appends the parameters of insertExecution.
func insertValues(args []Value, rec *record) []Value {
	x := &rec.x
	uuid := x.ID.UUID()
	args = append(args, integer(rec.seq), integer(int64(x.ID.Partition())), blob(uuid[:]),
		integer(rec.namespace), integer(rec.lane), integer(rec.kind), integer(rec.caps),
		textOrNull(x.Creator), textOrNull(x.PayloadEncoding), textOrNull(rec.policy), textOrNull(rec.key),
		instant(x.CreatedAt))
	for i := range stateColumns {
		args = append(args, stateColumns[i].put(x))
	}
	for i := range derivedColumns {
		args = append(args, derivedValue(&rec.derived, i))
	}
	return args
}

// readRecord reads a row of recordColumns.
func (s *Store) readRecord(r Row) (*record, error) {
	rec := &record{
		seq: r.Int(0), namespace: r.Int(3), lane: r.Int(4), kind: r.Int(5), caps: r.Int(6),
		policy: r.Text(9), key: r.Text(10),
	}
	x := &rec.x
	x.ID = ff.MakeExecutionID(uint16(r.Int(1)), readUUID(r, 2))
	x.Namespace = ff.Namespace(s.names.name(rec.namespace))
	x.Lane, x.Kind = ff.LaneID(s.names.name(rec.lane)), s.names.name(rec.kind)
	x.Required = s.capabilities.set(rec.caps)
	x.Creator, x.PayloadEncoding = r.Text(7), r.Text(8)
	x.CreatedAt = readInstant(r, 11)
	for i := range stateColumns {
		if !r.Null(fixedCount + i) {
			stateColumns[i].get(x, r, fixedCount+i)
		}
	}
	var err error
	if x.Policy, err = parsePolicy(rec.policy); err != nil {
		return nil, ff.Errorf(ff.CodeCorruption, "the stored policy of execution %s cannot be read: %s", x.ID, err.Error())
	}
	rec.derived = derive(x, s.retention)
	return rec, nil
}

func parsePolicy(stored string) (*ff.ExecutionPolicy, error) {
	if stored == "" {
		return nil, nil
	}
	p := new(ff.ExecutionPolicy)
	return p, json.Unmarshal([]byte(stored), p)
}

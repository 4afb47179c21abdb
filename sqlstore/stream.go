package sqlstore

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

var (
	selectStream = statement("select x.seq, " + qualified("x", columnNamesOf(streamColumns)) + ", " + qualified("s", streamFields) + `
from executions as x left join streams as s on s.seq = x.seq and s.attempt = $1 where x.partition = $2 and x.uuid = $3`)
	selectCurrentStream = statement("select x.seq, " + qualified("x", columnNamesOf(streamColumns)) + ", " + qualified("s", streamFields) + `
from executions as x left join streams as s on s.seq = x.seq and s.attempt = x.attempt_index where x.partition = $1 and x.uuid = $2`)
	upsertStream = statement(`insert into streams (seq, attempt, count, kept, last_ms, last_n, lasting, expires_at, rate, rated_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (seq, attempt) do update set count = excluded.count, kept = excluded.kept, last_ms = excluded.last_ms, last_n = excluded.last_n,
lasting = excluded.lasting, expires_at = excluded.expires_at, rate = excluded.rate, rated_at = excluded.rated_at`)

	insertFrame = statement(`insert into frames (seq, attempt, ms, n, mode, written, type, encoding, source, correlation_id, detail, payload)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`)
	selectFrames = statement(`select ms, n, mode, written, type, encoding, source, correlation_id, detail, payload
from frames where seq = $1 and attempt = $2 and (ms, n) >= ($3, $4) and (ms, n) <= ($5, $6) order by ms, n limit $7`)
	deleteOldest = statement(`delete from frames where (seq, attempt, ms, n) in
(select seq, attempt, ms, n from frames where seq = $1 and attempt = $2 order by ms, n limit $3)`)
	deleteFrames = statement("delete from frames where seq = $1 and attempt = $2")

	selectSummary = statement("select version, applied_at, updated_at, document from summaries where seq = $1 and attempt = $2")
	upsertSummary = statement(`insert into summaries (seq, attempt, version, applied_at, updated_at, document) values ($1, $2, $3, $4, $5, $6)
on conflict (seq, attempt) do update set version = excluded.version, updated_at = excluded.updated_at, document = excluded.document`)

	selectAttemptAndNext = statement("select " + columnNames(attemptColumns) + ` from attempts where seq = $1 and "index" between $2 and $3`)
)

// streamColumns are what the rules of streams look at in an execution: appends and
// tails are many, and a whole record is long.
var streamColumns = columnsNamed(stateColumns, "phase", "ownership", "outcome", "current_attempt_id", "total_attempts", "lease_epoch",
	"completed_at", "lease_id", "lease_expires_at", "attempt_index", "attempt_type", "attempt_state", "attempt_ended_at",
	"attempt_failure_reason", "attempt_failure_category", "lease_expired_at", "pending_retry_reason")

// streamFields are the columns of streams that scanStream reads.
var streamFields = []string{"count", "kept", "last_ms", "last_n", "lasting", "expires_at", "rate", "rated_at"}

func columnsNamed[T any](all []column[T], names ...string) (list []column[T]) {
	for _, c := range all {
		if slices.Contains(names, c.name) {
			list = append(list, c)
		}
	}
	return list
}

func columnNamesOf[T any](columns []column[T]) (names []string) {
	for i := range columns {
		names = append(names, columns[i].name)
	}
	return names
}

func qualified(table string, names []string) string {
	return table + "." + strings.Join(names, ", "+table+".")
}

// rateUnit is how many units of streams.rate are one frame per second.
const rateUnit = 1e6

// streamKey is the key of the output stream of an attempt.
type streamKey struct {
	seq     int64
	attempt int
}

func (k streamKey) args(more ...Value) []Value {
	return append([]Value{integer(k.seq), integer(int64(k.attempt))}, more...)
}

// AppendFrames appends to the stream of the attempt that holds the lease.
func (s *Store) AppendFrames(ctx context.Context, c ff.AppendFrames) (ff.AppendFramesResult, error) {
	args, err := lifecycle.PrepareAppend(&c)
	if err != nil {
		return ff.AppendFramesResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.AppendFramesResult, error) { return t.appendFrames(&args) })
}

func (t *tx) appendFrames(c *lifecycle.AppendArgs) (r ff.AppendFramesResult, err error) {
	at, err := findStream(t.c, selectCurrentStream, c.ID)
	if err != nil {
		return r, err
	}
	if at == nil {
		return r, lifecycle.NoStream(c.ID)
	}
	key := streamKey{at.seq, at.x.Attempt.Index}
	var summary *lifecycle.Summary
	if c.Patches() {
		if summary, err = readDocument(t.c, key); err != nil {
			return r, err
		}
	}
	a, err := lifecycle.Append(&at.x, &at.stream, summary, c, t.now)
	if err != nil {
		return r, err
	}
	if err := t.storeFrames(key, &a); err != nil {
		return r, err
	}
	if summary != nil {
		if err := t.storeSummary(key, summary); err != nil {
			return r, err
		}
		r.SummaryVersion = summary.Version
	}
	r.IDs, r.Count = make([]ff.FrameID, len(a.Frames)), at.stream.Count
	for i := range a.Frames {
		r.IDs[i] = a.Frames[i].ID
	}
	t.tailed[tailed{c.ID, key.attempt}] = true
	return r, t.storeStream(key, &at.stream)
}

func (t *tx) storeFrames(key streamKey, a *lifecycle.Appended) error {
	if a.Restart {
		if err := t.exec(deleteFrames, key.args()...); err != nil {
			return err
		}
	}
	for i := range a.Frames {
		if err := t.insertFrame(key, &a.Frames[i]); err != nil {
			return err
		}
	}
	if a.Drop > 0 {
		return t.exec(deleteOldest, key.args(integer(a.Drop))...)
	}
	return nil
}

func (t *tx) insertFrame(key streamKey, f *ff.Frame) error {
	payload := Value{}
	if len(f.Payload) > 0 {
		payload = borrow(f.Payload)
	}
	detail := Value{}
	switch f.Mode {
	case ff.FrameBestEffort:
		detail = integer(f.TTL.Milliseconds())
	case ff.FrameSummary:
		detail = integer(f.SummaryVersion)
	case ff.FrameDurable:
	}
	t.args = append(t.args[:0], integer(key.seq), integer(int64(key.attempt)), integer(int64(f.ID.Ms)), integer(int64(f.ID.Seq)),
		integer(frameModes.code(f.Mode)), integer(f.At.UnixMilli()-int64(f.ID.Ms)), textOrNull(f.Type),
		textUnless(f.Encoding, lifecycle.FrameEncoding), textUnless(f.Source, lifecycle.FrameSource),
		textOrNull(f.CorrelationID), detail, payload)
	return t.exec(insertFrame, t.args...)
}

// textUnless stores the usual text as NULL.
func textUnless(s, usual string) Value {
	if s == usual {
		return Value{}
	}
	return text(s)
}

func readTextUnless(r Row, col int, usual string) string {
	if r.Null(col) {
		return usual
	}
	return r.Text(col)
}

func readFrame(r Row) ff.Frame {
	f := ff.Frame{
		ID: ff.FrameID{Ms: uint64(r.Int(0)), Seq: uint64(r.Int(1))}, Mode: frameModes.word(r.Int(2)),
		At: time.UnixMilli(r.Int(0) + r.Int(3)).UTC(), Type: r.Text(4), Encoding: readTextUnless(r, 5, lifecycle.FrameEncoding),
		Source: readTextUnless(r, 6, lifecycle.FrameSource), CorrelationID: r.Text(7), Payload: r.Blob(9),
	}
	switch f.Mode {
	case ff.FrameBestEffort:
		f.TTL = time.Duration(r.Int(8)) * time.Millisecond
	case ff.FrameSummary:
		f.SummaryVersion = r.Int(8)
	case ff.FrameDurable:
	}
	return f
}

// foundStream is a stream and what its execution tells the rules of streams.
type foundStream struct {
	seq    int64
	x      ff.Execution
	stream lifecycle.Stream
}

// findStream reads the stream of an execution that q selects; nil when there is no
// such execution.
func findStream(c Conn, q *Statement, id ff.ExecutionID, first ...Value) (f *foundStream, err error) {
	uuid := id.UUID()
	if ff.MakeExecutionID(id.Partition(), uuid) != id {
		return nil, nil
	}
	err = c.Query(q, append(first, integer(int64(id.Partition())), blob(uuid[:])), func(r Row) error {
		f = &foundStream{seq: r.Int(0)}
		f.x.ID = id
		for i := range streamColumns {
			if !r.Null(1 + i) {
				streamColumns[i].get(&f.x, r, 1+i)
			}
		}
		f.stream = scanStream(r, 1+len(streamColumns))
		return nil
	})
	return f, err
}

// scanStream reads streamFields from a column on. A stream that does not exist reads
// as the zero value.
func scanStream(r Row, col int) lifecycle.Stream {
	return lifecycle.Stream{
		Count: r.Int(col), Kept: r.Int(col + 1), Last: ff.FrameID{Ms: uint64(r.Int(col + 2)), Seq: uint64(r.Int(col + 3))},
		Lasting: r.Int(col+4) != 0, ExpiresAt: readInstant(r, col+5), Rate: float64(r.Int(col+6)) / rateUnit, RatedAt: readInstant(r, col+7),
	}
}

func (t *tx) storeStream(key streamKey, st *lifecycle.Stream) error {
	lasting, rate := int64(0), Value{}
	if st.Lasting {
		lasting = 1
	}
	if !st.RatedAt.IsZero() {
		rate = integer(int64(st.Rate * rateUnit))
	}
	t.args = append(t.args[:0], integer(key.seq), integer(int64(key.attempt)), integer(st.Count), integer(st.Kept),
		integer(int64(st.Last.Ms)), integer(int64(st.Last.Seq)), integer(lasting), instant(st.ExpiresAt), rate, instant(st.RatedAt))
	return t.exec(upsertStream, t.args...)
}

func readSummary(c Conn, key streamKey) (sum ff.Summary, err error) {
	err = c.Query(selectSummary, key.args(), func(r Row) error {
		sum = ff.Summary{Version: r.Int(0), FirstAppliedAt: readInstant(r, 1), UpdatedAt: readInstant(r, 2), Document: []byte(r.Text(3))}
		return nil
	})
	return sum, err
}

func readDocument(c Conn, key streamKey) (*lifecycle.Summary, error) {
	sum, err := readSummary(c, key)
	if err != nil {
		return nil, err
	}
	return lifecycle.ReadSummary(sum)
}

func (t *tx) storeSummary(key streamKey, sum *lifecycle.Summary) error {
	return t.exec(upsertSummary, key.args(integer(sum.Version), instant(sum.FirstAppliedAt), instant(sum.UpdatedAt), text(string(sum.Document)))...)
}

// Summary reads the summary of an attempt; version 0 when there is none.
func (s *Store) Summary(ctx context.Context, c ff.StreamRef) (ff.Summary, error) {
	if err := c.Validate(); err != nil {
		return ff.Summary{}, err
	}
	return read(ctx, s, func(conn Conn) (ff.Summary, error) {
		at, err := findStream(conn, selectCurrentStream, c.ID)
		if err != nil || at == nil {
			return ff.Summary{}, err
		}
		return readSummary(conn, streamKey{at.seq, c.AttemptIndex})
	})
}

// ReadFrames reads a range of a stream.
func (s *Store) ReadFrames(ctx context.Context, c ff.ReadFrames) (ff.FramesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FramesResult{}, err
	}
	if c.To.IsZero() {
		c.To = ff.FrameID{Ms: math.MaxUint64, Seq: math.MaxUint64}
	}
	q := frameQuery{stream: c.StreamRef, from: c.From, to: c.To, limit: ff.FrameLimit(c.Limit), durable: c.Durable}
	return s.frames(ctx, &q, c.From)
}

// TailFrames reads what comes after a position, waiting for it.
func (s *Store) TailFrames(ctx context.Context, c ff.TailFrames) (ff.FramesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FramesResult{}, err
	}
	q := frameQuery{stream: c.StreamRef, to: ff.FrameID{Ms: math.MaxUint64, Seq: math.MaxUint64}, limit: ff.FrameLimit(c.Limit), durable: c.Durable}
	last := c.After
	end := time.NewTimer(c.Wait)
	defer end.Stop()
	for {
		// What is there is read before the wait, also when its time is over.
		w := s.tails.Wait([]ff.ExecutionID{c.ID}, func(attempt int) bool { return attempt == c.AttemptIndex || attempt == anyAttempt })
		q.from = last.Next()
		r, err := s.frames(ctx, &q, last)
		if err != nil || len(r.Frames) > 0 || !r.ClosedAt.IsZero() || c.Wait == 0 {
			w.Stop()
			return r, err
		}
		last = r.Last
		_, again, err := s.await(ctx, w.C(), end.C)
		w.Stop()
		if !again {
			return r, err
		}
	}
}

// tailed is a stream that waiting readers have to look at: the execution and the index
// of the attempt, or anyAttempt.
type tailed struct {
	id      ff.ExecutionID
	attempt int
}

const anyAttempt = -1

// frameQuery is a range of frames, both ends included.
type frameQuery struct {
	stream   ff.StreamRef
	from, to ff.FrameID
	limit    int
	// durable leaves best-effort frames out.
	durable bool
}

// frames reads a page. Last is the position asked for, for when there is nothing.
func (s *Store) frames(ctx context.Context, q *frameQuery, last ff.FrameID) (ff.FramesResult, error) {
	return read(ctx, s, func(c Conn) (ff.FramesResult, error) {
		r := ff.FramesResult{Last: last}
		at, err := findStream(c, selectStream, q.stream.ID, integer(int64(q.stream.AttemptIndex)))
		if err != nil || at == nil {
			return r, err
		}
		if r.ClosedAt, r.ClosedReason, err = streamEnd(c, at, q.stream.AttemptIndex); err != nil {
			return r, err
		}
		if at.stream.Kept == 0 || at.stream.Last.Compare(q.from) < 0 || at.stream.Expired(s.now()) {
			return r, nil
		}
		err = framePage(c, streamKey{at.seq, q.stream.AttemptIndex}, q, &r)
		return r, err
	})
}

func streamEnd(c Conn, f *foundStream, index int) (at time.Time, reason string, err error) {
	var earlier []ff.Attempt
	if index < f.x.Attempt.Index {
		args := []Value{integer(f.seq), integer(int64(index)), integer(int64(index + 1))}
		err = c.Query(selectAttemptAndNext, args, func(r Row) error {
			earlier = append(earlier, readAttempt(r))
			return nil
		})
	}
	at, reason = lifecycle.StreamEnd(&f.x, index, earlier)
	return at, reason, err
}

// frameBatch bounds the rows of one look at the frames.
const frameBatch = 256

// framePage reads frames until the page is full or the range ends.
func framePage(c Conn, key streamKey, q *frameQuery, r *ff.FramesResult) error {
	from, to, size := stored(q.from), stored(q.to), 0
	for {
		rows, limit := 0, frameBatch
		if !q.durable {
			limit = min(limit, q.limit-len(r.Frames))
		}
		err := c.Query(selectFrames, key.args(from[0], from[1], to[0], to[1], integer(int64(limit))), func(row Row) error {
			if rows++; r.More {
				return nil
			}
			f := readFrame(row)
			if r.Last = f.ID; !q.durable || f.Mode != ff.FrameBestEffort {
				r.Frames = append(r.Frames, f)
				size += len(f.Payload)
				r.More = len(r.Frames) == q.limit || size >= ff.MaxFramePageBytes
			}
			return nil
		})
		if err != nil || rows < limit || r.More {
			return err
		}
		from = stored(r.Last.Next())
	}
}

// stored is a position as the two numbers of the key. Positions that the numbers of a
// database cannot hold are beyond every frame.
func stored(f ff.FrameID) [2]Value {
	if f.Ms > math.MaxInt64 {
		return [2]Value{integer(math.MaxInt64), integer(math.MaxInt64)}
	}
	return [2]Value{integer(int64(f.Ms)), integer(int64(min(f.Seq, math.MaxInt64)))}
}

var (
	selectStreams = statement("select seq, attempt, kept from streams where seq = $1 order by attempt")
	selectExpired = statement("select seq, attempt, kept from streams where expires_at < $1 order by expires_at limit $2")
	updateKept    = statement("update streams set kept = $1, expires_at = null where seq = $2 and attempt = $3")
	deleteStream  = statement("delete from streams where seq = $1 and attempt = $2")
)

// expiredBatch bounds the streams of one command whose frames are deleted because they
// have expired.
const expiredBatch = 50

// trimStreams deletes the frames of streams that have expired. The counters stay.
func (t *tx) trimStreams(now Value) error {
	list, err := t.streams(selectExpired, now, integer(expiredBatch))
	if err != nil {
		return err
	}
	for left := int64(trimBatch); len(list) > 0 && left > 0; list = list[1:] {
		if err := t.exec(deleteFrames, list[0].key.args()...); err != nil {
			return err
		}
		if err := t.keep(list[0].key, 0); err != nil {
			return err
		}
		left -= list[0].kept
	}
	return nil
}

// purgeStreams deletes up to left frames of an execution and lowers left. It reports
// whether none are left.
func (t *tx) purgeStreams(seq int64, left *int64) (empty bool, err error) {
	list, err := t.streams(selectStreams, integer(seq))
	if err != nil {
		return false, err
	}
	for _, l := range list {
		if l.kept > *left {
			err := t.exec(deleteOldest, l.key.args(integer(*left))...)
			if err == nil {
				err = t.keep(l.key, l.kept-*left)
			}
			*left = 0
			return false, err
		}
		*left -= l.kept
		for _, q := range []*Statement{deleteFrames, deleteStream} {
			if err := t.exec(q, l.key.args()...); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// keep stores how many frames of a stream are left.
func (t *tx) keep(key streamKey, frames int64) error {
	return t.exec(updateKept, append([]Value{integer(frames)}, key.args()...)...)
}

type keptStream struct {
	key  streamKey
	kept int64
}

func (t *tx) streams(q *Statement, args ...Value) (list []keptStream, err error) {
	err = t.query(q, args, func(r Row) error {
		list = append(list, keptStream{streamKey{r.Int(0), int(r.Int(1))}, r.Int(2)})
		return nil
	})
	return list, err
}

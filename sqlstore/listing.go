package sqlstore

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"strconv"

	ff "github.com/flowfabric/flowfabric"
)

var (
	selectNewest = statement("select seq from executions where seq < $1 order by seq desc limit $2")
	selectFirst  = statement("select seq from executions where seq > $1 order by seq limit $2")

	selectNewestOf = statement(`select seq from executions
where namespace = $1 and lane = $2 and kind = $3 and public_state = $4 and seq < $5 order by seq desc limit $6`)
	selectFirstOf = statement(`select seq from executions
where namespace = $1 and lane = $2 and kind = $3 and public_state = $4 and seq > $5 order by seq limit $6`)

	selectPartition = statement("select uuid from executions where partition = $1 and uuid > $2 order by uuid limit $3")
)

func comparePairs(a1, a2, b1, b2 int64) int {
	return cmp.Or(cmp.Compare(a1, b1), cmp.Compare(a2, b2))
}

// ListExecutions lists in the order of creation. An index range answers each
// combination of namespace, lane, kind and state; the filter picks the
// combinations from the counts, and their ranges are merged. So the work of a
// page depends on its size and the number of combinations, never on how many
// executions do not match.
func (s *Store) ListExecutions(ctx context.Context, c ff.ListExecutions) (ff.ListExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListExecutionsResult{}, err
	}
	after, err := parseListCursor(&c)
	if err != nil {
		return ff.ListExecutionsResult{}, err
	}
	limit := ff.PageLimit(c.Limit)
	return read(ctx, s, func(conn Conn) (r ff.ListExecutionsResult, err error) {
		seqs, err := s.listed(conn, &c, after, limit+1)
		if err != nil {
			return r, err
		}
		if len(seqs) > limit {
			seqs = seqs[:limit]
			r.Next = strconv.FormatInt(seqs[limit-1], 10)
		}
		for _, seq := range seqs {
			rec, err := s.oneRecord(conn, selectBySeq, integer(seq))
			if ff.CodeOf(err) == ff.CodeCorruption {
				s.log.Error("an execution cannot be read and is left out of a listing", "seq", seq, "err", err)
				continue
			}
			if err == nil && rec == nil {
				err = errMissing("the listed row", seq)
			}
			if err != nil {
				return ff.ListExecutionsResult{}, err
			}
			r.Executions = append(r.Executions, rec.x)
		}
		return r, nil
	})
}

func parseListCursor(c *ff.ListExecutions) (int64, error) {
	switch {
	case c.Cursor != "":
		seq, err := strconv.ParseInt(c.Cursor, 10, 64)
		if err != nil || seq < 0 {
			return 0, ff.BadCursor(c.Cursor)
		}
		return seq, nil
	case c.Oldest:
		return 0, nil
	}
	return 1<<63 - 1, nil
}

// listed are the keys of the next executions that the filter accepts.
func (s *Store) listed(c Conn, q *ff.ListExecutions, after int64, limit int) ([]int64, error) {
	if q.Lane == "" && q.State == "" && q.Kind == "" && q.Namespace == "" {
		all := &listRange{query: pick(q.Oldest, selectFirst, selectNewest), oldest: q.Oldest}
		return all.next(c, after, limit)
	}
	accept, ok := s.filter(q)
	if !ok {
		return nil, nil
	}
	keys, err := counted(c, accept)
	if err != nil {
		return nil, err
	}
	// A few ranges are likely to give much each; of many, most give little.
	chunk := min(limit, max(2*limit/max(len(keys), 1), 4))
	m := &merge{oldest: q.Oldest}
	for _, k := range keys {
		l := &listRange{query: pick(q.Oldest, selectFirstOf, selectNewestOf), oldest: q.Oldest, chunk: chunk,
			key: []Value{integer(k.namespace), integer(k.lane), integer(k.kind), integer(k.state)}}
		if err := l.fill(c, after); err != nil {
			return nil, err
		}
		if len(l.seqs) > 0 {
			m.ranges = append(m.ranges, l)
		}
	}
	return m.take(c, limit)
}

func pick(oldest bool, first, newest *Statement) *Statement {
	if oldest {
		return first
	}
	return newest
}

// filter tells which rows of counts match; false when a name was never seen.
func (s *Store) filter(q *ff.ListExecutions) (accept func(countKey) bool, ok bool) {
	known := true
	number := func(name string) int64 {
		if name == "" {
			return 0
		}
		id, ok := s.names.id(name)
		known = known && ok
		return id
	}
	namespace, lane, kind := number(string(q.Namespace)), number(string(q.Lane)), number(q.Kind)
	state := publicStates.code(q.State)
	return func(k countKey) bool {
		return (namespace == 0 || namespace == k.namespace) && (lane == 0 || lane == k.lane) &&
			(kind == 0 || kind == k.kind) && (state == 0 || state == k.state)
	}, known
}

// listRange is one range of an index, read in chunks.
type listRange struct {
	query  *Statement
	key    []Value
	oldest bool
	chunk  int
	seqs   []int64
	// last is the last key read; more says that the range may go on.
	last int64
	more bool
}

func (l *listRange) next(c Conn, after int64, limit int) (seqs []int64, err error) {
	args := slices.Concat(l.key, []Value{integer(after), integer(int64(limit))})
	err = c.Query(l.query, args, func(r Row) error {
		seqs = append(seqs, r.Int(0))
		return nil
	})
	return seqs, err
}

func (l *listRange) fill(c Conn, after int64) (err error) {
	if l.seqs, err = l.next(c, after, l.chunk); err != nil || len(l.seqs) == 0 {
		l.more = false
		return err
	}
	l.more, l.last = len(l.seqs) == l.chunk, l.seqs[len(l.seqs)-1]
	return nil
}

// merge takes keys from many ranges in order: a heap by their first keys.
type merge struct {
	ranges []*listRange
	oldest bool
}

func (m *merge) Len() int      { return len(m.ranges) }
func (m *merge) Swap(i, j int) { m.ranges[i], m.ranges[j] = m.ranges[j], m.ranges[i] }
func (m *merge) Push(any)      {}
func (m *merge) Less(i, j int) bool {
	return (m.ranges[i].seqs[0] < m.ranges[j].seqs[0]) == m.oldest
}
func (m *merge) Pop() any {
	last := m.ranges[len(m.ranges)-1]
	m.ranges = m.ranges[:len(m.ranges)-1]
	return last
}

func (m *merge) take(c Conn, limit int) (seqs []int64, err error) {
	heap.Init(m)
	for len(m.ranges) > 0 && len(seqs) < limit {
		l := m.ranges[0]
		seqs = append(seqs, l.seqs[0])
		l.seqs = l.seqs[1:]
		if len(l.seqs) == 0 && l.more {
			if err := l.fill(c, l.last); err != nil {
				return nil, err
			}
		}
		if len(l.seqs) == 0 {
			heap.Pop(m)
		} else {
			heap.Fix(m, 0)
		}
	}
	return seqs, nil
}

// ListPartition lists the ids of one partition in ascending order. A partition
// that does not exist is empty.
func (s *Store) ListPartition(ctx context.Context, c ff.ListPartition) (ff.ListPartitionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListPartitionResult{}, err
	}
	limit := ff.PageLimit(c.Limit)
	// The empty blob is before every id.
	after := blob(nil)
	if !c.After.IsZero() {
		uuid := c.After.UUID()
		after = blob(uuid[:])
	}
	return read(ctx, s, func(conn Conn) (r ff.ListPartitionResult, err error) {
		err = conn.Query(selectPartition, []Value{integer(int64(c.Partition)), after, integer(int64(limit + 1))}, func(row Row) error {
			if len(r.IDs) == limit {
				r.Next = r.IDs[limit-1]
				return nil
			}
			r.IDs = append(r.IDs, ff.MakeExecutionID(c.Partition, readUUID(row, 0)))
			return nil
		})
		return r, err
	})
}

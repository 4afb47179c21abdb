package sqlstore

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// countKey is one row of counts: the executions that a listing may ask for.
type countKey struct{ namespace, lane, kind, state int64 }

func (rec *record) count(state int64) countKey {
	return countKey{rec.namespace, rec.lane, rec.kind, state}
}

// counts is the committed content of the table counts, and how many leases each
// process holds. Nobody ever counts executions.
type counts struct {
	mu     sync.RWMutex
	n      map[countKey]int64
	leases map[ff.WorkerInstanceID]int
}

func newCounts() *counts {
	return &counts{n: map[countKey]int64{}, leases: map[ff.WorkerInstanceID]int{}}
}

var (
	selectCounts = statement("select namespace, lane, kind, state, n from counts where namespace > 0")
	// selectHolders reads the active executions of one row of counts.
	selectHolders = statement(`select lease_instance from executions
where namespace = $1 and lane = $2 and kind = $3 and public_state = $4 and ownership = $5`)
)

func (c *counts) load(conn Conn) error {
	err := conn.Query(selectCounts, nil, func(r Row) error {
		c.n[countKey{r.Int(0), r.Int(1), r.Int(2), r.Int(3)}] = r.Int(4)
		return nil
	})
	active, leased := publicStates.code(ff.StateActive), ownerships.code(ff.OwnershipLeased)
	for k, n := range c.n {
		if err != nil {
			return err
		}
		if k.state != active || n == 0 {
			continue
		}
		args := []Value{integer(k.namespace), integer(k.lane), integer(k.kind), integer(k.state), integer(leased)}
		err = conn.Query(selectHolders, args, func(r Row) error {
			c.leases[ff.WorkerInstanceID(r.Text(0))]++
			return nil
		})
	}
	return err
}

func (c *counts) add(deltas map[countKey]int64, leases map[ff.WorkerInstanceID]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, n := range deltas {
		c.n[k] += n
	}
	for instance, n := range leases {
		if c.leases[instance] += n; c.leases[instance] == 0 {
			delete(c.leases, instance)
		}
	}
	delete(c.leases, "")
}

// held is how many executions a process holds.
func (c *counts) held(instance ff.WorkerInstanceID) int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.leases[instance]
}

// counted lists the rows that a filter accepts and that count something. It reads
// the table: the memory may be of another moment than the listing that follows,
// which would miss an execution that changes its state between the two.
func counted(c Conn, accept func(countKey) bool) (keys []countKey, err error) {
	err = c.Query(selectCounts, nil, func(r Row) error {
		if k := (countKey{r.Int(0), r.Int(1), r.Int(2), r.Int(3)}); r.Int(4) > 0 && accept(k) {
			keys = append(keys, k)
		}
		return nil
	})
	return keys, err
}

// Lanes lists the lanes that ever held an execution, with their counts.
func (s *Store) Lanes(ctx context.Context) ([]ff.LaneStatus, error) {
	byLane := map[int64]*ff.LaneStatus{}
	var waiting []countKey
	s.counts.mu.RLock()
	for k, n := range s.counts.n {
		lane := byLane[k.lane]
		if lane == nil {
			lane = &ff.LaneStatus{Lane: ff.LaneID(s.names.name(k.lane)), Counts: map[ff.PublicState]int{}}
			byLane[k.lane] = lane
		}
		if state := publicStates.word(k.state); n > 0 {
			lane.Counts[state] += int(n)
			if state == ff.StateWaiting {
				waiting = append(waiting, k)
			}
		}
	}
	s.counts.mu.RUnlock()
	_, err := read(ctx, s, func(c Conn) (struct{}, error) {
		for _, k := range waiting {
			at, err := oldest(c, k)
			if err != nil {
				return struct{}{}, err
			}
			if lane := byLane[k.lane]; !at.IsZero() && (lane.Oldest.IsZero() || at.Before(lane.Oldest)) {
				lane.Oldest = at
			}
		}
		return struct{}{}, nil
	})
	if err != nil {
		return nil, err
	}
	lanes := make([]ff.LaneStatus, 0, len(byLane))
	for _, l := range byLane {
		lanes = append(lanes, *l)
	}
	slices.SortFunc(lanes, func(a, b ff.LaneStatus) int { return cmp.Compare(a.Lane, b.Lane) })
	return lanes, nil
}

// selectOldest reads the first execution of one row of counts: keys grow with
// the time of creation.
var selectOldest = statement(`select created_at from executions
where namespace = $1 and lane = $2 and kind = $3 and public_state = $4 order by seq limit 1`)

func oldest(c Conn, k countKey) (at time.Time, err error) {
	err = c.Query(selectOldest, []Value{integer(k.namespace), integer(k.lane), integer(k.kind), integer(k.state)}, func(r Row) error {
		at = readInstant(r, 0)
		return nil
	})
	return at, err
}

package valkey

import (
	"context"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// What peers write through the compatible functions lacks the indexes of this
// implementation. They are completed here: when a listing notices that some are
// missing, and by a loop (spec 06 §5.17; quirk 06 E18: it repairs).

// lanePause is how often the lanes that peers may have named are read.
const lanePause = 5 * time.Second

// reconciliation is what is remembered between passes; the rest is in the store.
type reconciliation struct {
	mu    sync.Mutex
	named time.Time
}

// reconcile looks at all partitions.
func (s *Store) reconcile(ctx context.Context) (ff.SweepResult, error) {
	all := make([]uint16, s.partitions.Flow)
	for p := range all {
		all[p] = uint16(p)
	}
	r, err := s.reconcilePartitions(ctx, all)
	if r.Processed > 0 {
		s.log.Info("indexes were completed", "entries", r.Processed, "unreadable", r.Errors)
	}
	return r, err
}

// reconcilePartitions looks at some partitions, at all of them at once, until each
// says that it is done.
func (s *Store) reconcilePartitions(ctx context.Context, partitions []uint16) (r ff.SweepResult, err error) {
	lanes, err := s.readLanes(ctx)
	if err != nil {
		return r, err
	}
	cursors := map[uint16]string{}
	for len(partitions) > 0 {
		calls := make([]call, len(partitions))
		for i, p := range partitions {
			calls[i] = callReconcile(p, cursors[p], lanes)
		}
		var next []uint16
		for i, answer := range s.doMulti(ctx, calls) {
			if answer.err != nil {
				return r, answer.err
			}
			list, err := answer.m.ToArray()
			if err != nil || len(list) != 4 {
				return r, ff.NewError(ff.CodeInternal, "ffx_reconcile answered something unexpected")
			}
			a, p := reply(list), partitions[i]
			r.Now = time.UnixMilli(a.number(0))
			r.Processed, r.Errors = r.Processed+int(a.number(1)), r.Errors+int(a.number(2))
			if cursors[p] = a.text(3); a.text(3) != "0" {
				next = append(next, p)
			}
		}
		partitions = next
	}
	return r, nil
}

// nameLanes notes, now and then, which lanes peers have named, so that the loops
// find what a peer delays: executions outside of flows are on their lane's partition.
func (s *Store) nameLanes(ctx context.Context) error {
	s.repairs.mu.Lock()
	due := time.Since(s.repairs.named) >= lanePause
	if due {
		s.repairs.named = time.Now()
	}
	s.repairs.mu.Unlock()
	if !due {
		return nil
	}
	lanes, err := s.readLanes(ctx)
	if err != nil || len(lanes) == 0 {
		return err
	}
	commands := make([]valkey.Completed, len(lanes))
	for i, lane := range lanes {
		commands[i] = s.client.B().Sadd().Key(tagOf(s.partitions.LanePartition(lane)).lanes()).Member(string(lane)).Build()
	}
	for _, r := range s.client.DoMulti(ctx, commands...) {
		if err := r.Error(); err != nil {
			return s.lift(ctx, err)
		}
	}
	return nil
}

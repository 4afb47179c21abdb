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

// reconciledTogether is how many partitions are asked in one pipeline: what others
// send meanwhile waits for those.
const reconciledTogether = 4

const (
	// agesTime bounds what a listing spends on the index by age, and agesRest is how
	// long it leaves to the loop what it could not complete.
	agesTime = time.Second
	agesRest = 45 * time.Second
)

// reconciliation is what is remembered between passes; the rest is in the store.
type reconciliation struct {
	mu    sync.Mutex
	named time.Time
	// lanes is how many lanes were known then.
	lanes int64
	// rests are the partitions that listings leave alone, and since when.
	rests map[uint16]time.Time
}

func (r *reconciliation) resting(p uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.rests[p]) < agesRest
}

func (r *reconciliation) rest(p uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rests == nil {
		r.rests = map[uint16]time.Time{}
	}
	r.rests[p] = time.Now()
}

// reconcile looks at all partitions.
func (s *Store) reconcile(ctx context.Context) (ff.SweepResult, error) {
	all := make([]uint16, s.partitions.Flow)
	for p := range all {
		all[p] = uint16(p)
	}
	var r ff.SweepResult
	err := s.reconcilePartitions(ctx, all, "", func(_ uint16, now time.Time, repaired, unreadable int) {
		r.Now, r.Processed, r.Errors = now, r.Processed+repaired, r.Errors+unreadable
	})
	if r.Processed > 0 {
		s.log.Info("indexes were completed", "entries", r.Processed, "unreadable", r.Errors)
	}
	return r, err
}

// completeAges completes the indexes by age that lack executions. It leaves to the
// loop what takes long, and for a while what it cannot complete.
func (s *Store) completeAges(ctx context.Context, partial []uint16) error {
	limited, cancel := context.WithTimeout(ctx, agesTime)
	defer cancel()
	vain := map[uint16]bool{}
	for _, p := range partial {
		vain[p] = true
	}
	err := s.reconcilePartitions(limited, partial, "ages", func(p uint16, _ time.Time, repaired, _ int) {
		if repaired > 0 {
			delete(vain, p)
		}
	})
	if err != nil && (limited.Err() == nil || ctx.Err() != nil) {
		return err
	}
	for p := range vain {
		s.repairs.rest(p)
	}
	return nil
}

// reconcilePartitions looks at some partitions, a few at once, until each says that it
// is done. What is empty, or "ages" for the indexes by age alone.
func (s *Store) reconcilePartitions(ctx context.Context, partitions []uint16, what string,
	note func(p uint16, now time.Time, repaired, unreadable int)) error {
	cursors := map[uint16]string{}
	for len(partitions) > 0 {
		some := partitions[:min(len(partitions), reconciledTogether)]
		calls := make([]call, len(some))
		for i, p := range some {
			calls[i] = callReconcile(p, cursors[p], what)
		}
		var unfinished []uint16
		for i, answer := range s.doMulti(ctx, calls) {
			if answer.err != nil {
				return answer.err
			}
			list, err := answer.m.ToArray()
			if err != nil || len(list) != 4 {
				return ff.NewError(ff.CodeInternal, "ffx_reconcile answered something unexpected")
			}
			a, p := reply(list), some[i]
			if a.number(1) > 0 {
				s.progress.forget(p)
			}
			note(p, time.UnixMilli(a.number(0)), int(a.number(1)), int(a.number(2)))
			if cursors[p] = a.text(3); a.text(3) != "0" {
				unfinished = append(unfinished, p)
			}
		}
		partitions = append(unfinished, partitions[len(some):]...)
	}
	return nil
}

// nameLanes notes, now and then, which lanes peers have named, so that the loops
// find what a peer delays: executions outside of flows are on their lane's partition.
func (s *Store) nameLanes(ctx context.Context) error {
	s.repairs.mu.Lock()
	due, before := time.Since(s.repairs.named) >= lanePause, s.repairs.lanes
	if due {
		s.repairs.named = time.Now()
	}
	s.repairs.mu.Unlock()
	if !due {
		return nil
	}
	m, err := s.plain(ctx, s.client.B().Scard().Key(lanesKey).Build())
	if err != nil {
		return err
	}
	if n, err := m.AsInt64(); err == nil && n == before {
		return nil
	}
	lanes, err := s.readLanes(ctx)
	if err != nil {
		return err
	}
	var commands []valkey.Completed
	var news []place
	for _, lane := range lanes {
		if at := (place{lane, s.partitions.LanePartition(lane)}); !s.lanes.isAt(at) {
			news = append(news, at)
			commands = append(commands, s.client.B().Sadd().Key(tagOf(at.partition).lanes()).Member(string(lane)).Build())
		}
	}
	if len(commands) > 0 {
		for i, r := range s.client.DoMulti(ctx, commands...) {
			if err := r.Error(); err != nil {
				return s.lift(ctx, err)
			}
			s.lanes.put(news[i])
		}
	}
	s.repairs.mu.Lock()
	s.repairs.lanes, _ = m.AsInt64()
	s.repairs.mu.Unlock()
	return nil
}

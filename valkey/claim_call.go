package valkey

import (
	"context"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// handBackTimeout is how long Close waits for the calls that give leases: what they
// claim for callers that are gone is handed back.
const handBackTimeout = 30 * time.Second

// claimCall calls a function that gives leases. A caller whose context ends gets
// its answer at once; what the call then still claims is handed back, so that it
// need not wait for its lease to lapse.
func (s *Store) claimCall(ctx context.Context, c *call) (valkey.ValkeyMessage, error) {
	if err := ctx.Err(); err != nil {
		return valkey.ValkeyMessage{}, err
	}
	if ctx.Done() == nil {
		return s.do(ctx, c)
	}
	answered := make(chan result)
	if !s.background(func(own context.Context) {
		m, err := s.do(own, c)
		err = endedBy(own, err)
		select {
		case answered <- result{m, err}:
		case <-ctx.Done():
			s.handBack(own, &m, err)
		}
	}) {
		return valkey.ValkeyMessage{}, errClosed
	}
	select {
	case r := <-answered:
		return r.m, r.err
	case <-ctx.Done():
		return valkey.ValkeyMessage{}, ctx.Err()
	}
}

// live begins the context of what the store does in the background.
func (s *Store) live() { s.life, s.end = context.WithCancel(context.Background()) }

// endedBy is the error of work in the background: its end is that of the store, not
// the caller's.
func endedBy(own context.Context, err error) error {
	if err != nil && own.Err() != nil {
		return errClosed
	}
	return err
}

// background runs work that Close waits for, for a while; false when the store is
// closed. Every command of the work is bounded by the timeout of the store.
func (s *Store) background(work func(context.Context)) bool {
	s.starting.RLock()
	defer s.starting.RUnlock()
	select {
	case <-s.quit:
		return false
	default:
	}
	s.loops.Go(func() { work(s.life) })
	return true
}

// handBack releases what a call has claimed for a caller that is gone.
func (s *Store) handBack(ctx context.Context, m *valkey.ValkeyMessage, err error) {
	if err != nil {
		return
	}
	list, err := m.ToArray()
	if err != nil || len(list) == 0 {
		return
	}
	claimed := list[len(list)-1:]
	if several, err := claimed[0].ToArray(); err == nil && (len(several) == 0 || several[0].IsArray()) {
		claimed = several
	}
	var leases []ff.LeaseRef
	for i := range claimed {
		if ref, err := leaseOf(&claimed[i]); err == nil {
			leases = append(leases, ref)
		}
	}
	if len(leases) == 0 {
		return
	}
	if _, err := s.ReleaseExecutions(ctx, ff.ReleaseExecutions{Leases: leases, Reason: "the caller of the claim was gone"}); err != nil {
		s.log.Warn("executions of a claim whose caller was gone could not be released; their leases will lapse", "count", len(leases), "err", err)
	}
}

// leaseOf is the lease in what a claim gives for an execution.
func leaseOf(m *valkey.ValkeyMessage) (ref ff.LeaseRef, err error) {
	list, err := m.ToArray()
	if err != nil || len(list) != claimParts {
		return ref, errClaimShape
	}
	values, err := list[4].ToArray()
	if err != nil {
		return ref, err
	}
	core, err := coreOf(values)
	if err != nil {
		return ref, err
	}
	a := reply(list)
	attempt := a.text(8)
	if a.text(1) == "resumed" {
		attempt = core["current_attempt_id"]
	}
	f := &fields{hash: "a claim", m: map[string]string{"id": a.text(0), "lease": a.text(7), "attempt": attempt, "epoch": core["current_lease_epoch"]}}
	ref = ff.LeaseRef{ID: parsed(f, "id", ff.ParseExecutionID), Fence: ff.Fence{LeaseID: parsed(f, "lease", ff.ParseLeaseID),
		LeaseEpoch: uint64(f.number("epoch")) + 1, AttemptID: parsed(f, "attempt", ff.ParseAttemptID)}}
	return ref, f.err
}

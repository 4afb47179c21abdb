package lifecycle_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// history is one execution with what was true of it before.
type history struct {
	x     *ff.Execution
	now   time.Time
	ids   byte
	held  []ff.Fence // every fence that was ever given out
	epoch uint64
	total int
}

// Random commands at random times, by holders of every lease that there ever
// was: the invariants hold after each.
func TestRandomCommandsKeepTheInvariants(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := ff.DefaultExecutionPolicy()
		p.MaxReclaims, p.MaxReplays = rapid.IntRange(0, 3).Draw(rt, "reclaims"), rapid.IntRange(0, 2).Draw(rt, "replays")
		p.Retry = ff.FixedRetry(rapid.IntRange(0, 3).Draw(rt, "retries"), time.Duration(rapid.IntRange(0, 2).Draw(rt, "backoff"))*time.Second)
		if rapid.Bool().Draw(rt, "timeout") {
			p.Timeout = &ff.TimeoutPolicy{Attempt: 7 * time.Second, Deadline: 40 * time.Second}
		}
		c := ff.CreateExecution{Policy: p, Delay: time.Duration(rapid.IntRange(0, 3).Draw(rt, "delay")) * time.Second}
		h := &history{x: submit(c), now: t0}
		rt.Repeat(map[string]func(*rapid.T){
			"claim":   func(*rapid.T) { h.claim() },
			"granted": func(*rapid.T) { h.granted() },
			"renew":   h.holder(func(f ff.Fence) error { _, err := lifecycle.Renew(h.x, f, 3*time.Second, h.now); return err }),
			"complete": h.holder(func(f ff.Fence) error {
				_, _, err := lifecycle.Complete(h.x, &ff.CompleteExecution{LeaseRef: ref(h.x, f)}, h.now)
				return err
			}),
			"fail": h.holder(func(f ff.Fence) error {
				_, _, err := lifecycle.Fail(h.x, &ff.FailExecution{LeaseRef: ref(h.x, f), Reason: "r"}, h.now)
				return err
			}),
			"delay": h.holder(func(f ff.Fence) error {
				_, _, err := lifecycle.Delay(h.x, &ff.DelayExecution{LeaseRef: ref(h.x, f), For: time.Second}, h.now)
				return err
			}),
			"release":  h.holder(func(f ff.Fence) error { _, err := lifecycle.Release(h.x, f, "", h.now); return err }),
			"cancel":   func(*rapid.T) { _, _, _, _ = lifecycle.Cancel(h.x, &ff.CancelExecution{ID: h.x.ID}, h.now) },
			"revoke":   func(*rapid.T) { _, _, _ = lifecycle.Revoke(h.x, &ff.RevokeLease{ID: h.x.ID}, h.now) },
			"replay":   func(*rapid.T) { h.replay() },
			"priority": func(*rapid.T) { _, _, _ = lifecycle.ChangePriority(h.x, 5, h.now) },
			"time":     h.pass,
			"":         h.check,
		})
	})
}

func (h *history) claimArgs() *lifecycle.ClaimArgs {
	h.ids++
	return &lifecycle.ClaimArgs{Claimant: ff.Claimant{Worker: "w", Instance: "w-1"}, LeaseTTL: 3 * time.Second,
		LeaseID: ff.LeaseID(uuid.UUID{13: 1, 15: h.ids}), AttemptID: ff.AttemptID(uuid.UUID{13: 2, 15: h.ids})}
}

func (h *history) claim() {
	if _, _, err := lifecycle.Claim(h.x, h.claimArgs(), h.now); err == nil {
		h.leased()
	}
}

// leased notes a new lease, whose epoch is the next one.
func (h *history) leased() {
	if h.x.LeaseEpoch != h.epoch+1 {
		panic(fmt.Sprintf("a lease of epoch %d follows epoch %d", h.x.LeaseEpoch, h.epoch))
	}
	h.held = append(h.held, fence(h.x))
}

func (h *history) granted() {
	g := &lifecycle.GrantArgs{Claimant: ff.Claimant{Worker: "w", Instance: "w-1"}, TTL: 2 * time.Second}
	if lifecycle.GrantClaim(h.x, g, h.now) == nil && h.now.Second()%2 == 0 {
		if _, _, err := lifecycle.ClaimGranted(h.x, h.claimArgs(), h.now); err == nil {
			h.leased()
		}
	}
}

// holder sends a command with one of the fences that were ever given out. Only
// the last one may have an effect.
func (h *history) holder(command func(ff.Fence) error) func(*rapid.T) {
	return func(t *rapid.T) {
		if len(h.held) == 0 {
			return
		}
		i := rapid.IntRange(0, len(h.held)-1).Draw(t, "fence")
		err := command(h.held[i])
		if i < len(h.held)-1 && err == nil {
			t.Fatalf("the holder of lease %d acted while the last lease is %d", h.held[i].LeaseEpoch, h.x.LeaseEpoch)
		}
	}
}

func (h *history) replay() {
	if _, err := lifecycle.Replay(h.x, &ff.ReplayExecution{ID: h.x.ID}, h.now); err == nil && h.x.Terminal() {
		panic("a replayed execution is still terminal")
	}
}

// pass lets time go by and does what is due.
func (h *history) pass(t *rapid.T) {
	h.now = h.now.Add(time.Duration(rapid.IntRange(1, 4000).Draw(t, "ms")) * time.Millisecond)
	for n := 0; ; n++ {
		changed, purge, _ := lifecycle.Advance(h.x, time.Hour, h.now)
		if purge || !changed {
			return
		}
		if n > 10 {
			t.Fatalf("something stays due: %+v", h.x.State)
		}
	}
}

func (h *history) check(t *rapid.T) {
	x := h.x
	if err := x.State.Validate(); err != nil {
		t.Fatal(err)
	}
	if x.LeaseEpoch < h.epoch || x.TotalAttempts < h.total {
		t.Fatalf("epoch went from %d to %d, attempts from %d to %d", h.epoch, x.LeaseEpoch, h.total, x.TotalAttempts)
	}
	h.epoch, h.total = x.LeaseEpoch, x.TotalAttempts
	if x.TotalAttempts > 0 && x.Attempt.Index != x.TotalAttempts-1 {
		t.Fatalf("attempt %d of %d", x.Attempt.Index, x.TotalAttempts)
	}
	active := x.State.Phase == ff.PhaseActive
	if active != (x.Lease.ID != ff.LeaseID{}) {
		t.Fatalf("%s with lease %s", x.State.Phase, x.Lease.ID)
	}
	due, isDue := lifecycle.NextDue(x, time.Hour)
	if reachable := lifecycle.Claimable(x) || isDue; !x.Terminal() && !reachable {
		t.Fatalf("nothing will ever happen to it: %+v", x.State)
	}
	if x.Terminal() != !x.CompletedAt.IsZero() || x.Terminal() && (!isDue || due.Kind != ff.SweepRetention || lifecycle.Claimable(x)) {
		t.Fatalf("%s, completed at %s, next due %+v", x.PublicState(), x.CompletedAt, due)
	}
	if x.PublicState() == ff.StateDelayed && (!isDue || x.DelayUntil.IsZero()) {
		t.Fatalf("delayed for ever: %+v", x)
	}
}

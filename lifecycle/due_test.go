package lifecycle_test

import (
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

func TestAnAttemptThatTakesTooLongIsRetriedAndThenExpires(t *testing.T) {
	c := withRetries(1, time.Second)
	c.Policy.Timeout = &ff.TimeoutPolicy{Attempt: 10 * time.Second}
	x := submit(c)
	claim(t, x, 1, t0)
	if due, _ := lifecycle.NextDue(x, time.Hour); due.Kind != ff.SweepAttemptTimeout || !due.At.Equal(after(10*time.Second)) {
		t.Fatalf("next due %+v", due)
	}
	_, _, fx := lifecycle.Advance(x, time.Hour, after(10*time.Second))
	wantEvents(t, fx, ff.EventReleased)
	if x.PublicState() != ff.StateDelayed || x.RetryCount != 1 || x.Attempt.FailureReason != "attempt_timeout" {
		t.Fatalf("after the first timeout: %s, %+v", x.PublicState(), x.Attempt)
	}
	lifecycle.Advance(x, time.Hour, after(11*time.Second))
	claim(t, x, 2, after(11*time.Second))
	_, _, fx = lifecycle.Advance(x, time.Hour, after(21*time.Second))
	wantEvents(t, fx, ff.EventCompletion)
	if x.PublicState() != ff.StateExpired || x.FailureReason != "attempt_timeout" || fx.Events[0].Outcome != ff.OutcomeExpired {
		t.Errorf("after the second timeout: %s, %q", x.PublicState(), x.FailureReason)
	}
}

func TestTheDeadlineExpiresAnExecutionWhateverItDoes(t *testing.T) {
	deadline := ff.CreateExecution{Deadline: after(time.Minute)}
	for name, make := range map[string]func() *ff.Execution{
		"waiting": func() *ff.Execution { return submit(deadline) },
		"delayed": func() *ff.Execution { c := deadline; c.Delay = time.Hour; return submit(c) },
		"active": func() *ff.Execution {
			x := submit(deadline)
			args := claimArgs(1)
			args.LeaseTTL = time.Hour
			if _, _, err := lifecycle.Claim(x, args, t0); err != nil {
				t.Fatal(err)
			}
			return x
		},
		"by the policy": func() *ff.Execution {
			return submit(policy(func(p *ff.ExecutionPolicy) { p.Timeout = &ff.TimeoutPolicy{Deadline: time.Minute} }))
		},
	} {
		x := make()
		if due, ok := lifecycle.NextDue(x, time.Hour); !ok || due.Kind != ff.SweepExecutionDeadline || !due.At.Equal(after(time.Minute)) {
			t.Errorf("%s: next due %+v", name, due)
		}
		lifecycle.Advance(x, time.Hour, after(time.Minute))
		if x.PublicState() != ff.StateExpired || x.FailureReason != "execution_deadline" {
			t.Errorf("%s: %s, %q", name, x.PublicState(), x.FailureReason)
		}
	}
}

func TestRetentionEndsWhenThePolicySays(t *testing.T) {
	x := submit(policy(func(p *ff.ExecutionPolicy) { p.Stream = &ff.StreamPolicy{RetentionTTL: time.Minute} }))
	complete(t, x)
	if _, purge, _ := lifecycle.Advance(x, time.Hour, after(60*time.Second)); purge {
		t.Error("purged before its retention was over")
	}
	if changed, purge, _ := lifecycle.Advance(x, time.Hour, after(61*time.Second)); !purge || changed {
		t.Error("not purged when its retention was over")
	}
	y := submit(ff.CreateExecution{})
	complete(t, y)
	if due, ok := lifecycle.NextDue(y, time.Hour); !ok || due.Kind != ff.SweepRetention || !due.At.Equal(after(time.Second+time.Hour)) {
		t.Errorf("without a policy: %+v", due)
	}
}

package lifecycle_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

func TestAnExecutionIsCreatedWaiting(t *testing.T) {
	x := submit(ff.CreateExecution{Priority: 12345})
	wantVector(t, x, waitingVector)
	if x.Priority != ff.MaxPriority || x.PublicState() != ff.StateWaiting || !lifecycle.Claimable(x) || !x.CreatedAt.Equal(t0) {
		t.Errorf("created %+v", x)
	}
	if x := submit(ff.CreateExecution{Priority: -5}); x.Priority != 0 {
		t.Errorf("a negative priority became %d", x.Priority)
	}
}

func TestADelayedExecutionIsPromotedWhenDue(t *testing.T) {
	x := submit(ff.CreateExecution{Delay: time.Minute})
	if x.PublicState() != ff.StateDelayed || x.BlockingDetail != "delayed until 1700000060000" || lifecycle.Claimable(x) {
		t.Fatalf("created %s, %q", x.PublicState(), x.BlockingDetail)
	}
	if due, ok := lifecycle.NextDue(x, time.Hour); !ok || due.Kind != ff.SweepDelayed || !due.At.Equal(after(time.Minute)) {
		t.Fatalf("next due %+v, %v", due, ok)
	}
	if changed, _, _ := lifecycle.Advance(x, time.Hour, after(59*time.Second)); changed {
		t.Error("promoted too early")
	}
	if changed, _, _ := lifecycle.Advance(x, time.Hour, after(time.Minute)); !changed {
		t.Error("not promoted when due")
	}
	wantVector(t, x, waitingVector)
	if _, ok := lifecycle.NextDue(x, time.Hour); ok || !x.DelayUntil.IsZero() {
		t.Error("something is still due")
	}
}

func TestADelayThatHasPassedMeansNow(t *testing.T) {
	for _, c := range []ff.CreateExecution{{DelayUntil: t0}, {DelayUntil: after(-time.Hour)}} {
		wantVector(t, submit(c), waitingVector)
	}
}

func TestScoreOrdersByPriorityThenAge(t *testing.T) {
	for priority, want := range map[int]int64{0: 1700000000000, 5: -3300000000000, 9000: -8998300000000000} {
		if got := lifecycle.Score(submit(ff.CreateExecution{Priority: priority})); got != want {
			t.Errorf("score of priority %d is %d, want %d", priority, got, want)
		}
	}
}

func TestPriorityChangesOnlyWhileWaiting(t *testing.T) {
	x := submit(ff.CreateExecution{Priority: 3})
	if old, applied, err := lifecycle.ChangePriority(x, 99999, t0); err != nil || old != 3 || applied != 9000 {
		t.Errorf("%d → %d, %v", old, applied, err)
	}
	claim(t, x, 1, t0)
	_, _, err := lifecycle.ChangePriority(x, 1, t0)
	wantCode(t, err, ff.CodeExecutionNotEligible)
	_, _, err = lifecycle.ChangePriority(submit(ff.CreateExecution{Delay: time.Hour}), 1, t0)
	wantCode(t, err, ff.CodeExecutionNotEligible)
}

func TestTagsAreMergedAndBounded(t *testing.T) {
	x := submit(ff.CreateExecution{Tags: map[string]string{"a.b": "1"}})
	if err := lifecycle.SetTags(x, map[string]string{"a.b": "2", "c.d": "3"}, t0); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"a.b": "2", "c.d": "3"}, x.Tags); d != "" {
		t.Error(d)
	}
	many := map[string]string{}
	for i := range ff.MaxTags {
		many["t."+string(rune('a'+i%26))+string(rune('a'+i/26))] = ""
	}
	wantCode(t, lifecycle.SetTags(x, many, t0), ff.CodeInvalidInput)
}

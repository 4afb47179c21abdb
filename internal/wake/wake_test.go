package wake_test

import (
	"testing"

	"github.com/flowfabric/flowfabric/internal/wake"
)

func woken[T comparable, H any](w *wake.Waiter[T, H]) bool {
	select {
	case <-w.C():
		return true
	default:
		return false
	}
}

func TestTheLongestWaitingAreWokenFirst(t *testing.T) {
	var h wake.Hub[string, int]
	a, b, c := h.Wait([]string{"x"}, nil), h.Wait([]string{"x", "y"}, nil), h.Wait([]string{"x"}, nil)
	h.Wake("x", 0, 2)
	if !woken(a) || !woken(b) || woken(c) {
		t.Error("want the first two woken")
	}
	h.Wake("y", 0, 1)
	if woken(b) {
		t.Error("woken twice")
	}
	h.WakeAll("x", 0)
	if !woken(c) {
		t.Error("the third was not woken")
	}
}

func TestAHintReachesOnlyWaitersThatAcceptIt(t *testing.T) {
	var h wake.Hub[string, int]
	even := h.Wait([]string{"x"}, func(n int) bool { return n%2 == 0 })
	odd := h.Wait([]string{"x"}, func(n int) bool { return n%2 == 1 })
	h.Wake("x", 1, 1)
	if woken(even) || !woken(odd) {
		t.Error("want the odd one woken")
	}
}

func TestAWakeUpThatWasNotReceivedGoesToTheNext(t *testing.T) {
	var h wake.Hub[string, int]
	a, b := h.Wait([]string{"x"}, nil), h.Wait([]string{"x"}, nil)
	h.Wake("x", 0, 1)
	a.Stop()
	if !woken(b) {
		t.Error("the wake-up was lost")
	}
	b.Stop()
	h.Wake("x", 0, 1)
}

func TestAWakeUpThatWasOfNoUseGoesToTheNext(t *testing.T) {
	var h wake.Hub[string, int]
	odd := func(n int) bool { return n%2 == 1 }
	a, even, b := h.Wait([]string{"x", "y"}, odd), h.Wait([]string{"x"}, func(n int) bool { return n%2 == 0 }), h.Wait([]string{"x"}, odd)
	h.Wake("x", 1, 1)
	if !woken(a) {
		t.Fatal("the first was not woken")
	}
	a.Stop()
	a.Pass()
	if woken(even) || !woken(b) {
		t.Error("want the next that accepts the hint woken")
	}
}

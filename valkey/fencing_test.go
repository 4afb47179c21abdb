//go:build unix

package valkey_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
	"github.com/flowfabric/flowfabric/worker"
)

// heldWorkerURL in the environment makes the test binary a worker of one task.
const heldWorkerURL = "FLOWFABRIC_TEST_HELD_WORKER"

const heldTTL = 3 * time.Second

// heldWorker claims one task and prints what it holds. When the context of the task
// has ended it prints why, and what becomes of every command that it sends with the
// lease that it had, once past the SDK and once with it.
func heldWorker(url string) int {
	ctx := context.Background()
	s, err := valkey.Open(ctx, url, valkey.Options{})
	if err != nil {
		fmt.Println("opening:", err)
		return 1
	}
	defer s.Close()
	w, err := worker.Connect(ctx, s, worker.Config{Worker: "held", Instance: "held-1", Lanes: []ff.LaneID{"default"}, LeaseTTL: heldTTL, DrainTimeout: time.Second})
	if err != nil {
		fmt.Println("connecting:", err)
		return 1
	}
	t, err := w.Claim(ctx)
	if err != nil {
		fmt.Println("claiming:", err)
		return 1
	}
	fmt.Println("holds", t.ID())
	<-t.Context().Done()
	say := func(what string, err error) { fmt.Printf("%s %q\n", what, ff.CodeOf(err)) }
	say("cause", context.Cause(t.Context()))
	ref := ff.LeaseRef{ID: t.ID(), Fence: t.Fence()}
	_, err = s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: ref, Result: []byte("stale")})
	say("complete", err)
	_, err = s.FailExecution(ctx, ff.FailExecution{LeaseRef: ref, Reason: "stale"})
	say("fail", err)
	say("progress", s.UpdateProgress(ctx, ff.UpdateProgress{LeaseRef: ref, Message: "stale"}))
	_, err = s.DelayExecution(ctx, ff.DelayExecution{LeaseRef: ref, For: time.Hour})
	say("delay", err)
	_, err = s.CancelExecution(ctx, ff.CancelExecution{ID: ref.ID, Fence: ref.Fence})
	say("cancel", err)
	renewed, err := s.RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: time.Hour})
	if err == nil {
		err = renewed.Renewals[0].Err
	}
	say("renew", err)
	released, err := s.ReleaseExecutions(ctx, ff.ReleaseExecutions{Leases: []ff.LeaseRef{ref}})
	if err == nil {
		err = released.Errs[0]
	}
	say("release", err)
	if err := t.Complete(ctx, []byte("stale")); err == nil {
		fmt.Println("sdk completed")
	}
	if err := w.Close(ctx); err != nil {
		fmt.Println("closing:", err)
		return 1
	}
	fmt.Println("end")
	return 0
}

// held is a heldWorker in a process of its own.
type held struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

func startHeld(t *testing.T, url string) *held {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])
	cmd.Env = append(os.Environ(), heldWorkerURL+"="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &held{t: t, cmd: cmd, lines: make(chan string, 100)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(h.lines)
		for lines := bufio.NewScanner(io.LimitReader(out, 1<<16)); lines.Scan(); {
			h.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	return h
}

func (h *held) line() string {
	h.t.Helper()
	select {
	case line := <-h.lines:
		return line
	case <-time.After(patience):
		h.t.Fatal("the process says nothing")
		return ""
	}
}

func (h *held) signal(s os.Signal) {
	h.t.Helper()
	if err := h.cmd.Process.Signal(s); err != nil {
		h.t.Fatal(err)
	}
}

// A worker process is frozen while another takes its execution over. When it goes
// on it can do nothing to the execution, and its handler is told.
func TestAFrozenWorkerCanDoNothingToWhatAnotherTookOver(t *testing.T) {
	for _, c := range []struct {
		name   string
		lapses bool
	}{
		// The worker's own clock tells, or the answer to a renewal if that is faster.
		{"after its lease has lapsed", true},
		// Only the answer to a renewal can tell.
		{"after its lease was revoked", false},
	} {
		for _, ended := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ended %v", c.name, ended), func(t *testing.T) {
				t.Parallel()
				frozen(t, c.lapses, ended)
			})
		}
	}
}

func frozen(t *testing.T, lapses, ended bool) {
	ctx := t.Context()
	server := valkeytest.Start(t)
	s := openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions})
	created, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "default", Kind: "k", Policy: &ff.ExecutionPolicy{MaxReclaims: 5, Retry: ff.FixedRetry(5, 0)}})
	if err != nil {
		t.Fatal(err)
	}
	h := startHeld(t, server.URL())
	if line := h.line(); line != "holds "+created.ID.String() {
		t.Fatalf("the process says %q", line)
	}
	h.signal(syscall.SIGSTOP)
	if !lapses {
		if r, err := s.RevokeLease(ctx, ff.RevokeLease{ID: created.ID, Reason: "frozen"}); err != nil || r.Already != "" {
			t.Fatalf("revoking: %+v, %v", r, err)
		}
	}
	// Another takes it over as soon as it can.
	var second ff.Claimed
	eventually(t, "another takes it over", func() bool {
		if _, err := s.Sweep(ctx, ff.Sweep{Kind: ff.SweepLeaseExpiry}); err != nil {
			t.Fatal(err)
		}
		r, err := s.Claim(ctx, ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"default"}, LeaseTTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Claimed) == 1 {
			second = r.Claimed[0]
		}
		return len(r.Claimed) == 1
	})
	if second.Execution.LeaseEpoch != 2 {
		t.Fatalf("the second lease has epoch %d", second.Execution.LeaseEpoch)
	}
	complete := func() {
		if _, err := s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: second.Ref(), Result: []byte("of the second")}); err != nil {
			t.Fatal(err)
		}
	}
	want, causes := `"stale_lease"`, `"stale_lease"`
	if ended {
		complete()
		want, causes = `"execution_not_active"`, causes+` "execution_not_active"`
	}
	h.signal(syscall.SIGCONT)
	cause, _ := strings.CutPrefix(h.line(), "cause ")
	if !strings.Contains(causes, cause) || cause == "" {
		t.Errorf("the context of the task ends with %s, want %s", cause, causes)
	}
	for _, what := range []string{"complete", "fail", "progress", "delay", "cancel", "renew", "release"} {
		if line := h.line(); line != what+" "+want {
			t.Errorf("the frozen worker gets %q, want %s %s", line, what, want)
		}
	}
	if line := h.line(); line != "end" {
		t.Errorf("the frozen worker says %q", line)
	}
	if !ended {
		complete()
	}
	x, err := s.Execution(ctx, created.ID)
	if err != nil || x.PublicState() != ff.StateCompleted || x.Progress.Message != "" || x.TotalAttempts != 2 {
		t.Errorf("the execution is %s with %d attempts and progress %q, %v", x.PublicState(), x.TotalAttempts, x.Progress.Message, err)
	}
	if result, err := s.ExecutionResult(ctx, created.ID); err != nil || string(result) != "of the second" {
		t.Errorf("the result is %q, %v", result, err)
	}
}

package valkey_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// waiter is an execution that waits, or is about to, whose records the test damages.
type waiter struct {
	id         ff.ExecutionID
	ref        ff.LeaseRef
	suspension ff.SuspensionID
	at         []ff.IssuedWaitpoint
}

// waitStage is what a waiter waits for; the timeouts of all are a minute ahead.
type waitStage string

const (
	plainWait   waitStage = "a suspension"
	treeWait    waitStage = "a suspension at two waitpoints, one of which has had its signal"
	pendingWait waitStage = "a waitpoint created ahead that has a signal"
)

type waiters struct {
	ff.Backend
	server *valkeytest.Server
	clock  *valkeytest.Clock
	made   int
}

func (s *waiters) do(t *testing.T, command string, args ...string) {
	t.Helper()
	if err := s.server.Do(command, args...).Error(); err != nil {
		t.Fatalf("%s %.80q: %v", command, args, err)
	}
}

func (s *waiters) make(t *testing.T, stage waitStage) waiter {
	t.Helper()
	ctx := t.Context()
	s.made++
	lane := ff.LaneID(fmt.Sprintf("lane-%d", s.made))
	must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: lane, Kind: "k"}))
	r := must[ff.ClaimResult](t)(s.Claim(ctx, ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}, LeaseTTL: time.Hour}))
	w := waiter{id: r.Claimed[0].Execution.ID, ref: r.Claimed[0].Ref()}
	if stage == pendingWait {
		made := must[ff.CreateWaitpointResult](t)(s.CreateWaitpoint(ctx, ff.CreateWaitpoint{LeaseRef: w.ref, TTL: time.Minute}))
		w.at = []ff.IssuedWaitpoint{made.IssuedWaitpoint}
		must[ff.DeliverSignalResult](t)(s.DeliverSignal(ctx, w.signal(0, "early")))
		return w
	}
	c := ff.SuspendExecution{LeaseRef: w.ref, Condition: ff.AwaitSignal("go"), TimeoutAfter: time.Minute}
	if stage == treeWait {
		c.Condition = ff.AllOf(ff.AwaitSignal("go").At("a"), ff.AwaitCount(1, ff.DistinctSources, "b"))
		c.Waitpoints = []ff.WaitpointBinding{{Key: "a"}, {Key: "b"}}
	}
	out := must[ff.SuspendExecutionResult](t)(s.SuspendExecution(ctx, c))
	w.at, w.suspension = out.Waitpoints, out.SuspensionID
	if stage == treeWait {
		must[ff.DeliverSignalResult](t)(s.DeliverSignal(ctx, w.signal(1, "any")))
	}
	return w
}

func (w *waiter) signal(at int, name string) ff.DeliverSignal {
	return ff.DeliverSignal{ID: w.id, WaitpointID: w.at[at].ID, Token: w.at[at].Token, Name: name}
}

// tag and waitpointKey are as spec 01 §5 has them.
func (w *waiter) tag() string { return fmt.Sprintf("{fp:%d}", w.id.Partition()) }

func (w *waiter) waitpointKey() string { return "ff:wp:" + w.tag() + ":" + w.at[0].ID.String() }

// waitHarm is one way to damage a waiter. Refused says that what it damages must not be
// read as if nothing was wrong.
type waitHarm struct {
	name    string
	refused bool
	do      func(t *testing.T, s *waiters, w *waiter)
}

var (
	suspensionFields = strings.Fields(`suspension_id attempt_index waitpoint_id waitpoint_key additional_waitpoints_json reason_code requested_by
		created_at timeout_at timeout_behavior resume_condition_json resume_policy_json last_signal_at satisfied_at closed_at close_reason
		all_satisfier_signals`)
	waitpointFields = strings.Fields(`waitpoint_id execution_id attempt_index suspension_id waitpoint_key waitpoint_token state created_at activated_at
		expires_at signal_count matched_signal_count last_signal_at satisfied_at closed_at close_reason`)
	conditionFields = strings.Fields(`condition_type composite match_mode minimum_signal_count total_matchers satisfied_count closed tree_json
		matcher:0:name matcher:0:satisfied matcher:0:signal_id`)
	garbage = []string{"", "garbage\x00\xff", "-5", "9223372036854775807", "1e999", "nan", "null", "[]", `{"v":1,"composite":true,"tree":7}`, `[7,{"waitpoint_id":8}]`}
	// In these, what is no number, id or condition is always seen.
	neverGarbage = strings.Fields(`suspension_id attempt_index waitpoint_id created_at resume_condition_json state`)
)

// waitHarms are the ways to damage the records of a waiter.
func waitHarms() (list []waitHarm) {
	suspension := func(w *waiter) string { return key(w.id, "suspension:current") }
	condition := func(w *waiter) string { return w.waitpointKey() + ":condition" }
	for _, hash := range []struct {
		name   string
		key    func(*waiter) string
		fields []string
	}{{"the suspension", suspension, suspensionFields}, {"the waitpoint", (*waiter).waitpointKey, waitpointFields}, {"the condition", condition, conditionFields}} {
		for _, field := range hash.fields {
			refused := hash.name != "the condition" && slices.Contains(neverGarbage, field)
			list = append(list, waitHarm{hash.name + " lacks " + field, hash.name != "the condition" && field == "waitpoint_id", func(t *testing.T, s *waiters, w *waiter) { s.do(t, "HDEL", hash.key(w), field) }})
			for i, value := range garbage {
				list = append(list, waitHarm{fmt.Sprintf("%s has %s = %.40q", hash.name, field, value), refused && i == 1,
					func(t *testing.T, s *waiters, w *waiter) { s.do(t, "HSET", hash.key(w), field, value) }})
			}
		}
		list = append(list, waitHarm{hash.name + " is gone", false, func(t *testing.T, s *waiters, w *waiter) { s.do(t, "DEL", hash.key(w)) }})
	}
	for name, at := range map[string]func(*waiter) string{"the suspension": suspension, "the waitpoint": (*waiter).waitpointKey, "the condition": condition,
		"the satisfied set":      func(w *waiter) string { return suspension(w) + ":satisfied_set" },
		"the list of waitpoints": func(w *waiter) string { return key(w.id, "waitpoints") },
		"the list of signals":    func(w *waiter) string { return key(w.id, "signals") },
		"the buffer":             func(w *waiter) string { return w.waitpointKey() + ":signals" },
	} {
		list = append(list, waitHarm{name + " is a string", false, func(t *testing.T, s *waiters, w *waiter) { s.do(t, "SET", at(w), "text") }})
	}
	return append(list,
		waitHarm{"a waitpoint is no id", false, func(t *testing.T, s *waiters, w *waiter) { s.do(t, "SADD", key(w.id, "waitpoints"), "!garbage", "") }},
		waitHarm{"a signal is no id", false, func(t *testing.T, s *waiters, w *waiter) {
			s.do(t, "ZADD", key(w.id, "signals"), "1", "!garbage", "-inf", "", "2", "~")
		}},
		waitHarm{"strangers are due", false, func(t *testing.T, s *waiters, w *waiter) {
			for _, index := range []string{"suspension_timeout", "pending_waitpoint_expiry"} {
				s.do(t, "ZADD", "ff:idx:"+w.tag()+":"+index, "1", "!garbage", "-inf", "{fp:0}:nothing", "2", "", "3", ff.NewWaitpointID().String())
			}
		}},
	)
}

// waitCodes are the codes that a call about a damaged waiter may have besides those of
// any damaged execution: never internal or transport.
var waitCodes = slices.Concat(tolerable, []ff.Code{ff.CodeInvalidToken, ff.CodeTargetNotSignalable, ff.CodeWaitpointClosed,
	ff.CodeExecutionNotSuspended, ff.CodeAlreadySuspended, ff.CodeWaitpointNotFound, ff.CodeWaitpointNotPending, ff.CodePendingWaitpointExpired,
	ff.CodeInvalidWaitpointForExecution, ff.CodeInvalidWaitpointKey, ff.CodeWaitpointNotTokenBound})

// use reads a damaged waiter in every way and sends every command about it. It answers
// whether something was called corrupt.
func (s *waiters) use(t *testing.T, w *waiter) (corrupt bool) {
	t.Helper()
	ctx := t.Context()
	for _, call := range []struct {
		what string
		make func() error
	}{
		{"the suspension", func() error { _, err := s.Suspension(ctx, w.id); return err }},
		{"the waitpoints", func() error { _, err := s.ListWaitpoints(ctx, ff.ListWaitpoints{ID: w.id, Closed: true}); return err }},
		{"the open waitpoints", func() error { _, err := s.ListWaitpoints(ctx, ff.ListWaitpoints{ID: w.id, Limit: 1}); return err }},
		{"the signals", func() error { _, err := s.ListSignals(ctx, ff.ListSignals{ID: w.id}); return err }},
		{"the signals that resumed it", func() error { _, err := s.ListSignals(ctx, ff.ListSignals{ID: w.id, Resumed: true}); return err }},
		{"the token", func() error {
			_, err := s.WaitpointToken(ctx, ff.WaitpointRef{ID: w.id, WaitpointID: w.at[0].ID})
			return err
		}},
		{"the execution", func() error { _, err := s.Execution(ctx, w.id); return err }},
		{"the suspension repeated", func() error {
			_, err := s.SuspendExecution(ctx, ff.SuspendExecution{LeaseRef: w.ref, SuspensionID: w.suspension, Condition: ff.AwaitSignal("go"),
				TimeoutAfter: time.Minute})
			return err
		}},
		{"the waitpoint taken up", func() error {
			_, err := s.SuspendExecution(ctx, ff.SuspendExecution{LeaseRef: w.ref, Condition: ff.AwaitSignal("go"), TimeoutAfter: time.Minute,
				Waitpoints: []ff.WaitpointBinding{{ID: w.at[0].ID, Pending: true}}})
			return err
		}},
		{"a signal", func() error { _, err := s.DeliverSignal(ctx, w.signal(0, "other")); return err }},
		{"another signal", func() error { _, err := s.DeliverSignal(ctx, w.signal(0, "go")); return err }},
		{"the waitpoint closed", func() error {
			_, err := s.CloseWaitpoint(ctx, ff.CloseWaitpoint{ID: w.id, WaitpointID: w.at[0].ID})
			return err
		}},
	} {
		err := call.make()
		corrupt = corrupt || ff.CodeOf(err) == ff.CodeCorruption
		if err != nil && !slices.Contains(waitCodes, ff.CodeOf(err)) {
			t.Errorf("%s of %s: %v", call.what, w.id, err)
		}
		if err != nil && strings.Contains(err.Error(), w.at[0].Token.Reveal()) {
			t.Errorf("%s: the error has the token", call.what)
		}
	}
	return corrupt
}

// end cancels, and forgets it.
func (s *waiters) end(t *testing.T, w *waiter) {
	t.Helper()
	for what, err := range map[string]error{
		"resumption": func() error { _, err := s.ResumeExecution(t.Context(), ff.ResumeExecution{ID: w.id}); return err }(),
		"cancellation": func() error {
			_, err := s.CancelExecution(t.Context(), ff.CancelExecution{ID: w.id, Reason: "r"})
			return err
		}(),
	} {
		if err != nil && !slices.Contains(waitCodes, ff.CodeOf(err)) {
			t.Errorf("%s of %s: %v", what, w.id, err)
		}
	}
}

func (s *waiters) sweepAll(t *testing.T) {
	t.Helper()
	for _, kind := range ff.SweepKinds {
		for n := 0; ; n++ {
			r, err := s.Sweep(t.Context(), ff.Sweep{Kind: kind})
			if err != nil || n > 20 {
				t.Fatalf("sweep %d of %s: %+v, %v", n, kind, r, err)
			}
			if !r.More {
				break
			}
		}
	}
}

// sound checks that a waiter was served at its timeout.
func (s *waiters) sound(t *testing.T, w *waiter, stage waitStage) {
	t.Helper()
	if stage != pendingWait {
		if x, err := s.Execution(t.Context(), w.id); err != nil || x.PublicState() != ff.StateFailed {
			t.Errorf("a sound execution is %s after its timeout, %v", x.PublicState(), err)
		}
		return
	}
	r, err := s.ListWaitpoints(t.Context(), ff.ListWaitpoints{ID: w.id, Closed: true})
	if err != nil || len(r.Waitpoints) != 1 || r.Waitpoints[0].CloseReason != ff.ClosedNeverCommitted {
		t.Errorf("a sound waitpoint after its time: %+v, %v", r.Waitpoints, err)
	}
}

// Each harm is done to one of many that are due at the same time.
func TestADamagedSuspensionIsCorruptAndHarmsNoOther(t *testing.T) {
	for _, extensions := range []valkey.ExtensionUse{valkey.ExtensionsAuto, valkey.ExtensionsOff} {
		for _, stage := range []waitStage{plainWait, treeWait, pendingWait} {
			t.Run(fmt.Sprintf("extensions %v, %s", extensions, stage), func(t *testing.T) {
				t.Parallel()
				clock := valkeytest.NewClock(t)
				server := valkeytest.Start(t, valkeytest.WithClock(clock))
				s := &waiters{server: server, clock: clock,
					Backend: openBackend(t, server.URL(), valkey.Options{Partitions: fewPartitions, Extensions: extensions})}
				for some := range slices.Chunk(waitHarms(), 60) {
					s.exercise(t, stage, some)
				}
			})
		}
	}
}

func (s *waiters) exercise(t *testing.T, stage waitStage, harms []waitHarm) {
	t.Helper()
	before := s.make(t, stage)
	bad := make([]waiter, len(harms))
	for i, h := range harms {
		bad[i] = s.make(t, stage)
		h.do(t, s, &bad[i])
	}
	after := s.make(t, stage)
	// A half is used before the sweeps come, a half is left to them.
	for i, h := range harms {
		failed := t.Failed()
		if used := i%2 == 0; used {
			corrupt := s.use(t, &bad[i])
			if h.refused && !corrupt && stage == plainWait {
				t.Errorf("it is read as if nothing was wrong")
			}
		}
		if t.Failed() && !failed {
			t.Logf("%s: the damage was: %s", bad[i].id, h.name)
		}
	}
	s.clock.Advance(2 * time.Minute)
	s.sweepAll(t)
	s.sweepAll(t)
	s.sound(t, &before, stage)
	s.sound(t, &after, stage)
	for i := range bad {
		failed := t.Failed()
		s.use(t, &bad[i])
		s.end(t, &bad[i])
		if t.Failed() && !failed {
			t.Logf("%s: the damage was, at the end: %s", bad[i].id, harms[i].name)
		}
	}
	s.clock.Advance(2 * ff.DefaultRetention)
	s.sweepAll(t)
}

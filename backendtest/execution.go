package backendtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	ff "github.com/flowfabric/flowfabric"
)

var executionBehaviours = []behaviour{
	{"a created execution waits for a worker", createdWaits},
	{"a record gives back what was submitted", recordGivesBack},
	{"a minted id lies on the partition of its lane", mintedIDs},
	{"payloads come back byte for byte", payloadsComeBack},
	{"priorities are clamped to their range", prioritiesAreClamped},
	{"a delay in the past means now", pastDelays},
	{"a batch is stored in order", batchesInOrder},
	{"a batch with one bad item stores nothing and names the item", badBatch},
	{"submits that cannot be are refused with the field", badSubmits},
	{"every command about a missing execution says so", missingExecution},
	{"the priority of a waiting execution can change", changePriority},
	{"the priority of others cannot change", priorityOfOthers},
	{"a replay starts a terminal execution again", replay},
	{"a replay can replace the payload", replayPayload},
	{"replays are refused beyond their limit and before the end", replayLimits},
	{"every kind of end can be replayed", replayEveryEnd},
	{"tags are added and overwritten in every phase", tags},
	{"bad tags are refused and nothing is written", badTags},
	{"records that were read are the reader's own", ownCopies},
}

var waitingVector = ff.StateVector{Phase: ff.PhaseRunnable, Ownership: ff.OwnershipUnowned, Eligibility: ff.EligibleNow,
	Blocking: ff.WaitingForWorker, Outcome: ff.OutcomeNone, Attempt: ff.AttemptPendingFirst}

func createdWaits(s *subject) {
	r, err := s.CreateExecution(s.Context(), filled(ff.CreateExecution{}))
	s.must(err)
	s.equal("the answer", r, ff.CreateExecutionResult{ID: r.ID, State: ff.StateWaiting})
	x := s.read(r.ID)
	s.equal("the state", x.State, waitingVector)
	if x.TotalAttempts != 0 || x.LeaseEpoch != 0 || !x.Lease.ID.IsZero() || len(s.attempts(r.ID)) != 0 {
		s.Errorf("a fresh execution has a history: %+v", x)
	}
}

func recordGivesBack(s *subject) {
	p := ff.DefaultExecutionPolicy()
	p.Retry = ff.ExponentialRetry(3, time.Second, time.Minute)
	p.Retry.RetryableCategories = []string{"timeout", "network"}
	p.Timeout = &ff.TimeoutPolicy{Attempt: time.Minute, Deadline: time.Hour, MaxReclaims: 3}
	p.Routing = &ff.RoutingRequirements{RequiredCapabilities: capabilitySet("gpu", "cuda"), PreferredLocality: "eu"}
	p.Stream = &ff.StreamPolicy{DurabilityMode: "durable", RetentionMaxLen: 7, RetentionTTL: time.Hour}
	c := ff.CreateExecution{
		ID: ff.MakeExecutionID(3, uuid.New()), Namespace: "tenant", Lane: "mail", Kind: "send ü", Priority: 42,
		Creator: "ann", PayloadEncoding: "json", Payload: []byte("{}"), Tags: map[string]string{"Team": "blue", "a.b": "ü'\"\\"}, Policy: p,
	}
	id := s.submit(c)
	now := s.now()
	s.equal("the record", s.read(id), ff.Execution{
		ID: c.ID, Namespace: c.Namespace, Lane: c.Lane, Kind: c.Kind, Priority: 42, Creator: c.Creator, PayloadEncoding: "json",
		Policy: p, Required: p.Routing.RequiredCapabilities, Tags: c.Tags, State: waitingVector,
		CreatedAt: now, LastTransitionAt: now, LastMutationAt: now, Deadline: now.Add(time.Hour),
	})
	input, err := s.ExecutionPayload(s.Context(), id)
	s.must(err)
	s.equal("the input", input, ff.ExecutionPayload{Payload: c.Payload, Encoding: "json", Kind: c.Kind, Tags: c.Tags})
}

func mintedIDs(s *subject) {
	info, err := s.Info(s.Context())
	s.must(err)
	for _, lane := range []ff.LaneID{"a", "b", "a lane with spaces"} {
		id := s.submit(ff.CreateExecution{Lane: lane})
		if want := info.Partitions.LanePartition(lane); id.Partition() != want || !id.IsCanonical() {
			s.Errorf("id %s of lane %q, want partition %d", id, lane, want)
		}
	}
}

func payloadsComeBack(s *subject) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, payload := range map[string][]byte{"none": nil, "one zero byte": {0}, "every byte": all, "large": bytes.Repeat(all, 4096)} {
		id := s.submit(ff.CreateExecution{Payload: payload})
		got, err := s.ExecutionPayload(s.Context(), id)
		s.must(err)
		claimed := s.claim(ff.Claim{})
		_, err = s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: claimed.Ref(), Result: payload})
		s.must(err)
		result, err := s.ExecutionResult(s.Context(), id)
		s.must(err)
		for what, b := range map[string][]byte{"read": got.Payload, "claimed": claimed.Payload, "result": result} {
			if !bytes.Equal(b, payload) {
				s.Errorf("%s payload, %s: %d bytes differ from the %d given", name, what, len(b), len(payload))
			}
		}
	}
}

func prioritiesAreClamped(s *subject) {
	for given, want := range map[int]int{10_000: 9000, -5: 0, 50: 50} {
		if got := s.read(s.submit(ff.CreateExecution{Priority: given})).Priority; got != want {
			s.Errorf("priority %d is stored as %d, want %d", given, got, want)
		}
	}
}

func pastDelays(s *subject) {
	s.wantState(s.submit(ff.CreateExecution{DelayUntil: s.now().Add(-time.Hour)}), ff.StateWaiting)
}

func batchesInOrder(s *subject) {
	var batch ff.CreateExecutions
	for i := range 25 {
		batch.Executions = append(batch.Executions, filled(ff.CreateExecution{Payload: fmt.Append(nil, i)}))
	}
	r, err := s.CreateExecutions(s.Context(), batch)
	s.must(err)
	got := s.claimUpTo(ff.Claim{Max: 25})
	if len(r.Results) != 25 || len(got) != 25 {
		s.Fatalf("%d results and %d claimed, want 25", len(r.Results), len(got))
	}
	for i, c := range got {
		if string(c.Payload) != fmt.Sprint(i) || c.Execution.ID != r.Results[i].ID {
			s.Errorf("item %d came back with payload %q as %s, want %s", i, c.Payload, c.Execution.ID, r.Results[i].ID)
		}
	}
}

func badBatch(s *subject) {
	batch := ff.CreateExecutions{Executions: []ff.CreateExecution{filled(ff.CreateExecution{}), {Lane: mainLane}}}
	_, err := s.CreateExecutions(s.Context(), batch)
	s.refused(err, ff.ErrInvalidInput)
	if e, ok := ff.AsError(err); ok && e.Field != "executions[1].kind" {
		s.Errorf("the error names %q, want executions[1].kind", e.Field)
	}
	s.nothingToClaim()
	for _, n := range []int{0, ff.MaxBatch + 1} {
		_, err := s.CreateExecutions(s.Context(), ff.CreateExecutions{Executions: make([]ff.CreateExecution, n)})
		s.refused(err, ff.ErrInvalidInput)
	}
	big := filled(ff.CreateExecution{Payload: make([]byte, ff.MaxPayloadBytes)})
	_, err = s.CreateExecutions(s.Context(), ff.CreateExecutions{Executions: slices.Repeat([]ff.CreateExecution{big}, ff.MaxBatchBytes/ff.MaxPayloadBytes+1)})
	s.refused(err, ff.ErrPayloadTooLarge)
	if e, ok := ff.AsError(err); ok && (e.Field != "executions" || !strings.Contains(e.Error(), fmt.Sprint(ff.MaxBatchBytes))) {
		s.Errorf("%v does not name the field executions and the limit", err)
	}
	s.nothingToClaim()
}

func badSubmits(s *subject) {
	info, err := s.Info(s.Context())
	s.must(err)
	odd, err := ff.ParseExecutionID("{fp:01}:" + uuid.NewString())
	s.must(err)
	long := strings.Repeat("x", 5000)
	for field, c := range map[string]ff.CreateExecution{
		"lane_id":               {Kind: "k"},
		"kind":                  {Lane: mainLane},
		"creator":               filled(ff.CreateExecution{Creator: long}),
		"idempotency_key":       filled(ff.CreateExecution{IdempotencyKey: "\xff"}),
		"payload_encoding":      filled(ff.CreateExecution{PayloadEncoding: "a\x00b"}),
		"namespace":             filled(ff.CreateExecution{Namespace: "two words"}),
		"tags":                  filled(ff.CreateExecution{Tags: map[string]string{"": "v"}}),
		"tags.k":                filled(ff.CreateExecution{Tags: map[string]string{"k": long}}),
		"delay":                 filled(ff.CreateExecution{Delay: -1}),
		"delay_until":           filled(ff.CreateExecution{DelayUntil: time.Unix(-1, 0)}),
		"execution_deadline_at": filled(ff.CreateExecution{Deadline: time.Unix(1<<40, 0)}),
		"execution_id":          filled(ff.CreateExecution{ID: odd}),
		"payload":               filled(ff.CreateExecution{Payload: make([]byte, ff.MaxPayloadBytes+1)}),
		"policy.retry_policy.max_retries": filled(policed(func(p *ff.ExecutionPolicy) {
			p.Retry = ff.FixedRetry(-1, 0)
		})),
	} {
		_, err := s.CreateExecution(s.Context(), c)
		if e, ok := ff.AsError(err); !ok || e.Field != field || e.Kind() != ff.KindValidation {
			s.Errorf("bad %s: %v", field, err)
		}
	}
	_, err = s.CreateExecution(s.Context(), filled(ff.CreateExecution{ID: ff.MakeExecutionID(info.Partitions.Flow, uuid.New())}))
	s.refused(err, ff.ErrInvalidInput)
	s.nothingToClaim()
}

func missingExecution(s *subject) {
	ctx, id := s.Context(), ff.MakeExecutionID(0, uuid.New())
	ref := ff.LeaseRef{ID: id, Fence: ff.Fence{LeaseID: ff.NewLeaseID(), LeaseEpoch: 1, AttemptID: ff.NewAttemptID()}}
	for name, call := range map[string]func() error{
		"read":    func() error { _, err := s.Execution(ctx, id); return err },
		"payload": func() error { _, err := s.ExecutionPayload(ctx, id); return err },
		"result":  func() error { _, err := s.ExecutionResult(ctx, id); return err },
		"list attempts": func() error {
			_, err := s.Attempts(ctx, id)
			return err
		},
		"cancel":   func() error { _, err := s.CancelExecution(ctx, ff.CancelExecution{ID: id}); return err },
		"priority": func() error { _, err := s.ChangePriority(ctx, ff.ChangePriority{ID: id}); return err },
		"replay":   func() error { _, err := s.ReplayExecution(ctx, ff.ReplayExecution{ID: id}); return err },
		"tag":      func() error { return s.tag(id, "a.b", "v") },
		"revoke":   func() error { _, err := s.RevokeLease(ctx, ff.RevokeLease{ID: id}); return err },
		"grant reclaim": func() error {
			_, err := s.GrantReclaim(ctx, ff.GrantReclaim{Claimant: who("a"), ID: id, TTL: ttl})
			return err
		},
		"claim granted": func() error { _, err := s.ClaimGranted(ctx, ff.ClaimGranted{Claimant: who("a"), ID: id}); return err },
	} {
		if err := call(); ff.CodeOf(err) != ff.CodeExecutionNotFound {
			s.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range holderCommands {
		if err := c.send(s, ref); ff.CodeOf(err) != ff.CodeExecutionNotFound {
			s.Errorf("%s: %v", c.name, err)
		}
	}
}

func changePriority(s *subject) {
	first, second := s.submit(ff.CreateExecution{Priority: 5}), s.submit(ff.CreateExecution{Priority: 5})
	for _, c := range []struct{ given, old, stored int }{{100_000, 5, 9000}, {-1, 9000, 0}, {7, 0, 7}} {
		r, err := s.ChangePriority(s.Context(), ff.ChangePriority{ID: second, Priority: c.given})
		s.must(err)
		s.equal("the answer", r, ff.ChangePriorityResult{Old: c.old, New: c.stored})
		s.equal("the stored priority", s.read(second).Priority, c.stored)
	}
	for _, want := range []ff.ExecutionID{second, first} {
		s.equal("the next claimed", s.claim(ff.Claim{}).Execution.ID, want)
	}
}

func priorityOfOthers(s *subject) {
	active := s.start(ff.CreateExecution{})
	delayed := s.submit(ff.CreateExecution{Delay: time.Hour})
	done := s.start(ff.CreateExecution{})
	s.complete(done)
	for _, id := range []ff.ExecutionID{active.Execution.ID, delayed, done.Execution.ID} {
		_, err := s.ChangePriority(s.Context(), ff.ChangePriority{ID: id, Priority: 9})
		s.refused(err, ff.ErrExecutionNotEligible)
		s.equal("the priority", s.read(id).Priority, 0)
	}
}

func replay(s *subject) {
	first := s.start(ff.CreateExecution{Payload: []byte("in")})
	id := first.Execution.ID
	_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: first.Ref(), Result: []byte("out")})
	s.must(err)
	r, err := s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: id, Reason: "wrong input", RequestedBy: "ann"})
	s.must(err)
	s.equal("the answer", r.State, ff.StateWaiting)
	if result, err := s.ExecutionResult(s.Context(), id); err != nil || result != nil {
		s.Errorf("the result of the earlier run is still there: %q, %v", result, err)
	}
	again := s.claim(ff.Claim{})
	a := again.Execution.Attempt
	if again.Execution.ID != id || a.Type != ff.AttemptReplay || a.Index != 1 || a.Cause != "wrong input" || a.RequestedBy != "ann" ||
		a.Previous != 0 || again.Execution.LeaseEpoch != 2 || string(again.Payload) != "in" {
		s.Errorf("replayed: %+v, payload %q", a, again.Payload)
	}
	s.complete(again)
	if x := s.wantState(id, ff.StateCompleted); x.ReplayCount != 1 || len(s.attempts(id)) != 2 {
		s.Errorf("after the replay: %d replays, %d attempts", x.ReplayCount, len(s.attempts(id)))
	}
}

func replayPayload(s *subject) {
	c := s.start(ff.CreateExecution{Payload: []byte("first")})
	for _, payload := range []string{"second", ""} {
		s.complete(c)
		_, err := s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: c.Execution.ID, Payload: []byte(payload)})
		s.must(err)
		if c = s.claim(ff.Claim{}); string(c.Payload) != payload {
			s.Errorf("the new attempt gets %q, want %q", c.Payload, payload)
		}
	}
}

func replayLimits(s *subject) {
	c := s.start(policed(func(p *ff.ExecutionPolicy) { p.MaxReplays = 1 }))
	replay := ff.ReplayExecution{ID: c.Execution.ID}
	_, err := s.ReplayExecution(s.Context(), replay)
	s.refused(err, ff.ErrExecutionNotTerminal)
	s.complete(c)
	_, err = s.ReplayExecution(s.Context(), replay)
	s.must(err)
	_, err = s.ReplayExecution(s.Context(), replay)
	s.refused(err, ff.ErrExecutionNotTerminal)
	s.complete(s.claim(ff.Claim{}))
	_, err = s.ReplayExecution(s.Context(), replay)
	s.refused(err, ff.ErrMaxReplaysExhausted)
	s.wantState(replay.ID, ff.StateCompleted)
}

func replayEveryEnd(s *subject) {
	failed := s.start(ff.CreateExecution{})
	_, err := s.FailExecution(s.Context(), ff.FailExecution{LeaseRef: failed.Ref(), Reason: "broken", Category: "c"})
	s.must(err)
	expired := s.submit(ff.CreateExecution{Delay: time.Hour, Deadline: s.now().Add(time.Second)})
	s.pass(time.Second)
	cancelled := s.submit(ff.CreateExecution{})
	_, err = s.CancelExecution(s.Context(), ff.CancelExecution{ID: cancelled})
	s.must(err)
	for id, end := range map[ff.ExecutionID]ff.PublicState{
		failed.Execution.ID: ff.StateFailed, expired: ff.StateExpired, cancelled: ff.StateCancelled,
	} {
		s.wantState(id, end)
		_, err := s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: id})
		s.must(err)
		s.wantState(id, ff.StateWaiting)
		c := s.claim(ff.Claim{})
		s.complete(c)
		if x := s.wantState(id, ff.StateCompleted); x.FailureReason != "" || x.CancellationReason != "" {
			s.Errorf("%s, replayed and completed, still says %q, %q", end, x.FailureReason, x.CancellationReason)
		}
	}
}

func (s *subject) tag(id ff.ExecutionID, key, value string) error {
	_, err := s.SetExecutionTags(s.Context(), ff.SetExecutionTags{ID: id, Tags: map[string]string{key: value}})
	return err
}

func tags(s *subject) {
	id := s.submit(ff.CreateExecution{Tags: map[string]string{"a.b": "1"}})
	want := map[string]string{"a.b": "1"}
	for _, phase := range []struct{ key, value string }{{"c.d", "waiting"}, {"a.b", "active"}, {"e.f", "terminal"}} {
		s.Advance(time.Second)
		r, err := s.SetExecutionTags(s.Context(), ff.SetExecutionTags{ID: id, Tags: map[string]string{phase.key: phase.value}})
		s.must(err)
		want[phase.key] = phase.value
		x := s.read(id)
		s.equal("the answer", r.Tags, want)
		s.equal("the stored tags", x.Tags, want)
		if !x.LastMutationAt.Equal(s.now()) {
			s.Errorf("the last mutation is %s, want %s", x.LastMutationAt, s.now())
		}
		switch phase.value {
		case "waiting":
			s.claim(ff.Claim{})
		case "active":
			_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: id})
			s.must(err)
		}
	}
}

func badTags(s *subject) {
	id := s.submit(ff.CreateExecution{})
	for _, key := range []string{"nodot", "Upper.case", "trailing.", ".leading", "a b.c"} {
		s.refused(s.tag(id, key, "v"), ff.ErrInvalidTagKey)
	}
	_, err := s.SetExecutionTags(s.Context(), ff.SetExecutionTags{ID: id})
	s.refused(err, ff.ErrInvalidInput)
	many := map[string]string{}
	for i := range ff.MaxTags {
		many[fmt.Sprintf("t.n%d", i)] = ""
	}
	_, err = s.SetExecutionTags(s.Context(), ff.SetExecutionTags{ID: id, Tags: many})
	s.must(err)
	s.refused(s.tag(id, "one.more", "v"), ff.ErrInvalidInput)
	s.equal("the tags", len(s.read(id).Tags), ff.MaxTags)
}

// ownCopies changes what the store has given and looks again.
func ownCopies(s *subject) {
	given := map[string]string{"a.b": "1"}
	payload := []byte("in")
	id := s.submit(ff.CreateExecution{Tags: given, Payload: payload, Policy: ff.DefaultExecutionPolicy()})
	given["a.b"], payload[0] = "changed", 'X'
	x := s.read(id)
	x.Tags["a.b"], x.Policy.MaxReplays = "changed", 0
	c := s.claim(ff.Claim{})
	c.Execution.Tags["a.b"], c.Execution.Policy.MaxReplays, c.Payload[0] = "changed", 0, 'X'
	input, err := s.ExecutionPayload(s.Context(), id)
	s.must(err)
	if y := s.read(id); y.Tags["a.b"] != "1" || y.Policy.MaxReplays != ff.DefaultMaxReplays || string(input.Payload) != "in" {
		s.Errorf("the store shares its memory with callers: %v, %+v, %q", y.Tags, y.Policy, input.Payload)
	}
}

var idempotencyBehaviours = []behaviour{
	{"creating an id again is a duplicate that writes nothing", duplicateID},
	{"a key names its first execution for a day", keyWindow},
	{"the policy can shorten or stretch the window of a key", dedupWindow},
	{"keys of different namespaces do not meet", keyNamespaces},
	{"a key in a batch counts within the batch too", keyInBatch},
	{"of concurrent submits with one key one creates", concurrentKeys},
}

func duplicateID(s *subject) {
	id := s.submit(ff.CreateExecution{Payload: []byte("first")})
	c := s.claim(ff.Claim{})
	r, err := s.CreateExecution(s.Context(), filled(ff.CreateExecution{ID: id, Kind: "other", Payload: []byte("second")}))
	s.must(err)
	s.equal("the answer", r, ff.CreateExecutionResult{ID: id, State: ff.StateActive, Duplicate: true})
	s.equal("the record", s.read(id), c.Execution)
}

func keyWindow(s *subject) {
	c := filled(ff.CreateExecution{IdempotencyKey: "order 1"})
	first := s.submit(c)
	s.complete(s.claim(ff.Claim{}))
	s.Advance(ff.IdempotencyWindow - time.Millisecond)
	r, err := s.CreateExecution(s.Context(), c)
	s.must(err)
	s.equal("within the window", r, ff.CreateExecutionResult{ID: first, State: ff.StateCompleted, Duplicate: true})
	s.Advance(time.Millisecond)
	if second := s.submit(c); second == first {
		s.Error("the window does not end")
	}
}

func dedupWindow(s *subject) {
	for _, window := range []time.Duration{time.Second, 30 * 24 * time.Hour} {
		c := filled(policed(func(p *ff.ExecutionPolicy) { p.DedupWindow = window }))
		c.IdempotencyKey = window.String()
		first := s.submit(c)
		s.Advance(window - time.Millisecond)
		r, err := s.CreateExecution(s.Context(), c)
		s.must(err)
		if r.ID != first || !r.Duplicate {
			s.Errorf("window %s: a second execution within it", window)
		}
		s.submit(c)
	}
}

func keyNamespaces(s *subject) {
	seen := map[ff.ExecutionID]bool{}
	for _, ns := range []ff.Namespace{"", "red", "blue"} {
		seen[s.submit(ff.CreateExecution{Namespace: ns, IdempotencyKey: "same"})] = true
	}
	s.equal("distinct executions", len(seen), 3)
}

func keyInBatch(s *subject) {
	keyed := filled(ff.CreateExecution{IdempotencyKey: "twice"})
	r, err := s.CreateExecutions(s.Context(), ff.CreateExecutions{Executions: []ff.CreateExecution{keyed, filled(ff.CreateExecution{}), keyed}})
	s.must(err)
	if r.Results[0].Duplicate || r.Results[1].Duplicate || !r.Results[2].Duplicate || r.Results[2].ID != r.Results[0].ID {
		s.Errorf("results %+v", r.Results)
	}
	s.equal("stored executions", len(s.claimUpTo(ff.Claim{Max: 10})), 2)
}

func concurrentKeys(s *subject) {
	var mu sync.Mutex
	created := map[ff.ExecutionID]int{}
	inParallel(16, func(int) {
		r, err := s.CreateExecution(s.Context(), filled(ff.CreateExecution{IdempotencyKey: "one"}))
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			s.Error(err)
		}
		if created[r.ID] += 0; !r.Duplicate {
			created[r.ID]++
		}
	})
	if len(created) != 1 {
		s.Errorf("one key names %d executions", len(created))
	}
	for id, n := range created {
		s.equal("creations of "+id.String(), n, 1)
	}
}

func inParallel(n int, fn func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { fn(i) })
	}
	all.Wait()
}

var cancelBehaviours = []behaviour{
	{"an operator cancels an execution in every phase", cancelEverywhere},
	{"the holder of the lease cancels and may repeat it", cancelByHolder},
	{"what has ended cannot be cancelled", cancelEnded},
	{"of concurrent cancels one performs it", concurrentCancels},
}

func cancelEverywhere(s *subject) {
	lapsed := s.start(ff.CreateExecution{})
	s.pass(ttl)
	active := s.start(ff.CreateExecution{Lane: "other"})
	for id, phase := range map[ff.ExecutionID]ff.LifecyclePhase{
		s.submit(ff.CreateExecution{}):                 ff.PhaseRunnable,
		s.submit(ff.CreateExecution{Delay: time.Hour}): ff.PhaseRunnable,
		active.Execution.ID:                            ff.PhaseActive,
		lapsed.Execution.ID:                            ff.PhaseActive,
	} {
		r, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: id, Reason: "no longer wanted"})
		s.must(err)
		s.equal("the answer", r, ff.CancelExecutionResult{State: ff.StateCancelled, Previous: phase})
		x := s.wantState(id, ff.StateCancelled)
		if x.CancelledBy != ff.SourceOperatorOverride || x.CancellationReason != "no longer wanted" || !x.Lease.ID.IsZero() || x.CompletedAt.IsZero() {
			s.Errorf("cancelled record: %+v", x)
		}
		for _, a := range s.attempts(id) {
			s.equal("the attempt", a.State, ff.AttemptEndedCancelled)
		}
	}
	s.pass(2 * time.Hour)
	s.nothingToClaim()
}

func cancelByHolder(s *subject) {
	c := s.start(ff.CreateExecution{})
	cancel := ff.CancelExecution{ID: c.Execution.ID, Reason: "gave up", Fence: c.Ref().Fence}
	stale := cancel
	stale.Fence.LeaseEpoch++
	_, err := s.CancelExecution(s.Context(), stale)
	s.refused(err, ff.ErrStaleLease)
	for range 2 {
		r, err := s.CancelExecution(s.Context(), cancel)
		s.must(err)
		s.equal("the state", r.State, ff.StateCancelled)
	}
	s.equal("who cancelled", s.read(cancel.ID).CancelledBy, ff.SourceWorker)
	_, err = s.CancelExecution(s.Context(), stale)
	s.refused(err, ff.ErrExecutionNotActive)
}

func cancelEnded(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.complete(c)
	for _, f := range []ff.Fence{{}, c.Ref().Fence} {
		_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: c.Execution.ID, Fence: f})
		s.refused(err, ff.ErrExecutionNotActive)
	}
	s.wantState(c.Execution.ID, ff.StateCompleted)
}

func concurrentCancels(s *subject) {
	id := s.submit(ff.CreateExecution{})
	var mu sync.Mutex
	performed := 0
	inParallel(8, func(int) {
		_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: id})
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			performed++
		} else {
			s.refused(err, ff.ErrExecutionNotActive)
		}
	})
	s.equal("cancels performed", performed, 1)
}

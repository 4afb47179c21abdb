package valkey_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// damaged is a store whose data the test damages behind its back.
type damaged struct {
	*valkey.Store
	server *valkeytest.Server
	clock  *valkeytest.Clock
	lanes  int
}

func newDamaged(t *testing.T) *damaged {
	t.Helper()
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	return &damaged{Store: openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions}), server: server, clock: clock}
}

func (d *damaged) do(t *testing.T, command string, args ...string) {
	t.Helper()
	if err := d.server.Do(command, args...).Error(); err != nil {
		t.Fatalf("%s %v: %v", command, args, err)
	}
}

// key is a key of an execution, as spec 01 §5 has it.
func key(id ff.ExecutionID, part string) string {
	return fmt.Sprintf("ff:exec:{fp:%d}:%s:%s", id.Partition(), id, part)
}

func attemptKey(id ff.ExecutionID) string {
	return fmt.Sprintf("ff:attempt:{fp:%d}:%s:0", id.Partition(), id)
}

// stage is a point in the life of an execution at which it is damaged. When the
// time is over a sweep or a claim has something to do with each.
type stage string

const (
	waiting   stage = "waiting"
	delayed   stage = "delayed"
	granted   stage = "granted"
	leased    stage = "leased"
	lost      stage = "lost"
	completed stage = "completed"
	failed    stage = "failed"
)

var stages = []stage{waiting, delayed, granted, leased, lost, completed, failed}

var claimant = ff.Claimant{Worker: "w", Instance: "i"}

// lane makes a lane that nothing else uses.
func (d *damaged) lane() ff.LaneID {
	d.lanes++
	return ff.LaneID(fmt.Sprintf("lane-%d", d.lanes))
}

// at makes executions of a lane that have come to a stage.
func (d *damaged) at(t *testing.T, lane ff.LaneID, s stage, n int) []ff.ExecutionID {
	t.Helper()
	ctx := t.Context()
	c := ff.CreateExecution{Lane: lane, Kind: "k", Payload: []byte("in"), Policy: &ff.ExecutionPolicy{MaxReclaims: 100, MaxReplays: 10,
		Retry: ff.FixedRetry(1, time.Second)}, Tags: map[string]string{"a.b": "c"}}
	switch s {
	case delayed:
		c.Delay = time.Minute
	case leased:
		c.Policy.Timeout = &ff.TimeoutPolicy{Attempt: 2 * time.Minute, Deadline: 3 * time.Minute}
	}
	ids := make([]ff.ExecutionID, n)
	for i := range ids {
		r, err := d.CreateExecution(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = r.ID
	}
	switch s {
	case waiting, delayed:
		return ids
	case granted:
		for range ids {
			if _, err := d.GrantNext(ctx, ff.GrantNext{Claimant: claimant, Lane: lane, TTL: 30 * time.Second}); err != nil {
				t.Fatal(err)
			}
		}
		return ids
	}
	r, err := d.Claim(ctx, ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}, Max: n, LeaseTTL: time.Minute})
	if err != nil || len(r.Claimed) != n {
		t.Fatalf("claimed %d of %d: %v", len(r.Claimed), n, err)
	}
	for i := range r.Claimed {
		ref := r.Claimed[i].Ref()
		switch s {
		case lost:
			_, err = d.RevokeLease(ctx, ff.RevokeLease{ID: ref.ID, Reason: "r"})
		case completed:
			_, err = d.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: ref, Result: []byte("out")})
		case failed:
			_, err = d.FailExecution(ctx, ff.FailExecution{LeaseRef: ref, Reason: "r", NoRetry: true})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// tolerable are the codes that a call about a damaged execution may have: never
// internal or transport.
var tolerable = []ff.Code{ff.CodeCorruption, ff.CodeExecutionNotFound, ff.CodeExecutionNotActive, ff.CodeExecutionNotTerminal,
	ff.CodeExecutionNotEligible, ff.CodeExecutionNotLeaseable, ff.CodeExecutionNotReclaimable, ff.CodeStaleLease, ff.CodeLeaseExpired, ff.CodeLeaseRevoked,
	ff.CodeLeaseConflict, ff.CodeInvalidClaimGrant, ff.CodeClaimGrantExpired, ff.CodeGrantAlreadyExists, ff.CodeCapabilityMismatch,
	ff.CodeMaxReplaysExhausted, ff.CodeMaxRetriesExhausted, ff.CodeInvalidInput}

// read reads a damaged execution in every way. An error must be typed and name it.
func (d *damaged) read(t *testing.T, id ff.ExecutionID) error {
	t.Helper()
	ctx := t.Context()
	x, err := d.Execution(ctx, id)
	if code := ff.CodeOf(err); err != nil && code != ff.CodeExecutionNotFound && (code != ff.CodeCorruption || !strings.Contains(err.Error(), id.String())) {
		t.Errorf("reading %s: %v, want corruption that names it, or execution_not_found", id, err)
	}
	if err == nil && x.LeaseEpoch > 1<<53 {
		t.Errorf("reading %s gives lease epoch %d", id, x.LeaseEpoch)
	}
	for what, call := range map[string]func() error{
		"attempts": func() error { _, err := d.Attempts(ctx, id); return err },
		"payload":  func() error { _, err := d.ExecutionPayload(ctx, id); return err },
		"result":   func() error { _, err := d.ExecutionResult(ctx, id); return err },
		"events":   func() error { _, err := d.ReadEvents(ctx, ff.ReadEvents{ID: id}); return err },
	} {
		d.tolerate(t, id, what, call())
	}
	return err
}

func (d *damaged) tolerate(t *testing.T, id ff.ExecutionID, what string, err error) {
	t.Helper()
	if err != nil && !slices.Contains(tolerable, ff.CodeOf(err)) {
		t.Errorf("%s of %s: %v", what, id, err)
	}
}

// command sends every command about a damaged execution.
func (d *damaged) command(t *testing.T, id ff.ExecutionID) {
	t.Helper()
	ctx := t.Context()
	ref := ff.LeaseRef{ID: id, Fence: ff.Fence{LeaseID: ff.NewLeaseID(), LeaseEpoch: 1, AttemptID: ff.NewAttemptID()}}
	renewed, err := d.RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: time.Minute})
	if err != nil {
		t.Errorf("renewing: %v", err)
	} else {
		d.tolerate(t, id, "renewal", renewed.Renewals[0].Err)
	}
	released, err := d.ReleaseExecutions(ctx, ff.ReleaseExecutions{Leases: []ff.LeaseRef{ref}})
	if err != nil {
		t.Errorf("releasing: %v", err)
	} else {
		d.tolerate(t, id, "release", released.Errs[0])
	}
	for what, call := range map[string]func() error{
		"progress": func() error { return d.UpdateProgress(ctx, ff.UpdateProgress{LeaseRef: ref, Message: "m"}) },
		"completion": func() error {
			_, err := d.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: ref})
			return err
		},
		"failure": func() error { _, err := d.FailExecution(ctx, ff.FailExecution{LeaseRef: ref, Reason: "r"}); return err },
		"delay": func() error {
			_, err := d.DelayExecution(ctx, ff.DelayExecution{LeaseRef: ref, For: time.Second})
			return err
		},
		"change of priority": func() error {
			_, err := d.ChangePriority(ctx, ff.ChangePriority{ID: id, Priority: 3})
			return err
		},
		"claim with a grant": func() error {
			_, err := d.ClaimGranted(ctx, ff.ClaimGranted{Claimant: claimant, ID: id})
			return err
		},
		"grant of a takeover": func() error {
			_, err := d.GrantReclaim(ctx, ff.GrantReclaim{Claimant: claimant, ID: id, TTL: time.Second})
			return err
		},
		"tagging": func() error {
			_, err := d.SetExecutionTags(ctx, ff.SetExecutionTags{ID: id, Tags: map[string]string{"a.c": "d"}})
			return err
		},
	} {
		d.tolerate(t, id, what, call())
	}
	for _, one := range []struct {
		what string
		call func() error
	}{
		{"revocation", func() error { _, err := d.RevokeLease(ctx, ff.RevokeLease{ID: id}); return err }},
		{"cancellation", func() error { _, err := d.CancelExecution(ctx, ff.CancelExecution{ID: id, Reason: "r"}); return err }},
		{"replay", func() error { _, err := d.ReplayExecution(ctx, ff.ReplayExecution{ID: id}); return err }},
	} {
		d.tolerate(t, id, one.what, one.call())
	}
}

// sweep does what is due of every kind, to the end.
func (d *damaged) sweep(t *testing.T) {
	t.Helper()
	for _, kind := range ff.SweepKinds {
		for n := 0; ; n++ {
			r, err := d.Sweep(t.Context(), ff.Sweep{Kind: kind})
			if err != nil {
				t.Fatalf("%s stops: %v", kind, err)
			}
			if !r.More {
				break
			}
			if n > 20 {
				t.Fatalf("%s spins: %+v", kind, r)
			}
		}
	}
}

// claimAll claims what there is to claim in a lane, one execution per call, each of
// which must find one as long as a sound one is left.
func (d *damaged) claimAll(t *testing.T, lane ff.LaneID, sound []ff.ExecutionID) {
	t.Helper()
	left := map[ff.ExecutionID]bool{}
	for _, id := range sound {
		left[id] = true
	}
	for n := 0; len(left) > 0; n++ {
		r, err := d.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}, Max: 1, LeaseTTL: 12 * time.Hour})
		if err != nil || len(r.Claimed) != 1 {
			t.Errorf("a claim finds %d executions, %v; sound are %d: %v", len(r.Claimed), err, len(left), left)
			return
		}
		delete(left, r.Claimed[0].Execution.ID)
		if n > 500 {
			t.Fatal("claims spin")
		}
	}
}

// list lists in every way and expects the sound executions of the lane.
func (d *damaged) list(t *testing.T, lane ff.LaneID, sound []ff.ExecutionID) {
	t.Helper()
	ctx := t.Context()
	got := d.pages(t, ff.ListExecutions{Lane: lane, Limit: 3})
	for _, id := range sound {
		if !got[id] {
			t.Errorf("a listing misses %s", id)
		}
	}
	for _, state := range []ff.PublicState{ff.StateWaiting, ff.StateDelayed, ff.StateActive, ff.StateCompleted, ff.StateFailed, ff.StateCancelled, ff.StateExpired} {
		d.pages(t, ff.ListExecutions{Lane: lane, State: state, Oldest: true, Limit: 3})
	}
	if _, err := d.Lanes(ctx); err != nil {
		t.Errorf("lanes: %v", err)
	}
	cursor := ""
	for n := 0; ; n++ {
		r, err := d.ListExpiredLeases(ctx, ff.ListExpiredLeases{Limit: 2, Cursor: cursor})
		if err != nil || n > 500 {
			t.Fatalf("page %d of expired leases: %v", n, err)
		}
		if cursor = r.Next; cursor == "" {
			break
		}
	}
	listed := map[ff.ExecutionID]bool{}
	for after, n := (ff.ExecutionID{}), 0; len(sound) > 0; n++ {
		r, err := d.ListPartition(ctx, ff.ListPartition{Partition: sound[0].Partition(), After: after, Limit: 50})
		if err != nil || n > 500 {
			t.Fatalf("page %d of a partition: %v", n, err)
		}
		for _, id := range r.IDs {
			listed[id] = true
		}
		if after = r.Next; after.IsZero() {
			break
		}
	}
	for _, id := range sound {
		if !listed[id] {
			t.Errorf("the listing of a partition misses %s", id)
		}
	}
}

func (d *damaged) pages(t *testing.T, q ff.ListExecutions) map[ff.ExecutionID]bool {
	t.Helper()
	got := map[ff.ExecutionID]bool{}
	for n := 0; ; n++ {
		r, err := d.ListExecutions(t.Context(), q)
		if err != nil || n > 500 {
			t.Fatalf("page %d of %+v: %v", n, q, err)
		}
		for i := range r.Executions {
			got[r.Executions[i].ID] = true
		}
		if q.Cursor = r.Next; q.Cursor == "" {
			return got
		}
	}
}

// harm is one way to damage an execution. Refused says that a record with it must
// not be read as if nothing was wrong.
type harm struct {
	name    string
	refused bool
	do      func(t *testing.T, d *damaged, id ff.ExecutionID)
}

func set(field, value string) func(*testing.T, *damaged, ff.ExecutionID) {
	return func(t *testing.T, d *damaged, id ff.ExecutionID) { d.do(t, "HSET", key(id, "core"), field, value) }
}

var oversized = strings.Repeat("x", 1<<20)

// The fields of the core by what is in them; of those needed and negative and huge
// ones such a value is refused.
var (
	numberFields = strings.Fields(`priority total_attempt_count retry_count replay_count lease_reclaim_count current_lease_epoch
		lease_expired_at lease_revoked_at pending_previous_attempt_index created_at started_at completed_at last_transition_at last_mutation_at
		progress_pct progress_updated_at`)
	wordFields = strings.Fields(`lifecycle_phase ownership_state eligibility_state blocking_reason terminal_outcome attempt_state`)
	idFields   = strings.Fields(`current_lease_id current_attempt_id flow_id`)
	needed     = strings.Fields(`lane_id created_at lifecycle_phase ownership_state eligibility_state blocking_reason terminal_outcome attempt_state`)
	negative   = strings.Fields(`total_attempt_count retry_count replay_count lease_reclaim_count current_lease_epoch created_at started_at
		completed_at last_transition_at last_mutation_at`)
	huge = strings.Fields(`total_attempt_count retry_count current_lease_epoch created_at last_mutation_at`)
	// These count in some states only.
	instantFields = strings.Fields(`delay_until execution_deadline_at attempt_timeout_at current_attempt_index lease_acquired_at lease_expires_at
		lease_last_renewed_at lease_renewal_deadline`)
	textFields = strings.Fields(`lane_id public_state namespace execution_kind creator_identity payload_encoding
		required_capabilities blocking_detail current_worker_id current_worker_instance_id lease_revoke_reason pending_retry_reason
		pending_replay_reason pending_replay_requested_by failure_reason failure_category cancellation_reason cancelled_by progress_message
		current_lane partition_id execution_id`)
)

// harmsOf are the ways to damage a field.
func harmsOf(field string) []harm {
	number, word, id := slices.Contains(numberFields, field), slices.Contains(wordFields, field), slices.Contains(idFields, field)
	return []harm{
		{"missing", slices.Contains(needed, field), func(t *testing.T, d *damaged, id ff.ExecutionID) { d.do(t, "HDEL", key(id, "core"), field) }},
		{"empty", slices.Contains(needed, field), set(field, "")},
		{"no number", number || word || id, set(field, "garbage\x00\xff")},
		{"negative", word || id || slices.Contains(negative, field), set(field, "-5")},
		{"huge", word || id || slices.Contains(huge, field), set(field, "9223372036854775807")},
		{"infinite", number || word || id, set(field, "1e999")},
		{"not a number", number || word || id, set(field, "nan")},
		{"oversized", number || word || id || field == "lane_id", set(field, oversized)},
	}
}

// exercise damages executions of every stage in every one of several ways, with
// sound ones around them, and expects that the sound ones are served.
func (d *damaged) exercise(t *testing.T, harms []harm, stages []stage) {
	for _, s := range stages {
		lane := d.lane()
		sound := d.at(t, lane, s, 2)
		bad := d.at(t, lane, s, len(harms))
		sound = append(sound, d.at(t, lane, s, 2)...)
		for i, h := range harms {
			if h.name != "oversized" || s == waiting { // once is enough of what is slow
				h.do(t, d, bad[i])
			}
		}
		if t.Failed() {
			return
		}
		for i, h := range harms {
			if err := d.read(t, bad[i]); err == nil && h.refused && h.name != "oversized" {
				t.Errorf("%s, %s: it is read as if nothing was wrong", s, h.name)
			}
			if t.Failed() {
				t.Logf("the damage was %q, the execution was %s", h.name, s)
				return
			}
		}
		d.list(t, lane, sound)
		d.clock.Advance(5 * time.Minute)
		// What a peer without the extensions leaves undone is found in spite of the damage.
		for _, index := range []string{"lost", "outcome:failed"} {
			d.do(t, "DEL", fmt.Sprintf("ffx:idx:{fp:%d}:lane:%s:%s", sound[0].Partition(), lane, index))
		}
		d.do(t, "DEL", fmt.Sprintf("ffx:idx:{fp:%d}:created", sound[0].Partition()))
		d.sweep(t)
		d.sweep(t)
		d.list(t, lane, sound)
		if s == failed {
			if got := d.pages(t, ff.ListExecutions{Lane: lane, State: ff.StateFailed}); !got[sound[0]] || !got[sound[len(sound)-1]] {
				t.Errorf("the failed executions are listed as %v", got)
			}
		}
		switch s {
		case waiting, delayed, granted, lost:
			d.claimAll(t, lane, sound)
		case leased:
			for _, id := range sound {
				if x, err := d.Execution(t.Context(), id); err != nil || x.PublicState() != ff.StateExpired && x.State.Ownership != ff.OwnershipLeaseExpired {
					t.Errorf("a sound execution is %s after its lease, %v", x.PublicState(), err)
				}
			}
		}
		for _, id := range bad {
			d.command(t, id)
		}
		d.clock.Advance(2 * ff.DefaultRetention)
		d.sweep(t)
		if s == completed || s == failed {
			for _, id := range sound {
				if _, err := d.Execution(t.Context(), id); ff.CodeOf(err) != ff.CodeExecutionNotFound {
					t.Errorf("a sound execution stays beyond its retention: %v", err)
				}
			}
		}
		if t.Failed() {
			t.Logf("the executions were %s", s)
			return
		}
	}
}

func TestADamagedNumberOfAnExecutionHarmsNoOther(t *testing.T) { damageFields(t, numberFields, stages) }

func TestADamagedWordOfAnExecutionHarmsNoOther(t *testing.T) {
	damageFields(t, slices.Concat(wordFields, idFields), stages)
}

func TestADamagedInstantOfAnExecutionHarmsNoOther(t *testing.T) {
	damageFields(t, instantFields, stages)
}

func TestADamagedTextOfAnExecutionHarmsNoOther(t *testing.T) {
	damageFields(t, textFields, []stage{waiting, leased})
}

// damageFields damages one field after another, each in an empty store, so that one
// does not meet the damage of another.
func damageFields(t *testing.T, fields []string, stages []stage) {
	const parts = 2
	for part := range parts {
		t.Run(fmt.Sprintf("part %d", part), func(t *testing.T) {
			t.Parallel()
			d := newDamaged(t)
			for i, field := range fields {
				if i%parts == part {
					t.Run(field, func(t *testing.T) {
						d.do(t, "FLUSHALL")
						d.Store = openStore(t, d.server.URL(), valkey.Options{Partitions: fewPartitions})
						d.exercise(t, harmsOf(field), stages)
					})
				}
			}
		})
	}
}

// What is damaged beside the core, or as a whole.
func TestDamagedKeysOfAnExecutionHarmNoOther(t *testing.T) {
	text := func(part, value string) func(*testing.T, *damaged, ff.ExecutionID) {
		return func(t *testing.T, d *damaged, id ff.ExecutionID) { d.do(t, "SET", key(id, part), value) }
	}
	in := func(hash func(ff.ExecutionID) string, field, value string) func(*testing.T, *damaged, ff.ExecutionID) {
		return func(t *testing.T, d *damaged, id ff.ExecutionID) {
			if d.server.Do("EXISTS", hash(id)).Error() == nil {
				d.do(t, "HSET", hash(id), field, value)
			}
		}
	}
	grant := func(id ff.ExecutionID) string { return key(id, "claim_grant") }
	harms := []harm{
		{"the core is a string", true, text("core", "text")},
		{"the core is gone", true, func(t *testing.T, d *damaged, id ff.ExecutionID) { d.do(t, "DEL", key(id, "core")) }},
		{"the core is a list", true, func(t *testing.T, d *damaged, id ff.ExecutionID) {
			d.do(t, "DEL", key(id, "core"))
			d.do(t, "RPUSH", key(id, "core"), "a", "b")
		}},
		{"the core has an unknown field only", true, func(t *testing.T, d *damaged, id ff.ExecutionID) {
			d.do(t, "DEL", key(id, "core"))
			d.do(t, "HSET", key(id, "core"), "unknown", "1")
		}},
		{"the policy is no JSON", true, text("policy", `{"max_retries`)},
		{"the policy is no JSON but names what it could have", true, text("policy", `retry_policy retention_ttl_ms attempt_timeout_ms max_reclaim_count`)},
		{"the policy is of other types", false, text("policy", `{"retry_policy":"x","timeout_policy":[1],"stream_policy":7,"max_reclaim_count":{}}`)},
		{"the policy is a list", true, func(t *testing.T, d *damaged, id ff.ExecutionID) {
			d.do(t, "DEL", key(id, "policy"))
			d.do(t, "RPUSH", key(id, "policy"), "a")
		}},
		{"the policy is oversized", true, text("policy", oversized)},
		{"the tags are a string", true, text("tags", "text")},
		{"the payload is a list", false, func(t *testing.T, d *damaged, id ff.ExecutionID) {
			d.do(t, "DEL", key(id, "payload"))
			d.do(t, "RPUSH", key(id, "payload"), "a")
		}},
		{"the result is a list", false, func(t *testing.T, d *damaged, id ff.ExecutionID) {
			d.do(t, "DEL", key(id, "result"))
			d.do(t, "RPUSH", key(id, "result"), "a")
		}},
		{"the attempt is a string", false, func(t *testing.T, d *damaged, id ff.ExecutionID) { d.do(t, "SET", attemptKey(id), "text") }},
		{"the attempt is gone", false, func(t *testing.T, d *damaged, id ff.ExecutionID) { d.do(t, "DEL", attemptKey(id)) }},
		{"the attempt has no number", false, in(attemptKey, "attempt_index", "garbage")},
		{"the attempt has no state", false, in(attemptKey, "attempt_state", "garbage")},
		{"the attempt has an infinite epoch", false, in(attemptKey, "lease_epoch", "inf")},
		{"the attempt has a negative epoch", false, in(attemptKey, "lease_epoch", "-1")},
		{"the list of attempts is a string", false, text("attempts", "text")},
		{"the grant is a string", true, text("claim_grant", "text")},
		{"the grant has no end", false, in(grant, "grant_expires_at", "garbage")},
		{"the grant has a negative end", false, in(grant, "grant_expires_at", "-1")},
		{"the grant has an infinite end", false, in(grant, "grant_expires_at", "inf")},
		{"the grant has no end that is a number", false, in(grant, "grant_expires_at", "nan")},
		{"the suspension is a string", false, text("suspension:current", "text")},
		{"the events are a list", false, func(t *testing.T, d *damaged, id ff.ExecutionID) {
			events := fmt.Sprintf("ffx:exec:{fp:%d}:%s:events", id.Partition(), id)
			d.do(t, "DEL", events)
			d.do(t, "RPUSH", events, "a")
		}},
		{"the events are garbage", false, func(t *testing.T, d *damaged, id ff.ExecutionID) {
			d.do(t, "SET", fmt.Sprintf("ffx:exec:{fp:%d}:%s:events", id.Partition(), id), "garbage 1-x 99999999999999999999-1 ")
		}},
	}
	newDamaged(t).exercise(t, harms, stages)
}

// A member of an index may be no execution at all.
func TestStrangersInAnIndexAreOfNoConsequence(t *testing.T) {
	d := newDamaged(t)
	lane := d.lane()
	sound := d.at(t, lane, waiting, 3)
	later := d.at(t, lane, delayed, 3)
	held := d.at(t, lane, waiting, 1) // claimed below
	tag := fmt.Sprintf("{fp:%d}", sound[0].Partition())
	strangers := []string{"!garbage", "{fp:0}:nothing", "", "~", ff.MakeExecutionID(sound[0].Partition(), ff.NewExecutionID(lane, fewPartitions).UUID()).String(),
		"{fp:9}:" + sound[0].UUID().String(), oversized[:1000]}
	for _, who := range strangers {
		for _, index := range []string{"eligible", "delayed", "active", "terminal", "suspended"} {
			d.do(t, "ZADD", "ff:idx:"+tag+":lane:"+string(lane)+":"+index, "-9000000000000000", who)
			d.do(t, "ZADD", "ff:idx:"+tag+":lane:"+string(lane)+":"+index, "1", who+"2")
		}
		for _, index := range []string{"ff:idx:" + tag + ":lease_expiry", "ff:idx:" + tag + ":attempt_timeout", "ff:idx:" + tag + ":execution_deadline",
			"ffx:idx:" + tag + ":grants", "ffx:idx:" + tag + ":retention", "ffx:idx:" + tag + ":created", "ffx:idx:" + tag + ":lane:" + string(lane) + ":lost",
			"ffx:idx:" + tag + ":lane:" + string(lane) + ":outcome:failed"} {
			d.do(t, "ZADD", index, "1", who)
		}
		d.do(t, "SADD", "ff:idx:"+tag+":all_executions", who)
		d.do(t, "SADD", "ff:idx:lanes", who)
	}
	sound = slices.Concat(sound, held)
	d.list(t, lane, slices.Concat(sound, later))
	for limit := range 10 { // a page may begin or end at a stranger
		r, err := d.ListPartition(t.Context(), ff.ListPartition{Partition: sound[0].Partition(), Limit: limit + 1})
		if want := min(limit+1, len(sound)+len(later)+1); err != nil || len(r.IDs) < want {
			t.Errorf("a page of %d of the partition has %d executions, %v", limit+1, len(r.IDs), err)
		}
	}
	d.claimAll(t, lane, sound)
	d.clock.Advance(5 * time.Minute)
	d.sweep(t)
	d.claimAll(t, lane, later)
	r, err := d.ListExecutions(t.Context(), ff.ListExecutions{State: ff.StateFailed})
	if err != nil || len(r.Executions) != 0 {
		t.Errorf("failed are %+v, %v", r.Executions, err)
	}
}

// A lapsed lease whose end in the record is before that in the index must not make
// a listing begin again.
func TestPagesOfExpiredLeasesEndWhateverTheRecordsSay(t *testing.T) {
	d := newDamaged(t)
	lane := d.lane()
	ids := d.at(t, lane, leased, 5)
	for _, id := range ids[1:4] {
		d.do(t, "HSET", key(id, "core"), "lease_expires_at", "5")
	}
	d.clock.Advance(2 * time.Minute)
	seen, cursor := map[ff.ExecutionID]int{}, ""
	for n := 0; n < 20; n++ {
		r, err := d.ListExpiredLeases(t.Context(), ff.ListExpiredLeases{Limit: 1, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range r.Leases {
			seen[l.ID]++
		}
		if cursor = r.Next; cursor == "" {
			break
		}
	}
	if cursor != "" || len(seen) != len(ids) {
		t.Errorf("%d pages later: seen %v", 20, seen)
	}
}

// A number of attempts that is beyond reason must keep neither the server nor the
// store busy.
func TestAnUnreasonableNumberOfAttemptsCostsNothing(t *testing.T) {
	d := newDamaged(t)
	for _, count := range []string{"2147483647", "9007199254740991", "1e18", "inf"} {
		lane := d.lane()
		ids := d.at(t, lane, completed, 2)
		d.do(t, "HSET", key(ids[0], "core"), "total_attempt_count", count)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if _, err := d.Attempts(ctx, ids[0]); ff.CodeOf(err) != ff.CodeCorruption {
			t.Errorf("%s attempts: %v", count, err)
		}
		d.clock.Advance(2 * ff.DefaultRetention)
		if _, err := d.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}); err != nil {
			t.Errorf("%s attempts: retention: %v", count, err)
		}
		if _, err := d.Execution(ctx, ids[1]); ff.CodeOf(err) != ff.CodeExecutionNotFound {
			t.Errorf("%s attempts: a sound execution is not purged: %v", count, err)
		}
		cancel()
		if t.Failed() {
			return
		}
	}
}

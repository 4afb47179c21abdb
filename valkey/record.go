package valkey

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// parts are what a record is made of: the core, and what is kept beside it. Of the
// fields of the core, payload_encoding, failure_category, execution_deadline_at and
// attempt_timeout_at are of this implementation.
type parts struct {
	core                     map[string]string
	policy                   string
	tags, attempt, grant     map[string]string
	deadline, attemptTimeout string
}

// fields reads a hash that may have been written by others. The first value that
// makes no sense is kept as the error.
type fields struct {
	hash string
	m    map[string]string
	err  error
}

func (f *fields) fail(name, problem string) {
	if f.err == nil {
		e := ff.Errorf(ff.CodeCorruption, "%s: %s", f.hash, problem)
		e.Field = name
		f.err = e
	}
}

func (f *fields) number(name string) int64 { return f.numberOf(name, f.m[name]) }

func (f *fields) numberOf(name, v string) int64 {
	if v == "" {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err == nil {
		return n
	}
	// A peer may have written a fraction (spec 03 §29.2).
	fraction, err := strconv.ParseFloat(v, 64)
	if err != nil || !(fraction > -1<<53 && fraction < 1<<53) {
		f.fail(name, fmt.Sprintf("%s is %.40q, which is not a number", name, v))
		return 0
	}
	return int64(fraction)
}

func (f *fields) count(name string) int {
	n := f.number(name)
	if n < 0 || n > 1<<31-1 {
		f.fail(name, fmt.Sprintf("%s is %d, which is out of range", name, n))
	}
	return int(n)
}

// epoch reads the number of a lease. Functions cannot count beyond 2^53.
func (f *fields) epoch(name string) uint64 {
	n := f.number(name)
	if n < 0 || n > 1<<53 {
		f.fail(name, fmt.Sprintf("%s is %d, which is out of range", name, n))
		return 0
	}
	return uint64(n)
}

func (f *fields) instant(name string) time.Time { return f.instantOf(name, f.m[name]) }

func (f *fields) instantOf(name, v string) time.Time {
	if v == "" {
		return time.Time{}
	}
	n := f.numberOf(name, v)
	const year9999 = 253402300799999
	if n < 0 || n > year9999 {
		f.fail(name, fmt.Sprintf("%s is %d, which is no instant in milliseconds", name, n))
		return time.Time{}
	}
	return time.UnixMilli(n)
}

// word reads a word that must be known.
func word[W ~string](f *fields, name string, known []W) W {
	v := W(f.m[name])
	for _, k := range known {
		if v == k {
			return v
		}
	}
	f.fail(name, fmt.Sprintf("%s is %.40q, which is not known", name, string(v)))
	return v
}

// parsed reads an id; empty is unset.
func parsed[I any](f *fields, name string, parse func(string) (I, error)) (id I) {
	v := f.m[name]
	if v == "" {
		return id
	}
	id, err := parse(v)
	if err != nil {
		f.fail(name, fmt.Sprintf("%s is %.60q, which is no id", name, v))
	}
	return id
}

// execution makes the record. Errors: corruption naming the execution, the field
// and the value.
func (p *parts) execution(id ff.ExecutionID) (ff.Execution, error) {
	f := &fields{hash: "execution " + id.String(), m: p.core}
	x := ff.Execution{
		ID: id, Namespace: ff.Namespace(f.m["namespace"]), Lane: parsed(f, "lane_id", ff.ParseLaneID), Kind: f.m["execution_kind"],
		Priority: int(f.number("priority")), Creator: f.m["creator_identity"], PayloadEncoding: f.m["payload_encoding"],
		FlowID: parsed(f, "flow_id", ff.ParseFlowID),
		State: ff.StateVector{
			Phase: word(f, "lifecycle_phase", ff.LifecyclePhases), Ownership: word(f, "ownership_state", ff.OwnershipStates),
			Eligibility: word(f, "eligibility_state", ff.EligibilityStates), Blocking: word(f, "blocking_reason", ff.BlockingReasons),
			Outcome: word(f, "terminal_outcome", ff.TerminalOutcomes), Attempt: word(f, "attempt_state", ff.AttemptPhases),
		},
		BlockingDetail: f.m["blocking_detail"], CurrentAttemptID: parsed(f, "current_attempt_id", ff.ParseAttemptID),
		TotalAttempts: f.count("total_attempt_count"), RetryCount: f.count("retry_count"), ReplayCount: f.count("replay_count"),
		ReclaimCount: f.count("lease_reclaim_count"), LeaseEpoch: f.epoch("current_lease_epoch"),
		LeaseExpiredAt: f.instant("lease_expired_at"), LeaseRevokedAt: f.instant("lease_revoked_at"), LeaseRevokeReason: f.m["lease_revoke_reason"],
		PendingRetryReason: f.m["pending_retry_reason"], PendingReplayReason: f.m["pending_replay_reason"],
		PendingReplayBy: f.m["pending_replay_requested_by"], PendingPreviousAttempt: int(f.number("pending_previous_attempt_index")),
		CreatedAt: f.instant("created_at"), StartedAt: f.instant("started_at"), CompletedAt: f.instant("completed_at"),
		LastTransitionAt: f.instant("last_transition_at"), LastMutationAt: f.instant("last_mutation_at"),
		FailureReason: f.m["failure_reason"], FailureCategory: p.failureCategory(),
	}
	if x.State.Outcome == ff.OutcomeCancelled { // a replay by a peer leaves them
		x.CancellationReason, x.CancelledBy = f.m["cancellation_reason"], ff.CancelSource(f.m["cancelled_by"])
	}
	if x.Lane == "" || x.CreatedAt.IsZero() {
		f.fail("lane_id", "lane_id or created_at is missing")
	}
	p.times(f, &x)
	p.lease(f, &x)
	p.progress(f, &x)
	p.policyAndTags(f, &x)
	if x.TotalAttempts > 0 && f.err == nil {
		x.Attempt, f.err = attemptOf(f.hash, p.attempt)
		endLast(&x.Attempt, &x)
	}
	return x, f.err
}

// suspensionTimeout begins the reason of what ended by the timeout of a suspension,
// which has no category.
const suspensionTimeout = "suspension_timeout:"

// failureCategory is of this implementation. A peer that fails an attempt tells it
// with the attempt alone, and has none for what time ends.
func (p *parts) failureCategory() string {
	switch reason := p.core["failure_reason"]; {
	case strings.HasPrefix(reason, suspensionTimeout):
		return p.core["failure_category"]
	case p.core["terminal_outcome"] == string(ff.OutcomeExpired):
		return timeoutCategory
	case reason != "" && reason == p.attempt["failure_reason"] && p.attempt["failure_category"] != "":
		return p.attempt["failure_category"]
	}
	return p.core["failure_category"]
}

// timeoutCategory is that of what time ends.
const timeoutCategory = "timeout"

// endLast shows the last attempt of an execution that has ended as ended too. The
// compatible functions leave it open when nobody held it (quirks 03 Q5, Q16).
func endLast(a *ff.Attempt, x *ff.Execution) {
	if !x.Terminal() || !a.EndedAt.IsZero() {
		return
	}
	a.State, a.EndedAt, a.FailureReason, a.FailureCategory = ff.AttemptEndedFailure, x.CompletedAt, x.FailureReason, x.FailureCategory
	switch x.State.Outcome {
	case ff.OutcomeSuccess:
		a.State = ff.AttemptEndedSuccess
	case ff.OutcomeCancelled:
		a.State, a.FailureReason, a.FailureCategory = ff.AttemptEndedCancelled, "cancelled: "+x.CancellationReason, ""
	}
}

// endFollowed shows an attempt as ended that another follows, after a replay of an
// execution that ended as for endLast.
func endFollowed(a, next *ff.Attempt) {
	if a.EndedAt.IsZero() {
		a.State, a.EndedAt = ff.AttemptEndedCancelled, next.CreatedAt
	}
}

// times reads instants that count in some states only, or that have two places.
func (p *parts) times(f *fields, x *ff.Execution) {
	if x.State.Eligibility == ff.NotEligibleUntilTime {
		x.DelayUntil = f.instant("delay_until")
	}
	x.Deadline = f.instant("execution_deadline_at")
	if x.State.Phase == ff.PhaseActive && x.State.Ownership != ff.OwnershipLeaseRevoked {
		x.AttemptTimeoutAt = f.instant("attempt_timeout_at")
	}
	if x.State.Phase == ff.PhaseSuspended {
		x.SuspensionID, x.WaitpointID = parsed(f, "current_suspension_id", ff.ParseSuspensionID), parsed(f, "current_waitpoint_id", ff.ParseWaitpointID)
		x.SuspensionTimeoutAt = f.instant("suspension_timeout_at")
	}
	// A success forgets earlier failures (quirk 03 Q27).
	if x.State.Outcome == ff.OutcomeSuccess {
		x.FailureReason, x.FailureCategory = "", ""
	}
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (p *parts) lease(f *fields, x *ff.Execution) {
	if id := parsed(f, "current_lease_id", ff.ParseLeaseID); !id.IsZero() {
		x.Lease = ff.Lease{ID: id, Worker: ff.WorkerID(f.m["current_worker_id"]), Instance: ff.WorkerInstanceID(f.m["current_worker_instance_id"]),
			AcquiredAt: f.instant("lease_acquired_at"), ExpiresAt: f.instant("lease_expires_at"),
			RenewedAt: f.instant("lease_last_renewed_at"), RenewBefore: f.instant("lease_renewal_deadline")}
	}
	if p.grant["worker_id"] != "" && !x.Terminal() {
		g := &fields{hash: f.hash, m: p.grant}
		x.Grant = ff.Grant{Worker: ff.WorkerID(p.grant["worker_id"]), Instance: ff.WorkerInstanceID(p.grant["worker_instance_id"]),
			CreatedAt: g.instant("created_at"), ExpiresAt: g.instant("grant_expires_at"), Capability: p.grant["capability_hash"],
			RouteJSON: p.grant["route_snapshot_json"], AdmissionSum: p.grant["admission_summary"]}
		if g.err != nil && f.err == nil {
			f.err = g.err
		}
	}
}

func (p *parts) progress(f *fields, x *ff.Execution) {
	x.Progress = ff.Progress{Message: f.m["progress_message"], UpdatedAt: f.instant("progress_updated_at")}
	if f.m["progress_pct"] != "" {
		percent := int(f.number("progress_pct"))
		x.Progress.Percent = &percent
	}
}

func (p *parts) policyAndTags(f *fields, x *ff.Execution) {
	var err error
	if x.Required, err = ff.ParseCapabilityCSV(f.m["required_capabilities"]); err != nil {
		f.fail("required_capabilities", err.Error())
	}
	if p.policy != "" && p.policy != "{}" {
		x.Policy, err = ff.ParseExecutionPolicy([]byte(p.policy))
		if err != nil && !json.Valid([]byte(p.policy)) {
			f.fail("policy", "the policy cannot be read: "+err.Error())
		}
		// Peers may write what we would refuse; the functions make of it what they can.
	}
	if len(p.tags) > 0 {
		x.Tags = p.tags
	}
}

// attemptOf makes the record of an attempt.
func attemptOf(owner string, hash map[string]string) (ff.Attempt, error) {
	f := &fields{hash: "attempt of " + owner, m: hash}
	if len(hash) == 0 {
		f.m = map[string]string{}
		f.fail("attempt", "the attempt is missing")
		return ff.Attempt{}, f.err
	}
	a := ff.Attempt{
		ID: parsed(f, "attempt_id", ff.ParseAttemptID), Index: f.count("attempt_index"), Type: word(f, "attempt_type", ff.AttemptTypes),
		State: word(f, "attempt_state", ff.AttemptStates), CreatedAt: f.instant("created_at"), StartedAt: f.instant("started_at"),
		EndedAt: f.instant("ended_at"), SuspendedAt: f.instant("suspended_at"), ResumedAt: f.instant("resumed_at"),
		Worker: ff.WorkerID(hash["worker_id"]), Instance: ff.WorkerInstanceID(hash["worker_instance_id"]),
		LeaseID: parsed(f, "lease_id", ff.ParseLeaseID), LeaseEpoch: f.epoch("lease_epoch"), Suspension: hash["suspension_id"],
		FailureReason: hash["failure_reason"], FailureCategory: hash["failure_category"],
		Cause:       orElse(hash["retry_reason"], orElse(hash["replay_reason"], hash["reclaim_reason"])),
		RequestedBy: hash["replay_requested_by"], Previous: -1,
	}
	for _, name := range []string{"previous_attempt_index", "replayed_from_attempt_index"} {
		if hash[name] != "" {
			a.Previous = int(f.number(name))
		}
	}
	return a, f.err
}

// coreOf reads the fields of a record.
func coreOf(values []valkey.ValkeyMessage) (map[string]string, error) {
	m := make(map[string]string, len(values)/2)
	for i := 0; i+1 < len(values); i += 2 {
		name, err := values[i].ToString()
		if err != nil {
			return nil, err
		}
		if m[name], err = values[i+1].ToString(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// pairsOf reads a flat list of names and values, as a function gives a hash.
func pairsOf(m *valkey.ValkeyMessage) (map[string]string, error) {
	list, err := m.AsStrSlice()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	pairs := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		pairs[list[i]] = list[i+1]
	}
	return pairs, nil
}

// described makes a record of what ffx_read gives for it.
func described(id ff.ExecutionID, m *valkey.ValkeyMessage) (ff.Execution, error) {
	if m.IsNil() {
		return ff.Execution{}, ff.NewError(ff.CodeExecutionNotFound, id.String())
	}
	list, err := m.ToArray()
	if err != nil {
		problem, _ := m.ToString()
		return ff.Execution{}, ff.Errorf(ff.CodeCorruption, "execution %s cannot be read: %s", id, firstLine(problem))
	}
	if len(list) != 7 {
		return ff.Execution{}, ff.Errorf(ff.CodeInternal, "a description of %d parts, want 7", len(list))
	}
	var p parts
	values, err := list[0].ToArray()
	if err == nil {
		p.core, err = coreOf(values)
	}
	if err == nil {
		p.policy, err = list[1].ToString()
	}
	for i, into := range []*map[string]string{&p.tags, &p.attempt, &p.grant} {
		if err == nil {
			*into, err = pairsOf(&list[2+i])
		}
	}
	for i, into := range []*string{&p.deadline, &p.attemptTimeout} {
		if err == nil {
			*into, err = list[5+i].ToString()
		}
	}
	if err != nil {
		return ff.Execution{}, ff.Errorf(ff.CodeCorruption, "execution %s cannot be read: %w", id, err)
	}
	p.followIndexes()
	return p.execution(id)
}

// followIndexes takes the deadline and the timeout from the indexes, where peers set
// and drop them without knowing our fields of the core.
func (p *parts) followIndexes() {
	if p.core["lifecycle_phase"] != string(ff.PhaseTerminal) {
		p.core["execution_deadline_at"] = p.deadline
	}
	if p.core["ownership_state"] == string(ff.OwnershipLeased) || p.attemptTimeout != "" {
		p.core["attempt_timeout_at"] = p.attemptTimeout
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

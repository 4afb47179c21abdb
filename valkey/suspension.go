package valkey

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// resumePolicy is what a suspension says about its resume, as the functions of every
// FlowFabric store it (spec 04b §9.3). Of its members only the delay has an effect.
type resumePolicy struct {
	CloseWaitpoint bool   `json:"close_waitpoint_on_resume"`
	Consume        bool   `json:"consume_matched_signals"`
	DelayMS        *int64 `json:"resume_delay_ms,omitempty"`
	Target         string `json:"resume_target"`
	RetainBuffer   bool   `json:"retain_signal_buffer_until_closed"`
}

func policyOf(delay time.Duration) string {
	p := resumePolicy{CloseWaitpoint: true, Consume: true, Target: "runnable"}
	if n := delay.Milliseconds(); n > 0 {
		p.DelayMS = &n
	}
	return jsonText(p)
}

// unknownKey stands in a condition for the key of a waitpoint that was created ahead,
// which the function knows. No key has a NUL.
const unknownKey = "\x00"

func callSuspend(c *ff.SuspendExecution) (call, error) {
	bound, after, ahead := c.Condition, "", ""
	if c.TimeoutAfter > 0 {
		after = millis(c.TimeoutAfter)
	}
	if c.Waitpoints[0].Pending {
		bound, ahead = bound.Bind(unknownKey), "1"
	}
	condition, err := bound.Wire(c.OnTimeout)
	if err != nil {
		return call{}, ff.InvalidInput("resume_condition", "%w", err)
	}
	k := holderCall("ffx_suspend", c.LeaseRef, c.SuspensionID.String(), string(c.Reason), string(c.RequestedBy), ms(c.TimeoutAt), after, condition,
		policyOf(c.ResumeDelay), c.Continuation, string(c.OnTimeout), c.IdempotencyKey, ahead, strconv.Itoa(len(c.Waitpoints)))
	for _, w := range c.Waitpoints {
		k.args = append(k.args, w.ID.String(), w.Key)
	}
	k.args = append(k.args, c.Condition.WaitpointKeys()...)
	return k, nil
}

// SuspendExecution suspends.
func (s *Store) SuspendExecution(ctx context.Context, c ff.SuspendExecution) (ff.SuspendExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SuspendExecutionResult{}, err
	}
	call, err := callSuspend(&c)
	if err != nil {
		return ff.SuspendExecutionResult{}, err
	}
	r, err := s.signed(ctx, &call)
	if err != nil {
		return ff.SuspendExecutionResult{}, err
	}
	return suspendResult(r)
}

func suspendResult(r reply) (out ff.SuspendExecutionResult, err error) {
	f := &fields{hash: "the answer to a suspension", m: map[string]string{"suspension_id": r.text(1), "timeout_at": r.text(2)}}
	out = ff.SuspendExecutionResult{SuspensionID: parsed(f, "suspension_id", ff.ParseSuspensionID), Satisfied: r.text(0) == "1",
		TimeoutAt: f.instant("timeout_at")}
	for i := 3; i+2 < len(r); i += 3 {
		f.m["waitpoint_id"] = r.text(i)
		out.Waitpoints = append(out.Waitpoints, ff.IssuedWaitpoint{ID: parsed(f, "waitpoint_id", ff.ParseWaitpointID), Key: r.text(i + 1),
			Token: ff.WaitpointToken(r.text(i + 2))})
	}
	return out, f.err
}

// ResumeExecution ends a suspension for an operator.
func (s *Store) ResumeExecution(ctx context.Context, c ff.ResumeExecution) (ff.ResumeExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ResumeExecutionResult{}, err
	}
	call := call{function: "ffx_resume", keys: []string{keysOf(c.ID).core()}, args: []string{c.ID.String(), millis(c.Delay)}}
	r, err := s.answer(ctx, &call)
	return ff.ResumeExecutionResult{State: ff.PublicState(r.text(0))}, err
}

// Suspension reads the latest suspension.
func (s *Store) Suspension(ctx context.Context, id ff.ExecutionID) (ff.Suspension, error) {
	if err := s.checkID(id); err != nil {
		return ff.Suspension{}, err
	}
	call := call{function: "ffx_suspension", keys: []string{keysOf(id).core()}, args: []string{id.String()}}
	r, err := s.answer(ctx, &call)
	if err != nil {
		return ff.Suspension{}, err
	}
	if len(r) != 2 {
		return ff.Suspension{}, unexpected(call.function)
	}
	hash, err := pairsOf(&r[0])
	if err != nil {
		return ff.Suspension{}, damage(id, s.lift(ctx, err))
	}
	signals, err := textsOf(&r[1])
	if err != nil {
		return ff.Suspension{}, damage(id, s.lift(ctx, err))
	}
	return suspensionOf(id, hash, signals)
}

func unexpected(function string) error {
	return ff.Errorf(ff.CodeInternal, "%s answered something unexpected", function)
}

// textsOf reads a list of texts, which may be empty.
func textsOf(m *valkey.ValkeyMessage) ([]string, error) {
	list, err := m.AsStrSlice()
	if valkey.IsValkeyNil(err) {
		err = nil
	}
	return list, err
}

// otherWaitpoint is a waitpoint of a suspension besides the primary one.
type otherWaitpoint struct {
	ID  string `json:"waitpoint_id"`
	Key string `json:"waitpoint_key"`
}

// suspensionOf makes the record of a suspension; resumed are the signals that met its
// condition. Errors: corruption.
func suspensionOf(id ff.ExecutionID, hash map[string]string, resumed []string) (ff.Suspension, error) {
	if hash["suspension_id"] == "" {
		return ff.Suspension{}, nil
	}
	f := &fields{hash: "suspension of execution " + id.String(), m: hash}
	x := ff.Suspension{
		ID: parsed(f, "suspension_id", ff.ParseSuspensionID), ExecutionID: id, AttemptIndex: f.count("attempt_index"),
		Reason: ff.SuspensionReason(hash["reason_code"]), RequestedBy: ff.SuspensionRequester(hash["requested_by"]),
		Continuation: hash["continuation_metadata_pointer"], CreatedAt: f.instant("created_at"), TimeoutAt: f.instant("timeout_at"),
		OnTimeout: ff.TimeoutBehavior(hash["timeout_behavior"]), LastSignalAt: f.instant("last_signal_at"), SatisfiedAt: f.instant("satisfied_at"),
		ClosedAt: f.instant("closed_at"), CloseReason: hash["close_reason"], Waitpoints: suspensionWaitpoints(f),
	}
	var p resumePolicy
	if err := json.Unmarshal([]byte(hash["resume_policy_json"]), &p); err == nil && p.DelayMS != nil {
		x.ResumeDelay = time.Duration(*p.DelayMS) * time.Millisecond
	}
	var err error
	if x.Condition, err = ff.ParseConditionWire(hash["resume_condition_json"], orElse(hash["condition_key"], hash["waitpoint_key"])); err != nil {
		f.fail("resume_condition_json", err.Error())
	}
	for _, text := range resumed {
		signal, err := ff.ParseSignalID(text)
		if err != nil {
			f.fail("all_satisfier_signals", err.Error())
		}
		x.ResumedBy = append(x.ResumedBy, signal)
	}
	return x, f.err
}

// suspensionWaitpoints are the ids of the waitpoints, the primary one first.
func suspensionWaitpoints(f *fields) []ff.WaitpointID {
	list := []ff.WaitpointID{requiredWaitpoint(f)}
	var others []otherWaitpoint
	if text := f.m["additional_waitpoints_json"]; text != "" && text != "{}" {
		if err := json.Unmarshal([]byte(text), &others); err != nil {
			f.fail("additional_waitpoints_json", err.Error())
		}
	}
	for _, w := range others {
		id, err := ff.ParseWaitpointID(w.ID)
		if err != nil {
			f.fail("additional_waitpoints_json", err.Error())
		}
		list = append(list, id)
	}
	return list
}

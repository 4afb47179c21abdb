package backendtest

import (
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var waitpointBehaviours = []behaviour{
	{"signals to a waitpoint created ahead wait for its suspension", bufferedSignals},
	{"signals that came ahead may satisfy the suspension at once", alreadySatisfied},
	{"signals that came ahead count for a tree as well", bufferedForTree},
	{"a waitpoint created twice by its holder is the same", createdTwice},
	{"a waitpoint that nobody waits at is closed after its time", neverCommitted},
	{"a pending waitpoint can be closed", closePending},
	{"a suspension takes up only a pending waitpoint of its own attempt", takeUpRefusals},
	{"waitpoints are listed by id, without their tokens", listWaitpoints},
	{"the token of a waitpoint can be read", readToken},
	{"operators are given a token that counts when the secret of the one that was issued does not", readTokenOfALostSecret},
	{"a waitpoint id is never used twice", waitpointIDs},
	{"a rotated secret keeps old tokens for its grace", rotation},
	{"a key id keeps its secret", rotationConflicts},
	{"the first secret stays", seeding},
}

func (s *subject) createWaitpoint(c ff.Claimed, key string) ff.CreateWaitpointResult {
	s.Helper()
	r, err := s.CreateWaitpoint(s.Context(), ff.CreateWaitpoint{LeaseRef: c.Ref(), Key: key})
	s.must(err)
	return r
}

func pending(w ff.CreateWaitpointResult) []ff.WaitpointBinding {
	return []ff.WaitpointBinding{{ID: w.ID, Pending: true}}
}

func bufferedSignals(s *subject) {
	c := s.start(ff.CreateExecution{})
	w := s.createWaitpoint(c, "")
	s.equal("the end", w.ExpiresAt, s.now().Add(ff.DefaultWaitpointTTL))
	s.wantEffects(c.Execution.ID, []effectStep{{w.IssuedWaitpoint, named("other"), ff.EffectBuffered}})
	r := s.suspend(c, ff.SuspendExecution{Waitpoints: pending(w), TimeoutAfter: time.Hour})
	s.equal("the waitpoint", r.Waitpoints, []ff.IssuedWaitpoint{w.IssuedWaitpoint})
	s.pass(ff.DefaultWaitpointTTL / 48)
	s.wantEffects(c.Execution.ID, []effectStep{{w.IssuedWaitpoint, named("other"), ff.EffectNone}, {w.IssuedWaitpoint, named("go"), ff.EffectResumed}})
	s.resumedHere(c.Execution.ID)
}

func alreadySatisfied(s *subject) {
	c := s.start(ff.CreateExecution{})
	w := s.createWaitpoint(c, "approval")
	s.wantEffects(c.Execution.ID, []effectStep{{w.IssuedWaitpoint, named("other"), ff.EffectBuffered}, {w.IssuedWaitpoint, named("go"), ff.EffectBuffered}})
	cmd := ff.SuspendExecution{LeaseRef: c.Ref(), SuspensionID: ff.NewSuspensionID(), Waitpoints: pending(w), Condition: ff.AwaitSignal("go").At("approval")}
	for range 2 { // Also when the answer is lost and the command repeated.
		r, err := s.SuspendExecution(s.Context(), cmd)
		s.must(err)
		s.equal("the answer", r, ff.SuspendExecutionResult{SuspensionID: cmd.SuspensionID, Satisfied: true, Waitpoints: []ff.IssuedWaitpoint{w.IssuedWaitpoint}})
	}
	s.wantState(c.Execution.ID, ff.StateActive)
	_, err := s.tryDeliver(c.Execution.ID, w.IssuedWaitpoint, named("go"))
	s.refused(err, ff.ErrTargetNotSignalable)
	s.complete(c)
}

func bufferedForTree(s *subject) {
	c := s.start(ff.CreateExecution{})
	w := s.createWaitpoint(c, "")
	s.wantEffects(c.Execution.ID, []effectStep{{w.IssuedWaitpoint, by("ann"), ff.EffectBuffered}})
	s.suspend(c, ff.SuspendExecution{Waitpoints: pending(w), Condition: ff.AwaitCount(2, ff.DistinctSources)})
	s.wantEffects(c.Execution.ID, []effectStep{{w.IssuedWaitpoint, by("ann"), ff.EffectRepeated}, {w.IssuedWaitpoint, by("bob"), ff.EffectResumed}})
	if got := len(s.suspension(c.Execution.ID).ResumedBy); got != 2 {
		s.Errorf("%d signals have resumed it, want 2", got)
	}
	s.resumedHere(c.Execution.ID)

	c = s.start(ff.CreateExecution{})
	w = s.createWaitpoint(c, "")
	s.wantEffects(c.Execution.ID, []effectStep{{w.IssuedWaitpoint, by("ann"), ff.EffectBuffered}, {w.IssuedWaitpoint, by("bob"), ff.EffectBuffered}})
	if r := s.suspend(c, ff.SuspendExecution{Waitpoints: pending(w), Condition: ff.AwaitCount(2, ff.DistinctSources)}); !r.Satisfied {
		s.Error("the signals that came ahead do not count")
	}
	s.complete(c)
}

func createdTwice(s *subject) {
	c := s.start(ff.CreateExecution{})
	cmd := ff.CreateWaitpoint{LeaseRef: c.Ref(), WaitpointID: ff.NewWaitpointID(), Key: "k", TTL: time.Minute}
	first, err := s.CreateWaitpoint(s.Context(), cmd)
	s.must(err)
	s.Advance(time.Second)
	again, err := s.CreateWaitpoint(s.Context(), cmd)
	s.must(err)
	s.equal("the repetition", again, first)
	cmd.Key = "other"
	_, err = s.CreateWaitpoint(s.Context(), cmd)
	s.refused(err, &ff.Error{Code: ff.CodeWaitpointAlreadyExists})
	cmd.WaitpointID, cmd.Fence.LeaseEpoch = ff.NewWaitpointID(), 9
	_, err = s.CreateWaitpoint(s.Context(), cmd)
	s.refused(err, ff.ErrStaleLease)
}

func neverCommitted(s *subject) {
	c := s.start(ff.CreateExecution{})
	r, err := s.CreateWaitpoint(s.Context(), ff.CreateWaitpoint{LeaseRef: c.Ref(), TTL: 5 * time.Second})
	s.must(err)
	s.Advance(5*time.Second - time.Millisecond)
	s.equal("closed too early", s.sweep(ff.SweepPendingWaitpoints), 0)
	s.Advance(time.Millisecond)
	_, err = s.SuspendExecution(s.Context(), ff.SuspendExecution{LeaseRef: c.Ref(), Condition: ff.AwaitSignal("go"), Waitpoints: pending(r)})
	s.refused(err, &ff.Error{Code: ff.CodePendingWaitpointExpired})
	s.equal("closed", s.sweep(ff.SweepPendingWaitpoints), 1)
	_, err = s.tryDeliver(c.Execution.ID, r.IssuedWaitpoint, named("go"))
	s.refused(err, ff.ErrTargetNotSignalable)
	list, err := s.ListWaitpoints(s.Context(), ff.ListWaitpoints{ID: c.Execution.ID, Closed: true})
	s.must(err)
	if len(list.Waitpoints) != 1 || list.Waitpoints[0].CloseReason != ff.ClosedNeverCommitted {
		s.Errorf("the waitpoints: %+v", list.Waitpoints)
	}
	s.complete(c)
}

func closePending(s *subject) {
	c := s.start(ff.CreateExecution{})
	w := s.createWaitpoint(c, "")
	cmd := ff.CloseWaitpoint{ID: c.Execution.ID, WaitpointID: w.ID, Reason: "changed my mind"}
	for _, already := range []bool{false, true} {
		r, err := s.CloseWaitpoint(s.Context(), cmd)
		s.must(err)
		s.equal("already closed", r.AlreadyClosed, already)
	}
	_, err := s.SuspendExecution(s.Context(), ff.SuspendExecution{LeaseRef: c.Ref(), Condition: ff.AwaitSignal("go"), Waitpoints: pending(w)})
	s.refused(err, &ff.Error{Code: ff.CodeWaitpointNotPending})
	cmd.WaitpointID = s.suspend(c, ff.SuspendExecution{}).Waitpoints[0].ID
	_, err = s.CloseWaitpoint(s.Context(), cmd)
	s.refused(err, &ff.Error{Code: ff.CodeWaitpointNotPending})
	cmd.WaitpointID = ff.NewWaitpointID()
	_, err = s.CloseWaitpoint(s.Context(), cmd)
	s.refused(err, ff.ErrWaitpointNotFound)
}

func takeUpRefusals(s *subject) {
	other := s.start(ff.CreateExecution{Lane: "other"})
	foreign := s.createWaitpoint(other, "")
	c := s.start(ff.CreateExecution{})
	suspend := func(w ff.CreateWaitpointResult, cond ff.ResumeCondition) error {
		_, err := s.SuspendExecution(s.Context(), ff.SuspendExecution{LeaseRef: c.Ref(), Condition: cond, Waitpoints: pending(w)})
		return err
	}
	s.refused(suspend(foreign, ff.AwaitSignal("go")), &ff.Error{Code: ff.CodeInvalidWaitpointForExecution})
	s.refused(suspend(ff.CreateWaitpointResult{IssuedWaitpoint: ff.IssuedWaitpoint{ID: ff.NewWaitpointID()}}, ff.AwaitSignal("go")), ff.ErrWaitpointNotFound)
	own := s.createWaitpoint(c, "mine")
	s.refused(suspend(own, ff.AwaitSignal("go").At("yours")), &ff.Error{Code: ff.CodeInvalidWaitpointKey})
	s.must(s.renew(c.Ref(), ttl).Err)
	s.must(suspend(own, ff.AwaitSignal("go").At("mine")))
}

func listWaitpoints(s *subject) {
	id, issued := s.waitAt(ff.AllOf(ff.AwaitSignal("yes").At("a"), ff.AwaitSignal("").At("b"), ff.AwaitSignal("").At("c")), "a", "b", "c")
	var all []ff.Waitpoint
	for q := (ff.ListWaitpoints{ID: id, Limit: 2}); ; {
		r, err := s.ListWaitpoints(s.Context(), q)
		s.must(err)
		all = append(all, r.Waitpoints...)
		if q.After = r.Next; r.Next.IsZero() {
			break
		}
	}
	if len(all) != 3 {
		s.Fatalf("listed %d waitpoints, want 3", len(all))
	}
	for i, w := range all {
		if i > 0 && strings.Compare(all[i-1].ID.String(), w.ID.String()) >= 0 {
			s.Error("the waitpoints are not ordered by id")
		}
		for _, was := range issued {
			if was.ID == w.ID && (w.Key != was.Key || w.TokenKeyID != was.Token.KeyID() || w.TokenFingerprint != was.Token.Fingerprint()) {
				s.Errorf("listed %+v, issued %+v", w, was)
			}
		}
		if w.State != ff.WaitpointActive || w.ExecutionID != id || w.SuspensionID.IsZero() || !w.CreatedAt.Equal(s.now()) {
			s.Errorf("listed %+v", w)
		}
	}
	single, _ := s.waitAt(ff.AwaitSignal("approved"))
	r, err := s.ListWaitpoints(s.Context(), ff.ListWaitpoints{ID: single})
	s.must(err)
	s.equal("the names", r.Waitpoints[0].SignalNames, []string{"approved"})
	_, err = s.ListWaitpoints(s.Context(), ff.ListWaitpoints{ID: ff.MakeExecutionID(0, ff.NewLeaseID().UUID())})
	s.refused(err, ff.ErrExecutionNotFound)
}

func readToken(s *subject) {
	id, w := s.waitAt(ff.AwaitSignal(""))
	token, err := s.WaitpointToken(s.Context(), ff.WaitpointRef{ID: id, WaitpointID: w[0].ID})
	s.must(err)
	s.equal("the token", token.Reveal(), w[0].Token.Reveal())
	_, err = s.WaitpointToken(s.Context(), ff.WaitpointRef{ID: id, WaitpointID: ff.NewWaitpointID()})
	s.refused(err, ff.ErrWaitpointNotFound)
	other := s.submit(ff.CreateExecution{})
	_, err = s.WaitpointToken(s.Context(), ff.WaitpointRef{ID: other, WaitpointID: w[0].ID})
	s.refused(err, ff.ErrWaitpointNotFound)
	r, err := ff.DeliverApprovalSignal(s.Context(), s.Backend, ff.DeliverApproval{ID: id, WaitpointID: w[0].ID, Decision: "approved", By: "ann"})
	s.must(err)
	s.equal("the effect of an approval", r.Effect, ff.EffectResumed)
}

func readTokenOfALostSecret(s *subject) {
	id, w := s.waitAt(ff.AwaitCount(2, ff.DistinctSignals))
	at := ff.WaitpointRef{ID: id, WaitpointID: w[0].ID}
	read := func() ff.WaitpointToken {
		token, err := s.WaitpointToken(s.Context(), at)
		s.must(err)
		return token
	}
	s.rotate("grace", strings.Repeat("ab", 32), time.Minute)
	s.Advance(time.Minute)
	s.equal("the token in the grace of its secret", read().Reveal(), w[0].Token.Reveal())
	s.Advance(time.Millisecond)
	for _, kid := range []string{"grace", "later"} { // after its grace, and when the secret is gone
		s.equal("the secret of the token", read().KeyID(), kid)
		_, err := s.DeliverSignal(s.Context(), ff.DeliverSignal{ID: id, WaitpointID: w[0].ID, Name: "go", Token: w[0].Token})
		if code := ff.CodeOf(err); code != ff.CodeTokenExpired && code != ff.CodeInvalidToken {
			s.Errorf("the token that was issued: %v", err)
		}
		_, err = ff.DeliverApprovalSignal(s.Context(), s.Backend, ff.DeliverApproval{ID: id, WaitpointID: w[0].ID, Decision: "approved", By: kid})
		s.must(err)
		if kid == "grace" {
			s.rotate("later", strings.Repeat("cd", 32), 0)
			s.Advance(time.Millisecond)
		}
	}
	s.wantState(id, ff.StateWaiting)
}

func waitpointIDs(s *subject) {
	c := s.start(ff.CreateExecution{})
	binding := []ff.WaitpointBinding{{ID: ff.NewWaitpointID()}}
	w := s.suspend(c, ff.SuspendExecution{Waitpoints: binding}).Waitpoints[0]
	s.signal(c.Execution.ID, w, named("go"))
	c = s.claim(ff.Claim{})
	_, err := s.SuspendExecution(s.Context(), ff.SuspendExecution{LeaseRef: c.Ref(), Condition: ff.AwaitSignal("go"), Waitpoints: binding})
	s.refused(err, &ff.Error{Code: ff.CodeWaitpointAlreadyExists})
	s.complete(c)
}

const otherSecret = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func (s *subject) rotate(kid, secret string, grace time.Duration) ff.RotateWaitpointSecretResult {
	s.Helper()
	r, err := s.RotateWaitpointSecret(s.Context(), ff.RotateWaitpointSecret{KeyID: kid, Secret: secret, Grace: grace})
	s.must(err)
	if r.Rotated == 0 || len(r.Failed) > 0 {
		s.Fatalf("rotation: %+v", r)
	}
	return r
}

func rotation(s *subject) {
	// Two are signed with the first secret, so that one can come too late.
	id, w := s.waitAt(ff.AwaitSignal(""))
	late, lateAt := s.waitAt(ff.AwaitSignal(""))
	first := w[0].Token.KeyID()
	r := s.rotate("k9", otherSecret, time.Hour)
	s.equal("the secret before", r.Previous, first)
	end := s.now().Add(time.Hour)
	list, err := s.WaitpointSecrets(s.Context())
	s.must(err)
	s.equal("the secrets", list, ff.WaitpointSecrets{Current: "k9", Verifying: []ff.WaitpointSecret{{KeyID: first, ExpiresAt: end}}})

	fresh, freshAt := s.waitAt(ff.AwaitSignal(""))
	s.equal("the key id of a new token", freshAt[0].Token.KeyID(), "k9")
	s.wantEffects(fresh, []effectStep{{freshAt[0], named("go"), ff.EffectResumed}})
	s.Advance(end.Sub(s.now()))
	s.wantEffects(id, []effectStep{{w[0], named("go"), ff.EffectResumed}})
	s.Advance(time.Millisecond)
	_, err = s.tryDeliver(late, lateAt[0], named("go"))
	s.refused(err, &ff.Error{Code: ff.CodeTokenExpired})
	list, err = s.WaitpointSecrets(s.Context())
	s.must(err)
	s.equal("the secrets after the grace", list, ff.WaitpointSecrets{Current: "k9"})
}

func rotationConflicts(s *subject) {
	s.rotate("k9", otherSecret, time.Hour)
	if r := s.rotate("k9", otherSecret, time.Hour); !r.Unchanged {
		s.Errorf("the repeated rotation: %+v", r)
	}
	reversed := strings.Repeat("ab", 32)
	_, err := s.RotateWaitpointSecret(s.Context(), ff.RotateWaitpointSecret{KeyID: "k9", Secret: reversed})
	s.refused(err, &ff.Error{Code: ff.CodeRotationConflict})
	s.rotate("k10", reversed, time.Hour)
	_, err = s.RotateWaitpointSecret(s.Context(), ff.RotateWaitpointSecret{KeyID: "k9", Secret: reversed})
	s.refused(err, &ff.Error{Code: ff.CodeRotationConflict})
	// Back to a secret in its grace: it is the current one and stays.
	s.rotate("k9", otherSecret, time.Minute)
	s.Advance(2 * time.Hour)
	s.rotate("k11", strings.Repeat("cd", 32), time.Hour)
	id, w := s.waitAt(ff.AwaitSignal(""))
	s.wantEffects(id, []effectStep{{w[0], named("go"), ff.EffectResumed}})
	for _, bad := range []ff.RotateWaitpointSecret{
		{KeyID: "", Secret: otherSecret}, {KeyID: "a:b", Secret: otherSecret}, {KeyID: "k", Secret: "abc"}, {KeyID: "k", Secret: ""},
		{KeyID: "k", Secret: strings.Repeat("zz", 32)}, {KeyID: "k", Secret: otherSecret, Grace: -1}, {KeyID: strings.Repeat("k", 100), Secret: otherSecret},
	} {
		if _, err := s.RotateWaitpointSecret(s.Context(), bad); err == nil {
			s.Errorf("accepted %+v", bad)
		}
	}
}

func seeding(s *subject) {
	r, err := s.SeedWaitpointSecret(s.Context(), ff.SeedWaitpointSecret{KeyID: "k1", Secret: otherSecret})
	s.must(err)
	again, err := s.SeedWaitpointSecret(s.Context(), ff.SeedWaitpointSecret{KeyID: "k2", Secret: strings.Repeat("ab", 32)})
	s.must(err)
	s.equal("the second", again, ff.SeedWaitpointSecretResult{KeyID: r.KeyID})
	same, err := s.SeedWaitpointSecret(s.Context(), ff.SeedWaitpointSecret{KeyID: "k1", Secret: otherSecret})
	s.must(err)
	s.equal("the same again", same, ff.SeedWaitpointSecretResult{KeyID: r.KeyID, Same: r.Seeded})
}

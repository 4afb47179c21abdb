package backendtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var signalBehaviours = []behaviour{
	{"a token that is not that of the waitpoint is refused", forgedTokens},
	{"a signal repeated by its id is kept once", signalRepeatedByID},
	{"a signal repeated by its idempotency key is kept once within its window", signalKeyed},
	{"an execution takes as many signals as it may", signalLimit},
	{"an old token does not end a later suspension", oldToken},
	{"of signals at the same time one resumes", racingSignals},
	{"of all that ends a suspension at the same time one does", racingEnds},
	{"signals are listed in their order, by pages", listSignals},
	{"signals, resumptions and escalations are events", signalEvents},
	{"signals that cannot be are refused", badSignals},
	{"retention deletes what suspensions have left", suspensionRetention},
}

// mutations is how many forged tokens are tried, by how many senders at a time.
const (
	mutations = 10_000
	forgers   = 8
)

func forgedTokens(s *subject) {
	id, w := s.waitAt(ff.AwaitSignal(""))
	other, otherAt := s.waitAt(ff.AwaitSignal(""))
	good := w[0].Token.Reveal()
	kid, digest := w[0].Token.KeyID(), strings.TrimPrefix(good, w[0].Token.KeyID()+":")
	codes := map[string]ff.Code{
		"":                                  ff.CodeMissingToken,
		"x":                                 ff.CodeInvalidToken,
		":" + digest:                        ff.CodeInvalidToken,
		kid + ":":                           ff.CodeInvalidToken,
		good[:len(good)-1]:                  ff.CodeInvalidToken,
		good + "0":                          ff.CodeInvalidToken,
		kid + ":" + strings.ToUpper(digest): ff.CodeInvalidToken,
		"other:" + digest:                   ff.CodeInvalidToken,
		otherAt[0].Token.Reveal():           ff.CodeInvalidToken,
	}
	for token, want := range codes {
		_, err := s.DeliverSignal(s.Context(), ff.DeliverSignal{ID: id, WaitpointID: w[0].ID, Name: "go", Token: ff.WaitpointToken(token)})
		if got := ff.CodeOf(err); got != want {
			s.Errorf("token %q: %v, want %s", token, err, want)
		}
	}
	var all sync.WaitGroup
	for range forgers {
		all.Go(func() {
			for range mutations / forgers {
				forged := mutate(good)
				if forged == good {
					continue
				}
				r, err := s.DeliverSignal(s.Context(), ff.DeliverSignal{ID: id, WaitpointID: w[0].ID, Name: "go", Token: ff.WaitpointToken(forged)})
				if ff.CodeOf(err) != ff.CodeInvalidToken {
					s.Errorf("token %q: %+v, %v", forged, r, err)
					return
				}
			}
		})
	}
	all.Wait()
	// The right token, of another execution and of a waitpoint that there is not.
	_, err := s.DeliverSignal(s.Context(), ff.DeliverSignal{ID: other, WaitpointID: w[0].ID, Name: "go", Token: w[0].Token})
	s.refused(err, &ff.Error{Code: ff.CodeInvalidToken})
	_, err = s.DeliverSignal(s.Context(), ff.DeliverSignal{ID: id, WaitpointID: ff.NewWaitpointID(), Name: "go", Token: w[0].Token})
	s.refused(err, &ff.Error{Code: ff.CodeInvalidToken})
	_, err = s.DeliverSignal(s.Context(), ff.DeliverSignal{ID: ff.MakeExecutionID(0, ff.NewLeaseID().UUID()), WaitpointID: w[0].ID, Name: "go", Token: w[0].Token})
	s.refused(err, ff.ErrExecutionNotFound)
	s.wantState(id, ff.StateSuspended)
	list, err := s.ListSignals(s.Context(), ff.ListSignals{ID: id})
	s.must(err)
	if len(list.Signals) > 0 {
		s.Errorf("%d signals with forged tokens are kept", len(list.Signals))
	}
	s.wantEffects(id, []effectStep{{w[0], named("go"), ff.EffectResumed}})
}

// mutate changes, inserts or removes a few characters.
func mutate(token string) string {
	const alphabet = "0123456789abcdef:kK"
	b := []byte(token)
	for range 1 + rand.IntN(3) {
		at, c := rand.IntN(len(b)), alphabet[rand.IntN(len(alphabet))]
		switch rand.IntN(3) {
		case 0:
			b[at] = c
		case 1:
			b = append(b[:at], append([]byte{c}, b[at:]...)...)
		default:
			b = append(b[:at], b[at+1:]...)
		}
	}
	return string(b)
}

func signalRepeatedByID(s *subject) {
	id, w := s.waitAt(ff.AwaitCount(2, ff.DistinctSignals))
	sig := ff.DeliverSignal{SignalID: ff.NewSignalID()}
	if got := s.signal(id, w[0], sig); got != ff.EffectAppended {
		s.Fatalf("the effect is %s", got)
	}
	s.equal("the repetition", s.deliver(id, w[0], sig), ff.DeliverSignalResult{SignalID: sig.SignalID, Duplicate: true})
	s.wantState(id, ff.StateSuspended)
	list, err := s.ListSignals(s.Context(), ff.ListSignals{ID: id})
	s.must(err)
	s.equal("how many are kept", len(list.Signals), 1)

	// The answer to the signal that ends the wait is lost like any other.
	id, w = s.waitAt(ff.AwaitSignal(""))
	last := ff.DeliverSignal{SignalID: ff.NewSignalID(), IdempotencyKey: "k"}
	s.equal("the effect of the last", s.signal(id, w[0], last), ff.EffectResumed)
	again := ff.DeliverSignalResult{SignalID: last.SignalID, Duplicate: true}
	s.equal("the repetition of the last", s.deliver(id, w[0], last), again)
	s.equal("the repetition by its key alone", s.deliver(id, w[0], ff.DeliverSignal{IdempotencyKey: "k"}), again)
	s.wantState(id, ff.StateWaiting)
}

func signalKeyed(s *subject) {
	id, w := s.waitAt(ff.AwaitCount(3, ff.DistinctSignals))
	sig := ff.DeliverSignal{IdempotencyKey: "webhook 7", DedupWindow: time.Minute}
	first := s.deliver(id, w[0], sig)
	s.Advance(time.Minute - time.Millisecond)
	s.equal("the repetition", s.deliver(id, w[0], sig), ff.DeliverSignalResult{SignalID: first.SignalID, Duplicate: true})
	s.Advance(time.Millisecond)
	if again := s.deliver(id, w[0], sig); again.Duplicate || again.SignalID == first.SignalID {
		s.Errorf("after the window: %+v", again)
	}
	// Keys are of one waitpoint.
	other, at := s.waitAt(ff.AwaitSignal(""))
	if r := s.deliver(other, at[0], sig); r.Duplicate {
		s.Errorf("the key of another waitpoint: %+v", r)
	}
	// Signals that came ahead share the keys.
	c := s.start(ff.CreateExecution{Lane: "ahead"})
	pendingAt := s.createWaitpoint(c, "")
	sig.Name = "other"
	first = s.deliver(c.Execution.ID, pendingAt.IssuedWaitpoint, sig)
	s.suspend(c, ff.SuspendExecution{Waitpoints: pending(pendingAt)})
	s.equal("the repetition of one that came ahead", s.deliver(c.Execution.ID, pendingAt.IssuedWaitpoint, sig), ff.DeliverSignalResult{SignalID: first.SignalID, Duplicate: true})
}

func signalLimit(s *subject) {
	c := s.start(policed(func(p *ff.ExecutionPolicy) { p.MaxSignals = 3 }))
	w := s.suspend(c, ff.SuspendExecution{}).Waitpoints[0]
	var last ff.DeliverSignal
	for i := range 3 {
		last = ff.DeliverSignal{Name: "other", IdempotencyKey: fmt.Sprint(i)}
		s.wantEffects(c.Execution.ID, []effectStep{{w, last, ff.EffectNone}})
	}
	_, err := s.tryDeliver(c.Execution.ID, w, named("go"))
	s.refused(err, &ff.Error{Code: ff.CodeSignalLimitExceeded})
	if r := s.deliver(c.Execution.ID, w, last); !r.Duplicate {
		s.Errorf("a repetition at the limit: %+v", r)
	}
	lower, err := s.tryDeliver(c.Execution.ID, w, ff.DeliverSignal{MaxSignals: 1})
	s.refused(err, &ff.Error{Code: ff.CodeSignalLimitExceeded})
	s.equal("the answer beside a refusal", lower, ff.DeliverSignalResult{})
	_, err = s.ResumeExecution(s.Context(), ff.ResumeExecution{ID: c.Execution.ID})
	s.must(err)
}

func oldToken(s *subject) {
	c := s.start(ff.CreateExecution{})
	old := s.suspend(c, ff.SuspendExecution{Waitpoints: []ff.WaitpointBinding{{Key: "a"}, {Key: "b"}},
		Condition: ff.AwaitCount(1, ff.DistinctSignals, "a", "b")}).Waitpoints
	s.wantEffects(c.Execution.ID, []effectStep{{old[1], named("go"), ff.EffectResumed}})
	c = s.claim(ff.Claim{})
	s.suspend(c, ff.SuspendExecution{})
	for _, w := range old {
		_, err := s.tryDeliver(c.Execution.ID, w, named("go"))
		s.refused(err, &ff.Error{Code: ff.CodeWaitpointClosed})
	}
	s.wantState(c.Execution.ID, ff.StateSuspended)
}

func racingSignals(s *subject) {
	const senders = 16
	id, w := s.waitAt(ff.AwaitSignal(""))
	effects := make(chan ff.SignalEffect, senders)
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			r, err := s.tryDeliver(id, w[0], ff.DeliverSignal{SourceIdentity: fmt.Sprint(i)})
			switch ff.CodeOf(err) {
			case "", ff.CodeTargetNotSignalable, ff.CodeWaitpointClosed:
				effects <- r.Effect
			default:
				s.Errorf("a signal in a race: %v", err)
			}
		})
	}
	all.Wait()
	close(effects)
	resumed := 0
	for e := range effects {
		if e == ff.EffectResumed {
			resumed++
		}
	}
	if resumed != 1 {
		s.Errorf("%d signals have resumed the execution", resumed)
	}
	s.resumedHere(id)
	s.nothingToClaim()
}

// racingEnds lets signals, the timeout, an operator, a cancellation and a rotation meet.
func racingEnds(s *subject) {
	const rounds = 20
	for round := range rounds {
		s.raceEnds([]ff.TimeoutBehavior{ff.TimeoutFail, ff.TimeoutCancel, ff.TimeoutExpire, ff.TimeoutResume}[round%4], round)
	}
}

func (s *subject) raceEnds(behaviour ff.TimeoutBehavior, round int) {
	s.Helper()
	c := s.start(ff.CreateExecution{Lane: ff.LaneID(fmt.Sprintf("race-%d", round))})
	id := c.Execution.ID
	w := s.suspend(c, ff.SuspendExecution{Condition: ff.AwaitSignal("go"), TimeoutAfter: time.Second, OnTimeout: behaviour}).Waitpoints[0]
	s.Advance(time.Second)
	same := ff.DeliverSignal{Name: "go", SignalID: ff.NewSignalID()}
	var resumed, repeated, byOperator, cancelled atomic.Int32
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			r, err := s.tryDeliver(id, w, same)
			switch {
			case r.Effect == ff.EffectResumed:
				resumed.Add(1)
			case r.Duplicate:
				repeated.Add(1)
			case err == nil:
				s.Errorf("the signal: %+v", r)
			default:
				s.mayBe(err, ff.CodeTargetNotSignalable, ff.CodeWaitpointClosed)
			}
		})
	}
	all.Go(func() {
		_, err := s.Sweep(s.Context(), ff.Sweep{Kind: ff.SweepSuspensionTimeout})
		s.mayBe(err)
	})
	all.Go(func() {
		_, err := s.ResumeExecution(s.Context(), ff.ResumeExecution{ID: id})
		if s.mayBe(err, ff.CodeExecutionNotSuspended) {
			byOperator.Add(1)
		}
	})
	all.Go(func() {
		_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: id, Reason: "race"})
		if s.mayBe(err, ff.CodeExecutionNotActive) {
			cancelled.Add(1)
		}
	})
	all.Go(func() {
		_, err := s.RotateWaitpointSecret(s.Context(), ff.RotateWaitpointSecret{KeyID: fmt.Sprintf("race-%d", round), Secret: otherSecret, Grace: time.Minute})
		s.mayBe(err)
	})
	all.Wait()

	latest, x := s.suspension(id), s.read(id)
	counts := fmt.Sprintf("%d signals and %d operators resumed it, %d repetitions, %d cancellations; the suspension is closed with %q, the execution is %s",
		resumed.Load(), byOperator.Load(), repeated.Load(), cancelled.Load(), latest.CloseReason, x.PublicState())
	ends := map[string]int32{ff.ClosedResumed: resumed.Load() + byOperator.Load()}
	if latest.Open() || resumed.Load()+byOperator.Load() > 1 || ends[latest.CloseReason] != resumed.Load()+byOperator.Load() {
		s.Fatal(counts)
	}
	s.equal("the signals that have resumed it: "+counts, len(latest.ResumedBy), int(resumed.Load()))
	list, err := s.ListSignals(s.Context(), ff.ListSignals{ID: id})
	s.must(err)
	s.equal("the signals: "+counts, len(list.Signals), int(resumed.Load()))
	// Only what goes on after its suspension can still be cancelled.
	switch latest.CloseReason {
	case ff.ClosedResumed, ff.ClosedTimedOutResume, ff.ClosedCancelled:
		s.equal("the cancellations: "+counts, cancelled.Load(), int32(1))
		s.equal("the state: "+counts, x.PublicState(), ff.StateCancelled)
	default:
		s.equal("the cancellations: "+counts, cancelled.Load(), int32(0))
	}
	points, err := s.ListWaitpoints(s.Context(), ff.ListWaitpoints{ID: id})
	s.must(err)
	s.equal("the open waitpoints", len(points.Waitpoints), 0)
}

// mayBe reports whether there was no error; one must have one of the codes.
func (s *subject) mayBe(err error, codes ...ff.Code) bool {
	s.Helper()
	if err != nil && !slices.Contains(codes, ff.CodeOf(err)) {
		s.Errorf("in a race: %v", err)
	}
	return err == nil
}

func listSignals(s *subject) {
	id, w := s.waitAt(ff.AllOf(ff.AwaitSignal("a").At("x"), ff.AwaitSignal("b").At("y")), "x", "y")
	want := []string{}
	for i := range 5 {
		s.Advance(time.Millisecond)
		name := fmt.Sprintf("n%d", i)
		s.signal(id, w[i%2], ff.DeliverSignal{Name: name, Payload: []byte(name)})
		want = append(want, name)
	}
	for _, q := range []ff.ListSignals{{ID: id, Limit: 2}, {ID: id}, {ID: id, Limit: 5}} {
		got := []string{}
		for more := true; more; more = q.Cursor != "" {
			r, err := s.ListSignals(s.Context(), q)
			s.must(err)
			for _, sig := range r.Signals {
				if string(sig.Payload) != sig.Name {
					s.Errorf("signal %s has the payload %q", sig.Name, sig.Payload)
				}
				got = append(got, sig.Name)
			}
			q.Cursor = r.Next
		}
		s.equal("the names", got, want)
	}
	r, err := s.ListSignals(s.Context(), ff.ListSignals{ID: id, WaitpointID: w[1].ID})
	s.must(err)
	s.equal("those of one waitpoint", len(r.Signals), 2)
	r, err = s.ListSignals(s.Context(), ff.ListSignals{ID: id, Resumed: true})
	s.must(err)
	s.equal("those that have resumed it", len(r.Signals), 0)
	_, err = s.ListSignals(s.Context(), ff.ListSignals{ID: id, Cursor: "nonsense"})
	s.refused(err, ff.ErrInvalidInput)
	_, err = s.ListSignals(s.Context(), ff.ListSignals{ID: ff.MakeExecutionID(0, ff.NewLeaseID().UUID())})
	s.refused(err, ff.ErrExecutionNotFound)
}

func signalEvents(s *subject) {
	c := s.start(ff.CreateExecution{})
	w := s.suspend(c, ff.SuspendExecution{TimeoutAfter: time.Minute, OnTimeout: ff.TimeoutEscalate}).Waitpoints[0]
	s.pass(time.Minute)
	other := s.deliver(c.Execution.ID, w, ff.DeliverSignal{Name: "other", SourceType: "user", SourceIdentity: "ann"})
	s.signal(c.Execution.ID, w, named("go"))
	got := s.events(ff.ReadEvents{ID: c.Execution.ID, Family: ff.FamilySignal})
	if len(got) != 4 {
		s.Fatalf("%d events, want 4: %+v", len(got), got)
	}
	var words []string
	for _, e := range got {
		words = append(words, string(e.Type)+" "+e.Reason)
	}
	s.equal("the events", words, []string{"escalated ", "signal_delivered no_op", "signal_delivered resume_condition_satisfied", "resumed signal"})
	if e := got[1]; e.SignalID != other.SignalID || e.WaitpointID != w.ID || e.Source != "user:ann" || e.ID != c.Execution.ID || !e.At.Equal(s.now()) {
		s.Errorf("the event of a signal: %+v", e)
	}
}

func badSignals(s *subject) {
	id, w := s.waitAt(ff.AwaitSignal(""))
	long := strings.Repeat("x", 5000)
	for what, c := range map[string]ff.DeliverSignal{
		"a reserved name":   {Name: "__operator_only__"},
		"a long name":       {Name: long},
		"a long category":   {Category: long},
		"a long source":     {SourceType: long},
		"a long identity":   {SourceIdentity: long},
		"a long key":        {IdempotencyKey: long},
		"a negative delay":  {ResumeDelay: -1},
		"a negative window": {DedupWindow: -1},
		"a negative limit":  {MaxSignals: -1},
	} {
		_, err := s.tryDeliver(id, w[0], c)
		if ff.CodeOf(err) != ff.CodeInvalidInput {
			s.Errorf("%s: %v", what, err)
		}
	}
	_, err := s.tryDeliver(id, w[0], ff.DeliverSignal{Payload: make([]byte, ff.MaxSignalPayloadBytes+1)})
	s.refused(err, ff.ErrPayloadTooLarge)
	_, err = s.DeliverSignal(s.Context(), ff.DeliverSignal{ID: id, WaitpointID: w[0].ID, Token: w[0].Token})
	s.refused(err, ff.ErrInvalidInput)
	s.wantState(id, ff.StateSuspended)
}

func suspensionRetention(s *subject) {
	c := s.start(ff.CreateExecution{})
	unused := s.createWaitpoint(c, "")
	w := s.suspend(c, ff.SuspendExecution{IdempotencyKey: "k"}).Waitpoints[0]
	s.signal(c.Execution.ID, w, ff.DeliverSignal{IdempotencyKey: "k", Payload: []byte("p")})
	s.resumedHere(c.Execution.ID)
	s.pass(ff.DefaultRetention)
	_, err := s.Execution(s.Context(), c.Execution.ID)
	s.refused(err, ff.ErrExecutionNotFound)
	for _, id := range []ff.WaitpointID{unused.ID, w.ID} {
		if token, err := s.WaitpointToken(s.Context(), ff.WaitpointRef{ID: c.Execution.ID, WaitpointID: id}); err == nil {
			s.Errorf("the token of a deleted execution is there: %s", token)
		}
	}
	_, err = s.Suspension(s.Context(), c.Execution.ID)
	s.refused(err, ff.ErrExecutionNotFound)
	_, err = s.tryDeliver(c.Execution.ID, w, named("go"))
	s.refused(err, ff.ErrExecutionNotFound)
}

package client_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// waiting is an execution that waits, with its waitpoints.
func waiting(ctx context.Context, t testing.TB, store ff.Backend, c ff.SuspendExecution) (ff.ExecutionID, []ff.IssuedWaitpoint) {
	t.Helper()
	if _, err := store.CreateExecution(ctx, ff.CreateExecution{Lane: "l", Kind: "k"}); err != nil {
		t.Fatal(err)
	}
	got, err := store.Claim(ctx, ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}, LeaseTTL: time.Minute})
	if err != nil || len(got.Claimed) != 1 {
		t.Fatal(got, err)
	}
	c.LeaseRef = got.Claimed[0].Ref()
	r, err := store.SuspendExecution(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return c.ID, r.Waitpoints
}

func state(ctx context.Context, t testing.TB, c *client.Client, id ff.ExecutionID, want ff.PublicState) {
	t.Helper()
	if got, err := c.State(ctx, id); err != nil || got != want {
		t.Errorf("the execution is %s, %v; want %s", got, err, want)
	}
}

func TestASignalIsDeliveredWithTheTokenOfItsWaitpoint(t *testing.T) {
	ctx, c := within(t, patience), connected(t)
	id, at := waiting(ctx, t, c.Backend(), ff.SuspendExecution{Condition: ff.AwaitSignal("paid")})
	open, err := c.Waitpoints(ctx, id)
	if err != nil || len(open) != 1 || open[0].ID != at[0].ID || open[0].SignalNames[0] != "paid" {
		t.Fatalf("the waitpoints: %+v, %v", open, err)
	}
	s := ff.DeliverSignal{ID: id, WaitpointID: open[0].ID, Name: "paid", Token: "k1:0123456789012345678901234567890123456789"}
	if _, err := c.Deliver(ctx, s); ff.CodeOf(err) != ff.CodeInvalidToken {
		t.Errorf("with another token: %v", err)
	}
	if s.Token, err = c.WaitpointToken(ctx, ff.WaitpointRef{ID: id, WaitpointID: open[0].ID}); err != nil || s.Token != at[0].Token {
		t.Errorf("the token is another: %v", err)
	}
	if got, err := c.Deliver(ctx, s); err != nil || got.Effect != ff.EffectResumed {
		t.Errorf("%+v, %v", got, err)
	}
	state(ctx, t, c, id, ff.StateWaiting)
	waited, err := c.Suspension(ctx, id)
	if err != nil || waited.CloseReason != ff.ClosedResumed || len(waited.ResumedBy) != 1 {
		t.Errorf("the suspension: %+v, %v", waited, err)
	}
}

func TestADecisionIsMadeByNameOfTheWaitpointAndOncePerPerson(t *testing.T) {
	ctx, c := within(t, patience), connected(t)
	id, at := waiting(ctx, t, c.Backend(), ff.SuspendExecution{Waitpoints: []ff.WaitpointBinding{{Key: "legal"}, {Key: "finance"}},
		Condition: ff.AllOf(ff.AwaitSignal(client.Approved).At("legal"), ff.AwaitSignal(client.Approved).At("finance"))})
	if _, err := c.Approve(ctx, id, client.Decision{By: "ann"}); ff.CodeOf(err) != ff.CodeInvalidInput || !strings.Contains(err.Error(), at[0].ID.String()+" (legal)") {
		t.Errorf("without a waitpoint: %v", err)
	}
	if _, err := c.Approve(ctx, id, client.Decision{By: "ann", Payload: func() {}}); ff.CodeOf(err) != ff.CodeInvalidInput || !strings.Contains(err.Error(), "payload") {
		t.Errorf("a payload that has no JSON form: %v", err)
	}
	if got, err := c.Reject(ctx, id, client.Decision{Waitpoint: "legal", By: "bob"}); err != nil || got.Effect.Matched() {
		t.Errorf("a rejection that the condition does not take: %+v, %v", got, err)
	}
	for _, want := range []ff.DeliverSignalResult{{Effect: ff.EffectAppended}, {Duplicate: true}} {
		got, err := c.Approve(ctx, id, client.Decision{Waitpoint: "legal", By: "ann", Payload: map[string]int{"limit": 5}})
		if err != nil || got.Effect != want.Effect || got.Duplicate != want.Duplicate {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if got, err := c.Approve(ctx, id, client.Decision{Waitpoint: at[1].ID.String(), By: "ann", Payload: []byte("raw")}); err != nil || got.Effect != ff.EffectResumed {
		t.Errorf("by id: %+v, %v", got, err)
	}
	list, err := c.Signals(ctx, ff.ListSignals{ID: id, Resumed: true})
	if err != nil || len(list.Signals) != 2 || string(list.Signals[0].Payload) != `{"limit":5}` || string(list.Signals[1].Payload) != "raw" || list.Signals[1].SourceIdentity != "ann" {
		t.Errorf("the signals: %+v, %v", list.Signals, err)
	}
	if _, err := c.Approve(ctx, id, client.Decision{By: "ann"}); ff.CodeOf(err) != ff.CodeTargetNotSignalable {
		t.Errorf("afterwards: %v", err)
	}
}

func TestALostAnswerChangesNothingForDecisionsAndSignals(t *testing.T) {
	ctx, store := within(t, patience), storetest.Open(t, sqlite.Options{})
	url := listen(t, api(t, store, server.Options{}))
	lossy := dial(t, url, client.WithHTTPClient(&http.Client{Transport: &faults{RoundTripper: transport(t), after: firstTo("/signals", 2, io.ErrUnexpectedEOF)}}))
	id, _ := waiting(ctx, t, store, ff.SuspendExecution{Condition: ff.AwaitSignal(client.Approved)})
	if got, err := lossy.Approve(ctx, id, client.Decision{By: "ann"}); err != nil || !got.Duplicate {
		t.Errorf("%+v, %v", got, err)
	}
	state(ctx, t, lossy, id, ff.StateWaiting)
	if list, err := lossy.Signals(ctx, ff.ListSignals{ID: id}); err != nil || len(list.Signals) != 1 {
		t.Errorf("the signals: %+v, %v", list, err)
	}
}

func TestAnOperatorResumesWithoutASignal(t *testing.T) {
	ctx, c := within(t, patience), connected(t)
	id, _ := waiting(ctx, t, c.Backend(), ff.SuspendExecution{Condition: ff.OperatorOnly(), Reason: ff.SuspendedForOperatorReview})
	if got, err := c.Resume(ctx, id); err != nil || got != ff.StateWaiting {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := c.Resume(ctx, id); ff.CodeOf(err) != ff.CodeExecutionNotSuspended {
		t.Errorf("again: %v", err)
	}
	if waited, err := c.Suspension(ctx, id); err != nil || waited.Open() || len(waited.ResumedBy) != 0 {
		t.Errorf("%+v, %v", waited, err)
	}
}

func TestSecretsAreRotatedAndOldTokensKeptForTheGrace(t *testing.T) {
	ctx, c := within(t, patience), connected(t)
	id, at := waiting(ctx, t, c.Backend(), ff.SuspendExecution{Condition: ff.AwaitSignal("")})
	before, err := c.Secrets(ctx)
	if err != nil || before.Current != at[0].Token.KeyID() {
		t.Fatalf("%+v, %v", before, err)
	}
	rotation := ff.RotateWaitpointSecret{KeyID: "next", Secret: strings.Repeat("ab", 32), Grace: time.Hour}
	for _, unchanged := range []bool{false, true} {
		if got, err := c.RotateSecret(ctx, rotation); err != nil || got.Unchanged != unchanged || got.Rotated != 1 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	after, err := c.Secrets(ctx)
	if err != nil || after.Current != "next" || len(after.Verifying) != 1 || after.Verifying[0].KeyID != before.Current {
		t.Errorf("%+v, %v", after, err)
	}
	rotation.Secret = strings.Repeat("cd", 32)
	if _, err := c.RotateSecret(ctx, rotation); ff.CodeOf(err) != ff.CodeRotationConflict || strings.Contains(err.Error(), rotation.Secret) {
		t.Errorf("another secret with the same key id: %v", err)
	}
	if got, err := c.Deliver(ctx, ff.DeliverSignal{ID: id, WaitpointID: at[0].ID, Token: at[0].Token, Name: "x"}); err != nil || got.Effect != ff.EffectResumed {
		t.Errorf("an old token: %+v, %v", got, err)
	}
}

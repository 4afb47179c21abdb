package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
)

func TestASubmitCarriesAllItsOptions(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	caps, err := ff.NewCapabilitySet("gpu")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC()
	got, err := c.Submit(ctx, "l", "k", map[string]int{"a": 1}, client.Namespace("ns"), client.Priority(7), client.Creator("me"), client.IdempotencyKey("key"),
		client.Tags(map[string]string{"a.b": "c"}), client.Tags(map[string]string{"d.e": "f"}), client.DelayUntil(at), client.Deadline(at.Add(time.Hour)),
		client.Retry(ff.FixedRetry(2, time.Second)), client.AttemptTimeout(time.Minute), client.Requires(caps))
	if err != nil || got.State != ff.StateDelayed || got.Duplicate {
		t.Fatalf("%+v, %v", got, err)
	}
	x, err := c.Get(ctx, got.ID)
	if err != nil {
		t.Fatal(err)
	}
	if x.Lane != "l" || x.Kind != "k" || x.Namespace != "ns" || x.Priority != 7 || x.Creator != "me" || x.Tags["a.b"] != "c" || x.Tags["d.e"] != "f" ||
		!x.DelayUntil.Equal(at) || !x.Deadline.Equal(at.Add(time.Hour)) || x.Policy.Retry.MaxRetries != 2 || x.Policy.Timeout.Attempt != time.Minute || x.Required != caps {
		t.Errorf("record %+v, policy %+v", x, x.Policy)
	}
	p, err := c.Payload(ctx, got.ID)
	if err != nil || string(p.Payload) != `{"a":1}` || p.Encoding != "json" || p.Kind != "k" {
		t.Errorf("payload %+v, %v", p, err)
	}
	again, err := c.Submit(ctx, "l", "k", nil, client.Namespace("ns"), client.IdempotencyKey("key"))
	if err != nil || !again.Duplicate || again.ID != got.ID {
		t.Errorf("the same key again: %+v, %v", again, err)
	}
}

func TestBytesAreSubmittedAsTheyAre(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	for _, payload := range [][]byte{{0, 255, 10}, []byte("text"), make([]byte, ff.MaxPayloadBytes)} {
		got, err := c.Submit(ctx, "l", "k", payload)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Payload(ctx, got.ID)
		if err != nil || string(p.Payload) != string(payload) || p.Encoding != "" {
			t.Errorf("%d bytes came back as %d, encoding %q, %v", len(payload), len(p.Payload), p.Encoding, err)
		}
	}
}

func TestAPolicyOfTheCallerIsNotChanged(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	p := ff.DefaultExecutionPolicy()
	p.Timeout = &ff.TimeoutPolicy{Deadline: time.Hour, MaxReclaims: 3}
	got, err := c.Submit(ctx, "l", "k", nil, client.Policy(p), client.AttemptTimeout(time.Second), client.Retry(ff.FixedRetry(1, 0)))
	if err != nil {
		t.Fatal(err)
	}
	if p.Retry != nil || p.Timeout.Attempt != 0 {
		t.Errorf("the policy became %+v", p)
	}
	x, err := c.Get(ctx, got.ID)
	if err != nil || x.Policy.Timeout.Deadline != time.Hour || x.Policy.Timeout.Attempt != time.Second || x.Policy.Timeout.MaxReclaims != 3 {
		t.Errorf("stored %+v, %v", x.Policy.Timeout, err)
	}
}

func TestABatchIsStoredWholeOrNotAtAll(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	items := make([]client.Item, 300)
	for i := range items {
		items[i] = client.Item{Kind: "k", Payload: i}
	}
	got, err := c.SubmitMany(ctx, "l", items)
	if err != nil || len(got) != len(items) {
		t.Fatalf("%d results, %v", len(got), err)
	}
	items[17].Options = []client.SubmitOption{client.ID(ff.MakeExecutionID(60000, got[0].ID.UUID()))}
	_, err = c.SubmitMany(ctx, "l", items)
	if e, ok := ff.AsError(err); !ok || e.Code != ff.CodeInvalidInput || e.Field != "executions[17].execution_id" {
		t.Errorf("a batch with an id of another partition: %v", err)
	}
	items[3].Payload = make(chan int)
	_, err = c.SubmitMany(ctx, "l", items)
	if e, ok := ff.AsError(err); !ok || e.Field != "executions[3].payload" {
		t.Errorf("a payload that is not JSON: %v", err)
	}
	lanes, err := c.Lanes(ctx)
	if err != nil || len(lanes) != 1 || lanes[0].Counts[ff.StateWaiting] != 300 {
		t.Errorf("lanes %+v, %v", lanes, err)
	}
}

func TestWhatIsWrongIsSaidBeforeAnythingIsSent(t *testing.T) {
	c := dial(t, "http://127.0.0.1:1") // nobody is there
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for field, submit := range map[string]func() error{
		"kind":    func() error { _, err := c.Submit(ctx, "l", "", nil); return err },
		"lane_id": func() error { _, err := c.Submit(ctx, "", "k", nil); return err },
		"payload": func() error { _, err := c.Submit(ctx, "l", "k", make([]byte, ff.MaxPayloadBytes+1)); return err },
		"delay":   func() error { _, err := c.Submit(ctx, "l", "k", nil, client.Delay(-1)); return err },
	} {
		if e, ok := ff.AsError(submit()); !ok || e.Field != field {
			t.Errorf("%s: %v", field, submit())
		}
	}
	if _, err := c.Submit(ctx, "l", "k", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

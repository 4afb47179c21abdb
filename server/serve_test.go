package server_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/server"
)

// A server that stops answers long polls at once and finishes in time.
func TestStoppingAnswersLongPolls(t *testing.T) {
	store := openStore(t)
	s, err := server.New(store, server.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Bind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop := serve(t, s, l)
	base := "http://" + l.Addr().String()
	type result struct {
		status int
		body   string
		err    error
	}
	results := make(chan result, 2)
	poll := func(method, path, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			results <- result{err: err}
			return
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			results <- result{err: err}
			return
		}
		defer resp.Body.Close()
		var sb strings.Builder
		err = json.NewEncoder(&sb).Encode(resp.StatusCode)
		results <- result{status: resp.StatusCode, body: sb.String(), err: err}
	}
	go poll("POST", "/v1/claims", `{"worker_id":"w","worker_instance_id":"i","lanes":["default"],"wait_ms":60000}`)
	go poll("GET", "/v1/events?wait_ms=60000", "")
	waitForRequests(t, base, 2)

	begin := time.Now()
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("stopping took %s", took)
	}
	for range 2 {
		if r := <-results; r.err != nil || r.status != http.StatusOK {
			t.Errorf("a long poll ended with %d, %v", r.status, r.err)
		}
	}
}

// waitForRequests waits until the polls have arrived: requests sent later on
// other connections are answered, so a few round trips suffice.
func waitForRequests(t *testing.T, base string, n int) {
	t.Helper()
	for range 50 * n {
		resp, err := http.Get(base + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
}

// The whole life of an execution over HTTP, by the remote store.
func TestARemoteWorkerNeedsOnlyTheURL(t *testing.T) {
	base := start(t, openStore(t), server.Options{Token: "s3cret"})
	c, err := client.New(base, client.WithToken("s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, ctx := c.Backend(), t.Context()
	created, err := b.CreateExecution(ctx, ff.CreateExecution{Lane: "default", Kind: "job", Payload: []byte{0, 1, 255}, Tags: map[string]string{"a.b": "ü"}})
	if err != nil || created.Duplicate || created.State != ff.StateWaiting {
		t.Fatal(created, err)
	}
	p, err := b.ExecutionPayload(ctx, created.ID)
	if err != nil || string(p.Payload) != "\x00\x01\xff" || p.Kind != "job" || p.Tags["a.b"] != "ü" {
		t.Errorf("payload %+v, %v", p, err)
	}
	got, err := b.Claim(ctx, ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"default"}, Wait: time.Second})
	if err != nil || len(got.Claimed) != 1 {
		t.Fatal(got, err)
	}
	ref := got.Claimed[0].Ref()
	percent := 50
	if err := b.UpdateProgress(ctx, ff.UpdateProgress{LeaseRef: ref, Percent: &percent, Message: "half"}); err != nil {
		t.Error(err)
	}
	renewed, err := b.RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{ref, {ID: ref.ID, Fence: ff.Fence{LeaseID: ff.NewLeaseID(), LeaseEpoch: 9, AttemptID: ff.NewAttemptID()}}}, TTL: time.Minute})
	if err != nil || renewed.Renewals[0].Err != nil || !errors.Is(renewed.Renewals[1].Err, ff.ErrStaleLease) {
		t.Errorf("renewals %+v, %v", renewed, err)
	}
	for i := range 2 {
		done, err := b.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: ref, Result: []byte("ok")})
		if err != nil || done.State != ff.StateCompleted || done.Repeated != (i == 1) {
			t.Errorf("completion %d: %+v, %v", i, done, err)
		}
	}
	x, err := b.Execution(ctx, created.ID)
	if err != nil || x.PublicState() != ff.StateCompleted || x.Progress.Message != "half" || x.Attempt.State != ff.AttemptEndedSuccess {
		t.Errorf("record %+v, %v", x, err)
	}
	if result, err := b.ExecutionResult(ctx, created.ID); err != nil || string(result) != "ok" {
		t.Errorf("result %q, %v", result, err)
	}
	_, err = b.CancelExecution(ctx, ff.CancelExecution{ID: created.ID})
	if !errors.Is(err, ff.ErrExecutionNotActive) {
		t.Errorf("cancelling a completed execution: %v", err)
	}
	_, err = b.Execution(ctx, ff.NewExecutionID("default", ff.DefaultPartitionConfig))
	if !errors.Is(err, ff.ErrExecutionNotFound) {
		t.Errorf("an unknown execution: %v", err)
	}
}

func TestThePageEscapesWhatPeopleSubmit(t *testing.T) {
	store := openStore(t)
	if _, err := store.CreateExecution(t.Context(), ff.CreateExecution{Lane: "<b>lane</b>", Kind: "<script>alert(1)</script>"}); err != nil {
		t.Fatal(err)
	}
	s, err := server.New(store, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := ask(t, s.Handler(), "GET", "/", nil, "")
	page := w.Body.String()
	if w.Code != 200 || strings.Contains(page, "<script>") || strings.Contains(page, "<b>lane") || !strings.Contains(page, "&lt;script&gt;") {
		t.Errorf("%d %s", w.Code, page)
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("policy %q", csp)
	}
}

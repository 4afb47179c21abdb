package server_test

import (
	"context"
	"errors"
	"io"
	"net"
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

// watched is a store that tells when a long poll has come as far as waiting.
type watched struct {
	ff.Backend
	waiting chan struct{}
}

func (w watched) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	if c.Wait > 0 {
		w.waiting <- struct{}{}
	}
	return w.Backend.Claim(ctx, c)
}

func (w watched) ReadEvents(ctx context.Context, c ff.ReadEvents) (ff.ReadEventsResult, error) {
	if c.Wait > 0 {
		w.waiting <- struct{}{}
	}
	return w.Backend.ReadEvents(ctx, c)
}

type pollResult struct {
	status int
	body   string
	err    error
}

// poll sends a request and tells its answer.
func poll(ctx context.Context, method, url, body string, results chan<- pollResult) {
	var r pollResult
	defer func() { results <- r }()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		r.err = err
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.err = err
		return
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	r = pollResult{resp.StatusCode, string(data), err}
}

const longClaim = `{"worker_id":"w","worker_instance_id":"i","lanes":["default"],"wait_ms":60000}`

// bind makes a server on a port of its own.
func bind(t *testing.T, store ff.Backend, o server.Options) (*server.Server, net.Listener) {
	t.Helper()
	o.Listen = "127.0.0.1:0"
	s, err := server.New(store, o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Bind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, l
}

// A server that stops answers long polls at once and finishes in time.
func TestStoppingAnswersLongPolls(t *testing.T) {
	store := watched{storetest.Open(t, sqlite.Options{}), make(chan struct{}, 2)}
	s, l := bind(t, store, server.Options{})
	stop := serve(t, s, l)
	base := "http://" + l.Addr().String()
	results := make(chan pollResult, 2)
	go poll(t.Context(), "POST", base+"/v1/claims", longClaim, results)
	go poll(t.Context(), "GET", base+"/v1/events?wait_ms=60000", "", results)
	<-store.waiting
	<-store.waiting

	begin := time.Now()
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("stopping took %s", took)
	}
	for range 2 {
		r := <-results
		if r.err != nil || r.status != http.StatusOK || !strings.HasPrefix(r.body, `{"claimed":[]`) && !strings.HasPrefix(r.body, `{"events":[]`) {
			t.Errorf("a long poll ended with %d %s, %v", r.status, r.body, r.err)
		}
	}
	if _, err := net.DialTimeout("tcp", l.Addr().String(), time.Second); err == nil {
		t.Error("the port is still open")
	}
}

// late is a store whose claims come through just after the claimant has left.
type late struct {
	ff.Backend
	claimed chan struct{}
}

func (l late) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	r, err := l.Backend.Claim(context.WithoutCancel(ctx), c)
	l.claimed <- struct{}{}
	<-ctx.Done()
	return r, err
}

func TestWhatAClaimantThatLeftWasGivenIsHandedBack(t *testing.T) {
	store := late{storetest.Open(t, sqlite.Options{}), make(chan struct{}, 1)}
	base := start(t, store, server.Options{})
	created, err := store.CreateExecution(t.Context(), ff.CreateExecution{Lane: "default", Kind: "job"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	results := make(chan pollResult, 1)
	go poll(ctx, "POST", base+"/v1/claims", longClaim, results)
	<-store.claimed
	leave()
	if r := <-results; r.err == nil {
		t.Fatalf("the claimant was answered: %+v", r)
	}
	got, err := store.Backend.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "other"}, Lanes: []ff.LaneID{"default"}, Wait: 10 * time.Second})
	if err != nil || len(got.Claimed) != 1 || got.Claimed[0].Execution.ID != created.ID {
		t.Errorf("the execution is not given to another worker: %+v, %v", got, err)
	}
}

// slow is a store that lists lanes when it is told to.
type slow struct {
	ff.Backend
	asked, proceed chan struct{}
}

func (s slow) Lanes(ctx context.Context) ([]ff.LaneStatus, error) {
	s.asked <- struct{}{}
	select {
	case <-s.proceed:
		return s.Backend.Lanes(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestStoppingFinishesRequestsThatRun(t *testing.T) {
	store := slow{storetest.Open(t, sqlite.Options{}), make(chan struct{}), make(chan struct{})}
	s, l := bind(t, store, server.Options{})
	stop := serve(t, s, l)
	results, stopped := make(chan pollResult, 1), make(chan error, 1)
	go poll(t.Context(), "GET", "http://"+l.Addr().String()+"/v1/lanes", "", results)
	<-store.asked
	go func() { stopped <- stop() }()
	for { // until the port is closed
		conn, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	close(store.proceed)
	if r := <-results; r.err != nil || r.status != 200 || r.body != `{"lanes":[]}` {
		t.Errorf("the running request ended with %+v", r)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func TestStoppingCutsRequestsOffAfterTheTimeout(t *testing.T) {
	store := slow{storetest.Open(t, sqlite.Options{}), make(chan struct{}), make(chan struct{})}
	s, l := bind(t, store, server.Options{ShutdownTimeout: 20 * time.Millisecond})
	stop := serve(t, s, l)
	results := make(chan pollResult, 1)
	go poll(t.Context(), "GET", "http://"+l.Addr().String()+"/v1/lanes", "", results)
	<-store.asked
	if err := stop(); ff.CodeOf(err) != ff.CodeTimeout || !strings.Contains(err.Error(), "20ms") {
		t.Errorf("stopping: %v", err)
	}
	if r := <-results; r.err == nil {
		t.Errorf("the request was answered: %+v", r)
	}
}

func TestServeRefusesAnOpenListenerWithoutAToken(t *testing.T) {
	s, err := server.New(storetest.Open(t, sqlite.Options{}), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), l); ff.CodeOf(err) != ff.CodeInvalidInput || !strings.Contains(err.Error(), "no token is set") {
		t.Errorf("got %v", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener was left open: %v", err)
	}
}

func TestAnAddressThatIsTakenIsNamed(t *testing.T) {
	_, l := bind(t, storetest.Open(t, sqlite.Options{}), server.Options{})
	defer l.Close()
	other, err := server.New(storetest.Open(t, sqlite.Options{}), server.Options{Listen: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.ListenAndServe(t.Context()); ff.CodeOf(err) != ff.CodeUnavailable || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

// The whole life of an execution over HTTP, by the remote store.
func TestARemoteWorkerNeedsOnlyTheURL(t *testing.T) {
	base := start(t, storetest.Open(t, sqlite.Options{}), server.Options{Token: "s3cret"})
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
	store := storetest.Open(t, sqlite.Options{})
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

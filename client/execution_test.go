package client_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/worker"
)

func TestResultsAreWaitedForAndDecoded(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	work(t, c, func(w *worker.Worker) {
		worker.Handle(w, "double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
		worker.Handle(w, "raw", func(_ context.Context, in []byte) ([]byte, error) { return bytes.ToUpper(in), nil })
		worker.Handle(w, "bad", func(context.Context, int) (int, error) { return 0, worker.Permanent(errors.New("no such account")) })
		worker.Handle(w, "silent", func(context.Context, int) ([]byte, error) { return nil, nil })
	})
	submit := func(kind string, payload any) ff.ExecutionID {
		t.Helper()
		got, err := c.Submit(ctx, "l", kind, payload)
		if err != nil {
			t.Fatal(err)
		}
		return got.ID
	}
	if n, err := client.ResultOf[int](ctx, c, submit("double", 21)); n != 42 || err != nil {
		t.Errorf("double: %d, %v", n, err)
	}
	if b, err := client.ResultOf[[]byte](ctx, c, submit("raw", []byte("abc"))); string(b) != "ABC" || err != nil {
		t.Errorf("raw: %q, %v", b, err)
	}
	if s, err := client.ResultOf[string](ctx, c, submit("silent", 1)); s != "" || err != nil {
		t.Errorf("silent: %q, %v", s, err)
	}
	if _, err := client.ResultOf[string](ctx, c, submit("double", 1)); ff.CodeOf(err) != ff.CodeInvalidInput {
		t.Errorf("a number as text: %v", err)
	}
	id := submit("bad", 1)
	_, err := client.ResultOf[int](ctx, c, id)
	var unsuccessful *client.UnsuccessfulError
	if !errors.As(err, &unsuccessful) || unsuccessful.Execution.PublicState() != ff.StateFailed || !strings.Contains(err.Error(), "no such account") {
		t.Errorf("bad: %v", err)
	}
	if attempts, err := c.Attempts(ctx, id); err != nil || len(attempts) != 1 {
		t.Errorf("attempts %+v, %v", attempts, err)
	}
}

func TestExecutionsAreSteered(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	got, err := c.Submit(ctx, "l", "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.ChangePriority(ctx, got.ID, 1<<40); err != nil || r.Old != 0 || r.New != ff.MaxPriority {
		t.Errorf("priority %+v, %v", r, err)
	}
	if tags, err := c.SetTags(ctx, got.ID, map[string]string{"a.b": "c"}); err != nil || tags["a.b"] != "c" {
		t.Errorf("tags %v, %v", tags, err)
	}
	if _, err := c.Backend().Claim(ctx, ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}}); err != nil {
		t.Fatal(err)
	}
	if state, err := c.State(ctx, got.ID); err != nil || state != ff.StateActive {
		t.Errorf("state %q, %v", state, err)
	}
	if r, err := c.Revoke(ctx, got.ID, "stuck"); err != nil || r.LeaseEpoch != 1 || r.Already != "" {
		t.Errorf("revoke %+v, %v", r, err)
	}
	if r, err := c.Cancel(ctx, got.ID, "not needed"); err != nil || r.State != ff.StateCancelled {
		t.Errorf("cancel %+v, %v", r, err)
	}
	if _, err := client.ResultOf[int](ctx, c, got.ID); err == nil || !strings.Contains(err.Error(), "cancelled: not needed") {
		t.Errorf("result of a cancelled one: %v", err)
	}
	if _, err := c.Cancel(ctx, got.ID, "again"); !errors.Is(err, ff.ErrExecutionNotActive) {
		t.Errorf("cancel again: %v", err)
	}
	if state, err := c.Replay(ctx, got.ID, "needed after all"); err != nil || state != ff.StateWaiting {
		t.Errorf("replay %q, %v", state, err)
	}
	if _, err := c.Replay(ctx, got.ID, "again"); !errors.Is(err, ff.ErrExecutionNotTerminal) {
		t.Errorf("replay again: %v", err)
	}
	if result, err := c.Result(ctx, got.ID); result != nil || err != nil {
		t.Errorf("result %q, %v", result, err)
	}
}

func TestAnExecutionThatIsNotThereIsNotFound(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	id := ff.NewExecutionID("l", ff.DefaultPartitionConfig)
	for name, read := range map[string]func() error{
		"get":      func() error { _, err := c.Get(ctx, id); return err },
		"state":    func() error { _, err := c.State(ctx, id); return err },
		"result":   func() error { _, err := c.Result(ctx, id); return err },
		"payload":  func() error { _, err := c.Payload(ctx, id); return err },
		"attempts": func() error { _, err := c.Attempts(ctx, id); return err },
		"wait":     func() error { _, err := c.Wait(ctx, id); return err },
		"cancel":   func() error { _, err := c.Cancel(ctx, id, ""); return err },
		"replay":   func() error { _, err := c.Replay(ctx, id, ""); return err },
		"revoke":   func() error { _, err := c.Revoke(ctx, id, ""); return err },
	} {
		if err := read(); !errors.Is(err, ff.ErrExecutionNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWaitEndsWithTheExecutionAlsoAfterAReplay(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	got, err := c.Submit(ctx, "l", "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"once", "twice"} {
		ended := make(chan ff.Execution, 1)
		go func() {
			x, err := c.Wait(ctx, got.ID)
			if err != nil {
				t.Error(err)
			}
			ended <- x
		}()
		if _, err := c.Cancel(ctx, got.ID, end); err != nil {
			t.Fatal(err)
		}
		if x := <-ended; x.CancellationReason != end {
			t.Errorf("waited for %q, got %q", end, x.CancellationReason)
		}
		if _, err := c.Replay(ctx, got.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(short, got.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait beyond the context: %v", err)
	}
}

func TestWaitSurvivesARestartOfTheServer(t *testing.T) {
	store, ctx := storetest.OpenWithEngine(t), within(t, patience)
	polled := make(chan struct{}, 1)
	endpoints := api(t, store, server.Options{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/events" {
			select {
			case polled <- struct{}{}:
			default:
			}
		}
		endpoints.ServeHTTP(w, r)
	})
	address, kill := serve(t, "127.0.0.1:0", handler)
	// Without repeated calls, only the patience of Wait gets over the outage.
	wire := outage{&http.Transport{}, make(chan struct{}, 1)}
	t.Cleanup(wire.CloseIdleConnections)
	c := dial(t, "http://"+address, client.WithRetries(0), client.WithHTTPClient(&http.Client{Transport: wire}))
	got, err := c.Submit(ctx, "l", "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		x, err := c.Wait(ctx, got.ID)
		if err == nil && x.PublicState() != ff.StateCancelled {
			err = errors.New(string(x.PublicState()))
		}
		ended <- err
	}()
	select {
	case <-polled:
	case err := <-ended:
		t.Fatalf("Wait returned before the execution ended: %v", err)
	}
	kill()
	if _, err := store.CancelExecution(ctx, ff.CancelExecution{ID: got.ID}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-wire.met:
	case err := <-ended:
		t.Fatalf("Wait returned during the outage: %v", err)
	}
	serve(t, address, handler)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// outage is a transport that tells when a request has failed.
type outage struct {
	*http.Transport
	met chan struct{}
}

func (o outage) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := o.Transport.RoundTrip(r)
	if err != nil {
		select {
		case o.met <- struct{}{}:
		default:
		}
	}
	return answer, err
}

// serve serves a handler on an address until the end of the test, or until kill
// cuts its connections off.
func serve(t testing.TB, address string, h http.Handler) (bound string, kill func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	kill = sync.OnceFunc(func() {
		_ = s.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving: %v", err)
		}
	})
	t.Cleanup(kill)
	return l.Addr().String(), kill
}

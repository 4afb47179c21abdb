package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
)

func TestAddressesThatCannotBeAreRefused(t *testing.T) {
	for url, says := range map[string]string{
		"": "is not a URL", "localhost:9090": "is not a URL", "ftp://h": "is not a URL", "http://": "is not a URL", "http://h:x": "is not a URL",
		"http://me:secret@h": "WithToken", "http://h/?a=b": "query", "http://h/#f": "fragment",
	} {
		_, err := client.New(url)
		if e, ok := ff.AsError(err); !ok || e.Field != "server" || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestATokenDoesNotLeaveTheMachineUnencrypted(t *testing.T) {
	for url, fine := range map[string]bool{
		"http://127.0.0.1:9090": true, "http://[::1]:9090": true, "http://localhost": true, "https://example.com": true,
		"http://example.com": false, "http://10.0.0.1:9090": false, "http://localhost.example.com": false,
	} {
		_, err := client.New(url, client.WithToken("tok-123"))
		if (err == nil) != fine {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && (strings.Contains(err.Error(), "tok-123") || !strings.Contains(err.Error(), "WithInsecureToken")) {
			t.Errorf("%s: %v", url, err)
		}
		if _, err := client.New(url, client.WithToken("tok-123"), client.WithInsecureToken()); err != nil {
			t.Errorf("%s, allowed on purpose: %v", url, err)
		}
	}
	if _, err := client.New("https://h", client.WithToken("a\nb")); ff.CodeOf(err) != ff.CodeInvalidInput || strings.Contains(err.Error(), "a\nb") {
		t.Errorf("a token with a line break: %v", err)
	}
}

func TestTheTokenOpensTheServer(t *testing.T) {
	url, ctx := listen(t, api(t, storetest.OpenWithEngine(t), server.Options{Token: "right"})), within(t, patience)
	if _, err := dial(t, url, client.WithToken("right")).Lanes(ctx); err != nil {
		t.Error(err)
	}
	for _, options := range [][]client.Option{nil, {client.WithToken("wrong-token")}} {
		_, err := dial(t, url, options...).Lanes(ctx)
		if ff.CodeOf(err) != ff.CodeUnauthorized || strings.Contains(err.Error(), "wrong-token") {
			t.Errorf("%v", err)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var reached atomic.Bool
	elsewhere := listen(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	c := dial(t, listen(t, http.RedirectHandler(elsewhere, http.StatusTemporaryRedirect)), client.WithToken("t"), client.WithHTTPClient(&http.Client{Transport: transport(t)}))
	_, err := c.Lanes(within(t, patience))
	if ff.CodeOf(err) != ff.CodeInvalidInput || !strings.Contains(err.Error(), elsewhere) {
		t.Errorf("%v", err)
	}
	if reached.Load() {
		t.Error("the redirect was followed")
	}
}

// transport is a plain transport that leaves nothing behind.
func transport(t testing.TB) *http.Transport {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// faults is a network that fails: before says whether a request fails before it is
// sent, after whether its answer is lost.
type faults struct {
	http.RoundTripper
	before, after func(*http.Request) error
	sent          atomic.Int32
}

func (f *faults) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.before != nil {
		if err := f.before(r); err != nil {
			return nil, err
		}
	}
	f.sent.Add(1)
	resp, err := f.RoundTripper.RoundTrip(r)
	if err != nil || f.after == nil {
		return resp, err
	}
	if lost := f.after(r); lost != nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return nil, lost
	}
	return resp, nil
}

// firstTo fails the first n requests whose path ends so.
func firstTo(suffix string, n int32, err error) func(*http.Request) error {
	var count atomic.Int32
	return func(r *http.Request) error {
		if strings.HasSuffix(r.URL.Path, suffix) && count.Add(1) <= n {
			return err
		}
		return nil
	}
}

func TestALostAnswerChangesNothingForCommandsThatMayBeRepeated(t *testing.T) {
	ctx, store := within(t, patience), storetest.OpenWithEngine(t)
	url := listen(t, api(t, store, server.Options{}))
	lossy := func(suffix string) *client.Client {
		return dial(t, url, client.WithHTTPClient(&http.Client{Transport: &faults{RoundTripper: transport(t), after: firstTo(suffix, 2, io.ErrUnexpectedEOF)}}))
	}
	got, err := lossy("/create-many").Submit(ctx, "l", "k", nil)
	if err != nil || got.Duplicate {
		t.Fatalf("submit: %+v, %v", got, err)
	}
	keyed, err := lossy("/create-many").Submit(ctx, "l", "k", nil, client.IdempotencyKey("key"))
	if err != nil || keyed.Duplicate {
		t.Fatalf("submit with a key: %+v, %v", keyed, err)
	}
	claimed, err := store.Claim(ctx, ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}, Max: 5})
	if err != nil || len(claimed.Claimed) != 2 {
		t.Fatalf("claimed %d, %v", len(claimed.Claimed), err)
	}
	ref := claimed.Claimed[0].Ref()
	renewed, err := lossy("/renew").Backend().RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: time.Minute})
	if err != nil || renewed.Renewals[0].Err != nil {
		t.Errorf("renew: %+v, %v", renewed, err)
	}
	done, err := lossy("/complete").Backend().CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: ref, Result: []byte("1")})
	if err != nil || done.State != ff.StateCompleted || !done.Repeated {
		t.Errorf("complete: %+v, %v", done, err)
	}
	failed, err := lossy("/fail").Backend().FailExecution(ctx, ff.FailExecution{LeaseRef: claimed.Claimed[1].Ref(), Reason: "r", NoRetry: true})
	if err != nil || failed.State != ff.StateFailed {
		t.Errorf("fail: %+v, %v", failed, err)
	}
	if result, err := lossy("/result").Result(ctx, got.ID); err != nil || string(result) != "1" {
		t.Errorf("result: %q, %v", result, err)
	}
}

func TestALostClaimIsNotRepeated(t *testing.T) {
	ctx, store := within(t, patience), storetest.OpenWithEngine(t)
	network := &faults{RoundTripper: transport(t), after: firstTo("/v1/claims", 1, io.ErrUnexpectedEOF)}
	c := dial(t, listen(t, api(t, store, server.Options{})), client.WithHTTPClient(&http.Client{Transport: network}))
	for range 3 {
		if _, err := c.Submit(ctx, "l", "k", nil); err != nil {
			t.Fatal(err)
		}
	}
	claim := ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}}
	if _, err := c.Backend().Claim(ctx, claim); ff.CodeOf(err) != ff.CodeTransport || !ff.IsRetryable(err) {
		t.Errorf("lost: %v", err)
	}
	lanes, err := c.Lanes(ctx)
	if err != nil || lanes[0].Counts[ff.StateActive] != 1 || lanes[0].Counts[ff.StateWaiting] != 2 {
		t.Errorf("lanes %+v, %v", lanes, err)
	}
	if got, err := c.Backend().Claim(ctx, claim); err != nil || len(got.Claimed) != 1 {
		t.Errorf("%d, %v", len(got.Claimed), err)
	}
}

func TestWhatWasNeverSentIsSentAgain(t *testing.T) {
	ctx := within(t, patience)
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	network := &faults{RoundTripper: transport(t), before: firstTo("/v1/claims", 3, refused)}
	c := connected(t, client.WithHTTPClient(&http.Client{Transport: network}))
	if _, err := c.Backend().Claim(ctx, ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}}); err != nil {
		t.Error(err)
	}
	network.before = firstTo("/v1/lanes", 100, refused)
	_, err := c.Lanes(ctx)
	if ff.CodeOf(err) != ff.CodeTransport || !strings.Contains(err.Error(), "flowfabric serve") {
		t.Errorf("for ever: %v", err)
	}
}

func TestARefusalIsNotRepeated(t *testing.T) {
	ctx, network := within(t, patience), &faults{RoundTripper: transport(t)}
	c := connected(t, client.WithHTTPClient(&http.Client{Transport: network}))
	_, err := c.Get(ctx, ff.NewExecutionID("l", ff.DefaultPartitionConfig))
	if !errors.Is(err, ff.ErrExecutionNotFound) || network.sent.Load() != 1 {
		t.Errorf("%d requests, %v", network.sent.Load(), err)
	}
}

func TestABusyServerIsAskedAgainAndItsHintIsKept(t *testing.T) {
	var asked atomic.Int32
	url := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"error":"too many concurrent x calls (server max: 1); retry with backoff","kind":"resource_exhausted","retryable":true}`)
	}))
	_, err := dial(t, url, client.WithRetries(2)).Lanes(within(t, patience))
	e, ok := ff.AsError(err)
	if !ok || e.Code != ff.CodeResourceExhausted || e.RetryAfter != 7*time.Second || asked.Load() != 3 {
		t.Errorf("asked %d times, %+v", asked.Load(), e)
	}
}

func TestAServerThatDoesNotAnswerIsATimeout(t *testing.T) {
	url := listen(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	_, err := dial(t, url, client.WithTimeout(30*time.Millisecond)).Lanes(within(t, patience))
	if ff.CodeOf(err) != ff.CodeTimeout || !ff.IsRetryable(err) {
		t.Errorf("our own limit: %v", err)
	}
	_, err = dial(t, url).Lanes(within(t, 30*time.Millisecond))
	if !errors.Is(err, context.DeadlineExceeded) || ff.IsRetryable(err) {
		t.Errorf("the caller's limit: %v", err)
	}
}

func TestOtherServersAreRecognised(t *testing.T) {
	ctx := within(t, patience)
	for body, want := range map[string]ff.Code{"<html>hello</html>": ff.CodeUnsupportedStore, `{"lanes":7}`: ff.CodeUnsupportedStore} {
		url := listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		if _, err := dial(t, url, client.WithRetries(0)).Lanes(ctx); ff.CodeOf(err) != want {
			t.Errorf("%s: %v", body, err)
		}
	}
	for status, want := range map[int]ff.Code{502: ff.CodeUnavailable, 404: ff.CodeUnsupportedStore, 405: ff.CodeUnsupportedStore, 413: ff.CodePayloadTooLarge} {
		url := listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html>proxy</html>")
		}))
		if _, err := dial(t, url, client.WithRetries(0)).Lanes(ctx); ff.CodeOf(err) != want || !strings.Contains(err.Error(), "proxy") {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestClosingEndsWhatWaits(t *testing.T) {
	c, ctx := connected(t), within(t, patience)
	ended := make(chan error, 1)
	if _, err := c.Lanes(ctx); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := c.Backend().Claim(ctx, ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}, Wait: time.Minute})
		ended <- err
	}()
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ff.ErrUnavailable) {
		t.Errorf("the claim: %v", err)
	}
	if _, err := c.Lanes(ctx); !errors.Is(err, ff.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	var opened atomic.Int32
	hs := httptest.NewUnstartedServer(api(t, storetest.OpenWithEngine(t), server.Options{}))
	hs.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	hs.Start()
	defer hs.Close()
	c, ctx := dial(t, hs.URL), within(t, patience)
	for range 20 {
		got, err := c.Submit(ctx, "l", "k", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Result(ctx, got.ID)
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for calls one after the other", n)
	}
}

func TestAPathBeforeTheAPIIsKept(t *testing.T) {
	h := api(t, storetest.OpenWithEngine(t), server.Options{})
	c, ctx := dial(t, listen(t, http.StripPrefix("/flow fabric", h))+"/flow%20fabric/"), within(t, patience)
	got, err := c.Submit(ctx, "l", "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, got.ID); err != nil {
		t.Error(err)
	}
}

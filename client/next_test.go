package client_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
)

// filled submits n executions and claims the first.
func filled(t *testing.T, store ff.Backend, n int) ff.Claimed {
	t.Helper()
	for range n {
		if _, err := store.CreateExecution(t.Context(), ff.CreateExecution{Lane: "l", Kind: "k"}); err != nil {
			t.Fatal(err)
		}
	}
	return claimedOne(t, store)
}

func claimedOne(t *testing.T, store ff.Backend) ff.Claimed {
	t.Helper()
	r, err := store.Claim(t.Context(), ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}})
	if err != nil || len(r.Claimed) != 1 {
		t.Fatalf("claimed %+v, %v", r, err)
	}
	return r.Claimed[0]
}

func counts(t *testing.T, store ff.Backend) map[ff.PublicState]int {
	t.Helper()
	lanes, err := store.Lanes(t.Context())
	if err != nil || len(lanes) != 1 {
		t.Fatalf("lanes %+v, %v", lanes, err)
	}
	return lanes[0].Counts
}

// older is a server from before completions could claim: to it next is a field like
// any other that it does not know.
func older(h http.Handler, asked *atomic.Int32) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte(`"next":`)) {
			asked.Add(1)
		}
		r.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte(`"next":`), []byte(`"hext":`), 1)))
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(bytes.ReplaceAll(answer.Body.Bytes(), []byte("hext"), []byte("next")))
	})
}

func TestAnOlderServerCompletesWithoutClaiming(t *testing.T) {
	ctx, store := within(t, patience), storetest.OpenWithEngine(t)
	var asked atomic.Int32
	b := dial(t, listen(t, older(api(t, store, server.Options{}), &asked))).Backend()
	held := filled(t, store, 3)
	for i := range 2 {
		r, err := b.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: held.Ref(), Next: &ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}}})
		if err != nil || r.State != ff.StateCompleted || len(r.Next.Claimed) != 0 || !r.Next.Now.IsZero() {
			t.Fatalf("completion %d: %+v, %v", i, r, err)
		}
		held = claimedOne(t, store)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the server was asked %d times for what it does not know, want once", n)
	}
}

func TestACompletionThatHasToBeRepeatedClaimsNoMore(t *testing.T) {
	for name, network := range map[string]*faults{
		"its answer is lost": {after: firstTo("/complete", 2, io.ErrUnexpectedEOF)},
		"it is not sent":     {before: firstTo("/complete", 2, io.ErrUnexpectedEOF)},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			ctx, store := within(t, patience), storetest.OpenWithEngine(t)
			network.RoundTripper = transport(t)
			b := dial(t, listen(t, api(t, store, server.Options{})), client.WithHTTPClient(&http.Client{Transport: network})).Backend()
			held := filled(t, store, 6)
			r, err := b.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: held.Ref(), Next: &ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}}})
			if err != nil || r.State != ff.StateCompleted || len(r.Next.Claimed) != 0 {
				t.Errorf("completed %+v, %v", r, err)
			}
			// What the first call claimed, if it arrived, and nothing more.
			if got := counts(t, store); got[ff.StateActive] > 1 || got[ff.StateCompleted] != 1 {
				t.Errorf("counts %v", got)
			}
		})
	}
}

func TestACompletionWithoutRetriesIsSentOnce(t *testing.T) {
	ctx, store := within(t, patience), storetest.OpenWithEngine(t)
	network := &faults{RoundTripper: transport(t), after: firstTo("/complete", 1, io.ErrUnexpectedEOF)}
	b := dial(t, listen(t, api(t, store, server.Options{})), client.WithRetries(0), client.WithHTTPClient(&http.Client{Transport: network})).Backend()
	held := filled(t, store, 2)
	_, err := b.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: held.Ref(), Next: &ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}}})
	if ff.CodeOf(err) != ff.CodeTransport || network.sent.Load() != 1 {
		t.Errorf("%d calls, %v", network.sent.Load(), err)
	}
}

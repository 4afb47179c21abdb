package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

// holder submits an execution and claims it.
func holder(t testing.TB, b ff.Backend) ff.LeaseRef {
	t.Helper()
	created, err := b.CreateExecution(t.Context(), ff.CreateExecution{Lane: "l", Kind: "job"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Claim(t.Context(), ff.Claim{Claimant: someone("i"), Lanes: []ff.LaneID{"l"}, LeaseTTL: time.Hour})
	if err != nil || len(got.Claimed) != 1 || got.Claimed[0].Execution.ID != created.ID {
		t.Fatal(got, err)
	}
	return got.Claimed[0].Ref()
}

func TestPayloadsArriveAsTheyWereWritten(t *testing.T) {
	b := connected(t).Backend()
	ref := holder(t, b)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	c := ff.AppendFrames{LeaseRef: ref}
	for _, p := range []string{"", "text", "\x00\n\t\"\\", "<b>&amp;</b>", "ü€\u2028\U0001F600", string(all), strings.Repeat("\x01", ff.MaxFramePayloadBytes), strings.Repeat("<", ff.MaxFramePayloadBytes)} {
		c.Frames = append(c.Frames, ff.NewFrame{Payload: []byte(p), Type: "t<", CorrelationID: "c", Source: "s", Encoding: "e", Mode: ff.FrameBestEffort,
			TTL: time.Minute, At: time.UnixMilli(1795476796123).UTC()})
	}
	appended, err := b.AppendFrames(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.ReadFrames(t.Context(), ff.ReadFrames{StreamRef: ff.StreamRef{ID: ref.ID}})
	if err != nil || len(got.Frames) != len(c.Frames) {
		t.Fatal(len(got.Frames), err)
	}
	for i, f := range got.Frames {
		w := c.Frames[i]
		if f.ID != appended.IDs[i] || !bytes.Equal(f.Payload, w.Payload) || f.Type != w.Type || f.CorrelationID != "c" || f.Source != "s" || f.Encoding != "e" ||
			f.Mode != w.Mode || f.TTL != time.Minute || !f.At.Equal(w.At) {
			t.Errorf("frame %d: %.100q is read as %.100q, %+v", i, w.Payload, f.Payload, f)
		}
	}
}

// The largest append that there may be fits into a request, whatever its bytes are.
func TestTheLargestAppendIsTaken(t *testing.T) {
	b := connected(t).Backend()
	for _, fill := range []string{"x", "\x01", "\xff", "\u2028"} {
		c := ff.AppendFrames{LeaseRef: holder(t, b)}
		one := []byte(strings.Repeat(fill, ff.MaxFramePayloadBytes/len(fill)))
		for range ff.MaxAppendBytes / ff.MaxFramePayloadBytes {
			c.Frames = append(c.Frames, ff.NewFrame{Payload: one})
		}
		if _, err := b.AppendFrames(t.Context(), c); err != nil {
			t.Errorf("%q: %v", fill, err)
		}
	}
}

func TestPagesAreAsLargeAsOnAStore(t *testing.T) {
	b := connected(t).Backend()
	ref := holder(t, b)
	const n = 2500
	for i := 0; i < n; i += 500 {
		c := ff.AppendFrames{LeaseRef: ref}
		for k := range 500 {
			c.Frames = append(c.Frames, ff.NewFrame{Payload: []byte(fmt.Sprint(i + k))})
		}
		if _, err := b.AppendFrames(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	stream := ff.StreamRef{ID: ref.ID}
	for limit, want := range map[int]int{0: 100, 1000: 1000, 1500: 1500, 2500: 2500, 5000: n, ff.MaxFrameLimit: n} {
		read, err := b.ReadFrames(t.Context(), ff.ReadFrames{StreamRef: stream, Limit: limit})
		if err != nil || len(read.Frames) != want || read.Last != read.Frames[want-1].ID || read.More != (limit <= n) {
			t.Errorf("limit %d: %d frames, more %v, %v", limit, len(read.Frames), read.More, err)
		}
		tailed, err := b.TailFrames(t.Context(), ff.TailFrames{StreamRef: stream, Limit: limit, Wait: time.Minute / 2})
		if err != nil || len(tailed.Frames) != want || tailed.Last != tailed.Frames[want-1].ID {
			t.Errorf("tail of limit %d: %d frames, %v", limit, len(tailed.Frames), err)
		}
	}
}

func TestAnAppendWhoseAnswerIsLostIsNotRepeated(t *testing.T) {
	lost := &faults{RoundTripper: transport(t), after: firstTo("/frames", 1, errors.New("lost"))}
	url := listen(t, api(t, storetest.OpenWithEngine(t), server.Options{}))
	b := dial(t, url, client.WithHTTPClient(&http.Client{Transport: lost})).Backend()
	ref := holder(t, b)
	_, err := b.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: ref, Frames: []ff.NewFrame{{Payload: []byte("once")}}})
	if ff.CodeOf(err) != ff.CodeTransport {
		t.Errorf("got %v", err)
	}
	if got, err := b.ReadFrames(t.Context(), ff.ReadFrames{StreamRef: ff.StreamRef{ID: ref.ID}}); err != nil || len(got.Frames) != 1 {
		t.Errorf("%d frames, %v", len(got.Frames), err)
	}
}

func TestFollowGoesOnWithTheAttemptsThatFollow(t *testing.T) {
	c := connected(t)
	policy := ff.DefaultExecutionPolicy()
	policy.Retry = ff.FixedRetry(2, time.Millisecond)
	submitted, err := c.Backend().CreateExecution(t.Context(), ff.CreateExecution{Lane: "l", Kind: "job", Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string)
	go func() {
		defer close(seen)
		for o, err := range c.Follow(within(t, patience), ff.TailFrames{StreamRef: ff.StreamRef{ID: submitted.ID}}) {
			if err != nil {
				t.Error(err)
				return
			}
			seen <- fmt.Sprintf("%d %s", o.AttemptIndex, o.Payload)
		}
	}()
	step := make(chan struct{})
	work(t, c, func(w *worker.Worker) {
		w.HandleTask("job", func(ctx context.Context, task *worker.Task) ([]byte, error) {
			out := task.Stream().Writer(ff.NewFrame{Type: "stdout"})
			for _, word := range []string{"begins", "ends"} {
				fmt.Fprint(out, word)
				select { // the word has arrived before the next is written
				case <-step:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			if task.Attempt().Index < 2 {
				return nil, errors.New("once more")
			}
			return nil, nil
		})
	})
	var all []string
	for line := range seen {
		all = append(all, line)
		step <- struct{}{}
	}
	if want := []string{"0 begins", "0 ends", "1 begins", "1 ends", "2 begins", "2 ends"}; !slices.Equal(all, want) {
		t.Errorf("followed %q", all)
	}
}

func TestTailEndsWithItsAttemptAndSurvivesAnAbsentServer(t *testing.T) {
	var away atomic.Bool
	h := api(t, storetest.Open(t, sqlite.Options{}), server.Options{})
	url := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() && strings.HasSuffix(r.URL.Path, "/tail") {
			away.Store(false)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	}))
	c := dial(t, url, client.WithRetries(0))
	ref := holder(t, c.Backend())
	say := func(word string) {
		if _, err := c.Backend().AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: ref, Frames: []ff.NewFrame{{Payload: []byte(word)}}}); err != nil {
			t.Fatal(err)
		}
	}
	say("one")
	var all []string
	for f, err := range c.Tail(within(t, patience), ff.TailFrames{StreamRef: ff.StreamRef{ID: ref.ID}}) {
		if err != nil {
			t.Fatal(err)
		}
		switch all = append(all, string(f.Payload)); string(f.Payload) {
		case "one":
			away.Store(true)
			say("two")
		case "two":
			if _, err := c.Backend().CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: ref}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.Equal(all, []string{"one", "two"}) || away.Load() {
		t.Errorf("tailed %q, away %v", all, away.Load())
	}
}

func TestNobodyFollowsAnExecutionThatIsNotThere(t *testing.T) {
	c := connected(t)
	q := ff.TailFrames{StreamRef: ff.StreamRef{ID: ff.NewExecutionID("l", ff.DefaultPartitionConfig)}}
	for _, err := range c.Follow(within(t, patience), q) {
		if !errors.Is(err, ff.ErrExecutionNotFound) {
			t.Errorf("follow: %v", err)
		}
	}
	for _, err := range c.Tail(within(t, patience), q) {
		if !errors.Is(err, ff.ErrExecutionNotFound) {
			t.Errorf("tail: %v", err)
		}
	}
}

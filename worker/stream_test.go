package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/worker"
)

// appends is a store whose appends can go wrong as a test wants it.
type appends struct {
	ff.Backend
	calls  atomic.Int32
	before func(ctx context.Context, call int32, c *ff.AppendFrames) error
}

func (a *appends) AppendFrames(ctx context.Context, c ff.AppendFrames) (ff.AppendFramesResult, error) {
	n := a.calls.Add(1)
	if a.before != nil {
		if err := a.before(ctx, n, &c); err != nil {
			return ff.AppendFramesResult{}, err
		}
	}
	return a.Backend.AppendFrames(ctx, c)
}

// claimed is a task to write from, held until the test ends.
func claimed(t testing.TB, b ff.Backend) *worker.Task {
	t.Helper()
	w := connect(t, b, func(c *worker.Config) { c.DrainTimeout = time.Millisecond })
	t.Cleanup(func() {
		if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	submit(t, b, ff.CreateExecution{Kind: "job"})
	task, err := w.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// output is everything in the stream of an attempt.
func output(t testing.TB, b ff.Backend, id ff.ExecutionID, attempt int) (frames []ff.Frame) {
	t.Helper()
	page, err := b.ReadFrames(t.Context(), ff.ReadFrames{StreamRef: ff.StreamRef{ID: id, AttemptIndex: attempt}, Limit: ff.MaxFrameLimit})
	if err != nil {
		t.Fatal(err)
	}
	return page.Frames
}

func payloads(frames []ff.Frame) (texts []string) {
	for _, f := range frames {
		texts = append(texts, string(f.Payload))
	}
	return texts
}

func text(s string) ff.NewFrame { return ff.NewFrame{Type: "text", Payload: []byte(s)} }

func TestManyFramesAreSentInFewCallsAndInOrder(t *testing.T) {
	b := &appends{Backend: storetest.OpenWithEngine(t)}
	task := claimed(t, b)
	const n = 5000
	for i := range n {
		if err := task.Stream().Append(t.Context(), text(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := task.Stream().Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, f := range output(t, b, task.ID(), 0) {
		if string(f.Payload) != fmt.Sprint(i) || f.Type != "text" || f.At.IsZero() {
			t.Fatalf("frame %d is %+v", i, f)
		}
	}
	if calls := b.calls.Load(); calls > n/20 {
		t.Errorf("%d frames were sent in %d calls", n, calls)
	}
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestFramesOfOneAppendStayTogether(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	task := claimed(t, b)
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			for range 50 {
				if err := task.Stream().Append(t.Context(), text(fmt.Sprint(i)), text(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	got := payloads(output(t, b, task.ID(), 0))
	if len(got) != 800 {
		t.Fatalf("%d frames", len(got))
	}
	for pair := range slices.Chunk(got, 2) {
		if pair[0] != pair[1] {
			t.Fatalf("%q", got)
		}
	}
}

func TestWhatWasWrittenIsStoredBeforeTheTaskEnds(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	for name, end := range map[string]func(*worker.Task) error{
		"complete": func(t *worker.Task) error { return t.Complete(t.Context(), nil) },
		"fail":     func(t *worker.Task) error { _, err := t.Fail(t.Context(), worker.Failure{Reason: "x"}); return err },
		"cancel":   func(t *worker.Task) error { return t.Cancel(t.Context(), "x") },
		"delay":    func(t *worker.Task) error { return t.Delay(t.Context(), time.Hour) },
		"suspend": func(t *worker.Task) error {
			_, err := t.Suspend(t.Context(), worker.WaitForOperator())
			return err
		},
		"release": func(t *worker.Task) error { return t.Release(t.Context(), "x") },
	} {
		t.Run(name, func(t *testing.T) {
			task := claimed(t, b)
			if err := task.Stream().Append(t.Context(), text("last words")); err != nil {
				t.Fatal(err)
			}
			if err := end(task); err != nil {
				t.Fatal(err)
			}
			if got := payloads(output(t, b, task.ID(), 0)); !slices.Equal(got, []string{"last words"}) {
				t.Errorf("stored is %q", got)
			}
			if err := task.Stream().Append(t.Context(), text("too late")); !errors.Is(err, worker.ErrEnded) {
				t.Errorf("an append after the end: %v", err)
			}
			x, err := b.Execution(t.Context(), task.ID())
			if err == nil && !x.Terminal() {
				_, err = b.CancelExecution(t.Context(), ff.CancelExecution{ID: task.ID()})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAttemptsThatFollowHaveOutputsOfTheirOwn(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, nil)
	w.HandleTask("job", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		_, err := fmt.Fprint(task.Stream().Writer(ff.NewFrame{}), "attempt ", task.Attempt().Index)
		if task.Attempt().Index == 0 {
			err = errors.Join(err, errors.New("once more"))
		}
		return nil, err
	})
	run(t, w)
	id := submit(t, b, ff.CreateExecution{Kind: "job", Policy: retries(1, 0)})
	waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
	for i := range 2 {
		if got := payloads(output(t, b, id, i)); !slices.Equal(got, []string{fmt.Sprint("attempt ", i)}) {
			t.Errorf("output of attempt %d: %q", i, got)
		}
	}
}

func TestLongWritesAreCutBetweenCharacters(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	task := claimed(t, b)
	long := "x" + strings.Repeat("€", ff.MaxFramePayloadBytes/2)
	binary := bytes.Repeat([]byte{0x80}, ff.MaxFramePayloadBytes+1)
	out := task.Stream().Writer(ff.NewFrame{Type: "stdout", CorrelationID: "c"})
	for _, p := range [][]byte{[]byte(long), binary, nil} {
		if n, err := out.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	frames := output(t, b, task.ID(), 0)
	if len(frames) != 4 || string(frames[0].Payload)+string(frames[1].Payload) != long || !strings.HasPrefix(string(frames[1].Payload), "€") ||
		string(frames[2].Payload)+string(frames[3].Payload) != string(binary) || frames[3].Type != "stdout" || frames[3].CorrelationID != "c" {
		t.Errorf("%d frames", len(frames))
	}
}

func TestRecordsOfALoggerBecomeFrames(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	task := claimed(t, b)
	log := slog.New(task.Stream().Handler(&slog.HandlerOptions{Level: slog.LevelInfo}))
	log.Debug("quiet")
	log.With("file", "a.png").Info("converted", "bytes", 5)
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	frames := output(t, b, task.ID(), 0)
	var record map[string]any
	if len(frames) != 1 || frames[0].Type != "log" || json.Unmarshal(frames[0].Payload, &record) != nil ||
		record["msg"] != "converted" || record["file"] != "a.png" || record["bytes"] != 5.0 {
		t.Errorf("frames %+v", frames)
	}
}

func TestPatchesMakeASummary(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	task := claimed(t, b)
	s := task.Stream()
	for _, patch := range []any{map[string]any{"step": "load", "rows": 1}, json.RawMessage(`{"rows":2}`), []byte(`{"step":null}`), struct {
		Done bool `json:"done"`
	}{true}} {
		if err := s.Patch(t.Context(), patch); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []any{5, "text", []int{1}, nil, make(chan int)} {
		if err := s.Patch(t.Context(), bad); ff.CodeOf(err) != ff.CodeInvalidInput {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	got, err := b.Summary(t.Context(), ff.StreamRef{ID: task.ID()})
	var document map[string]any
	if err != nil || got.Version != 4 || json.Unmarshal(got.Document, &document) != nil || len(document) != 2 || document["rows"] != 2.0 || document["done"] != true {
		t.Errorf("summary %s, version %d, %v", got.Document, got.Version, err)
	}
}

func TestARefusedFrameDoesNotTakeOthersWithIt(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	task := claimed(t, b)
	deep := strings.Repeat(`{"a":`, ff.MaxSummaryDepth+2) + "1" + strings.Repeat("}", ff.MaxSummaryDepth+2)
	if err := task.Stream().Append(t.Context(), text("one"), ff.NewFrame{Mode: ff.FrameSummary, Payload: []byte(deep)}, text("two")); err != nil {
		t.Fatal(err)
	}
	if err := task.Stream().Flush(t.Context()); ff.CodeOf(err) != ff.CodeInvalidInput {
		t.Errorf("flushing a refused frame: %v", err)
	}
	if err := task.Stream().Append(t.Context(), text("three")); err != nil {
		t.Errorf("an error is told twice: %v", err)
	}
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := payloads(output(t, b, task.ID(), 0)); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("stored is %q", got)
	}
}

func TestFramesThatCannotBeAreRefusedAtOnce(t *testing.T) {
	b := &appends{Backend: storetest.OpenWithEngine(t)}
	task := claimed(t, b)
	s := task.Stream()
	for _, c := range []struct {
		frames []ff.NewFrame
		code   ff.Code
	}{
		{nil, ff.CodeInvalidInput},
		{make([]ff.NewFrame, ff.MaxBatch+1), ff.CodeInvalidInput},
		{[]ff.NewFrame{text("fine"), {Mode: "often"}}, ff.CodeInvalidInput},
		{[]ff.NewFrame{{Payload: make([]byte, ff.MaxFramePayloadBytes+1)}}, ff.CodePayloadTooLarge},
	} {
		if err := s.Append(t.Context(), c.frames...); ff.CodeOf(err) != c.code {
			t.Errorf("%d frames: %v", len(c.frames), err)
		}
	}
	if err := task.Complete(t.Context(), nil); err != nil || b.calls.Load() != 0 {
		t.Errorf("%d calls, %v", b.calls.Load(), err)
	}
}

func TestFramesAreSentAgainWhileTheStoreIsAway(t *testing.T) {
	b := &appends{Backend: storetest.OpenWithEngine(t), before: func(_ context.Context, n int32, _ *ff.AppendFrames) error {
		if n <= 3 {
			return ff.NewError(ff.CodeUnavailable, "on purpose")
		}
		return nil
	}}
	task := claimed(t, b)
	if err := task.Stream().Append(t.Context(), text("one"), text("two")); err != nil {
		t.Fatal(err)
	}
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := payloads(output(t, b, task.ID(), 0)); !slices.Equal(got, []string{"one", "two"}) || b.calls.Load() != 4 {
		t.Errorf("stored is %q after %d calls", got, b.calls.Load())
	}
}

func TestOutputThatIsLostDoesNotKeepATaskFromCompleting(t *testing.T) {
	b := &appends{Backend: storetest.OpenWithEngine(t), before: func(context.Context, int32, *ff.AppendFrames) error { return errors.New("broken") }}
	var log bytes.Buffer
	w := connect(t, b, func(c *worker.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	w.HandleTask("job", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		return []byte("done"), task.Stream().Append(ctx, text("lost"))
	})
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	if ran, err := w.RunOne(t.Context()); !ran || err != nil {
		t.Fatal(ran, err)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x, err := b.Execution(t.Context(), id); err != nil || x.PublicState() != ff.StateCompleted || !strings.Contains(log.String(), "output was lost") {
		t.Errorf("%s, %v; log: %s", x.PublicState(), err, log.String())
	}
}

// A store that hangs makes writers wait once there is much to send, and no sooner.
func TestWritersWaitWhileMuchIsWaiting(t *testing.T) {
	proceed := make(chan struct{})
	b := &appends{Backend: storetest.OpenWithEngine(t), before: func(ctx context.Context, _ int32, _ *ff.AppendFrames) error {
		select {
		case <-proceed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	task := claimed(t, b)
	const most = 10_000
	appended, blocked := 0, errors.New("blocked")
	for appended < most {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, blocked)
		err := task.Stream().Append(ctx, text(fmt.Sprint(appended)))
		cancel()
		if errors.Is(err, blocked) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		appended++
	}
	if appended < 1000 || appended == most {
		t.Errorf("%d frames were written while none was sent", appended)
	}
	close(proceed)
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := output(t, b, task.ID(), 0); len(got) != appended {
		t.Errorf("%d of %d frames are stored", len(got), appended)
	}
}

func TestOutputUnderALostLeaseEndsTheTask(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	for name, take := range map[string]func(ff.ExecutionID) error{
		"stale_lease": func(id ff.ExecutionID) error {
			_, err := b.RevokeLease(t.Context(), ff.RevokeLease{ID: id})
			return err
		},
		"execution_not_active": func(id ff.ExecutionID) error {
			_, err := b.CancelExecution(t.Context(), ff.CancelExecution{ID: id})
			return err
		},
	} {
		task := claimed(t, b)
		if err := take(task.ID()); err != nil {
			t.Fatal(err)
		}
		if err := task.Stream().Append(t.Context(), text("too late")); err != nil {
			t.Fatal(err)
		}
		if err := task.Stream().Flush(t.Context()); err == nil {
			t.Errorf("%s: the frame was stored", name)
		}
		receive(t, task.Context().Done(), "the end of the task")
		if cause := context.Cause(task.Context()); string(ff.CodeOf(cause)) != name {
			t.Errorf("%s: the cause is %v", name, cause)
		}
		if err := task.Stream().Append(t.Context(), text("again")); string(ff.CodeOf(err)) != name {
			t.Errorf("%s: a further append: %v", name, err)
		}
		if _, err := b.CancelExecution(t.Context(), ff.CancelExecution{ID: task.ID()}); err != nil && !errors.Is(err, ff.ErrExecutionNotActive) {
			t.Error(err)
		}
	}
}

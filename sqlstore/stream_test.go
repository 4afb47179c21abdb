package sqlstore_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

func appendSome(t *testing.T, s *sqlite.Store, x ff.Claimed, n int, f ff.NewFrame) {
	t.Helper()
	frames := make([]ff.NewFrame, n)
	for i := range frames {
		frames[i] = f
	}
	must[ff.AppendFramesResult](t)(s.AppendFrames(ctx, ff.AppendFrames{LeaseRef: x.Ref(), Frames: frames}))
}

// rows counts the rows of a table.
func rows(t *testing.T, s *sqlite.Store, table string) string {
	t.Helper()
	return must[[]string](t)(s.Rows(ctx, "select count(*) from "+table, 0))[0]
}

func TestLongStreamsAreDeletedInPieces(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now, Retention: time.Hour})
	policy := ff.DefaultExecutionPolicy()
	policy.Retry = ff.FixedRetry(1, 0)
	must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Policy: policy}))
	for range 2 {
		x := claim(t, s, "main")
		for range 8 {
			appendSome(t, s, x, 1000, ff.NewFrame{})
		}
		must[ff.FailExecutionResult](t)(s.FailExecution(ctx, ff.FailExecution{LeaseRef: x.Ref()}))
	}
	c.add(time.Hour)
	for _, want := range []string{"11000", "6000", "1000", "0"} {
		r := must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
		if got := rows(t, s, "frames"); got != want || r.Processed != 1 || r.More != (want != "0") {
			t.Errorf("%s frames are left, want %s; %+v", got, want, r)
		}
	}
	for _, table := range []string{"executions", "streams", "frames", "attempts"} {
		if got := rows(t, s, table); got != "0" {
			t.Errorf("%s has %s rows left", table, got)
		}
	}
}

func TestFramesOfManyExecutionsThatEndTogetherAreDeletedInPieces(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now, Retention: time.Hour})
	for range 7 {
		submit(t, s, "main", "k")
		x := claim(t, s, "main")
		appendSome(t, s, x, 1000, ff.NewFrame{})
		must[ff.CompleteExecutionResult](t)(s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: x.Ref()}))
	}
	c.add(time.Hour)
	r := must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
	if left := rows(t, s, "frames"); left != "2000" || !r.More {
		t.Errorf("%s frames are left, %+v", left, r)
	}
	r = must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
	if left := rows(t, s, "executions"); left != "0" || r.More {
		t.Errorf("%s executions are left, %+v", left, r)
	}
}

func TestTheTrimmerDeletesStreamsThatHaveExpired(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	for i := range 120 {
		lane := ff.LaneID(fmt.Sprint("lane ", i))
		submit(t, s, lane, "k")
		appendSome(t, s, claim(t, s, lane), 2, ff.NewFrame{Mode: ff.FrameBestEffort})
	}
	c.add(2 * ff.DefaultFrameTTL)
	if r := must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention})); r.More {
		t.Error("there is more before its time")
	}
	if left := rows(t, s, "frames"); left != "240" {
		t.Errorf("%s frames are left before their time", left)
	}
	c.add(time.Millisecond)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
	if left := rows(t, s, "frames"); left != "0" {
		t.Errorf("%s frames are left", left)
	}
	if left := rows(t, s, "streams"); left != "120" {
		t.Errorf("%s counters are left, want all", left)
	}
}

func TestASmallFrameTakesFewBytes(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	submit(t, s, "main", "k")
	x := claim(t, s, "main")
	size := func() (pages int) {
		t.Helper()
		_, err := fmt.Sscan(must[[]string](t)(s.Rows(ctx, "select page_count * 4096 from pragma_page_count", 0))[0], &pages)
		if err != nil {
			t.Fatal(err)
		}
		return pages
	}
	before := size()
	const n, payload = 8000, 20
	for range n / 1000 {
		appendSome(t, s, x, 1000, ff.NewFrame{Payload: bytes.Repeat([]byte("x"), payload)})
	}
	if per := (size() - before) / n; per > payload+40 {
		t.Errorf("a frame of %d bytes takes %d", payload, per)
	}
}

func TestPeopleSeeFramesInAView(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	id := submit(t, s, "main", "k")
	appendSome(t, s, claim(t, s, "main"), 1, ff.NewFrame{Type: "stdout", Payload: []byte("hello"), Mode: ff.FrameBestEffort})
	got := must[[]string](t)(s.Rows(ctx, "select execution_id || ' ' || mode || ' ' || type || ' ' || source || ' ' || bytes from frames_view", 0))
	if want := id.String() + " best_effort stdout worker 5"; got[0] != want {
		t.Errorf("frames_view shows %q, want %q", got, want)
	}
}

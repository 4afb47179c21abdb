package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/bench"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/httpapi"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// Lines of a command reach who follows it while it runs.
func TestTheOutputOfACommandIsFollowedWhileItRuns(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	_, base := serve(t, filepath.Join(dir, "ff.db"), "127.0.0.1:0")
	on := func(args ...string) []string { return append(args, "--server", base) }
	id := strings.TrimSpace(ok(t, on("submit", "build")...))
	launch(t, nil, on("worker", "run", "--stream", "--exec", "echo begun; mkfifo "+gate+"; read line <"+gate+"; echo \"$line\" >&2")...)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	follow := exec.CommandContext(ctx, binary, on("stream", "tail", "-f", id)...)
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{`  stdout  begun$`, `  stderr  open sesame$`} {
		if !lines.Scan() || !regexp.MustCompile(`^\d{4}-\d\d-\d\d .*Z`+want).MatchString(lines.Text()) {
			t.Fatalf("followed %q, want %q", lines.Text(), want)
		}
		if strings.Contains(want, "begun") {
			eventually(t, "the command waits", func() bool {
				return exec.CommandContext(ctx, "sh", "-c", "test -p "+gate+" && echo open sesame >"+gate).Run() == nil
			})
		}
	}
	if lines.Scan() {
		t.Errorf("something follows: %q", lines.Text())
	}
	if err := follow.Wait(); err != nil {
		t.Error(err)
	}
	if got := ok(t, on("result", id)...); strings.TrimSpace(got) != "begun" {
		t.Errorf("result %q", got)
	}
}

// attempt is a store with an attempt that has written frames and a summary.
func attempt(t *testing.T) (store, id string, ids []ff.FrameID) {
	t.Helper()
	store = filepath.Join(t.TempDir(), "ff.db")
	s, err := sqlite.Open(t.Context(), store, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	created, err := s.CreateExecution(t.Context(), ff.CreateExecution{Lane: "default", Kind: "job"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"default"}})
	if err != nil || len(got.Claimed) != 1 {
		t.Fatal(got, err)
	}
	r, err := s.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: got.Claimed[0].Ref(), Frames: []ff.NewFrame{
		{Type: "log", Payload: []byte("one\n")}, {Type: "log", Payload: []byte("two\x1b[31m")}, {Type: "log", Payload: []byte("live"), Mode: ff.FrameBestEffort},
		{Mode: ff.FrameSummary, Payload: []byte(`{"rows":2}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: got.Claimed[0].Ref()}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + store, created.ID.String(), r.IDs
}

// A tail outlives its server, and says how to go on when it gives up.
func TestATailGoesOnWhenItsServerIsBack(t *testing.T) {
	db := filepath.Join(t.TempDir(), "ff.db")
	first, base := serve(t, db, "127.0.0.1:0")
	address := strings.TrimPrefix(base, "http://")
	c, err := client.New(base)
	if err != nil {
		t.Fatal(err)
	}
	store := c.Backend()
	id := strings.TrimSpace(ok(t, "submit", "answer", "--server", base))
	got, err := store.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "w-1"}, Lanes: []ff.LaneID{"default"}, LeaseTTL: time.Hour})
	if err != nil || len(got.Claimed) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	lease := got.Claimed[0].Ref()
	write := func(text string) {
		if _, err := store.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: lease, Frames: []ff.NewFrame{{Payload: []byte(text)}}}); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	tail := func(args ...string) *daemon {
		d := launch(t, nil, append([]string{"stream", "tail", "-f", id, "--server", base}, args...)...)
		eventually(t, "the tail has the first frame", func() bool { return strings.Contains(d.stdout.String(), "one") })
		return d
	}
	goesOn, givesUp := tail(), tail("--retry-for", "0s")
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.wait()
	_ = givesUp.wait()
	if says := givesUp.stderr.String(); givesUp.cmd.ProcessState.ExitCode() != exitUnavailable || !regexp.MustCompile(`continue with: flowfabric stream tail -f '\{fp:\d+\}:[0-9a-f-]+' --attempt 0 --after \d+-\d+\n`).MatchString(says) {
		t.Errorf("exit code %d: %s", givesUp.cmd.ProcessState.ExitCode(), says)
	}
	serve(t, db, address)
	write("two")
	if _, err := store.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: lease}); err != nil {
		t.Fatal(err)
	}
	if err := goesOn.wait(); err != nil {
		t.Errorf("%v: %s", err, goesOn.stderr)
	}
	if strings.Count(goesOn.stdout.String(), "one") != 1 || strings.Count(goesOn.stdout.String(), "two") != 1 {
		t.Errorf("followed %q", goesOn.stdout)
	}
}

func TestStreamCommandsShowWhatAnAttemptHasWritten(t *testing.T) {
	store, id, ids := attempt(t)
	raw := func(args ...string) string {
		return ok(t, append(append([]string{"stream"}, args...), id, "--store", store, "--raw")...)
	}
	const all = "one\ntwo\x1b[31mlive" + `{"rows":2}`
	for want, args := range map[string][]string{
		"one\n" + "two\x1b[31m":      {"read", "--limit", "2"},
		"two\x1b[31m":                {"read", "--from", ids[1].String(), "--to", ids[1].String()},
		"two\x1b[31m" + `{"rows":2}`: {"read", "--durable", "--from", ids[1].String()},
		"live" + `{"rows":2}`:        {"tail", "--lines", "2"},
		`{"rows":2}`:                 {"tail", "-f", "--after", ids[2].String()},
		all:                          {"tail", "--follow", "--attempt", "0"},
		"":                           {"tail", "-n", "0"},
	} {
		if got := raw(args...); got != want {
			t.Errorf("%v: %q, want %q", args, got, want)
		}
	}
	if got := ok(t, "stream", "read", id, "--store", store, "--limit", "2"); strings.Contains(got, "\x1b") || !strings.Contains(got, "more with: --from "+ids[1].Next().String()) {
		t.Errorf("for people: %q", got)
	}
	if got := okJSON[httpapi.Summary](t, "stream", "summary", id, "--store", store); got.Version != 1 || string(got.Document) != `{"rows":2}` {
		t.Errorf("summary %+v", got)
	}
	if got := ok(t, "stream", "summary", id, "--store", store); !strings.Contains(got, `"rows": 2`) {
		t.Errorf("summary for people %q", got)
	}
	var modes []string
	for line := range strings.Lines(ok(t, "stream", "tail", "-f", id, "--store", store, "--json")) {
		var f struct {
			AttemptIndex *int `json:"attempt_index"`
			httpapi.Frame
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.AttemptIndex == nil {
			t.Fatalf("%q: %v", line, err)
		}
		modes = append(modes, string(f.Mode))
	}
	if !slices.Equal(modes, []string{"durable", "durable", "best_effort", "summary"}) {
		t.Errorf("modes %v", modes)
	}
}

func TestWrongStreamCommandsSayWhatIsWrong(t *testing.T) {
	store, id, _ := attempt(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"read", id, "--attempt", "-2"}, exitUsage, "--attempt must be -1 or more (got -2)"},
		{[]string{"read", id, "--from", "x"}, exitUsage, "--from: invalid_input: frame_id"},
		{[]string{"read", id, "--limit", "10001"}, exitFailed, "limit: must be 0 to 10000"},
		{[]string{"tail", id, "--lines", "-1"}, exitUsage, "--lines must be 0 to 10000"},
		{[]string{"tail", "{fp:86}:550e8400-e29b-41d4-a716-446655440000"}, exitNotFound, "execution"},
		{[]string{"summary", id, "--attempt", "7"}, exitNotFound, "has no attempt 7: 1 began"},
		{[]string{"tail", "-f", id, "--attempt", "1"}, exitNotFound, "has no attempt 1: 1 began"},
		{[]string{"summary"}, exitUsage, "needs 1 argument"},
	} {
		o := flowfabric(t, nil, "", append(append([]string{"stream"}, c.args...), "--store", store)...)
		if o.code != c.code || !strings.Contains(o.stderr, c.says) {
			t.Errorf("%v: exit code %d: %s", c.args, o.code, o.stderr)
		}
	}
}

func TestBenchStreamMeasuresAppendsAndTails(t *testing.T) {
	r := okJSON[bench.Report](t, "bench", "stream", "--store", "sqlite:"+filepath.Join(t.TempDir(), "b.db"), "--tasks", "400", "--workers", "4", "--batch", "5", "--tails", "2")
	if r.FramesPerS <= 0 || r.Tails != 2 || r.LatencyMS["append"].P99 <= 0 || r.LatencyMS["append to tail"].P50 <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestTheNumberOfTailsIsAVariableWithAnOlderName(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want places
		says string
	}{
		{nil, 4096, ""},
		{[]string{"FF_MAX_CONCURRENT_STREAM_OPS=7", "FF_MAX_CONCURRENT_TAIL=8"}, 7, ""},
		{[]string{"FF_MAX_CONCURRENT_TAIL=8"}, 8, ""},
		{[]string{"FF_MAX_CONCURRENT_TAIL=x"}, 0, "invalid value for FF_MAX_CONCURRENT_TAIL: expected u32"},
		{[]string{"FF_MAX_CONCURRENT_STREAM_OPS=0"}, 0, "invalid value for FF_MAX_CONCURRENT_STREAM_OPS: must be 1 to"},
		{[]string{"FF_MAX_CONCURRENT_STREAM_OPS="}, 0, "expected a number, got ''"},
	} {
		t.Run(strings.Join(c.env, " "), func(t *testing.T) {
			for _, v := range c.env {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			s, err := loadSettings()
			if c.says == "" && (err != nil || s.Tails != c.want) || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%d, %v", s.Tails, err)
			}
		})
	}
}

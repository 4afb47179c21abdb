package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/bench"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

func TestAShellCommandWorksOnWhatWasSubmitted(t *testing.T) {
	server, base := serve(t, filepath.Join(t.TempDir(), "ff.db"), "127.0.0.1:0")
	on := func(args ...string) []string { return append(args, "--server", base) }
	id := strings.TrimSpace(ok(t, on("submit", "shout", "--payload", `"hello"`)...))
	worker := launch(t, nil, on("worker", "run", "--exec", "tr a-z A-Z", "--lease", "2s")...)
	if got := ok(t, on("result", id, "--wait", "30s")...); got != `"HELLO"` {
		t.Errorf("result %q", got)
	}
	if got := ok(t, on("submit", "shout", "--payload", `"again"`, "--wait", "30s")...); got != `"AGAIN"` {
		t.Errorf("result of a waiting submit %q", got)
	}
	workers := okJSON[httpapi.Workers](t, on("workers")...)
	if len(workers.Workers) != 1 || workers.Workers[0].Lanes[0] != "default" {
		t.Errorf("workers %+v", workers)
	}
	worker.stop(t)
	if workers := okJSON[httpapi.Workers](t, on("workers")...); len(workers.Workers) != 0 {
		t.Errorf("a stopped worker is still listed: %+v", workers)
	}
	server.stop(t)
}

func TestAFailingCommandFailsTheAttemptWithItsErrors(t *testing.T) {
	_, base := serve(t, filepath.Join(t.TempDir(), "ff.db"), "127.0.0.1:0")
	on := func(args ...string) []string { return append(args, "--server", base) }
	launch(t, nil, on("worker", "run", "--exec", `echo "attempt $FLOWFABRIC_ATTEMPT of $FLOWFABRIC_KIND" >&2; exit 9`, "--permanent", "9")...)
	o := flowfabric(t, nil, "", on("submit", "doomed", "--retries", "5", "--wait", "30s")...)
	if o.code != exitFailed || !strings.Contains(o.stderr, "ended as failed: exit status 9: attempt 0 of doomed") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
}

func TestCommandsAnswerWithJSONAndExitCodes(t *testing.T) {
	dir := t.TempDir()
	store := "sqlite:" + filepath.Join(dir, "ff.db")
	on := func(args ...string) []string { return append(args, "--store", store) }
	submitted := okJSON[httpapi.Submitted](t, on("submit", "job", "--lane", "a", "--key", "k", "--tag", "a.b=c", "--requires", "gpu", "--delay", "1h", "--priority", "3")...)
	if submitted.State != "delayed" || submitted.Duplicate {
		t.Fatalf("submitted %+v", submitted)
	}
	id := submitted.ExecutionID.String()
	if again := okJSON[httpapi.Submitted](t, on("submit", "job", "--lane", "a", "--key", "k")...); !again.Duplicate || again.ExecutionID.String() != id {
		t.Errorf("a repeated submit: %+v", again)
	}
	record := okJSON[httpapi.Record](t, on("get", id, "--attempts", "--events")...)
	if record.Priority != 3 || record.Tags["a.b"] != "c" || record.Requires.CSV() != "gpu" {
		t.Errorf("record %+v", record)
	}
	if page := okJSON[httpapi.ExecutionPage](t, on("list", "--state", "delayed", "--lane", "a", "--kind", "job")...); len(page.Executions) != 1 {
		t.Errorf("list %+v", page)
	}
	if lanes := okJSON[httpapi.Lanes](t, on("lanes")...); len(lanes.Lanes) != 1 || lanes.Lanes[0].Counts["delayed"] != 1 {
		t.Errorf("lanes %+v", lanes)
	}
	explained := okJSON[struct {
		Reasons []string `json:"reasons"`
	}](t, on("explain", id)...)
	if len(explained.Reasons) != 1 || !strings.Contains(explained.Reasons[0], "it is delayed until") {
		t.Errorf("explained %+v", explained)
	}
	if v := okJSON[map[string]string](t, "version"); v["version"] == "" {
		t.Errorf("version %v", v)
	}
	for _, c := range []struct {
		args  []string
		code  int
		error string
	}{
		{on("priority", id, "5"), exitFailed, "execution_not_eligible"},
		{on("result", id), exitNotFound, "has no result yet"},
		{on("result", id, "--wait", "10ms"), exitTimeout, "still delayed"},
		{on("get", "{fp:1}:550e8400-e29b-41d4-a716-446655440000"), exitNotFound, "execution_not_found"},
		{on("get", "nope"), exitUsage, "hash-tag prefix: nope"},
		{on("get"), exitUsage, "needs 1 argument"},
		{on("submit", "x", "--payload", "not json"), exitFailed, "payload: is not JSON"},
		{on("submit", "x", "--priority", "9001"), exitFailed, "priority: must be 0 to 9000 (got 9001)"},
		{on("submit", "x", "--lane", "ü"), exitFailed, "lane_id contains non-ASCII-printable byte at index 0"},
		{on("submit"), exitUsage, "either a KIND or --batch"},
		{on("list", "--state", "asleep"), exitFailed, `unknown state "asleep" (one of waiting,`},
		{on("list", "--limit", "5000"), exitFailed, "limit: must be 1 to 1000 (got 5000)"},
		{[]string{"list", "--server", "http://127.0.0.1:1"}, exitUnavailable, "cannot reach the server at http://127.0.0.1:1"},
		{[]string{"list", "--store", "postgres://x"}, exitUsage, "no postgres store"},
		{[]string{"list", "--store", filepath.Join(dir, "missing", "x.db")}, exitUnavailable, "missing"},
		{on("submit", "x", "--timeout", "-1s"), exitFailed, "attempt_timeout_ms: must be 0 to"},
		{on("submit", "x", "--deadline", "-1s"), exitFailed, "(got -1000)"},
		{on("submit", "x", "--wait", "-1s"), exitUsage, "--wait must not be negative (got -1s)"},
		{on("result", id, "--wait", "-1s"), exitUsage, "--wait must not be negative (got -1s)"},
		{on("submit", "x", "y"), exitUsage, "either a KIND or --batch"},
		{on("cancel"), exitUsage, "needs at least one ID"},
		{on("lanes", "a"), exitUsage, "takes no arguments"},
		{on("list", "--timeout-call", "0s"), exitUsage, "--timeout-call must be above 0"},
		{on("worker", "run", "--exec", " "), exitUsage, "--exec is missing or empty; give a shell command"},
		{on("worker", "run", "--exec", "cat", "--concurrency", "0"), exitUsage, "--concurrency must be at least 1 (got 0)"},
		{[]string{"dev", "--store", "sqlite:x.db"}, exitUsage, "keep data with: flowfabric serve --store 'sqlite:x.db'"},
		{[]string{"worker", "rum"}, exitUsage, `unknown command "rum" for "flowfabric worker" (did you mean run? see:`},
		{[]string{"bench", "everything"}, exitUsage, `unknown command "everything" for "flowfabric bench" (see:`},
		{[]string{"lanse"}, exitUsage, `unknown command "lanse" for "flowfabric" (did you mean lanes? see:`},
		{[]string{"bogus"}, exitUsage, `unknown command "bogus"`},
		{[]string{"list", "--bogus"}, exitUsage, "unknown flag: --bogus"},
		{[]string{"worker", "run"}, exitUsage, "--exec is missing or empty"},
		{[]string{"serve", "--store", "valkey://127.0.0.1:1", "--synchronous", "off"}, exitUsage, "--synchronous is for SQLite"},
		{[]string{"demo", "--input", dir + "/none"}, exitFailed, "input: cannot be read"},
		{[]string{"demo", "--approval-timeout", "0s"}, exitUsage, "--approval-timeout must be above 0 and at most"},
		{[]string{"demo", "--workers", "1"}, exitUsage, "--workers must be 2 to 64 (got 1)"},
	} {
		o := flowfabric(t, nil, "", append(c.args, "--json")...)
		var e struct {
			Error string `json:"error"`
			Exit  int    `json:"exit_code"`
		}
		if err := json.Unmarshal([]byte(o.stderr), &e); err != nil {
			t.Errorf("%v: the error is not one JSON object: %q", c.args, o.stderr)
		}
		if o.code != c.code || e.Exit != c.code || !strings.Contains(e.Error, c.error) || o.stdout != "" {
			t.Errorf("%v: exit code %d, %q, stdout %q; want %d and %q", c.args, o.code, e.Error, o.stdout, c.code, c.error)
		}
	}
	cancelled := okJSON[map[string]string](t, on("cancel", id)...)
	if cancelled["state"] != "cancelled" {
		t.Errorf("cancelled %v", cancelled)
	}
	if replayed := okJSON[httpapi.StateAnswer](t, on("replay", id)...); replayed.State != "waiting" {
		t.Errorf("replayed %+v", replayed)
	}
	if p := okJSON[httpapi.PriorityAnswer](t, on("priority", id, "5")...); p.Old != 3 || p.New != 5 {
		t.Errorf("priority %+v", p)
	}
	if r := okJSON[httpapi.RevokeAnswer](t, on("revoke", id)...); r.Already != "no_active_lease" {
		t.Errorf("revoked %+v", r)
	}
}

func TestABatchFileIsSubmittedAndBadLinesAreNamed(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "ff.db")
	file := filepath.Join(t.TempDir(), "jobs.ndjson")
	if err := os.WriteFile(file, []byte("{\"kind\":\"a\",\"payload\":1}\n\n{\"kind\":\"b\",\"priority\":7}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ok(t, "submit", "--batch", file, "--store", store); !strings.Contains(got, "2 submitted") {
		t.Errorf("printed %q", got)
	}
	o := flowfabric(t, nil, "{\"kind\":\"c\"}\n{\"kind\":\"c\",\"prioritty\":1}\n", "submit", "--batch", "-", "--store", store)
	if o.code != exitFailed || !strings.Contains(o.stderr, "line 2") || !strings.Contains(o.stderr, "prioritty") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	if page := okJSON[httpapi.ExecutionPage](t, "list", "--store", store); len(page.Executions) != 2 {
		t.Errorf("%d executions are stored", len(page.Executions))
	}
}

func TestABatchFileOfLargePayloadsIsSubmittedInSmallerBatches(t *testing.T) {
	file := filepath.Join(t.TempDir(), "jobs.ndjson")
	line := `{"kind":"a","payload":"` + strings.Repeat("p", ff.MaxPayloadBytes-2) + "\"}\n"
	if err := os.WriteFile(file, []byte(strings.Repeat(line, ff.MaxBatchBytes/ff.MaxPayloadBytes+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ok(t, "submit", "--batch", file, "--store", "sqlite:"+filepath.Join(t.TempDir(), "ff.db")); !strings.Contains(got, "9 submitted") {
		t.Errorf("printed %q", got)
	}
}

func TestALineOfABatchMayNameItsLane(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "ff.db")
	o := flowfabric(t, nil, "{\"kind\":\"a\",\"lane_id\":\"mail\"}\n{\"kind\":\"b\"}\n", "submit", "--batch", "-", "--lane", "other", "--store", store)
	if o.code != exitOK {
		t.Fatalf("exit code %d: %s", o.code, o.stderr)
	}
	for lane, kind := range map[string]string{"mail": "a", "other": "b"} {
		page := okJSON[httpapi.ExecutionPage](t, "list", "--lane", lane, "--store", store)
		if len(page.Executions) != 1 || page.Executions[0].Kind != kind {
			t.Errorf("lane %s: %+v", lane, page.Executions)
		}
	}
	o = flowfabric(t, nil, `{"kind":"a","lane_id":"ü"}`, "submit", "--batch", "-", "--store", store)
	if o.code != exitFailed || !strings.Contains(o.stderr, "line 1") || !strings.Contains(o.stderr, "lane_id contains") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
}

func TestEventsHaveAHeaderAndCanBeReadFromTheStart(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "ff.db")
	if out := ok(t, "events", "--store", store); out != "" {
		t.Errorf("without events: %q", out)
	}
	one := strings.TrimSpace(ok(t, "submit", "job", "--store", store))
	two := strings.TrimSpace(ok(t, "submit", "job", "--store", store))
	ok(t, "cancel", one, two, "--store", store)
	for _, args := range [][]string{{"events"}, {"events", "--after", "0"}} {
		rows := strings.Split(strings.TrimSpace(ok(t, append(args, "--store", store)...)), "\n")
		if len(rows) != 3 {
			t.Fatalf("%v: %q", args, rows)
		}
		header := strings.Fields(rows[0])
		if header[0] != "AT" || header[1] != "EVENT" {
			t.Errorf("%v: header %q", args, rows[0])
		}
		for i, id := range []string{one, two} {
			row := rows[i+1]
			if at := strings.Index(rows[0], "EXECUTION"); len(row) < at || !strings.HasPrefix(row[at:], id) {
				t.Errorf("%v: the execution of %q is not below its header %q", args, row, rows[0])
			}
		}
	}
}

func TestBenchSaysWhatItLeavesBehind(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "ff.db")
	for _, scenario := range []string{"latency", "submit-claim-complete", "suspend-signal-resume"} {
		o := flowfabric(t, nil, "", "bench", scenario, "--tasks", "5", "--workers", "1", "--store", store)
		if o.code != exitOK || !strings.Contains(o.stderr, "stay in the store, in lanes bench-") {
			t.Errorf("%s: exit code %d: %s", scenario, o.code, o.stderr)
		}
	}
}

func TestPipesGetNoEscapeCodes(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "ff.db")
	ok(t, "submit", "\x1b[31mred", "--store", store)
	for _, args := range [][]string{{"list"}, {"lanes"}, {"workers"}, {"events"}, {"bench", "latency", "--tasks", "5"}} {
		if out := ok(t, append(args, "--store", store)...); strings.Contains(out, "\x1b") {
			t.Errorf("%v printed escape codes: %q", args, out)
		}
	}
}

func TestBenchPrintsOneReport(t *testing.T) {
	r := okJSON[bench.Report](t, "bench", "submit-claim-complete", "--store", "sqlite:"+filepath.Join(t.TempDir(), "b.db"), "--tasks", "300", "--workers", "4", "--payload", "100", "--preload", "50")
	if r.Scenario != "submit-claim-complete" || r.Store != "sqlite" || !strings.Contains(r.Durability, "full") || r.Tasks != 300 || r.Workers != 4 ||
		r.Payload != 100 || r.Preloaded != 50 || r.SubmitsPerS <= 0 || r.LifecyclesS <= 0 || r.Seconds <= 0 || r.LatencyMS["complete"].P99 <= 0 || r.Machine.Cores == 0 {
		t.Errorf("report %+v", r)
	}
}

func TestBenchOfWaitsEndsWhatItSuspends(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "b.db")
	r := okJSON[bench.Report](t, "bench", "suspend-signal-resume", "--store", store, "--tasks", "300", "--workers", "7", "--payload", "100")
	if r.Tasks != 300 || r.Workers != 7 || r.TripsPerS <= 0 || r.Seconds <= 0 {
		t.Errorf("report %+v", r)
	}
	for _, command := range []string{"suspend", "signal", "resumed claim", "round trip"} {
		if r.LatencyMS[command].P99 <= 0 {
			t.Errorf("no latency of %s in %+v", command, r.LatencyMS)
		}
	}
	left := ok(t, "list", "--state", "suspended", "--store", store)
	if strings.Contains(left, "{fp:") {
		t.Errorf("still suspended: %s", left)
	}
	o := flowfabric(t, nil, "", "bench", "suspend-signal-resume", "--store", store, "--payload", fmt.Sprint(ff.MaxSignalPayloadBytes+1))
	if o.code != exitFailed || !strings.Contains(o.stderr, "a signal holds at most") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
}

func TestTheDemoCountsWhatWcCounts(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.txt": "one two  three\n\nfour\tfive\n", "sub/b.md": "ünïcode wörds — and a dash\n", "empty": "", "sub/c": "\x01 control\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "binary"), []byte{0, 1, 2}, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, locale := range []string{"C", "C.UTF-8"} {
		env := []string{"LC_ALL=" + locale}
		o := flowfabric(t, env, "", "demo", "--input", dir, "--json")
		var r demoReport
		if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || o.code != exitOK {
			t.Fatalf("%v: exit code %d: %s%s", err, o.code, o.stdout, o.stderr)
		}
		words, lines := wc(t, env, dir)
		if r.Files != 4 || r.Words != words || r.Lines != lines || r.Skipped != 1 {
			t.Errorf("%s: %+v; wc counts %d words and %d lines", locale, r, words, lines)
		}
		if r.Executions != 4+demoFlaky+3 || r.ApprovedBy == "" || r.Completed != r.Executions || r.Retried != 2*demoFlaky || r.Reclaimed < 1 || r.Seconds <= 0 {
			t.Errorf("%s: %+v", locale, r)
		}
	}
}

// wc counts the text files of the test with the real wc.
func wc(t *testing.T, env []string, dir string) (words, lines int) {
	t.Helper()
	files := []string{"-w", "-l", "a.txt", "sub/b.md", "empty", "sub/c"}
	cmd := exec.CommandContext(t.Context(), "wc", files...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	total := bytes.Fields(out[bytes.LastIndexByte(bytes.TrimSpace(out), '\n')+1:])
	lines, _ = strconv.Atoi(string(total[0]))
	words, _ = strconv.Atoi(string(total[1]))
	return words, lines
}

func TestSettingsAreRefusedNamingTheVariable(t *testing.T) {
	for setting, says := range map[string]string{
		"FF_FLOW_PARTITIONS=":               "invalid value for FF_FLOW_PARTITIONS: expected a number, got ''",
		"FF_FLOW_PARTITIONS=0":              "invalid value for FF_FLOW_PARTITIONS: must be > 0",
		"FF_FLOW_PARTITIONS=65536":          "invalid value for FF_FLOW_PARTITIONS: expected u16, got '65536'",
		"FF_LEASE_EXPIRY_INTERVAL_MS=1.5":   "invalid value for FF_LEASE_EXPIRY_INTERVAL_MS: expected u64, got '1.5'",
		"FF_RETENTION_TRIMMER_INTERVAL_S=x": "invalid value for FF_RETENTION_TRIMMER_INTERVAL_S: expected u64, got 'x'",
		"FF_BACKEND=postgres":               "invalid value for FF_BACKEND: this version has no postgres store",
		"FF_BACKEND=oracle":                 "invalid value for FF_BACKEND: unknown backend 'oracle'",
		"FF_CORS_ORIGINS=":                  "invalid value for FF_CORS_ORIGINS: must not be empty",
		"FF_LISTEN_ADDR=0.0.0.0:0":          "reachable from other machines and no token is set",
		"FF_LISTEN_ADDR=nowhere":            "cannot listen on nowhere",
	} {
		o := flowfabric(t, []string{setting, "FF_SQLITE_PATH=:memory:"}, "", "serve")
		if (o.code != exitFailed && o.code != exitUnavailable) || !strings.Contains(o.stderr, says) {
			t.Errorf("%s: exit code %d: %s", setting, o.code, o.stderr)
		}
	}
}

func TestTheURLOfAValkeyAloneStartsNoSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ff.db")
	o := flowfabric(t, []string{"FF_VALKEY_URL=valkey://127.0.0.1:1", "FF_SQLITE_PATH=" + path, "FF_LISTEN_ADDR=127.0.0.1:0"}, "", "serve")
	if o.code != exitFailed || !strings.Contains(o.stderr, "invalid value for FF_VALKEY_URL") || !strings.Contains(o.stderr, "FF_BACKEND=valkey") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it made a SQLite file")
	}
	d := launch(t, []string{"FF_VALKEY_URL=valkey://127.0.0.1:1", "FF_BACKEND=sqlite", "FF_SQLITE_PATH=" + path, "FF_LISTEN_ADDR=127.0.0.1:0"}, "serve")
	d.answers(t)
	if !strings.Contains(d.stderr.String(), "FF_VALKEY_URL") {
		t.Errorf("it does not say that the variable has no effect: %s", d.stderr)
	}
	d.stop(t)
}

func TestVariablesWithoutEffectAreNamed(t *testing.T) {
	d := launch(t, []string{"FF_LANES=a,b", "FF_DEV_MODE=1", "FF_SQLITE_PATH=:memory:", "FF_LISTEN_ADDR=127.0.0.1:0"}, "serve")
	eventually(t, "it says so", func() bool {
		return strings.Contains(d.stderr.String(), "FF_LANES") && strings.Contains(d.stderr.String(), "FF_DEV_MODE") && strings.Contains(d.stderr.String(), "listening")
	})
	d.stop(t)
}

func TestTheReferenceInDocsIsThatOfTheCode(t *testing.T) {
	root := (&app{}).root()
	for name, want := range map[string]string{"cli.md": cliReference(root), "configuration.md": configurationReference()} {
		got, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
		if err != nil || string(got) != want {
			t.Errorf("docs/%s is not what the code says (%v); run: make docs", name, err)
		}
	}
}

package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

func TestExplainSaysWhyAnExecutionDoesNotRun(t *testing.T) {
	_, base := serve(t, filepath.Join(t.TempDir(), "ff.db"), "127.0.0.1:0")
	on := func(args ...string) []string { return append(args, "--server", base) }
	submit := func(args ...string) string {
		return strings.TrimSpace(ok(t, on(append([]string{"submit"}, args...)...)...))
	}
	says := func(id string, want ...string) {
		t.Helper()
		got := ok(t, on("explain", id)...)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("explain says\n%s, which lacks %q", got, w)
			}
		}
	}
	submit("first", "--lane", "idle")
	submit("later", "--lane", "idle", "--priority", "7")
	says(submit("job", "--lane", "idle"), "no live worker serves lane idle; start one with:", "2 execution(s) are ahead of it")
	says(submit("job", "--delay", "1h"), "it is delayed until")

	launch(t, nil, on("worker", "run", "--exec", `case $FLOWFABRIC_KIND in failing) echo broken >&2; exit 1;; quick) ;; *) exec sleep 900;; esac`,
		"--concurrency", "2", "--instance", "the-worker", "--lease", "2s")...)
	ended := submit("quick", "--wait", "30s", "--json")
	if !strings.Contains(ended, `"state":"completed"`) {
		t.Fatalf("the worker does not work: %s", ended)
	}
	says(submit("job", "--requires", "gpu"), "none of the 1 worker(s) of lane default offers everything that it requires; missing: gpu")

	policy := ff.DefaultExecutionPolicy()
	policy.Retry = ff.FixedRetry(1, time.Hour)
	line, err := json.Marshal(map[string]any{"kind": "failing", "policy": policy})
	if err != nil {
		t.Fatal(err)
	}
	var stored httpapi.Submitted
	if o := flowfabric(t, nil, string(line), on("submit", "--batch", "-", "--json")...); json.Unmarshal([]byte(o.stdout), &stored) != nil {
		t.Fatalf("%s%s", o.stdout, o.stderr)
	}
	failing := stored.ExecutionID.String()
	eventually(t, "it has failed once", func() bool { return strings.Contains(ok(t, on("get", failing)...), "1 retries") })
	says(failing, "it failed (exit status 1: broken) and waits for its retry until")

	held := submit("slow")
	eventually(t, "it is held", func() bool { return strings.Contains(ok(t, on("get", held)...), "(the-worker)") })
	says(held, "worker flowfabric-exec (the-worker) runs attempt 0 since", "unless it is renewed")
	ok(t, on("cancel", held, "--reason", "no longer needed")...)
	says(held, "it ended at", "no longer needed", "flowfabric replay")
}

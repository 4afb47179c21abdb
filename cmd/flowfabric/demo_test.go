package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestTheDemoTakesDirectoriesAsTheyAre(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "real")
	for name, text := range map[string]string{
		"a": "one\n", "sub/line\nbreak": "two words\n", "not utf-8 \xff": "three more words", ".git/config": "is left out",
		"binary": "\x00", "latin-1": "caf\xe9", "report.json": "", "progress.log": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(filepath.Dir(dir), "link")
	for from, to := range map[string]string{link: dir, filepath.Join(dir, "loop"): dir} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	// It prints into the directory that it indexes.
	report, err := os.OpenFile(filepath.Join(dir, "report.json"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer report.Close()
	log, err := os.OpenFile(filepath.Join(dir, "progress.log"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.CommandContext(t.Context(), binary, "demo", "--input", link, "--json")
	cmd.Stdout, cmd.Stderr = report, log
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("%v: %s", err, said)
	}
	data, err := os.ReadFile(report.Name())
	if err != nil {
		t.Fatal(err)
	}
	var r demoReport
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatalf("%v in %q", err, data)
	}
	if r.Files != 3 || r.Words != 5 || r.Lines != 2 || r.Skipped != 2 {
		t.Errorf("report %+v", r)
	}
}

func TestTheDemoListsWhatItWouldIndex(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ok(t, "demo", "--input", dir, "--list"); strings.TrimSpace(got) != filepath.Join(dir, "a") {
		t.Errorf("listed %q", got)
	}
	o := flowfabric(t, nil, "", "demo", "--input", t.TempDir())
	if o.code != exitFailed || !strings.Contains(o.stderr, "has no text file to index") {
		t.Errorf("an empty directory: exit code %d: %s", o.code, o.stderr)
	}
}

// approvalCommand is how an interactive demo says to approve.
var approvalCommand = regexp.MustCompile(`approve '([^']+)' --server (\S+)\n`)

func TestAnInteractiveDemoDoesWhatIsDecidedAboutItsReport(t *testing.T) {
	for decision, want := range map[string]struct {
		code int
		says string
	}{
		"approve": {exitOK, ""},
		"reject":  {exitFailed, "the report was rejected by ann"},
	} {
		t.Run(decision, func(t *testing.T) {
			d := launch(t, nil, "demo", "--input", filesIn(t, 4), "--interactive")
			var asked []string
			eventually(t, "the demo asks for approval", func() bool {
				asked = approvalCommand.FindStringSubmatch(d.stderr.String())
				return asked != nil
			})
			ok(t, decision, asked[1], "--server", asked[2], "--by", "ann")
			_ = d.wait()
			if got := d.cmd.ProcessState.ExitCode(); got != want.code || !strings.Contains(d.stderr.String(), want.says) {
				t.Errorf("exit code %d, want %d and %q: %s", got, want.code, want.says, d.stderr)
			}
			if strings.Contains(d.stderr.String(), "another process approves it") {
				t.Errorf("the demo approved by itself: %s", d.stderr)
			}
		})
	}
}

func TestADemoThatNobodyApprovesEndsWhenTheTimeIsOver(t *testing.T) {
	o := flowfabric(t, nil, "", "demo", "--input", filesIn(t, 4), "--interactive", "--approval-timeout", "100ms")
	if o.code != exitTimeout || !strings.Contains(o.stderr, "suspension_timeout") {
		t.Errorf("exit code %d, want %d: %s", o.code, exitTimeout, o.stderr)
	}
}

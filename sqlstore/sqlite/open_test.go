package sqlite_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	zs "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// roleEnv makes the test binary play another process, on the file in pathEnv.
const (
	roleEnv = "FLOWFABRIC_TEST_ROLE"
	pathEnv = "FLOWFABRIC_TEST_PATH"
)

// workForever is the other process: it opens the store, says so, then submits,
// claims and completes, printing what was acknowledged, until it is killed.
func workForever() {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, os.Getenv(pathEnv), sqlite.Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	lines := make(chan string)
	for range 8 {
		go func() {
			for {
				if err := workOnce(ctx, s, lines); err != nil {
					lines <- err.Error()
					return
				}
			}
		}()
	}
	for l := range lines {
		fmt.Println(l)
	}
}

// workOnce submits two executions and completes one.
func workOnce(ctx context.Context, s *sqlite.Store, lines chan<- string) error {
	for range 2 {
		r, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Payload: make([]byte, 2000)})
		if err != nil {
			return err
		}
		lines <- "submitted " + r.ID.String() + " ."
	}
	r, err := s.Claim(ctx, ff.Claim{Claimant: claimant("other"), Lanes: []ff.LaneID{"main"}})
	if err != nil {
		return err
	}
	for _, c := range r.Claimed {
		if _, err := s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte("done")}); err != nil {
			return err
		}
		lines <- "completed " + c.Execution.ID.String() + " ."
	}
	return nil
}

// otherProcess starts workForever and reads its first line.
func otherProcess(t *testing.T, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"=work", pathEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "open" {
		t.Fatalf("the other process says %q", lines.Text())
	}
	return cmd, lines
}

func TestAFileOfAnotherProcessIsRefusedNamingIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	cmd, _ := otherProcess(t, path)
	_, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if ff.CodeOf(err) != ff.CodeUnsupportedStore || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", cmd.Process.Pid)) {
		t.Errorf("got %v, want unsupported_store naming process %d", err, cmd.Process.Pid)
	}
}

func TestAKilledProcessLosesNothingAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	cmd, lines := otherProcess(t, path)
	completed, n := map[ff.ExecutionID]bool{}, 0
	for lines.Scan() {
		var what, text, end string
		// The last line may be cut off.
		if _, err := fmt.Sscan(lines.Text(), &what, &text, &end); err != nil {
			continue
		}
		id, err := ff.ParseExecutionID(text)
		if err != nil {
			t.Fatalf("the other process says %q", lines.Text())
		}
		completed[id] = completed[id] || what == "completed"
		if n++; n == 1000 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	s := open(t, path, sqlite.Options{})
	for id, done := range completed {
		p, err := s.ExecutionPayload(context.Background(), id)
		if err != nil || len(p.Payload) != 2000 {
			t.Fatalf("execution %s: %d bytes, %v", id, len(p.Payload), err)
		}
		if result, err := s.ExecutionResult(context.Background(), id); done && (err != nil || string(result) != "done") {
			t.Fatalf("the completed execution %s has the result %q, %v", id, result, err)
		}
	}
	checkCounts(t, s)
}

// checkCounts compares the counts of the lanes with the executions.
func checkCounts(t *testing.T, s *sqlite.Store) {
	t.Helper()
	lanes, err := s.Lanes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for state, want := range lanes[0].Counts {
		got, q := 0, ff.ListExecutions{State: state, Limit: ff.MaxPageLimit}
		for {
			page, err := s.ListExecutions(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			got += len(page.Executions)
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		if got != want {
			t.Errorf("%d executions are %s, the count says %d", got, state, want)
		}
	}
}

// script runs SQL on a file.
func script(t *testing.T, path, sql string) {
	t.Helper()
	c, err := zs.OpenConn(path, zs.OpenReadWrite|zs.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := sqlitex.ExecuteTransient(c, sql, nil); err != nil {
		t.Fatal(err)
	}
}

// used makes a store with something in it.
func used(t *testing.T, path string) {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := s.CreateExecution(context.Background(), ff.CreateExecution{Lane: "main", Kind: "k", Payload: make([]byte, 4096)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// damage overwrites bytes of a file.
func damage(t *testing.T, path string, at int64, with []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(with, at)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func checksum(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func TestAFileThatIsNotOursIsRefusedAndLeftAsItIs(t *testing.T) {
	garbage := []byte(strings.Repeat("garbage ", 512))
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"text": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, garbage, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not an SQLite database"},
		"another application": {func(t *testing.T, path string) { script(t, path, "create table notes (t text)") }, "another application"},
		"an application id": {func(t *testing.T, path string) {
			script(t, path, "pragma application_id = 7")
			script(t, path, "create table notes (t text)")
		}, "another application"},
		"a newer schema": {func(t *testing.T, path string) {
			used(t, path)
			script(t, path, "pragma user_version = 9999")
		}, "schema version 9999"},
		"a damaged header": {func(t *testing.T, path string) {
			used(t, path)
			damage(t, path, 16, []byte{0xff, 0xff, 0xff})
		}, "damaged"},
		"a damaged schema": {func(t *testing.T, path string) {
			used(t, path)
			damage(t, path, 100, garbage[:2000])
		}, "damaged"},
		"a damaged page": {func(t *testing.T, path string) {
			used(t, path)
			for page := int64(2); page < 12; page++ {
				damage(t, path, page*4096, garbage)
			}
		}, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f.db")
			c.make(t, path)
			before := checksum(t, path)
			_, err := sqlite.Open(context.Background(), path, sqlite.Options{})
			if ff.CodeOf(err) != ff.CodeUnsupportedStore || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want unsupported_store with %q", err, c.want)
			}
			if checksum(t, path) != before {
				t.Error("the file was changed")
			}
		})
	}
}

func TestAMissingDirectoryIsNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	_, err := sqlite.Open(context.Background(), filepath.Join(dir, "f.db"), sqlite.Options{})
	if ff.CodeOf(err) != ff.CodeUnavailable || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

func TestOneProcessSharesAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.db")
	a := open(t, path, sqlite.Options{})
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	b := open(t, link, sqlite.Options{})
	ctx := context.Background()
	created, err := a.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := b.Claim(ctx, ff.Claim{Claimant: claimant("i1"), Lanes: []ff.LaneID{"main"}})
	if err != nil || len(r.Claimed) != 1 || r.Claimed[0].Execution.ID != created.ID {
		t.Errorf("claimed %+v, %v", r, err)
	}
}

func TestALinkToAMissingFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "f.db"), filepath.Join(dir, "link.db")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	_, err := sqlite.Open(context.Background(), link, sqlite.Options{})
	if ff.CodeOf(err) != ff.CodeUnavailable || !strings.Contains(err.Error(), link) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the file was made under the lock of another name")
	}
}

func TestTheLogStaysBoundedWhileReadersOverlap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	s := open(t, path, sqlite.Options{Synchronous: sqlite.Off})
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.ListExecutions(context.Background(), ff.ListExecutions{Limit: 1}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	input := make([]byte, 1<<20)
	for range 100 {
		if _, err := s.CreateExecution(context.Background(), ff.CreateExecution{Lane: "main", Kind: "k", Payload: input}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	readers.Wait()
	log, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if log.Size() > 90<<20 {
		t.Errorf("the log has %d MB after 100 MB were written", log.Size()>>20)
	}
}

func TestOtherOptionsForAnOpenFileAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	open(t, path, sqlite.Options{})
	for field, o := range map[string]sqlite.Options{
		"synchronous": {Synchronous: sqlite.Off},
		"retention":   {Retention: time.Hour},
		"partitions":  {Partitions: ff.PartitionConfig{Flow: 1, Budget: 1, Quota: 1}},
		"clock":       {Clock: time.Now},
	} {
		_, err := sqlite.Open(context.Background(), path, o)
		if e, ok := ff.AsError(err); !ok || e.Code != ff.CodeInvalidInput || e.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestPartitionsAreFixedWhenTheFileIsCreated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	few := ff.PartitionConfig{Flow: 4, Budget: 2, Quota: 2}
	if err := open(t, path, sqlite.Options{Partitions: few}).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(context.Background(), path, sqlite.Options{Partitions: ff.DefaultPartitionConfig}); ff.CodeOf(err) != ff.CodeInvalidInput {
		t.Errorf("got %v", err)
	}
	info, err := open(t, path, sqlite.Options{}).Info(context.Background())
	if err != nil || info.Partitions != few || info.Durability != "wal, synchronous=full" || info.Location == "" || info.Version == "" {
		t.Errorf("info %+v, %v", info, err)
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for field, o := range map[string]sqlite.Options{
		"synchronous":           {Synchronous: "often"},
		"retention":             {Retention: -1},
		"num_quota_partitions":  {Partitions: ff.PartitionConfig{Flow: 1, Budget: 1}},
		"num_budget_partitions": {Partitions: ff.PartitionConfig{Flow: 1, Quota: 1}},
	} {
		_, err := sqlite.Open(context.Background(), ":memory:", o)
		if e, ok := ff.AsError(err); !ok || e.Code != ff.CodeInvalidInput || e.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestANewFileIsItsOwnersOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ff.db")
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range []string{path, path + "-wal", path + "-shm", path + ".lock"} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has permissions %v, %v", name, info.Mode(), err)
		}
	}
}

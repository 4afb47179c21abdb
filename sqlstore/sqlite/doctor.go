package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	zs "zombiezen.com/go/sqlite"
)

// Diagnose checks the file of a store, which another process may have open, and
// changes nothing in it. The partitions of the options are compared with what is
// stored, the other options have no effect. Errors: that of ctx.
func Diagnose(ctx context.Context, path string, o Options) (ff.Checks, error) {
	var checks ff.Checks
	if path == "" || path == ":memory:" {
		checks.Warning("file", "give a path to keep data", "the store is in memory: nothing survives the process")
		return checks, nil
	}
	path, err := canonical(path)
	if err != nil {
		checks.Problem("file", "make the directory, or give another path", "%s", reason(err))
		return checks, nil
	}
	diagnoseWritable(&checks, path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		checks.Warning("file", "check the path; the first command that uses the store makes the file", "%s does not exist", path)
		return checks, nil
	case err != nil:
		checks.Problem("file", "check its permissions", "%s", err)
		return checks, nil
	}
	checks.OK("file", "%s, %d KiB", path, info.Size()>>10)
	diagnoseHolder(&checks, path)
	if info.Size() > 0 {
		diagnoseContent(ctx, &checks, path, o.Partitions)
	}
	return checks, ctx.Err()
}

// reason is the text of an error without its code.
func reason(err error) string {
	if e, ok := ff.AsError(err); ok {
		return e.Detail
	}
	return err.Error()
}

// diagnoseWritable tries to write beside the file, where SQLite keeps its log, and
// opens the file for writing without doing so.
func diagnoseWritable(checks *ff.Checks, path string) {
	const advice = "let the user who runs the server own the file and its directory"
	probe, err := os.CreateTemp(filepath.Dir(path), ".flowfabric-doctor-")
	if err != nil {
		checks.Problem("writable", advice, "the directory cannot be written: %s", err)
		return
	}
	_ = probe.Close()
	_ = os.Remove(probe.Name())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		checks.Problem("writable", advice, "the file cannot be written: %s", err)
		return
	}
	if err == nil {
		_ = f.Close()
	}
	checks.OK("writable", "the directory and the file can be written")
}

// diagnoseHolder says who uses the file, without touching the lock: a server that
// starts at this moment must find it free.
func diagnoseHolder(checks *ff.Checks, path string) {
	f, err := os.Open(path + ".lock")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	b, _ := io.ReadAll(io.LimitReader(f, 4096))
	var h holder
	if json.Unmarshal(b, &h) != nil || h.PID == 0 {
		checks.OK("used by", "nobody")
		return
	}
	checks.OK("used by", "process %d on host %q since %s, unless it was killed: talk to it over HTTP", h.PID, h.Host, h.Started.Format(time.RFC3339))
}

// diagnoseContent reads the file through a connection that cannot write.
func diagnoseContent(ctx context.Context, checks *ff.Checks, path string, want ff.PartitionConfig) {
	if err := inspectHeader(path); err != nil {
		checks.Problem("content", "give the path of a store", "%s", reason(err))
		return
	}
	c, err := openUntouched(path)
	if err != nil {
		checks.Problem("content", "restore the file from a backup", "%s", err)
		return
	}
	defer func() { _ = c.close() }()
	c.SetInterrupt(ctx.Done())
	// The size keeps the short check away: the whole one follows.
	if err := inspectContent(c, path, checkedSize+1); err != nil {
		checks.Problem("content", "give the path of a store, or restore the file from a backup", "%s", reason(err))
		return
	}
	diagnoseSchema(checks, c)
	diagnosePartitions(checks, c, want)
	result, err := c.text("pragma quick_check(1)")
	switch {
	case err != nil:
		checks.Problem("content", "restore the file from a backup", "quick_check: %s", err)
	case result != "ok":
		checks.Problem("content", "restore the file from a backup", "quick_check: %s", strings.TrimSpace(result))
	default:
		checks.OK("content", "quick_check finds no damage")
	}
}

// openUntouched opens a file for reading. Where nobody has it open it is taken as it
// lies there, because SQLite would otherwise leave files beside it.
func openUntouched(path string) (*conn, error) {
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		return openConn(path, zs.OpenReadOnly, "busy_timeout = 5000", "query_only = on")
	}
	lying := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: "immutable=1"}
	return openConn(lying.String(), zs.OpenReadOnly|zs.OpenURI, "query_only = on")
}

func diagnoseSchema(checks *ff.Checks, c *conn) {
	version, err := c.number("pragma user_version")
	if err != nil {
		checks.Problem("schema", "restore the file from a backup", "%s", err)
		return
	}
	if newest := len(allMigrations); version < newest {
		checks.OK("schema", "version %d; the next server of this version brings it to %d", version, newest)
	} else {
		checks.OK("schema", "version %d", version)
	}
	checks.OK("durability", "wal; the server syncs each commit unless it was started with --synchronous normal or off")
}

// diagnosePartitions compares the stored counts with those that are wanted.
func diagnosePartitions(checks *ff.Checks, c *conn, want ff.PartitionConfig) {
	var text []string
	for _, f := range []struct {
		name, word, variable string
		want                 uint16
	}{
		{"num_flow_partitions", "flow", "FF_FLOW_PARTITIONS", want.Flow},
		{"num_budget_partitions", "budget", "FF_BUDGET_PARTITIONS", want.Budget},
		{"num_quota_partitions", "quota", "FF_QUOTA_PARTITIONS", want.Quota},
	} {
		n, err := c.number("select coalesce((select value from meta where name = '" + f.name + "'), 0)")
		if err != nil {
			return // an unfinished file, which the next server completes
		}
		if f.want != 0 && n != 0 && int(f.want) != n {
			checks.Problem("partitions", "set "+f.variable+" to the stored count or unset it: the counts of a store never change",
				"%s: stored %d, configured %d", f.name, n, f.want)
			return
		}
		text = append(text, fmt.Sprintf("%d %s", n, f.word))
	}
	checks.OK("partitions", "%s", strings.Join(text, ", "))
}

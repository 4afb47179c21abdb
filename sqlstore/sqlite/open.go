// Package sqlite is the embedded store: flowfabric.Backend in one SQLite file,
// for one process at a time.
//
// The driver is zombiezen.com/go/sqlite: the pure Go engine of modernc.org,
// driven without the layer of database/sql. Migrations therefore have a small
// runner of their own, see migrate.go.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore"
	zs "zombiezen.com/go/sqlite"
)

// Synchronous says what a commit waits for.
type Synchronous string

const (
	// Full syncs the log with every commit: an acknowledged command survives the
	// loss of power. It is the default.
	Full Synchronous = "full"
	// Normal syncs at checkpoints only: an acknowledged command survives the end
	// of the process, but the last ones may be lost with the power. The file stays
	// sound.
	Normal Synchronous = "normal"
	// Off never syncs: after a loss of power the file may be damaged. For tests
	// and benchmarks only.
	Off Synchronous = "off"
)

// Options are the settings of a store. The zero value is good for production.
type Options struct {
	// Partitions is fixed when the file is created; zero means the stored
	// configuration, or the default for a new file.
	Partitions  ff.PartitionConfig
	Synchronous Synchronous
	// Clock is for tests; nil means the clock of the system.
	Clock func() time.Time
	// Retention is how long terminal executions without a retention of their own
	// are kept; 0 means flowfabric.DefaultRetention.
	Retention time.Duration
	// Logger gets what goes wrong in the background; nil means slog.Default.
	Logger *slog.Logger
}

// withDefaults checks the options and fills in what is missing, except for the
// partitions and the clock.
func (o Options) withDefaults() (Options, error) {
	switch o.Synchronous {
	case "":
		o.Synchronous = Full
	case Full, Normal, Off:
	default:
		return o, ff.InvalidInput("synchronous", "must be full, normal or off (got %q)", string(o.Synchronous))
	}
	if o.Partitions != (ff.PartitionConfig{}) {
		if err := o.Partitions.Validate(); err != nil {
			return o, err
		}
	}
	if o.Retention < 0 {
		return o, ff.InvalidInput("retention", "must not be negative (got %s)", o.Retention)
	}
	if o.Retention == 0 {
		o.Retention = ff.DefaultRetention
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

// Store is an open store. It implements flowfabric.Backend.
type Store struct {
	*sqlstore.Store
	shared *shared
	once   sync.Once
	err    error
}

var _ ff.Backend = (*Store)(nil)

// shared is what all handles of one file in this process have in common.
type shared struct {
	store   *sqlstore.Store
	driver  sqlstore.Driver
	path    string
	opts    Options
	version string
	close   func() error
	refs    int
}

// open files of this process by their canonical path.
var (
	openMu    sync.Mutex
	openFiles = map[string]*shared{}
)

// Open opens the store in the file at path and creates it when it is missing.
// The path ":memory:" or "" opens a private store in memory. Opening a file
// again in the same process gives another handle on the same store; the file is
// closed with its last handle. Errors: unsupported_store when the file belongs
// to another process, another application or a newer version, or is damaged: it
// is left as it was; invalid_input for options that cannot be; unavailable when
// the file system refuses.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if path == "" || path == ":memory:" {
		sh, err := openMemory(ctx, opts)
		if err != nil {
			return nil, mapError(err)
		}
		return &Store{Store: sh.store, shared: sh}, nil
	}
	path, err = canonical(path)
	if err != nil {
		return nil, err
	}
	openMu.Lock()
	defer openMu.Unlock()
	sh := openFiles[path]
	if sh == nil {
		if sh, err = openFile(ctx, path, opts); err != nil {
			return nil, mapError(err)
		}
		openFiles[path] = sh
	} else if err := sh.compatible(opts); err != nil {
		return nil, err
	}
	sh.refs++
	return &Store{Store: sh.store, shared: sh}, nil
}

// canonical is the one name of a file whatever links lead to it.
func canonical(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", ff.Errorf(ff.CodeUnavailable, "the path %q: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	// SQLite would make the file that the link names, which has another lock.
	if to, err := os.Readlink(abs); err == nil {
		return "", ff.Errorf(ff.CodeUnavailable, "%s is a link to %s, which does not exist; give the path of the file itself", abs, to)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if errors.Is(err, os.ErrNotExist) {
		return "", ff.Errorf(ff.CodeUnavailable, "the directory %s does not exist; create it first", filepath.Dir(abs))
	}
	if err != nil {
		return "", ff.Errorf(ff.CodeUnavailable, "the directory of %q: %w", path, err)
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// compatible refuses options that differ from those of the open store.
func (sh *shared) compatible(o Options) error {
	refuse := func(name string, open, given any) error {
		return ff.InvalidInput(name, "%s is open in this process with %v (got %v); use the same options, or close it first", sh.path, open, given)
	}
	switch {
	case o.Partitions != (ff.PartitionConfig{}) && o.Partitions != sh.opts.Partitions:
		return refuse("partitions", sh.opts.Partitions, o.Partitions)
	case o.Synchronous != sh.opts.Synchronous:
		return refuse("synchronous", sh.opts.Synchronous, o.Synchronous)
	case o.Retention != sh.opts.Retention:
		return refuse("retention", sh.opts.Retention, o.Retention)
	case o.Clock != nil || sh.opts.Clock != nil:
		// Functions cannot be compared.
		return ff.InvalidInput("clock", "%s is open in this process, and a store with a clock of its own is not shared; close it first", sh.path)
	}
	return nil
}

// writerPragmas are set on the connection that writes. Larger pages and rarer
// checkpoints than these measured slower (inputs of 4 KB, synchronous=full).
func writerPragmas(o Options) []string {
	return []string{"page_size = 4096", "foreign_keys = off", "busy_timeout = 5000", "temp_store = memory",
		"cache_size = -65536", "synchronous = " + string(o.Synchronous)}
}

func openMemory(ctx context.Context, o Options) (*shared, error) {
	c, err := openConn(":memory:", zs.OpenReadWrite|zs.OpenCreate|zs.OpenMemory, writerPragmas(o)...)
	if err != nil {
		return nil, err
	}
	d := &memory{writer: c}
	sh, err := start(ctx, d, c, ":memory:", o)
	if err != nil {
		_ = c.close()
		return nil, err
	}
	sh.refs, sh.close = 1, d.close
	return sh, nil
}

// createPrivate makes a new file that only its owner can read: payloads are
// nobody else's business. SQLite gives its side files the same permissions.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return ff.Errorf(ff.CodeUnavailable, "the file cannot be opened for writing (check its permissions): %w", err)
	}
	return f.Close()
}

func openFile(ctx context.Context, path string, o Options) (_ *shared, err error) {
	lock, err := acquire(path)
	if err != nil {
		return nil, err
	}
	d := &files{idle: make(chan *conn, readers), wal: path + "-wal", walLimit: maxWAL}
	defer func() {
		if err == nil {
			return
		}
		for _, r := range d.readers {
			_ = r.close()
		}
		if d.writer != nil {
			_ = d.writer.close()
		}
		lock.release()
	}()
	if err := inspect(path); err != nil {
		return nil, err
	}
	if err := createPrivate(path); err != nil {
		return nil, err
	}
	d.writer, err = openConn(path, zs.OpenReadWrite|zs.OpenCreate, append(writerPragmas(o),
		"journal_mode = wal", "wal_autocheckpoint = 1000", fmt.Sprintf("journal_size_limit = %d", maxWAL))...)
	if err != nil {
		return nil, err
	}
	sh, err := start(ctx, d, d.writer, path, o)
	if err != nil {
		return nil, err
	}
	for range readers {
		r, err := openConn(path, zs.OpenReadOnly, "busy_timeout = 5000", "temp_store = memory", "cache_size = -16384", "query_only = on")
		if err != nil {
			sh.store.Stop()
			return nil, err
		}
		d.readers = append(d.readers, r)
		d.idle <- r
	}
	sh.close = func() error {
		defer lock.release()
		return d.close()
	}
	return sh, nil
}

// start brings the schema up to date and starts the store on it.
func start(ctx context.Context, d sqlstore.Driver, c *conn, path string, o Options) (*shared, error) {
	if err := migrate(c); err != nil {
		return nil, err
	}
	var err error
	if o.Partitions, err = settlePartitions(c, o.Partitions); err != nil {
		return nil, err
	}
	version, err := c.text("select sqlite_version()")
	if err != nil {
		return nil, err
	}
	clock := o.Clock
	if clock == nil {
		clock = time.Now
	}
	store, err := sqlstore.New(ctx, d, sqlstore.Config{Partitions: o.Partitions, Clock: clock, Retention: o.Retention, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	return &shared{store: store, driver: d, path: path, opts: o, version: version}, nil
}

var (
	selectPartitions = &sqlstore.Statement{SQL: "select value from meta where name = $1"}
	insertPartitions = &sqlstore.Statement{SQL: "insert into meta (name, value) values ($1, $2)"}
)

// settlePartitions stores the partition configuration in a new file and holds
// later openings to it: ids would lead to other partitions otherwise.
func settlePartitions(c *conn, want ff.PartitionConfig) (ff.PartitionConfig, error) {
	stored := ff.PartitionConfig{}
	fields := []struct {
		name string
		n    *uint16
	}{{"num_flow_partitions", &stored.Flow}, {"num_budget_partitions", &stored.Budget}, {"num_quota_partitions", &stored.Quota}}
	for _, f := range fields {
		err := c.Query(selectPartitions, []sqlstore.Value{{Kind: sqlstore.Text, S: f.name}}, func(r sqlstore.Row) error {
			*f.n = uint16(r.Int(0))
			return nil
		})
		if err != nil {
			return stored, err
		}
	}
	switch {
	case stored == want, stored != (ff.PartitionConfig{}) && want == (ff.PartitionConfig{}):
		if stored != (ff.PartitionConfig{}) {
			return stored, nil
		}
		want = ff.DefaultPartitionConfig
	case stored != (ff.PartitionConfig{}):
		return stored, ff.InvalidInput("partitions", "the store was created with %+v and cannot change it (got %+v)", stored, want)
	}
	stored = want
	if err := c.Begin(); err != nil {
		return stored, err
	}
	for _, f := range fields {
		args := []sqlstore.Value{{Kind: sqlstore.Text, S: f.name}, {Kind: sqlstore.Integer, N: int64(*f.n)}}
		if err := c.Query(insertPartitions, args, nil); err != nil {
			return stored, errors.Join(err, c.Rollback())
		}
	}
	return stored, c.Commit()
}

// Close closes the handle. The last handle of a file ends the store: commands
// that were accepted are done, later ones get unavailable.
func (s *Store) Close() error {
	s.once.Do(func() {
		openMu.Lock()
		defer openMu.Unlock()
		sh := s.shared
		if sh.refs--; sh.refs > 0 {
			return
		}
		delete(openFiles, sh.path)
		sh.store.Stop()
		s.err = mapError(sh.close())
	})
	return s.err
}

// Info describes the store.
func (s *Store) Info(context.Context) (ff.Info, error) {
	durability := "memory, nothing survives the process"
	if s.shared.path != ":memory:" {
		durability = fmt.Sprintf("wal, synchronous=%s", s.shared.opts.Synchronous)
	}
	return ff.Info{
		Store: "sqlite", Version: s.shared.version, Location: s.shared.path,
		Durability: durability, Partitions: s.shared.opts.Partitions,
	}, nil
}

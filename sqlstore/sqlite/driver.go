package sqlite

import (
	"context"
	"errors"
	"os"
	"sync"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore"
	zs "zombiezen.com/go/sqlite"
)

// readers is the number of connections for reading beside the writer.
const readers = 4

// files is the driver of a store in a file: in WAL mode the readers see the last
// commit and never wait for the writer.
type files struct {
	writer  *conn
	readers []*conn
	idle    chan *conn
	// wal is the path of the log, walLimit the size at which to empty it.
	wal      string
	walLimit int64
}

func (d *files) Writer() (sqlstore.Conn, func()) { return d.writer, d.shorten }

// maxWAL is the size beyond which the log should not grow.
const maxWAL = 64 << 20

// shorten empties a log that has grown too long. By itself SQLite begins the log
// anew only in a moment without readers, which does not come while their
// transactions overlap. A reader that takes its time is not waited for: the next
// attempt follows when the log has grown by as much again.
func (d *files) shorten() {
	info, err := os.Stat(d.wal)
	if err != nil || info.Size() < d.walLimit {
		return
	}
	d.walLimit = info.Size() + maxWAL
	_, _ = d.writer.text("pragma busy_timeout = 250")
	if blocked, err := d.writer.text("pragma wal_checkpoint(truncate)"); err == nil && blocked == "0" {
		d.walLimit = maxWAL
	}
	_, _ = d.writer.text("pragma busy_timeout = 5000")
}

func (d *files) Read(ctx context.Context) (sqlstore.Conn, func(), error) {
	var c *conn
	select {
	case c = <-d.idle:
	default:
		select {
		case c = <-d.idle:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	if c == nil {
		return nil, nil, ff.NewError(ff.CodeUnavailable, "the store is closed; open it again")
	}
	if err := c.Query(beginRead, nil, nil); err != nil {
		d.idle <- c
		return nil, nil, err
	}
	return c, func() {
		_ = c.Rollback()
		d.idle <- c
	}, nil
}

func (d *files) Error(err error) error { return mapError(err) }

func (d *files) close() error {
	for range d.readers {
		<-d.idle
	}
	close(d.idle)
	var errs []error
	for _, r := range d.readers {
		errs = append(errs, r.close())
	}
	// The WAL is emptied, so that the file alone is the whole store.
	_, err := d.writer.text("pragma wal_checkpoint(truncate)")
	return errors.Join(append(errs, err, d.writer.close())...)
}

// memory is the driver of a store in memory: one connection, which writes in
// batches and reads between them.
type memory struct {
	mu     sync.Mutex
	writer *conn
	closed bool
}

func (d *memory) Writer() (sqlstore.Conn, func()) {
	d.mu.Lock()
	return d.writer, d.mu.Unlock
}

func (d *memory) Read(ctx context.Context) (sqlstore.Conn, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, nil, ff.NewError(ff.CodeUnavailable, "the store is closed; open it again")
	}
	return d.writer, d.mu.Unlock, nil
}

func (d *memory) Error(err error) error { return mapError(err) }

func (d *memory) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return d.writer.close()
}

// advice says what an error of SQLite means and what to do about it.
var advice = map[zs.ResultCode]struct {
	code ff.Code
	text string
}{
	zs.ResultFull:     {ff.CodeUnavailable, "the disk is full; free some space, then try again"},
	zs.ResultIOErr:    {ff.CodeUnavailable, "reading or writing the database file failed; check the disk"},
	zs.ResultReadOnly: {ff.CodeUnavailable, "the database file cannot be written; check its permissions and those of its directory"},
	zs.ResultCantOpen: {ff.CodeUnavailable, "the database file cannot be opened; check its path and permissions"},
	zs.ResultPerm:     {ff.CodeUnavailable, "access to the database file is denied; check its permissions"},
	zs.ResultBusy:     {ff.CodeUnavailable, "another program holds the database file locked; close it, then try again"},
	zs.ResultLocked:   {ff.CodeUnavailable, "another program holds the database file locked; close it, then try again"},
	zs.ResultNoMem:    {ff.CodeResourceExhausted, "out of memory"},
	zs.ResultTooBig:   {ff.CodeResourceExhausted, "a value or statement is larger than SQLite allows"},
	zs.ResultCorrupt:  {ff.CodeCorruption, "the database file is damaged; restore it from a backup"},
	zs.ResultNotADB:   {ff.CodeCorruption, "the file is not an SQLite database"},
}

// mapError turns errors of SQLite into ours. Ours, and the end of a context,
// stay as they are.
func mapError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if _, ours := ff.AsError(err); ours {
		return err
	}
	if a, ok := advice[zs.ErrCode(err).ToPrimary()]; ok {
		return &ff.Error{Code: a.code, Detail: a.text, Err: err}
	}
	return &ff.Error{Code: ff.CodeInternal, Detail: "a statement failed", Err: err}
}

package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/migrations"
	zs "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// applicationID marks the files of this store in their header ("FlwF").
const applicationID = 0x466c7746

// migration is one step of the schema. The files have the format of goose, whose
// runner is not used because it needs database/sql; the version is kept in the
// header of the database (PRAGMA user_version).
type migration struct {
	version int
	name    string
	up      string
}

// allMigrations lists the steps in order: 1, 2, …
var allMigrations = func() []migration {
	list, err := readMigrations(migrations.SQLite)
	if err != nil {
		panic(fmt.Sprintf("sqlite: the embedded migrations: %v", err))
	}
	return list
}()

func readMigrations(from fs.FS) (list []migration, err error) {
	files, err := fs.Glob(from, "sqlite/*.sql")
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		b, err := fs.ReadFile(from, f)
		if err != nil {
			return nil, err
		}
		name := path.Base(f)
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("%s: the number must be %05d", name, i+1)
		}
		_, rest, ok := strings.Cut(string(b), "-- +goose Up\n")
		up, _, ok2 := strings.Cut(rest, "-- +goose Down\n")
		if !ok || !ok2 {
			return nil, fmt.Errorf("%s: must have an up part and a down part", name)
		}
		list = append(list, migration{version, name, up})
	}
	return list, nil
}

// migrate brings the schema up to date, each step in a transaction of its own.
func migrate(c *conn) error {
	version, err := c.number("pragma user_version")
	if err != nil {
		return err
	}
	for _, m := range allMigrations[min(version, len(allMigrations)):] {
		script := m.up + fmt.Sprintf("\nPRAGMA application_id = %d;\nPRAGMA user_version = %d;\n", applicationID, m.version)
		if err := sqlitex.ExecuteScript(c.Conn, script, nil); err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
	}
	return nil
}

func (c *conn) number(sql string) (int, error) {
	s, err := c.text(sql)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(s)
}

// checkedSize is the largest file that is checked page by page when it is
// opened. Larger ones would take too long; damage in them shows when it is read.
const checkedSize = 32 << 20

// inspect refuses files that this version must not touch, without changing
// them. A missing or empty file is fine: it becomes a new store. Errors:
// unsupported_store.
func inspect(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return ff.Errorf(ff.CodeUnavailable, "the database file: %w", err)
	}
	if info.IsDir() {
		return ff.Errorf(ff.CodeUnsupportedStore, "%s is a directory; give the path of a file", path)
	}
	if err := inspectHeader(path); err != nil {
		return err
	}
	// A connection for reading only neither recovers nor checkpoints.
	c, err := openConn(path, zs.OpenReadOnly, "query_only = on")
	if err != nil {
		return damaged(path, err)
	}
	defer func() { _ = c.close() }()
	return inspectContent(c, path, info.Size())
}

// inspectHeader reads the first bytes of the file without SQLite.
func inspectHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return ff.Errorf(ff.CodeUnavailable, "the database file cannot be read: %w", err)
	}
	defer func() { _ = f.Close() }()
	var header [100]byte
	if _, err := io.ReadFull(f, header[:]); err != nil || string(header[:16]) != "SQLite format 3\x00" {
		return ff.Errorf(ff.CodeUnsupportedStore, "%s is not an SQLite database; give another path, or move that file away", path)
	}
	if id := binary.BigEndian.Uint32(header[68:]); id != applicationID && id != 0 {
		return foreign(path, fmt.Sprintf("application id %#x", id))
	}
	return nil
}

func foreign(path, what string) error {
	return ff.Errorf(ff.CodeUnsupportedStore, "%s is a database of another application (%s); give another path", path, what)
}

func damaged(path string, err error) error {
	return ff.Errorf(ff.CodeUnsupportedStore, "%s is damaged; restore it from a backup (it was left as it is): %w", path, err)
}

func inspectContent(c *conn, path string, size int64) error {
	tables, err := c.number("select count(*) from sqlite_schema")
	if err != nil {
		return damaged(path, err)
	}
	id, err := c.number("pragma application_id")
	if err != nil {
		return damaged(path, err)
	}
	if id != applicationID && tables > 0 {
		return foreign(path, fmt.Sprintf("application id %#x, %d tables", id, tables))
	}
	version, err := c.number("pragma user_version")
	if err != nil {
		return damaged(path, err)
	}
	if newest := len(allMigrations); version > newest {
		return ff.Errorf(ff.CodeUnsupportedStore, "%s has schema version %d and this program knows versions up to %d; use a newer program", path, version, newest)
	}
	if size > checkedSize {
		return nil
	}
	result, err := c.text("pragma quick_check(1)")
	if err != nil {
		return damaged(path, err)
	}
	if result != "ok" {
		return damaged(path, errors.New(result))
	}
	return nil
}

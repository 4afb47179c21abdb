package sqlite

import (
	"unsafe"

	"github.com/flowfabric/flowfabric/sqlstore"
	zs "zombiezen.com/go/sqlite"
)

// conn is one connection with its prepared statements. It implements
// sqlstore.Conn.
type conn struct {
	*zs.Conn
	prepared map[*sqlstore.Statement]*zs.Stmt
}

func openConn(path string, flags zs.OpenFlags, pragmas ...string) (*conn, error) {
	raw, err := zs.OpenConn(path, flags)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, prepared: map[*sqlstore.Statement]*zs.Stmt{}}
	for _, p := range pragmas {
		if _, err := c.text("pragma " + p); err != nil {
			_ = c.close()
			return nil, err
		}
	}
	return c, nil
}

func (c *conn) close() error {
	for _, s := range c.prepared {
		_ = s.Finalize()
	}
	return c.Close()
}

// text runs a statement once and gives the first column of its first row.
func (c *conn) text(sql string) (first string, err error) {
	s, _, err := c.PrepareTransient(sql)
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Finalize() }()
	for n := 0; ; n++ {
		row, err := s.Step()
		if err != nil || !row {
			return first, err
		}
		if n == 0 {
			first = s.ColumnText(0)
		}
	}
}

// Query runs a prepared statement.
func (c *conn) Query(q *sqlstore.Statement, args []sqlstore.Value, each func(sqlstore.Row) error) error {
	s := c.prepared[q]
	if s == nil {
		var err error
		if s, _, err = c.PrepareTransient(q.SQL); err != nil {
			return err
		}
		c.prepared[q] = s
	}
	for i := range args {
		bind(s, i+1, &args[i])
	}
	for {
		row, err := s.Step()
		if err == nil && row && each != nil {
			err = each((*rowOf)(s))
		}
		if err != nil {
			_ = s.Reset()
			return err
		}
		if !row {
			return s.Reset()
		}
	}
}

func bind(s *zs.Stmt, i int, v *sqlstore.Value) {
	switch v.Kind {
	case sqlstore.Null:
		s.BindNull(i)
	case sqlstore.Integer:
		s.BindInt64(i, v.N)
	case sqlstore.Text:
		s.BindText(i, v.S)
	case sqlstore.Blob:
		// The driver copies the bytes.
		s.BindBytes(i, unsafe.Slice(unsafe.StringData(v.S), len(v.S)))
	}
}

// rowOf is the current row of a statement.
type rowOf zs.Stmt

func (r *rowOf) Null(col int) bool   { return (*zs.Stmt)(r).ColumnIsNull(col) }
func (r *rowOf) Int(col int) int64   { return (*zs.Stmt)(r).ColumnInt64(col) }
func (r *rowOf) Text(col int) string { return (*zs.Stmt)(r).ColumnText(col) }

func (r *rowOf) Blob(col int) []byte {
	s := (*zs.Stmt)(r)
	b := make([]byte, s.ColumnLen(col))
	s.ColumnBytes(col, b)
	return b
}

var (
	beginRead  = &sqlstore.Statement{SQL: "begin"}
	beginWrite = &sqlstore.Statement{SQL: "begin immediate"}
	commit     = &sqlstore.Statement{SQL: "commit"}
	rollback   = &sqlstore.Statement{SQL: "rollback"}
)

func (c *conn) Begin() error  { return c.Query(beginWrite, nil, nil) }
func (c *conn) Commit() error { return c.Query(commit, nil, nil) }

// Rollback ends the transaction. After some errors SQLite has done so by itself.
func (c *conn) Rollback() error {
	if c.AutocommitEnabled() {
		return nil
	}
	return c.Query(rollback, nil, nil)
}

package sqlstore

import (
	"context"
	"time"
	"unsafe"
)

// Driver is what a dialect brings: connections, and errors in our words.
type Driver interface {
	// Writer lends the connection of the command loop, for one batch. Only one
	// goroutine asks for it.
	Writer() (c Conn, release func())
	// Read lends a connection for reading; give it back with release. All its
	// statements see the same state, which has everything that was committed
	// before the call.
	Read(ctx context.Context) (c Conn, release func(), err error)
	// Error turns an error of a connection into a *flowfabric.Error. It keeps
	// errors that are such already.
	Error(error) error
}

// Conn is one connection to a database. It is not safe for concurrent use.
type Conn interface {
	// Query runs a statement. Every row that it returns is handed to row, which
	// must not keep it; a nil row ignores them.
	Query(s *Statement, args []Value, row func(Row) error) error
	// Begin, Commit and Rollback bracket a write transaction.
	Begin() error
	Commit() error
	Rollback() error
}

// Row is one row of a result. Columns count from 0.
type Row interface {
	Null(col int) bool
	Int(col int) int64
	Text(col int) string
	Blob(col int) []byte
}

// Statement is the text of one SQL statement with parameters $1, $2, … in the
// order of their first appearance. Statements are compared by address, so that
// a connection finds its prepared form without hashing the text.
type Statement struct{ SQL string }

// statements lists the fixed statements for the test of their query plans.
var statements []*Statement

func statement(sql string) *Statement {
	s := &Statement{SQL: sql}
	statements = append(statements, s)
	return s
}

// ValueKind says what a Value holds.
type ValueKind uint8

// The kinds of values.
const (
	Null ValueKind = iota
	Integer
	Text
	Blob
)

// Value is a parameter: NULL, an integer, a text or a blob (in S too).
type Value struct {
	Kind ValueKind
	N    int64
	S    string
}

func integer(n int64) Value { return Value{Kind: Integer, N: n} }

func text(s string) Value { return Value{Kind: Text, S: s} }

func blob(b []byte) Value { return Value{Kind: Blob, S: string(b)} }

// textOrNull stores the empty text as NULL, which costs no space in a row.
func textOrNull(s string) Value {
	if s == "" {
		return Value{}
	}
	return text(s)
}

// uuidOrNull stores the zero id as NULL.
func uuidOrNull(id [16]byte) Value {
	if id == [16]byte{} {
		return Value{}
	}
	return blob(id[:])
}

// round gives the instant that is stored: UTC, in whole milliseconds.
func round(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// instant stores milliseconds since 1970, and the zero time as NULL.
func instant(t time.Time) Value {
	if t.IsZero() {
		return Value{}
	}
	return integer(t.UnixMilli())
}

func readInstant(r Row, col int) time.Time {
	if r.Null(col) {
		return time.Time{}
	}
	return time.UnixMilli(r.Int(col)).UTC()
}

func readUUID(r Row, col int) (id [16]byte) {
	copy(id[:], r.Blob(col))
	return id
}

// borrow is a blob that shares the memory of b, which must not change while the
// statement runs.
func borrow(b []byte) Value { return Value{Kind: Blob, S: unsafe.String(unsafe.SliceData(b), len(b))} }

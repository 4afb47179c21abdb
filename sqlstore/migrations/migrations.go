// Package migrations holds the schemas of the SQL stores, one directory per
// dialect. Files are named NNNNN_what.sql and hold an up part and a down part
// behind the marks of github.com/pressly/goose.
package migrations

import "embed"

// SQLite is the schema of the embedded store.
//
//go:embed sqlite/*.sql
var SQLite embed.FS

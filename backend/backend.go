// Package backend opens a store by its URL.
package backend

import (
	"context"
	"slices"
	"strings"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/valkey"
)

// Options of the kinds of stores; only those of the URL's kind are used.
type Options struct {
	SQLite sqlite.Options
	Valkey valkey.Options
	// Client options for servers, for example client.WithToken.
	Client []client.Option
}

// Open opens the store at a URL:
//
//	sqlite:PATH            a SQLite file; sqlite::memory: for one in memory
//	valkey://…             a Valkey, see valkey.ParseURL
//	http://…, https://…    the store of a server
//
// A path that ends in .db is a SQLite file as well. Errors: invalid_input for
// other URLs, and those of the store.
func Open(ctx context.Context, url string, o Options) (ff.Backend, error) {
	scheme, rest, found := strings.Cut(url, ":")
	switch {
	case found && scheme == "sqlite":
		path := strings.TrimPrefix(rest, "//")
		if path == "" {
			return nil, ff.InvalidInput("store", "sqlite: needs a path, for example sqlite:flowfabric.db, or sqlite::memory:")
		}
		return opened(sqlite.Open(ctx, path, o.SQLite))
	case found && (scheme == "http" || scheme == "https"):
		c, err := client.New(url, o.Client...)
		if err != nil {
			return nil, err
		}
		return c.Backend(), nil
	case found && slices.Contains(valkey.Schemes, scheme):
		return opened(valkey.Open(ctx, url, o.Valkey))
	case found && (scheme == "postgres" || scheme == "postgresql"):
		return nil, ff.InvalidInput("store", "this version has no %s store; it has sqlite:PATH, valkey://HOST and http://SERVER", scheme)
	case strings.HasSuffix(url, ".db"):
		return opened(sqlite.Open(ctx, url, o.SQLite))
	}
	shown := url
	if found {
		shown = scheme + ":…" // what follows may be a password
	}
	return nil, ff.InvalidInput("store", "%q is not a store: use sqlite:PATH, valkey://HOST, http://SERVER or a path that ends in .db", shown)
}

// opened keeps a nil store from becoming a Backend that is not nil.
func opened[S ff.Backend](s S, err error) (ff.Backend, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

package main

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/backend"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/valkey"
)

// The kinds of stores, as FF_BACKEND and warnings name them.
const (
	kindSQLite = "sqlite"
	kindValkey = "valkey"
	kindServer = "server"
)

// kindOf is the kind of store that a URL or path leads to.
func kindOf(store string) string {
	switch scheme, _, found := strings.Cut(store, ":"); {
	case found && slices.Contains(valkey.Schemes, scheme):
		return kindValkey
	case found && (scheme == "http" || scheme == "https"):
		return kindServer
	}
	return kindSQLite
}

// shown is a store for people: never with a password.
func shown(store string) string {
	switch kindOf(store) {
	case kindValkey:
		if t, err := valkey.ParseURL(store); err == nil {
			return t.String()
		}
		return "the Valkey of --store"
	case kindServer:
		if u, err := url.Parse(store); err == nil {
			return u.Redacted()
		}
		return "the server of --store"
	}
	if scheme, _, found := strings.Cut(store, "://"); found && scheme != "sqlite" {
		return scheme + "://…"
	}
	return store
}

// completeURL gives the URL of a Valkey the user and password of the environment,
// unless it has its own.
func completeURL(store, user, password string) (string, error) {
	if kindOf(store) != kindValkey {
		return store, nil
	}
	if _, err := valkey.ParseURL(store); err != nil {
		return "", err
	}
	u, err := url.Parse(store)
	if err != nil || u.User != nil || user+password == "" {
		return store, nil //nolint:nilerr // who opens the store refuses the URL
	}
	u.User = url.UserPassword(user, password)
	return u.String(), nil
}

// location is the store that the command is about: --store, or the server.
func (a *app) location() string {
	if a.store != "" {
		return a.store
	}
	return a.server
}

// commandPatience is how long commands that end by themselves try to reach a Valkey.
const commandPatience = 5 * time.Second

// silence is how long a command may wait for its store without a word.
const silence = time.Second

// openFor opens the store that the command is about, a Valkey with these options.
// A command without a log of its own says on standard error that it waits.
func (a *app) openFor(ctx context.Context, v valkey.Options) (ff.Backend, error) {
	if v.Logger == nil {
		slow := time.AfterFunc(silence, func() {
			a.notice("%s does not answer; trying for up to %s", shown(a.location()), v.Connect)
		})
		defer slow.Stop()
	}
	options, err := a.clientOptions()
	if err != nil {
		return nil, err
	}
	o := backend.Options{Client: options}
	location := a.location()
	if kindOf(location) == kindValkey {
		s, err := loadStoreSettings()
		if err != nil {
			return nil, err
		}
		if location, err = completeURL(location, s.User, s.Password); err != nil {
			return nil, err
		}
		v.Partitions, v.ForceReload = s.partitions(), bool(s.ForceReload)
		o.Valkey = v
	}
	return backend.Open(ctx, location, o)
}

func (a *app) clientOptions() ([]client.Option, error) {
	if a.timeout <= 0 {
		return nil, usageError("--timeout-call must be above 0 (got %s)", a.timeout)
	}
	options := []client.Option{client.WithToken(a.token), client.WithTimeout(a.timeout)}
	if a.insecure {
		options = append(options, client.WithInsecureToken())
	}
	return options, nil
}

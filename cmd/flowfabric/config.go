package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/server"
)

// settings are the environment variables of `serve` and `dev` (spec 09 §1). The
// tags are the whole truth: docs/configuration.md is made from them.
type settings struct {
	Listen     string      `env:"FF_LISTEN_ADDR" doc:"Address of the HTTP API. Beyond loopback a token is needed, or --open." flag:"--listen"`
	Token      string      `env:"FF_API_TOKEN" doc:"Token that every request must carry; none by default." flag:"--token"`
	Origins    csv         `env:"FF_CORS_ORIGINS" doc:"Origins of pages that may call the API, separated by commas; * for any. None by default." flag:"--cors-origin"`
	Backend    string      `env:"FF_BACKEND" doc:"Store: sqlite. This version has no other."`
	SQLitePath string      `env:"FF_SQLITE_PATH" doc:"SQLite file, or :memory:." flag:"--store sqlite:PATH"`
	Flow       positiveU16 `env:"FF_FLOW_PARTITIONS" doc:"Partitions of executions and flows; fixed when a store is first used."`
	Budget     positiveU16 `env:"FF_BUDGET_PARTITIONS" doc:"Partitions of budgets; fixed when a store is first used."`
	Quota      positiveU16 `env:"FF_QUOTA_PARTITIONS" doc:"Partitions of quota policies; fixed when a store is first used."`

	LeaseExpiry       milliseconds `env:"FF_LEASE_EXPIRY_INTERVAL_MS" doc:"Longest time, in milliseconds, between two looks for lost leases. What is due is done at once."`
	Delayed           milliseconds `env:"FF_DELAYED_PROMOTER_INTERVAL_MS" doc:"The same for delayed executions, in milliseconds."`
	AttemptTimeout    seconds      `env:"FF_ATTEMPT_TIMEOUT_INTERVAL_S" doc:"The same for attempt timeouts, in seconds."`
	ExecutionDeadline seconds      `env:"FF_EXECUTION_DEADLINE_INTERVAL_S" doc:"The same for deadlines, in seconds."`
	Retention         seconds      `env:"FF_RETENTION_TRIMMER_INTERVAL_S" doc:"The same for executions whose retention is over, in seconds."`
}

// defaultStore is where `serve` keeps its data.
const defaultStore = "flowfabric.db"

func defaultSettings() settings {
	return settings{
		Listen: server.DefaultListen, Backend: "sqlite", SQLitePath: defaultStore,
		Flow: positiveU16(ff.DefaultPartitionConfig.Flow), Budget: positiveU16(ff.DefaultPartitionConfig.Budget), Quota: positiveU16(ff.DefaultPartitionConfig.Quota),
		LeaseExpiry: milliseconds(engine.DefaultLeaseExpiry), Delayed: milliseconds(engine.DefaultDelayed),
		AttemptTimeout: seconds(engine.DefaultAttemptTimeout), ExecutionDeadline: seconds(engine.DefaultExecutionDeadline), Retention: seconds(engine.DefaultRetention),
	}
}

// idle are variables of the reference that have no effect in this version. They
// are named when they are set, so that nobody relies on them.
var idle = []string{
	"FF_HOST", "FF_PORT", "FF_TLS", "FF_CLUSTER", "FF_WAITPOINT_HMAC_SECRET", "FF_WAITPOINT_HMAC_GRACE_MS", "FF_MAX_CONCURRENT_STREAM_OPS",
	"FF_MAX_CONCURRENT_TAIL", "FF_LANES", "FF_INDEX_RECONCILER_INTERVAL_S", "FF_SUSPENSION_TIMEOUT_INTERVAL_S", "FF_PENDING_WP_EXPIRY_INTERVAL_S",
	"FF_BUDGET_RESET_INTERVAL_S", "FF_BUDGET_RECONCILER_INTERVAL_S", "FF_QUOTA_RECONCILER_INTERVAL_S", "FF_UNBLOCK_INTERVAL_S",
	"FF_DEPENDENCY_RECONCILER_INTERVAL_S", "FF_FLOW_PROJECTOR_INTERVAL_S", "FF_CANCEL_RECONCILER_INTERVAL_S", "FF_EDGE_CANCEL_DISPATCHER_INTERVAL_S",
	"FF_EDGE_CANCEL_RECONCILER_INTERVAL_S", "FF_POSTGRES_URL", "FF_POSTGRES_POOL_SIZE", "FF_SQLITE_POOL_SIZE", "FF_DEV_MODE", "FF_FORCE_LUA_RELOAD",
}

// loadSettings reads the environment (spec 09 §1.1). Errors name the variable.
func loadSettings() (settings, error) {
	s := defaultSettings()
	if err := refuseEmptyNumbers(); err != nil {
		return s, err
	}
	err := env.ParseWithOptions(&s, env.Options{FuncMap: map[reflect.Type]env.ParserFunc{
		reflect.TypeFor[positiveU16]():  func(v string) (any, error) { return parsePositiveU16(v) },
		reflect.TypeFor[milliseconds](): func(v string) (any, error) { d, err := parseInterval(v, time.Millisecond); return milliseconds(d), err },
		reflect.TypeFor[seconds]():      func(v string) (any, error) { d, err := parseInterval(v, time.Second); return seconds(d), err },
		reflect.TypeFor[csv]():          func(v string) (any, error) { return parseCSV(v), nil },
	}})
	if err != nil {
		return s, settingsError(err)
	}
	if v, set := os.LookupEnv("FF_CORS_ORIGINS"); set && v == "" {
		return s, invalidVariable("FF_CORS_ORIGINS", "must not be empty; unset it to allow no other origin")
	}
	switch s.Backend = strings.ToLower(s.Backend); s.Backend {
	case "sqlite", "":
		s.Backend = "sqlite"
	case "valkey", "postgres":
		return s, invalidVariable("FF_BACKEND", fmt.Sprintf("this version has no %s store; use sqlite", s.Backend))
	default:
		return s, invalidVariable("FF_BACKEND", fmt.Sprintf("unknown backend '%s': expected 'sqlite'", s.Backend))
	}
	return s, nil
}

// refuseEmptyNumbers refuses numbers that are set and empty: the parser would
// take them as unset.
func refuseEmptyNumbers() error {
	t := reflect.TypeFor[settings]()
	for i := range t.NumField() {
		f := t.Field(i)
		if kind := f.Type.Kind(); kind != reflect.Uint16 && kind != reflect.Int64 {
			continue
		}
		name := f.Tag.Get("env")
		if v, set := os.LookupEnv(name); set && v == "" {
			return invalidVariable(name, "expected a number, got ''")
		}
	}
	return nil
}

func invalidVariable(name, message string) error {
	return ff.Errorf(ff.CodeInvalidInput, "invalid value for %s: %s", name, message)
}

// settingsError names the first variable whose value was refused.
func settingsError(err error) error {
	var all env.AggregateError
	var refused env.ParseError
	if errors.As(err, &all) && len(all.Errors) > 0 {
		err = all.Errors[0]
	}
	if errors.As(err, &refused) {
		if f, ok := reflect.TypeFor[settings]().FieldByName(refused.Name); ok {
			return invalidVariable(f.Tag.Get("env"), refused.Err.Error())
		}
	}
	return ff.Errorf(ff.CodeInvalidInput, "reading the environment: %w", err)
}

type (
	csv          []string
	positiveU16  uint16
	milliseconds time.Duration
	seconds      time.Duration
)

func (m milliseconds) String() string { return strconv.FormatInt(time.Duration(m).Milliseconds(), 10) }
func (s seconds) String() string      { return strconv.Itoa(int(time.Duration(s).Seconds())) }
func (c csv) String() string          { return strings.Join(c, ",") }

func parsePositiveU16(v string) (positiveU16, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(v, "+"), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("expected u16, got '%s'", v)
	}
	if n == 0 {
		return 0, fmt.Errorf("must be > 0 (used as divisor in partition math)")
	}
	return positiveU16(n), nil
}

// parseInterval reads a number of units. Zero means the shortest interval that
// there is.
func parseInterval(v string, unit time.Duration) (time.Duration, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(v, "+"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("expected u64, got '%s'", v)
	}
	if n > uint64(24*time.Hour/unit) {
		return 0, fmt.Errorf("must be at most %d (got %d)", 24*time.Hour/unit, n)
	}
	return max(engine.MinInterval, time.Duration(n)*unit), nil
}

func parseCSV(v string) csv {
	var list csv
	for _, part := range strings.Split(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

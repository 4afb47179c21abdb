package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/server"
)

// settings are the environment variables of `serve` and `dev` (spec 09 §1). The
// tags are the whole truth: docs/configuration.md is made from them. A variable
// with a tag `only` has no effect on other kinds of stores.
type settings struct {
	Listen  string `env:"FF_LISTEN_ADDR" doc:"Address of the HTTP API. Beyond loopback a token is needed, or --open." flag:"--listen"`
	Token   string `env:"FF_API_TOKEN" doc:"Token that every request must carry; none by default." flag:"--token"`
	Origins csv    `env:"FF_CORS_ORIGINS" doc:"Origins of pages that may call the API, separated by commas; * for any. None by default." flag:"--cors-origin"`

	Tails places `env:"FF_MAX_CONCURRENT_STREAM_OPS" doc:"How many callers may wait for the output of attempts at the same time. FF_MAX_CONCURRENT_TAIL is its older name."`
	Grace grace  `env:"FF_WAITPOINT_HMAC_GRACE_MS" doc:"How long tokens of a replaced secret stay valid, in milliseconds, when the rotation does not say."`

	Store storeSettings

	LeaseExpiry       milliseconds `env:"FF_LEASE_EXPIRY_INTERVAL_MS" doc:"Longest time, in milliseconds, between two looks for lost leases. What is due is done at once."`
	Delayed           milliseconds `env:"FF_DELAYED_PROMOTER_INTERVAL_MS" doc:"The same for delayed executions, in milliseconds."`
	AttemptTimeout    seconds      `env:"FF_ATTEMPT_TIMEOUT_INTERVAL_S" doc:"The same for attempt timeouts, in seconds."`
	ExecutionDeadline seconds      `env:"FF_EXECUTION_DEADLINE_INTERVAL_S" doc:"The same for deadlines, in seconds."`
	SuspensionTimeout seconds      `env:"FF_SUSPENSION_TIMEOUT_INTERVAL_S" doc:"The same for suspensions whose time is over, in seconds."`
	PendingWaitpoints seconds      `env:"FF_PENDING_WP_EXPIRY_INTERVAL_S" doc:"The same for waitpoints that nothing waits at, in seconds."`
	Retention         seconds      `env:"FF_RETENTION_TRIMMER_INTERVAL_S" doc:"The same for executions whose retention is over, in seconds."`
	Index             seconds      `env:"FF_INDEX_RECONCILER_INTERVAL_S" doc:"Time in seconds between two repairs of indexes that a peer or a loss left incomplete." only:"valkey"`
}

func defaultSettings() settings {
	return settings{
		Listen: server.DefaultListen, Tails: server.DefaultMaxTails, Grace: grace(ff.DefaultSecretGrace), Store: defaultStoreSettings(),
		LeaseExpiry: milliseconds(engine.DefaultLeaseExpiry), Delayed: milliseconds(engine.DefaultDelayed),
		AttemptTimeout: seconds(engine.DefaultAttemptTimeout), ExecutionDeadline: seconds(engine.DefaultExecutionDeadline),
		SuspensionTimeout: seconds(engine.DefaultSuspensionTimeout), PendingWaitpoints: seconds(engine.DefaultPendingWaitpoints),
		Retention: seconds(engine.DefaultRetention), Index: seconds(engine.DefaultIndex),
	}
}

// idle are variables of the reference that have no effect in this version. They
// are named when they are set, so that nobody relies on them.
var idle = []string{
	"FF_BUDGET_RESET_INTERVAL_S", "FF_BUDGET_RECONCILER_INTERVAL_S",
	"FF_QUOTA_RECONCILER_INTERVAL_S", "FF_UNBLOCK_INTERVAL_S", "FF_DEPENDENCY_RECONCILER_INTERVAL_S", "FF_FLOW_PROJECTOR_INTERVAL_S",
	"FF_CANCEL_RECONCILER_INTERVAL_S", "FF_EDGE_CANCEL_DISPATCHER_INTERVAL_S", "FF_EDGE_CANCEL_RECONCILER_INTERVAL_S",
	"FF_POSTGRES_URL", "FF_POSTGRES_POOL_SIZE", "FF_SQLITE_POOL_SIZE", "FF_DEV_MODE",
}

// variable is one environment variable: the field that it fills, with its tags.
type variable struct {
	reflect.StructField
	value reflect.Value
}

func (v *variable) name() string { return v.Tag.Get("env") }

// variables lists the fields of settings that have a variable, in their order.
func variables(of reflect.Value) (list []variable) {
	for i := range of.NumField() {
		f := variable{of.Type().Field(i), of.Field(i)}
		if f.name() == "" {
			list = append(list, variables(f.value)...)
		} else {
			list = append(list, f)
		}
	}
	return list
}

// ineffective names the variables that are set and have no effect on a kind of
// store.
func ineffective(kind string) (names []string) {
	for _, v := range variables(reflect.ValueOf(settings{})) {
		if only := v.Tag.Get("only"); only != "" && only != kind && os.Getenv(v.name()) != "" {
			names = append(names, v.name())
		}
	}
	return names
}

// loadSettings reads the environment (spec 09 §1.1). Errors name the variable.
func loadSettings() (settings, error) {
	s := defaultSettings()
	if err := readEnvironment(&s); err != nil {
		return s, err
	}
	if err := readOldName(&s); err != nil {
		return s, err
	}
	if v, set := os.LookupEnv("FF_CORS_ORIGINS"); set && v == "" {
		return s, invalidVariable("FF_CORS_ORIGINS", "must not be empty; unset it to allow no other origin")
	}
	return s, s.Store.validate()
}

// readOldName reads the older name of a variable when the newer is not set.
func readOldName(s *settings) (err error) {
	const name, old = "FF_MAX_CONCURRENT_STREAM_OPS", "FF_MAX_CONCURRENT_TAIL"
	v, set := os.LookupEnv(old)
	if _, newer := os.LookupEnv(name); newer || !set {
		return nil
	}
	if s.Tails, err = parsePlaces(v); err != nil {
		return invalidVariable(old, err.Error())
	}
	return nil
}

func readEnvironment[T any](s *T) error {
	all := variables(reflect.ValueOf(s).Elem())
	if err := refuseEmptyNumbers(all); err != nil {
		return err
	}
	err := env.ParseWithOptions(s, env.Options{FuncMap: map[reflect.Type]env.ParserFunc{
		reflect.TypeFor[positiveU16]():  func(v string) (any, error) { return parsePositiveU16(v) },
		reflect.TypeFor[places]():       func(v string) (any, error) { return parsePlaces(v) },
		reflect.TypeFor[port]():         func(v string) (any, error) { return parsePort(v) },
		reflect.TypeFor[database]():     func(v string) (any, error) { n, err := parseU16(v); return database(n), err },
		reflect.TypeFor[boolean]():      func(v string) (any, error) { b, err := parseWord(v, "1", "true"); return boolean(b), err },
		reflect.TypeFor[reload]():       func(v string) (any, error) { b, err := parseWord(v, "1", "true", "yes"); return reload(b), err },
		reflect.TypeFor[milliseconds](): func(v string) (any, error) { d, err := parseInterval(v, time.Millisecond); return milliseconds(d), err },
		reflect.TypeFor[seconds]():      func(v string) (any, error) { d, err := parseInterval(v, time.Second); return seconds(d), err },
		reflect.TypeFor[grace]():        func(v string) (any, error) { return parseGrace(v) },
		reflect.TypeFor[hexSecret]():    func(v string) (any, error) { return parseSecret(v) },
		reflect.TypeFor[csv]():          func(v string) (any, error) { return parseCSV(v), nil },
	}})
	return settingsError(all, err)
}

// refuseEmptyNumbers refuses numbers that are set and empty: the parser would
// take them as unset.
func refuseEmptyNumbers(all []variable) error {
	for _, f := range all {
		if kind := f.Type.Kind(); kind != reflect.Uint16 && kind != reflect.Uint32 && kind != reflect.Int64 {
			continue
		}
		if v, set := os.LookupEnv(f.name()); set && v == "" {
			return invalidVariable(f.name(), "expected a number, got ''")
		}
	}
	return nil
}

func invalidVariable(name, message string) error {
	return ff.Errorf(ff.CodeInvalidInput, "invalid value for %s: %s", name, message)
}

// settingsError names the first variable whose value was refused.
func settingsError(all []variable, err error) error {
	if err == nil {
		return nil
	}
	var several env.AggregateError
	var refused env.ParseError
	if errors.As(err, &several) && len(several.Errors) > 0 {
		err = several.Errors[0]
	}
	if errors.As(err, &refused) {
		for _, f := range all {
			if f.Name == refused.Name {
				return invalidVariable(f.name(), refused.Err.Error())
			}
		}
	}
	return ff.Errorf(ff.CodeInvalidInput, "reading the environment: %w", err)
}

type (
	csv          []string
	positiveU16  uint16
	places       uint32
	port         uint16
	database     uint16
	boolean      bool
	reload       bool
	milliseconds time.Duration
	seconds      time.Duration
	grace        time.Duration
	hexSecret    string
)

func (m milliseconds) String() string { return strconv.FormatInt(time.Duration(m).Milliseconds(), 10) }
func (s seconds) String() string      { return strconv.Itoa(int(time.Duration(s).Seconds())) }
func (g grace) String() string        { return strconv.FormatInt(time.Duration(g).Milliseconds(), 10) }
func (c csv) String() string          { return strings.Join(c, ",") }
func (p port) String() string         { return strconv.Itoa(int(p)) }
func (d database) String() string     { return strconv.Itoa(int(d)) }

func parseU16(v string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(v, "+"), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("expected u16, got '%s'", v)
	}
	return n, nil
}

func parsePositiveU16(v string) (positiveU16, error) {
	n, err := parseU16(v)
	if err == nil && n == 0 {
		err = fmt.Errorf("must be > 0 (used as divisor in partition math)")
	}
	return positiveU16(n), err
}

func parsePlaces(v string) (places, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(v, "+"), 10, 32)
	switch {
	case err != nil:
		return 0, fmt.Errorf("expected u32, got '%s'", v)
	case n == 0 || n > server.MaxMaxTails:
		return 0, fmt.Errorf("must be 1 to %d, got %d", server.MaxMaxTails, n)
	}
	return places(n), nil
}

func parsePort(v string) (port, error) {
	n, err := parseU16(v)
	if err == nil && n == 0 {
		err = fmt.Errorf("must be 1 to 65535, got 0")
	}
	return port(n), err
}

// parseWord reads a switch: words that turn it on, or 0 or false. Other words are
// refused, because they would be taken for what they are not (quirk 09 Q27).
func parseWord(v string, on ...string) (bool, error) {
	switch word := strings.ToLower(strings.TrimSpace(v)); {
	case slices.Contains(on, word):
		return true, nil
	case word == "", word == "0", word == "false":
		return false, nil
	}
	return false, fmt.Errorf("expected %s, 0 or false, got '%s'", strings.Join(on, ", "), v)
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

// parseGrace reads milliseconds; 0 ends old tokens at once.
func parseGrace(v string) (grace, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(v, "+"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("expected u64, got '%s'", v)
	}
	if most := ff.MaxSecretGrace.Milliseconds(); n > uint64(most) {
		return 0, fmt.Errorf("must be at most %d (got %d)", most, n)
	}
	return grace(time.Duration(n) * time.Millisecond), nil
}

// parseSecret reads hex digits. Errors do not show them.
func parseSecret(v string) (hexSecret, error) {
	if len(v)%2 != 0 || strings.Trim(v, "0123456789abcdefABCDEF") != "" {
		return "", errors.New("must be an even-length hex string (0-9a-fA-F)")
	}
	if n := len(v); n > 2*ff.MaxSecretBytes {
		return "", fmt.Errorf("must have at most %d hex digits (got %d)", 2*ff.MaxSecretBytes, n)
	}
	return hexSecret(v), nil
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

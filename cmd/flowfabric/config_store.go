package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/valkey"
)

// storeSettings say which store there is, and how it is opened.
type storeSettings struct {
	Backend    string `env:"FF_BACKEND" doc:"Store when there is no --store: sqlite or valkey. Empty means sqlite; in the reference it means valkey."`
	SQLitePath string `env:"FF_SQLITE_PATH" doc:"SQLite file, or :memory:." flag:"--store sqlite:PATH" only:"sqlite"`

	URL      string   `env:"FF_VALKEY_URL" doc:"The whole URL of a Valkey, instead of FF_HOST, FF_PORT, FF_TLS, FF_CLUSTER and FF_VALKEY_DATABASE. Needs FF_BACKEND=valkey." flag:"--store valkey://…" only:"valkey"`
	Host     string   `env:"FF_HOST" doc:"Host of a Valkey, when FF_BACKEND is valkey." only:"valkey"`
	Port     port     `env:"FF_PORT" doc:"Its port." only:"valkey"`
	TLS      boolean  `env:"FF_TLS" doc:"Whether it wants TLS: 1, true, 0 or false." only:"valkey"`
	Cluster  boolean  `env:"FF_CLUSTER" doc:"Whether it is a node of a cluster: 1, true, 0 or false." only:"valkey"`
	User     string   `env:"FF_VALKEY_USER" doc:"User of the Valkey, also of one in --store whose URL names none." only:"valkey"`
	Password string   `env:"FF_VALKEY_PASSWORD" doc:"Password of the Valkey, also of one in --store whose URL has none. Never shown." only:"valkey"`
	Database database `env:"FF_VALKEY_DATABASE" doc:"Number of the database." only:"valkey"`

	ForceReload reload `env:"FF_FORCE_LUA_RELOAD" doc:"Load the function libraries even when they are there: 1, true or yes. For development." only:"valkey"`
	Lanes       csv    `env:"FF_LANES" doc:"Lanes, separated by commas, that are added to those that the store knows. Lanes that are used add themselves." only:"valkey"`

	Secret hexSecret `env:"FF_WAITPOINT_HMAC_SECRET" doc:"First secret that signs waitpoint tokens, in hex digits; never shown. A store that has one keeps it; one that gets none makes a random one."`

	Flow   positiveU16 `env:"FF_FLOW_PARTITIONS" doc:"Partitions of executions and flows; fixed when a store is first used."`
	Budget positiveU16 `env:"FF_BUDGET_PARTITIONS" doc:"Partitions of budgets; fixed when a store is first used."`
	Quota  positiveU16 `env:"FF_QUOTA_PARTITIONS" doc:"Partitions of quota policies; fixed when a store is first used."`
}

// defaultStore is where `serve` keeps its data.
const defaultStore = "flowfabric.db"

func defaultStoreSettings() storeSettings {
	return storeSettings{
		Backend: kindSQLite, SQLitePath: defaultStore, Host: "localhost", Port: 6379, Lanes: csv{"default"},
		Flow: positiveU16(ff.DefaultPartitionConfig.Flow), Budget: positiveU16(ff.DefaultPartitionConfig.Budget), Quota: positiveU16(ff.DefaultPartitionConfig.Quota),
	}
}

// loadStoreSettings reads the variables of stores alone, for commands that have
// nothing to do with the others.
func loadStoreSettings() (storeSettings, error) {
	s := defaultStoreSettings()
	if err := readEnvironment(&s); err != nil {
		return s, err
	}
	return s, s.validate()
}

// validate checks what the parsers of single variables cannot.
func (s *storeSettings) validate() error {
	if v, set := os.LookupEnv("FF_WAITPOINT_HMAC_SECRET"); set && v == "" {
		return invalidVariable("FF_WAITPOINT_HMAC_SECRET", "must not be empty; unset it to let the store make a secret")
	}
	switch s.Backend = strings.ToLower(s.Backend); s.Backend {
	case kindSQLite, kindValkey:
	case "postgres":
		return invalidVariable("FF_BACKEND", "this version has no postgres store; use sqlite or valkey")
	default:
		return invalidVariable("FF_BACKEND", fmt.Sprintf("unknown backend '%s': expected 'valkey' or 'sqlite'", s.Backend))
	}
	if s.Backend != kindValkey {
		return nil
	}
	if s.URL == "" {
		_, err := valkey.ParseURL(s.hostURL())
		if err != nil {
			return invalidVariable("FF_HOST", "host, port, database and kind of the Valkey do not fit: "+err.Error())
		}
		return nil
	}
	for _, name := range []string{"FF_HOST", "FF_PORT", "FF_TLS", "FF_CLUSTER", "FF_VALKEY_DATABASE"} {
		if os.Getenv(name) != "" {
			return invalidVariable("FF_VALKEY_URL", "give it or "+name+", not both: the URL says it all")
		}
	}
	if kindOf(s.URL) != kindValkey {
		return invalidVariable("FF_VALKEY_URL", "must be a URL such as valkey://localhost:6379")
	}
	if _, err := valkey.ParseURL(s.URL); err != nil {
		return invalidVariable("FF_VALKEY_URL", err.Error())
	}
	return nil
}

// location is the store that the environment names.
func (s *storeSettings) location() string {
	switch {
	case s.Backend != kindValkey:
		return "sqlite:" + s.SQLitePath
	case s.URL != "":
		return s.URL
	}
	return s.hostURL()
}

// hostURL is the URL of the single variables, without user and password.
func (s *storeSettings) hostURL() string {
	u := url.URL{Scheme: "valkey", Host: net.JoinHostPort(s.Host, s.Port.String()), Path: "/" + s.Database.String()}
	q := url.Values{}
	if s.TLS {
		q.Set("tls", "true")
	}
	if s.Cluster {
		q.Set("cluster", "true")
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// partitions are the counts of the environment; none when no variable is set, which
// means those of the store.
func (s *storeSettings) partitions() ff.PartitionConfig {
	if os.Getenv("FF_FLOW_PARTITIONS")+os.Getenv("FF_BUDGET_PARTITIONS")+os.Getenv("FF_QUOTA_PARTITIONS") == "" {
		return ff.PartitionConfig{}
	}
	return ff.PartitionConfig{Flow: uint16(s.Flow), Budget: uint16(s.Budget), Quota: uint16(s.Quota)}
}

// lanes are those that the store is to know. Errors name the variable.
func (s *storeSettings) lanes() (lanes []ff.LaneID, err error) {
	if v, set := os.LookupEnv("FF_LANES"); set && len(parseCSV(v)) == 0 {
		return nil, invalidVariable("FF_LANES", "at least one non-empty lane name is required")
	}
	for _, name := range s.Lanes {
		lane, err := ff.ParseLaneID(name)
		if err != nil {
			return nil, invalidVariable("FF_LANES", err.Error())
		}
		if slices.Contains(lanes, lane) {
			return nil, invalidVariable("FF_LANES", fmt.Sprintf("duplicate lane name '%s': remove one of the entries", name))
		}
		lanes = append(lanes, lane)
	}
	return lanes, nil
}

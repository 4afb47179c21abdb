package valkeytest

import "strconv"

// Option says how Start, StartCluster and StartSentinel run their servers.
type Option func(*config)

// ClusterOption is an Option: StartCluster takes those of Start as well.
type ClusterOption = Option

type config struct {
	clock     *Clock
	password  string
	replicas  int
	sentinels int
	lines     [][2]string
	cluster   bool
	sentinel  bool
}

func newConfig(o []Option) config {
	c := config{sentinels: 1}
	c.set("save", "")
	c.set("appendonly", "no")
	c.set("shutdown-timeout", "0")
	for _, apply := range o {
		apply(&c)
	}
	return c
}

func (c *config) set(key, value string) { c.lines = append(c.lines, [2]string{key, value}) }

// with returns the configuration with one more line, leaving c as it is.
func (c config) with(key, value string) config {
	c.lines = append(c.lines[:len(c.lines):len(c.lines)], [2]string{key, value})
	return c
}

// WithAOF makes the server write every change to its append-only file, and sync
// it, before it answers: what it has answered survives Kill and Restart.
func WithAOF() Option {
	return func(c *config) {
		c.set("appendonly", "yes")
		c.set("appendfsync", "always")
	}
}

// WithClock makes the servers take the time from clock instead of the machine.
func WithClock(clock *Clock) Option {
	return func(c *config) {
		c.clock = clock
		// What compares the wall clock must not take a jump for silence.
		c.set("repl-timeout", strconv.Itoa(10*365*24*3600))
	}
}

// WithConfig adds one directive of the configuration file, such as
// WithConfig("maxmemory", "64mb"). The value is written as it is, so quote what
// holds spaces but is one argument.
func WithConfig(key, value string) Option {
	return func(c *config) { c.set(key, value) }
}

// WithPassword makes the default user of the servers need a password.
func WithPassword(password string) Option {
	return func(c *config) {
		c.password = password
		c.set("requirepass", strconv.Quote(password))
		c.set("masterauth", strconv.Quote(password))
	}
}

// WithReplicas gives each primary of a cluster that many replicas: 0, which is
// the default, or 1.
func WithReplicas(n int) Option { return func(c *config) { c.replicas = n } }

// WithSentinels makes StartSentinel run n sentinels instead of one.
func WithSentinels(n int) Option { return func(c *config) { c.sentinels = n } }

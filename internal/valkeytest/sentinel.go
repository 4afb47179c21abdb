package valkeytest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

// silence is how long a primary may be silent before its sentinels replace it.
const silence = time.Second

// Sentinel is a primary with one replica that sentinels watch.
type Sentinel struct {
	Name string // under which the sentinels know the primary
	// Primary and Replica are the servers in their first roles.
	Primary, Replica *Server
	Sentinels        []*Server

	t      testing.TB
	config config
}

// StartSentinel runs a primary, its replica and one sentinel, or as many as
// WithSentinels says, and returns when the sentinels know each other and the
// replica. The servers need the real time, so WithClock is refused.
func StartSentinel(t testing.TB, o ...Option) *Sentinel {
	t.Helper()
	s := &Sentinel{Name: "flowfabric", t: t, config: newConfig(o)}
	if s.config.clock != nil {
		t.Fatal("sentinels do not work with a clock that stands still or jumps")
	}
	c := s.config.with("repl-diskless-sync-delay", "0").with("repl-ping-replica-period", "1")
	s.Primary = start(t, c)
	host, port, _ := net.SplitHostPort(s.Primary.Addr)
	s.Replica = start(t, c.with("replicaof", host+" "+port))
	for range s.config.sentinels {
		s.Sentinels = append(s.Sentinels, start(t, s.watching(host, port)))
	}
	if err := poll(clusterTimeout, s.settled); err != nil {
		t.Fatalf("waiting for the sentinels: %v", err)
	}
	return s
}

// watching is the configuration of a sentinel.
func (s *Sentinel) watching(host, port string) config {
	quorum := strconv.Itoa(s.config.sentinels/2 + 1)
	c := config{sentinel: true}.
		with("sentinel", "monitor "+s.Name+" "+host+" "+port+" "+quorum).
		with("sentinel", "down-after-milliseconds "+s.Name+" "+milliseconds(silence)).
		with("sentinel", "failover-timeout "+s.Name+" 5000")
	if s.config.password != "" {
		c = c.with("sentinel", "auth-pass "+s.Name+" "+strconv.Quote(s.config.password))
	}
	return c
}

// settled says what the sentinels do not know yet.
func (s *Sentinel) settled() error {
	for _, sentinel := range s.Sentinels {
		primary, err := sentinel.Do("SENTINEL", "MASTER", s.Name).AsStrMap()
		if err != nil {
			return err
		}
		if primary["num-slaves"] != "1" || primary["num-other-sentinels"] != strconv.Itoa(len(s.Sentinels)-1) {
			return fmt.Errorf("%s knows %s replicas and %s other sentinels", sentinel.Addr, primary["num-slaves"], primary["num-other-sentinels"])
		}
		replicas, err := sentinel.Do("SENTINEL", "REPLICAS", s.Name).ToArray()
		if err != nil {
			return err
		}
		if len(replicas) == 0 {
			return fmt.Errorf("%s lists no replica", sentinel.Addr)
		}
		replica, _ := replicas[0].AsStrMap()
		if replica["master-link-status"] != "ok" || replica["flags"] != "slave" {
			return fmt.Errorf("%s sees the replica as %v", sentinel.Addr, replica)
		}
	}
	return nil
}

// Addrs returns the addresses of the sentinels.
func (s *Sentinel) Addrs() []string {
	addrs := make([]string, len(s.Sentinels))
	for i, sentinel := range s.Sentinels {
		addrs[i] = sentinel.Addr
	}
	return addrs
}

// URL is that of all sentinels, with the name that they watch.
func (s *Sentinel) URL() string {
	return s.config.url(strings.Join(s.Addrs(), ","), url.Values{"sentinel": {s.Name}})
}

// Client opens a client of the primary by the sentinels that ends with the test.
func (s *Sentinel) Client() valkey.Client {
	s.t.Helper()
	return open(s.t, valkey.ClientOption{
		InitAddress:  s.Addrs(),
		Password:     s.config.password,
		DisableCache: true,
		Sentinel:     valkey.SentinelOption{MasterSet: s.Name},
	})
}

// Failover kills the primary and returns the replica when the sentinels have
// made it the primary.
func (s *Sentinel) Failover() *Server {
	s.t.Helper()
	s.Primary.Kill()
	if err := poll(clusterTimeout, s.replaced); err != nil {
		s.t.Fatalf("waiting for the failover: %v", err)
	}
	return s.Replica
}

// replaced says what of the failover is missing.
func (s *Sentinel) replaced() error {
	role, err := s.Replica.Do("ROLE").ToArray()
	if err != nil {
		return err
	}
	if name, _ := role[0].ToString(); name != "master" {
		return errors.New("the replica is still one")
	}
	for _, sentinel := range s.Sentinels {
		at, err := sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.Name).AsStrSlice()
		if err != nil || len(at) != 2 || net.JoinHostPort(at[0], at[1]) != s.Replica.Addr {
			return fmt.Errorf("%s does not say that the primary is %s: %v", sentinel.Addr, s.Replica.Addr, at)
		}
	}
	return nil
}

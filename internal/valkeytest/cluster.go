package valkeytest

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

const (
	primaries      = 3
	slots          = 16384
	clusterTimeout = 60 * time.Second
	// nodeTimeout is how long a node may be silent before the others replace it.
	nodeTimeout = 1500 * time.Millisecond
	// heldTimeout is the same under a held clock: beyond any jump.
	heldTimeout = 10 * 365 * 24 * time.Hour
	// failTimeout is the same while a failover goes on under a held clock.
	failTimeout = 200 * time.Millisecond
)

// Cluster is a Valkey cluster of three primaries that share the slots evenly.
type Cluster struct {
	// Nodes are the primaries in the order of their slots, then one replica of
	// each in the same order if there are replicas. After a Failover the roles
	// are other ones, so ask Primary and Replica for them.
	Nodes []*Server

	t      testing.TB
	config config
}

// StartCluster runs a cluster and returns when every node serves and every
// replica follows. With a clock it moves the clock by a few seconds, which a
// cluster needs to begin, so take Now after it.
func StartCluster(t testing.TB, o ...ClusterOption) *Cluster {
	t.Helper()
	c := &Cluster{t: t, config: newConfig(o)}
	c.config.cluster = true
	node := c.config.with("cluster-node-timeout", milliseconds(nodeTimeout)).
		with("cluster-announce-ip", "127.0.0.1").
		with("cluster-allow-replica-migration", "no").
		with("cluster-replica-validity-factor", "0").
		with("repl-ping-replica-period", "1").
		with("repl-diskless-sync-delay", "0")
	for range primaries * (1 + c.config.replicas) {
		c.Nodes = append(c.Nodes, start(t, node))
	}
	c.form()
	c.Wait()
	return c
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// form makes the nodes one cluster.
func (c *Cluster) form() {
	c.t.Helper()
	for i, s := range c.Nodes {
		c.do(s, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i < primaries {
			first, last := i*slots/primaries, (i+1)*slots/primaries-1
			c.do(s, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
		}
	}
	for _, s := range c.Nodes {
		for _, other := range c.Nodes {
			if s != other {
				host, port, _ := strings.Cut(other.Addr, ":")
				c.do(s, "CLUSTER", "MEET", host, port, strconv.Itoa(other.bus))
			}
		}
	}
	for i, s := range c.Nodes[primaries:] {
		id, err := c.Nodes[i].Do("CLUSTER", "MYID").ToString()
		if err != nil {
			c.t.Fatal(err)
		}
		c.settle("a replica to know its primary", nodeTimeout, func() error {
			return s.Do("CLUSTER", "REPLICATE", id).Error()
		})
	}
}

// do runs a command that must succeed.
func (c *Cluster) do(s *Server, command string, args ...string) {
	c.t.Helper()
	if err := s.Do(command, args...).Error(); err != nil {
		c.t.Fatalf("%s %v on %s: %v", command, args, s.Addr, err)
	}
}

// settle waits until check succeeds. A held clock moves meanwhile, by steps that
// are small against the time a node may be silent, which is beyond any jump of
// the clock again when settle returns.
func (c *Cluster) settle(what string, silence time.Duration, check func() error) {
	c.t.Helper()
	clock := c.config.clock
	if clock != nil {
		c.setNodeTimeout(silence)
		defer c.setNodeTimeout(heldTimeout)
	}
	err := poll(clusterTimeout, func() error {
		err := check()
		if err != nil && clock != nil {
			clock.Advance(silence / 15)
		}
		return err
	})
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", what, err)
	}
}

func (c *Cluster) setNodeTimeout(d time.Duration) {
	c.t.Helper()
	for _, s := range c.Nodes {
		if s.Running() {
			c.do(s, "CONFIG", "SET", "cluster-node-timeout", milliseconds(d))
		}
	}
}

// poll calls check until it succeeds and returns its last error otherwise.
func poll(timeout time.Duration, check func() error) error {
	deadline := time.Now().Add(timeout)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(2 * pollInterval)
	}
}

// Wait returns when all running nodes serve, agree about each other and have
// synchronised their replicas, as after a Restart of one of them. A held clock
// moves while it waits.
func (c *Cluster) Wait() {
	c.t.Helper()
	c.settle("the cluster to settle", nodeTimeout, c.settled)
}

// Addrs returns the addresses of all nodes.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.Nodes))
	for i, s := range c.Nodes {
		addrs[i] = s.Addr
	}
	return addrs
}

// URL is that of all nodes.
func (c *Cluster) URL() string {
	return c.config.url(strings.Join(c.Addrs(), ","), url.Values{"cluster": {"true"}})
}

// Client opens a client of the whole cluster that ends with the test.
func (c *Cluster) Client() valkey.Client {
	c.t.Helper()
	return open(c.t, valkey.ClientOption{InitAddress: c.Addrs(), Password: c.config.password, DisableCache: true})
}

// open opens a client that ends with the test.
func open(t testing.TB, o valkey.ClientOption) valkey.Client {
	t.Helper()
	client, err := valkey.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// Slot returns the slot of a key.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	s := c.running()
	slot, err := s.Do("CLUSTER", "KEYSLOT", key).AsInt64()
	if err != nil {
		c.t.Fatal(err)
	}
	return int(slot)
}

// Primary returns the running node that serves key.
func (c *Cluster) Primary(key string) *Server {
	c.t.Helper()
	return c.PrimaryOfSlot(c.Slot(key))
}

// Replica returns the running replica of the node that serves key, nil if there
// is none.
func (c *Cluster) Replica(key string) *Server {
	c.t.Helper()
	return c.ReplicaOf(c.Primary(key))
}

// PrimaryOfSlot returns the running node that serves a slot.
func (c *Cluster) PrimaryOfSlot(slot int) *Server {
	c.t.Helper()
	for _, s := range c.Nodes {
		if !s.Running() {
			continue
		}
		if v, err := s.view(); err == nil && v.myself().serves(slot) {
			return s
		}
	}
	c.t.Fatalf("no running node serves slot %d", slot)
	return nil
}

// ReplicaOf returns the running replica of a node, nil if there is none.
func (c *Cluster) ReplicaOf(primary *Server) *Server {
	c.t.Helper()
	v, err := c.running().view()
	if err != nil {
		c.t.Fatal(err)
	}
	id := v.at(primary.Addr).id
	for _, s := range c.Nodes {
		if s.Running() && v.at(s.Addr).primary == id {
			return s
		}
	}
	return nil
}

func (c *Cluster) running() *Server {
	c.t.Helper()
	i := slices.IndexFunc(c.Nodes, (*Server).Running)
	if i < 0 {
		c.t.Fatal("no node of the cluster runs")
	}
	return c.Nodes[i]
}

// Failover kills the primary of key and returns the replica that took over, when
// all nodes know it. With a held clock the replica takes over on command, and
// the clock moves by less than a second until the nodes see the primary as dead.
func (c *Cluster) Failover(key string) *Server {
	c.t.Helper()
	slot := c.Slot(key)
	primary := c.PrimaryOfSlot(slot)
	replica := c.ReplicaOf(primary)
	if replica == nil {
		c.t.Fatalf("the primary of %q has no replica", key)
	}
	primary.Kill()
	if c.config.clock != nil {
		c.do(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
	}
	c.settle("the failover", failTimeout, func() error {
		v, err := replica.view()
		if err == nil && !v.myself().serves(slot) {
			err = errors.New("the replica does not serve the slot")
		}
		return errors.Join(err, c.settled())
	})
	return replica
}

// settled says what keeps the running nodes from being a cluster that serves.
func (c *Cluster) settled() error {
	var first view
	for _, s := range c.Nodes {
		if !s.Running() {
			continue
		}
		v, err := s.view()
		if err != nil {
			return err
		}
		if err := c.complete(s, v); err != nil {
			return fmt.Errorf("%s: %w", s.Addr, err)
		}
		if first == nil {
			first = v
		}
		if err := c.agree(first, v); err != nil {
			return fmt.Errorf("%s: %w", s.Addr, err)
		}
	}
	return nil
}

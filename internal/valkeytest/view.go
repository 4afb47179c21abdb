package valkeytest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"
)

// view is what one node knows of the cluster: its CLUSTER NODES.
type view []node

type node struct {
	id, addr, flags, primary string
	slots                    string // ranges such as "0-5460 6000"
}

// view asks the node for its CLUSTER NODES.
func (s *Server) view() (view, error) {
	text, err := s.text("CLUSTER", "NODES")
	if err != nil {
		return nil, err
	}
	var v view
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			return nil, fmt.Errorf("CLUSTER NODES has the line %q", line)
		}
		addr, _, _ := strings.Cut(f[1], "@")
		v = append(v, node{id: f[0], addr: addr, flags: f[2], primary: f[3], slots: strings.Join(f[8:], " ")})
	}
	return v, nil
}

func (n node) is(flag string) bool {
	return strings.Contains(","+n.flags+",", ","+flag+",")
}

// serves says whether the node owns a slot.
func (n node) serves(slot int) bool {
	for r := range strings.FieldsSeq(n.slots) {
		first, last, ok := strings.Cut(r, "-")
		if !ok {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 == nil && err2 == nil && from <= slot && slot <= to {
			return true
		}
	}
	return false
}

// at returns the node of an address, which may be the zero node.
func (v view) at(addr string) node {
	for _, n := range v {
		if n.addr == addr {
			return n
		}
	}
	return node{}
}

func (v view) myself() node {
	for _, n := range v {
		if n.is("myself") {
			return n
		}
	}
	return node{}
}

// agree compares what two nodes know of the running ones.
func (c *Cluster) agree(a, b view) error {
	for _, s := range c.Nodes {
		if !s.Running() {
			continue
		}
		x, y := a.at(s.Addr), b.at(s.Addr)
		if x.primary != y.primary || x.slots != y.slots || x.is("master") != y.is("master") {
			return fmt.Errorf("the nodes disagree about %s: %+v, %+v", s.Addr, x, y)
		}
	}
	return nil
}

// complete says what s misses: slots, nodes or replicas.
func (c *Cluster) complete(s *Server, v view) error {
	info, err := s.text("CLUSTER", "INFO")
	if err != nil {
		return err
	}
	if !strings.Contains(info, "cluster_state:ok") {
		return fmt.Errorf("cluster_state is not ok: %s", info)
	}
	for _, other := range c.Nodes {
		n := v.at(other.Addr)
		if failed := n.is("fail") || n.is("fail?"); n.id == "" || n.is("handshake") || failed == other.Running() {
			return fmt.Errorf("it knows %s as %+v", other.Addr, n)
		}
	}
	if err := c.replicates(s, v); err != nil {
		return err
	}
	return c.online(s)
}

// replicates says whether a replica follows its primary and a primary has all
// its running replicas.
func (c *Cluster) replicates(s *Server, v view) error {
	info, err := s.text("INFO", "replication")
	if err != nil {
		return err
	}
	for _, other := range c.Nodes {
		if !other.Running() {
			continue
		}
		n := v.at(other.Addr)
		if n.id == v.myself().primary && !strings.Contains(info, "master_link_status:up") {
			return errors.New("it does not follow its primary")
		}
		_, port, _ := strings.Cut(other.Addr, ":")
		if n.primary == v.myself().id && !strings.Contains(info, "port="+port+",state=online") {
			return fmt.Errorf("its replica %s is not online", other.Addr)
		}
	}
	return nil
}

// online says whether CLUSTER SHARDS, by which clients find their way, has all
// running nodes and no other.
func (c *Cluster) online(s *Server) error {
	shards, err := s.Do("CLUSTER", "SHARDS").ToArray()
	if err != nil {
		return err
	}
	health := map[int64]string{}
	for _, shard := range shards {
		fields, _ := shard.AsMap()
		nodes := fields["nodes"]
		list, _ := nodes.ToArray()
		for _, n := range list {
			addNode(health, n)
		}
	}
	for _, other := range c.Nodes {
		if h := health[int64(other.port)]; other.Running() != (h == "online") {
			return fmt.Errorf("it says that %s is %q", other.Addr, h)
		}
	}
	return nil
}

func addNode(health map[int64]string, n valkey.ValkeyMessage) {
	fields, _ := n.AsMap()
	port, state := fields["port"], fields["health"]
	number, _ := port.AsInt64()
	health[number], _ = state.ToString()
}

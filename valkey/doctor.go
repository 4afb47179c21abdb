package valkey

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// doctorTimeout bounds each dial and each command of a diagnosis.
const doctorTimeout = 5 * time.Second

// Diagnose checks a Valkey and what a store needs of it, and changes nothing there:
// no library is loaded, no configuration seeded. The partitions of the options are
// compared with what is stored, the other options have no effect. A server that
// cannot be reached is a problem among the checks. Errors: invalid_input for the
// URL, and that of ctx.
func Diagnose(ctx context.Context, url string, o Options) (ff.Checks, error) {
	target, err := ParseURL(url)
	if err != nil {
		return nil, err
	}
	d := &doctor{target: target, partitions: o.Partitions}
	defer d.close()
	d.meet(ctx)
	for _, step := range []func(*patient, context.Context){(*patient).reachable, (*patient).authenticated, (*patient).version} {
		d.each(ctx, step)
	}
	if len(d.patients) == 0 || d.foreign {
		return d.checks, ctx.Err()
	}
	if d.topology(ctx) {
		d.storedPartitions(ctx)
	}
	for _, step := range []func(*patient, context.Context){(*patient).libraries, (*patient).durability, (*patient).memory, (*patient).clock} {
		d.each(ctx, step)
	}
	d.clocksAgree()
	d.each(ctx, (*patient).permissions)
	return d.checks, ctx.Err()
}

// String is the address of the target without secrets.
func (t *Target) String() string { return t.location }

// doctor examines the nodes of a store one by one, each on a connection of its own.
type doctor struct {
	target     *Target
	partitions ff.PartitionConfig
	patients   []*patient
	checks     ff.Checks
	// seeded says that the store has been used: its partition counts are stored.
	seeded bool
	// foreign says that a node is no server that a store can be on: nothing else
	// about it matters.
	foreign bool
}

// patient is one node.
type patient struct {
	d       *doctor
	address string
	client  valkey.Client
	info    string
	// offset is how far the node's clock is ahead of this machine's.
	offset time.Duration
	checks ff.Checks
	denied []string
}

func (d *doctor) close() {
	for _, p := range d.patients {
		p.client.Close()
	}
}

// dial connects to one node. With sentinels that is the primary that they name.
func (d *doctor) dial(address string) (*patient, error) {
	o := d.target.option
	if o.Sentinel.MasterSet == "" {
		o.InitAddress, o.ForceSingleClient = []string{address}, true
	} else {
		address = d.target.location
	}
	o.Dialer.Timeout, o.DisableRetry = doctorTimeout, true
	client, err := valkey.NewClient(o)
	if err != nil {
		return nil, err
	}
	p := &patient{d: d, address: address, client: client}
	d.patients = append(d.patients, p)
	return p, nil
}

// meet connects to the server, or to a node of the cluster and then to all others.
func (d *doctor) meet(ctx context.Context) {
	seeds := d.target.option.InitAddress
	if d.target.option.Sentinel.MasterSet != "" {
		seeds = seeds[:1]
	}
	failed := map[string]error{}
	var first *patient
	for _, address := range seeds {
		p, err := d.dial(address)
		if err == nil {
			first = p
			break
		}
		failed[address] = err
	}
	for _, address := range seeds {
		if err := failed[address]; err != nil {
			d.missing(address, err, first != nil)
		}
	}
	if first == nil || !d.target.Cluster {
		return
	}
	for _, n := range first.shards(ctx) {
		if n.address == first.address || failed[n.address] != nil {
			continue
		}
		if _, err := d.dial(n.address); err != nil {
			d.missing(n.address, err, n.replica)
		}
	}
}

func (d *doctor) user() string {
	if d.target.option.Username == "" {
		return "default"
	}
	return d.target.option.Username
}

// each takes one step at every node, then adds what was found. What all nodes have
// in common becomes one check.
func (d *doctor) each(ctx context.Context, step func(*patient, context.Context)) {
	var found []ff.Check
	where := map[ff.Check][]string{}
	for _, p := range d.patients {
		p.checks = nil
		step(p, ctx)
		for _, c := range p.checks {
			if where[c] == nil {
				found = append(found, c)
			}
			where[c] = append(where[c], p.address)
		}
	}
	for _, c := range found {
		if nodes := where[c]; len(nodes) < len(d.patients) {
			c.Node = strings.Join(nodes, ", ")
		}
		d.checks = append(d.checks, c)
	}
}

// do runs a command and remembers when the user may not.
func (p *patient) do(ctx context.Context, words ...string) valkey.ValkeyResult {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	r := p.client.Do(ctx, p.client.B().Arbitrary(words...).Build())
	p.notice(r.Error())
	return r
}

func (p *patient) notice(err error) (denied bool) {
	e, ok := valkey.IsValkeyErr(err)
	if !ok || !strings.HasPrefix(e.Error(), "NOPERM") {
		return false
	}
	if text := firstLine(e.Error()); !slices.Contains(p.denied, text) {
		p.denied = append(p.denied, text)
	}
	return true
}

// shard is a node as the cluster knows it.
type shard struct {
	address string
	replica bool
}

// shards lists the nodes of the cluster; none when this is no cluster.
func (p *patient) shards(ctx context.Context) (all []shard) {
	list, err := p.do(ctx, "CLUSTER", "SHARDS").ToArray()
	if err != nil {
		return nil
	}
	host, _, _ := net.SplitHostPort(p.address)
	for i := range list {
		m, err := list[i].AsMap()
		if err != nil {
			continue
		}
		group := m["nodes"]
		nodes, _ := group.ToArray()
		for j := range nodes {
			if n, err := nodes[j].AsMap(); err == nil {
				all = append(all, p.d.shard(n, host))
			}
		}
	}
	return all
}

// shard reads one node. A node that does not know its own address has that by which
// it was found.
func (d *doctor) shard(n map[string]valkey.ValkeyMessage, host string) shard {
	text := func(name string) string {
		m := n[name]
		if number, err := m.AsInt64(); err == nil {
			return itoa(number)
		}
		s, _ := m.ToString()
		return s
	}
	if e := text("endpoint"); e != "" && e != "?" {
		host = e
	}
	port := text("port")
	if tls := text("tls-port"); d.target.option.TLSConfig != nil && tls != "" {
		port = tls
	}
	return shard{address: net.JoinHostPort(host, port), replica: text("role") == "replica"}
}

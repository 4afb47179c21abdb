package valkey

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"
)

// topology compares what the server is with how the URL would use it. It reports
// whether keys can be read that way.
func (d *doctor) topology(ctx context.Context) (readable bool) {
	primaries := 0
	for _, p := range d.patients {
		if p.isPrimary() {
			primaries++
		}
	}
	first := d.patients[0]
	switch enabled := first.field("cluster_enabled") == "1"; {
	case first.info == "":
	case d.target.Cluster && !enabled:
		d.checks.Problem("topology", "leave out cluster=true (FF_CLUSTER)", "this server is no node of a cluster")
	case enabled && !d.target.Cluster:
		d.checks.Problem("topology", "add cluster=true to the URL (FF_CLUSTER=true)", "this server is a node of a cluster")
		return false
	case enabled:
		d.slots(ctx, first, primaries)
	case primaries == 0:
		d.checks.Problem("topology", "give the address of its primary, "+first.field("master_host")+":"+first.field("master_port"), "this server is a replica")
	case d.target.option.Sentinel.MasterSet != "":
		d.checks.OK("topology", "the primary that the sentinels name")
	default:
		d.checks.OK("topology", "a single primary")
	}
	return true
}

const allSlots = 16384

// slots says whether the cluster serves all keys.
func (d *doctor) slots(ctx context.Context, p *patient, primaries int) {
	info, err := p.do(ctx, "CLUSTER", "INFO").ToString()
	if err != nil {
		p.checks = nil
		p.refused("topology", err)
		d.checks = append(d.checks, p.checks...)
		return
	}
	info = strings.TrimPrefix(info, "txt:") // which tells the format of the text
	state, assigned := infoField(info, "cluster_state"), infoField(info, "cluster_slots_assigned")
	served, _ := strconv.Atoi(infoField(info, "cluster_slots_ok"))
	if state != "ok" || served < allSlots {
		d.checks.Problem("topology", "look at CLUSTER NODES and bring the missing nodes back, or give their slots to others",
			"the cluster's state is %s: %d of %d slots are served, %s are assigned", state, served, allSlots, assigned)
		return
	}
	d.checks.OK("topology", "cluster of %d primaries and %d replicas, all slots are served", primaries, len(d.patients)-primaries)
}

// storedPartitions compares the partition counts with those that are wanted.
func (d *doctor) storedPartitions(ctx context.Context) {
	const check = "partitions"
	stored, err := d.partitionHash(ctx)
	switch {
	case err != nil:
		if _, ok := valkey.IsValkeyErr(err); ok && strings.HasPrefix(err.Error(), "NOPERM") {
			return
		}
		d.checks.Problem(check, d.unreadableAdvice(err), "%s cannot be read: %s", partitionConfigKey, firstLine(err.Error()))
		return
	case len(stored) == 0:
		d.checks.OK(check, "none are stored: the store is new, and the first who opens it fixes them")
		return
	}
	d.seeded = true
	var text []string
	for _, c := range []struct {
		name, word, variable string
		want                 uint16
	}{
		{"num_flow_partitions", "flow", "FF_FLOW_PARTITIONS", d.partitions.Flow},
		{"num_budget_partitions", "budget", "FF_BUDGET_PARTITIONS", d.partitions.Budget},
		{"num_quota_partitions", "quota", "FF_QUOTA_PARTITIONS", d.partitions.Quota},
	} {
		n, err := strconv.ParseUint(stored[c.name], 10, 16)
		if err != nil || n == 0 {
			d.checks.Problem(check, "restore the number that the store was made with: HSET "+partitionConfigKey+" "+c.name+" N",
				"%s: %s is %.40q, which is no number of partitions", partitionConfigKey, c.name, stored[c.name])
			return
		}
		if c.want != 0 && uint64(c.want) != n {
			d.checks.Problem(check, "set "+c.variable+" to the stored count or unset it: the counts of a store never change",
				"%s: stored %d, configured %d", c.name, n, c.want)
			return
		}
		text = append(text, fmt.Sprintf("%d %s", n, c.word))
	}
	d.checks.OK(check, "%s", strings.Join(text, ", "))
}

// unreadableAdvice says what to do about a key that cannot be read.
func (d *doctor) unreadableAdvice(err error) string {
	if d.target.Cluster {
		return "bring the node back that holds this key"
	}
	return cmp.Or(replyAdvice[adviceWord(err.Error())].advice, "look at the server's log")
}

// partitionHash asks the primaries until one has the slot of the key.
func (d *doctor) partitionHash(ctx context.Context) (m map[string]string, err error) {
	for _, p := range d.patients {
		m, err = p.do(ctx, "HGETALL", partitionConfigKey).AsStrMap()
		if e, ok := valkey.IsValkeyErr(err); ok {
			if _, moved := e.IsMoved(); moved {
				continue
			}
		}
		return m, err
	}
	return nil, err
}

// libraries compares the function libraries of a primary with ours.
func (p *patient) libraries(ctx context.Context) {
	if !p.isPrimary() {
		return
	}
	list, err := p.do(ctx, "FUNCTION", "LIST", "LIBRARYNAME", LibraryName+"*", "WITHCODE").ToArray()
	if err != nil {
		p.refused("libraries", err)
		return
	}
	code := map[string]string{}
	for i := range list {
		if entry, err := list[i].AsMap(); err == nil {
			name, source := entry["library_name"], entry["library_code"]
			key, _ := name.ToString()
			code[key], _ = source.ToString()
		}
	}
	p.library(ctx, LibraryName, code[LibraryName], "ff_version", libraryVersion)
	p.library(ctx, ExtensionsName, code[ExtensionsName], "ffx_version", ExtensionsVersion)
}

// library reports one library. Which one is loaded when is the rule of loadNode.
func (p *patient) library(ctx context.Context, name, code, function string, ours int) {
	check := "library " + name
	if code == "" {
		if p.d.seeded {
			p.checks.Warning(check, "start a server, or load it by hand: flowfabric library | valkey-cli -x FUNCTION LOAD REPLACE (with --extensions for "+ExtensionsName+")",
				"not installed, although the store is in use; the next call of a server or worker loads it")
			return
		}
		p.checks.OK(check, "not installed: the first who opens the store loads it")
		return
	}
	text, err := p.do(ctx, "FCALL", function, "0").ToString()
	if err != nil {
		p.refused(check, err)
		return
	}
	version, _ := strconv.Atoi(text)
	origin := ""
	if name == LibraryName {
		origin = ", loaded by FlowFabric in Rust"
		if build := buildOf(code); build > 0 {
			origin = fmt.Sprintf(", ours, build %d", build)
		}
	}
	switch {
	case version > ours:
		p.checks.Warning(check, "update this program", "version %s%s, newer than this program's %d: it stays as it is", text, origin, ours)
	case version < ours:
		p.checks.Warning(check, "stop what needs the old version before a server of this version starts", "version %s%s, older than this program's %d: the next server or worker that opens the store replaces it", text, origin, ours)
	case name == LibraryName && buildOf(code) > 0 && buildOf(code) < buildOf(libraryHeader):
		p.checks.OK(check, "version %s%s; the next server or worker that opens the store brings build %d", text, origin, buildOf(libraryHeader))
	default:
		p.checks.OK(check, "version %s%s", text, origin)
	}
}

// neededPermissions is what ACL SETUSER gives a user for this module.
const neededPermissions = "~ff:* ~ffx:* &ff:* &ffx:* +@all -@admin -@dangerous +info +role +config|get"

// probes are commands of the kinds that the functions and this module use, written
// so that they change nothing: the server looks at the permissions before it looks
// at the arguments.
var probes = [][]string{
	{"FCALL", "ffx_doctor", "2", "ff:{doctor}", "ffx:{doctor}"},
	{"FUNCTION", "LOAD", "-"},
	{"SET", "ff:{doctor}", "", "NX", "XX"},
	{"HSET", "ffx:{doctor}", "field", "value", "field"},
	{"ZADD", "ff:{doctor}", "no number", "member"},
	{"XADD", "ffx:{doctor}", "0-0", "field", "value"},
	{"SREM", "ff:{doctor}", "member"},
	{"PEXPIRE", "ffx:{doctor}", "1000"},
	{"DEL", "ff:{doctor}"},
	{"ROLE"},
	{"PUBLISH", "ffx:doctor", ""},
	{"PUBLISH", "ff:doctor", ""},
}

// permissions reports what the user of the URL may not do and needs to. It comes
// last: the other steps have met some of it.
func (p *patient) permissions(ctx context.Context) {
	const check = "permissions"
	if p.info == "" && len(p.denied) == 0 {
		return
	}
	if p.isPrimary() {
		for _, words := range probes {
			p.do(ctx, words...)
		}
		p.subscribe(ctx)
	}
	advice := "ACL SETUSER " + p.d.user() + " " + neededPermissions
	missing := 0
	for _, text := range p.denied {
		switch {
		case strings.Contains(text, "'acl|whoami'"):
			continue
		case strings.Contains(text, "'config|get'"):
			p.checks.Warning(check, advice, "%s: what a loss of power loses cannot be told", text)
			continue
		}
		missing++
		p.checks.Problem(check, advice, "%s", text)
	}
	if missing == 0 && len(p.checks) == 0 {
		p.checks.OK(check, "keys, channels, functions and commands are allowed")
	}
}

// subscribe tries a subscription and ends it at once.
func (p *patient) subscribe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	ctx = valkey.WithOnSubscriptionHook(ctx, func(valkey.PubSubSubscription) { cancel() })
	command := p.client.B().Subscribe().Channel("ffx:doctor").Build()
	p.notice(p.client.Receive(ctx, command, func(valkey.PubSubMessage) {}))
}

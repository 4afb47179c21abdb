package valkey

import (
	"context"
	"slices"
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

const (
	// slowPing is where the way to the server begins to set the pace.
	slowPing = 20 * time.Millisecond
	// maxClockDifference is how much the clocks of two machines may differ.
	maxClockDifference = time.Second
	// fullMemory is the part of maxmemory, in percent, that begins to be a worry.
	fullMemory = 80
	// looks is how often what takes time is measured; the best counts.
	looks = 3
)

// reachable measures the way to a node.
func (p *patient) reachable(ctx context.Context) {
	best := time.Duration(-1)
	for range looks {
		start := time.Now()
		if err := p.do(ctx, "PING").Error(); err != nil {
			p.refused("reachable", err)
			return
		}
		if took := time.Since(start); best < 0 || took < best {
			best = took
		}
	}
	if best > slowPing {
		p.checks.Warning("reachable", "run servers and workers near Valkey: every command takes at least this long", "PING takes %s", best.Round(time.Microsecond))
		return
	}
	p.checks.OK("reachable", "PING takes %s", best.Round(time.Microsecond))
}

// refused reports an error of a command. Lacking permissions are reported together.
func (p *patient) refused(check string, err error) {
	if p.notice(err) {
		return
	}
	text := firstLine(err.Error())
	p.checks.Problem(check, replyAdvice[adviceWord(text)].advice, "%s", text)
}

func (p *patient) authenticated(ctx context.Context) {
	user, err := p.do(ctx, "ACL", "WHOAMI").ToString()
	if err != nil {
		user = p.d.user()
	}
	switch {
	case p.d.target.option.Password == "":
		p.checks.OK("authenticated", "as user %s, without a password", user)
	case p.takesAnyPassword(ctx, user):
		p.checks.Warning("authenticated", "give the user a password: ACL SETUSER "+user+" resetpass >PASSWORD, on every node; ACL SAVE or CONFIG REWRITE keep it",
			"user %s needs no password: the server takes any, and the one of the URL was not checked", user)
	default:
		p.checks.OK("authenticated", "as user %s", user)
	}
}

// takesAnyPassword reports whether a user needs none. Only who may look at users
// learns of it; nobody needs to.
func (p *patient) takesAnyPassword(ctx context.Context, user string) bool {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	rules, err := p.client.Do(ctx, p.client.B().Arbitrary("ACL", "GETUSER", user).Build()).AsMap()
	if err != nil {
		return false
	}
	list := rules["flags"]
	flags, _ := list.AsStrSlice()
	return slices.Contains(flags, "nopass")
}

// version reads INFO, which later steps use as well.
func (p *patient) version(ctx context.Context) {
	info, err := p.do(ctx, "INFO").ToString()
	if err != nil {
		p.refused("version", err)
		return
	}
	p.info = info
	if p.field("server_mode") == "sentinel" || p.field("redis_mode") == "sentinel" {
		p.sentinel(ctx)
		return
	}
	v, text, err := parseServerInfo(info)
	p.d.foreign = p.d.foreign || err != nil || v.less(minVersion)
	switch {
	case err != nil:
		p.checks.Problem("version", useNewer, "%s", err)
	case v.less(minVersion):
		p.checks.Problem("version", "upgrade to Valkey "+minVersion.String()+" or newer", "Valkey %s", text)
	default:
		p.checks.OK("version", "Valkey %s", text)
	}
	if p.field("loading") == "1" {
		p.checks.Problem("reachable", "wait until it has", "the server is loading its data")
	}
}

// sentinel reports one whose address was given for that of a server.
func (p *patient) sentinel(ctx context.Context) {
	p.d.foreign = true
	name := "NAME"
	if list, err := p.do(ctx, "SENTINEL", "MASTERS").ToArray(); err == nil && len(list) == 1 {
		if watched, err := list[0].AsStrMap(); err == nil {
			name = watched["name"]
		}
	}
	p.checks.Problem("topology", "add sentinel="+name+" to the URL, the name of the primary that it watches, or give the address of a server", "this is a sentinel, which stores nothing")
}

func (v version) String() string { return strconv.Itoa(v.major) + "." + strconv.Itoa(v.minor) }

// field is a line of INFO; empty when there is none.
func (p *patient) field(name string) string { return infoField(p.info, name) }

func (p *patient) isPrimary() bool { return p.field("role") != "slave" }

// durability says what an acknowledged command survives.
func (p *patient) durability(ctx context.Context) {
	if p.info == "" {
		return
	}
	config, _ := p.do(ctx, "CONFIG", "GET", "appendfsync").AsStrMap()
	fsync := config["appendfsync"]
	if fsync == "" {
		fsync = "unknown"
	}
	replicas := ""
	if n := p.field("connected_slaves"); n != "" && n != "0" {
		replicas = "; " + n + " replica(s), which get changes a moment later"
	}
	const turnOn = "CONFIG SET appendonly yes; CONFIG SET appendfsync everysec (or always); CONFIG REWRITE"
	switch {
	case p.field("aof_enabled") != "1":
		p.checks.Warning("durability", turnOn, "no append-only file: a crash of the server loses acknowledged commands%s", replicas)
	case p.field("aof_last_write_status") == "err":
		p.checks.Problem("durability", "look at the server's log, and at the space on its disk", "the append-only file cannot be written")
	case fsync == "no":
		p.checks.Warning("durability", "CONFIG SET appendfsync everysec (or always); CONFIG REWRITE", "append-only file, fsync no: a loss of power loses what the system had not written%s", replicas)
	case fsync == "everysec":
		p.checks.OK("durability", "append-only file, fsync everysec: a loss of power loses up to the last second or two%s", replicas)
	default:
		p.checks.OK("durability", "append-only file, fsync %s%s", fsync, replicas)
	}
	if p.field("rdb_last_bgsave_status") == "err" {
		p.checks.Problem("durability", "look at the server's log, and at the space on its disk: by default the server refuses writes now", "the last snapshot failed")
	}
}

// memory looks for what would make the server drop keys.
func (p *patient) memory(context.Context) {
	if p.info == "" {
		return
	}
	used, _ := strconv.ParseUint(p.field("used_memory"), 10, 64)
	limit, _ := strconv.ParseUint(p.field("maxmemory"), 10, 64)
	policy := p.field("maxmemory_policy")
	const keep = "CONFIG SET maxmemory-policy noeviction; CONFIG REWRITE"
	switch {
	case policy == "":
		p.checks.Warning("memory", "CONFIG GET maxmemory-policy must say noeviction", "the maxmemory-policy is unknown: INFO does not have it")
	case policy != "noeviction" && limit > 0:
		p.checks.Problem("memory", keep, "maxmemory-policy is %s: when memory is full the server deletes executions", policy)
	case policy != "noeviction":
		p.checks.Warning("memory", keep, "maxmemory-policy is %s, which deletes executions once a maxmemory is set", policy)
	case limit > 0 && used*100 >= limit*fullMemory:
		p.checks.Warning("memory", "raise maxmemory, or shorten the retention: when it is full the server refuses commands", "%d %% of maxmemory are in use", used*100/limit)
	case limit > 0:
		p.checks.OK("memory", "noeviction, maxmemory %d MiB, less than %d %% in use", limit>>20, fullMemory)
	default:
		p.checks.OK("memory", "noeviction, no maxmemory")
	}
}

// clock compares the node's clock with that of this machine, in the quickest of a
// few looks.
func (p *patient) clock(ctx context.Context) {
	best := time.Duration(-1)
	for range looks {
		start := time.Now()
		parts, err := p.do(ctx, "TIME").AsStrSlice()
		if err != nil || len(parts) < 2 {
			return
		}
		took := time.Since(start)
		seconds, _ := strconv.ParseInt(parts[0], 10, 64)
		micros, _ := strconv.ParseInt(parts[1], 10, 64)
		if best < 0 || took < best {
			best = took
			p.offset = time.Unix(seconds, micros*1000).Sub(start.Add(took / 2))
		}
	}
	if p.offset.Abs() > maxClockDifference {
		p.checks.Warning("clock", "let both machines keep time with chrony or systemd-timesyncd; instants are those of the server", "the server's clock differs from this machine's by %s", p.offset.Round(time.Millisecond))
		return
	}
	p.checks.OK("clock", "within %s of this machine's", maxClockDifference)
}

// clocksAgree compares the nodes of a cluster.
func (d *doctor) clocksAgree() {
	if len(d.patients) < 2 {
		return
	}
	low, high := d.patients[0], d.patients[0]
	for _, p := range d.patients {
		if p.offset < low.offset {
			low = p
		}
		if p.offset > high.offset {
			high = p
		}
	}
	if apart := high.offset - low.offset; apart > maxClockDifference {
		d.checks = append(d.checks, ff.Check{Name: "clock", Status: ff.CheckWarning, Node: low.address + ", " + high.address,
			Detail: "the clocks of two nodes differ by " + apart.Round(time.Millisecond).String() + ": readers of events stay behind the slower one",
			Advice: "let all nodes keep time with chrony or systemd-timesyncd"})
	}
}

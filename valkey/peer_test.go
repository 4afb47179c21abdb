package valkey_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	valkeygo "github.com/valkey-io/valkey-go"

	"github.com/flowfabric/flowfabric/internal/valkeytest"
)

// A peer does what workers and servers of the reference do: plain commands and ff_
// functions, with the keys and arguments of spec 03 §30 and spec 10 §3, §6, §16. It
// shares nothing with the store under test but the server.
type peer struct {
	t                *testing.T
	server           *valkeytest.Server
	worker, instance string
	uuid             func() string
}

func newPeer(t *testing.T, server *valkeytest.Server) *peer {
	return &peer{t: t, server: server, worker: "rust", instance: "rust-1", uuid: uuid.NewString}
}

func (p *peer) do(command string, args ...string) valkeygo.ValkeyResult {
	return p.server.Do(command, args...)
}

func (p *peer) text(command string, args ...string) string {
	p.t.Helper()
	s, err := p.do(command, args...).ToString()
	if err != nil && !valkeygo.IsValkeyNil(err) {
		p.t.Fatalf("%s %q: %v", command, args, err)
	}
	return s
}

func (p *peer) list(command string, args ...string) []string {
	p.t.Helper()
	s, err := p.do(command, args...).AsStrSlice()
	if err != nil {
		p.t.Fatalf("%s %q: %v", command, args, err)
	}
	return s
}

func (p *peer) hash(key string) map[string]string {
	p.t.Helper()
	m, err := p.do("HGETALL", key).AsStrMap()
	if err != nil {
		p.t.Fatalf("HGETALL %s: %v", key, err)
	}
	return m
}

// now is what a scanner gets from TIME.
func (p *peer) now() int64 {
	p.t.Helper()
	l := p.list("TIME")
	seconds, _ := strconv.ParseInt(l[0], 10, 64)
	micros, _ := strconv.ParseInt(l[1], 10, 64)
	return seconds*1000 + micros/1000
}

func num(n int64) string { return strconv.FormatInt(n, 10) }

// fcall calls a function. The answer is all texts: "1" or "0" first.
func (p *peer) fcall(function string, keys []string, args ...string) []string {
	p.t.Helper()
	command := append(append([]string{function, strconv.Itoa(len(keys))}, keys...), args...)
	list, err := p.do("FCALL", command...).ToArray()
	if err != nil {
		p.t.Fatalf("FCALL %q: %v", command, err)
	}
	out := make([]string, len(list))
	for i := range list {
		if list[i].IsInt64() {
			n, _ := list[i].AsInt64()
			out[i] = num(n)
		} else if out[i], err = list[i].ToString(); err != nil {
			p.t.Fatalf("FCALL %q answers %v: %v", command, list, err)
		}
	}
	return out
}

// good is fcall for what must succeed.
func (p *peer) good(r []string) []string {
	p.t.Helper()
	if r[0] != "1" {
		p.t.Fatalf("refused: %q", r)
	}
	return r[2:]
}

func tagOfID(id string) string { return id[:strings.IndexByte(id, '}')+1] }

func (p *peer) key(id, name string) string { return "ff:exec:" + tagOfID(id) + ":" + id + ":" + name }
func (p *peer) attempt(id, n string) string {
	return "ff:attempt:" + tagOfID(id) + ":" + id + ":" + n
}
func (p *peer) meta(id, n string) string {
	return "ff:stream:" + tagOfID(id) + ":" + id + ":" + n + ":meta"
}
func (p *peer) laneIndex(id, lane, index string) string {
	return "ff:idx:" + tagOfID(id) + ":lane:" + lane + ":" + index
}
func (p *peer) index(id, name string) string { return "ff:idx:" + tagOfID(id) + ":" + name }
func (p *peer) leases(id, instance string) string {
	return p.index(id, "worker:"+instance+":leases")
}

func (p *peer) core(id string, fields ...string) []string {
	p.t.Helper()
	list, err := p.do("HMGET", append([]string{p.key(id, "core")}, fields...)...).ToArray()
	if err != nil {
		p.t.Fatal(err)
	}
	out := make([]string, len(list))
	for i := range list {
		out[i], _ = list[i].ToString()
	}
	return out
}

func orDefault(v, d string) string {
	if v == "" {
		return d
	}
	return v
}

// peerCreate is what the reference's create takes.
type peerCreate struct {
	lane, namespace, kind, policy, payload, key string
	priority                                    int
	delayUntil, deadline                        int64
	tags                                        map[string]string
	partition                                   int
}

// newID is an id on a partition, as a flow's member has it.
func (p *peer) newID(partition int) string { return fmt.Sprintf("{fp:%d}:%s", partition, p.uuid()) }

// create answers the id and the public state, or the id and DUPLICATE.
func (p *peer) create(c *peerCreate) (id, state string) {
	p.t.Helper()
	id = p.newID(c.partition)
	tag := tagOfID(id)
	queue, delay, deadline := "eligible", "", ""
	if c.delayUntil != 0 {
		queue, delay = "delayed", num(c.delayUntil)
	}
	if c.deadline != 0 {
		deadline = num(c.deadline)
	}
	idem, window := "ff:noop:"+tag, ""
	if c.key != "" {
		idem, window = "ff:idem:"+tag+":"+c.namespace+":"+c.key, "86400000"
	}
	tags := []byte("{}")
	if len(c.tags) > 0 {
		tags, _ = json.Marshal(c.tags)
	}
	keys := []string{p.key(id, "core"), p.key(id, "payload"), p.key(id, "policy"), p.key(id, "tags"), p.laneIndex(id, c.lane, queue),
		idem, p.index(id, "execution_deadline"), p.index(id, "all_executions")}
	r := p.fcall("ff_create_execution", keys, id, c.namespace, c.lane, orDefault(c.kind, "job"), strconv.Itoa(c.priority), "rust-client",
		orDefault(c.policy, "{}"), c.payload, delay, window, string(tags), deadline, strconv.Itoa(c.partition))
	if r[1] == "DUPLICATE" {
		return r[2], "DUPLICATE"
	}
	r = p.good(r)
	return r[0], r[1]
}

// peerLease is what a handle of the reference's worker holds.
type peerLease struct {
	id, lane, index, attempt, lease, epoch, instance string
	ttl                                              int64
}

// best is the first candidate of a lane on a partition, "" when there is none.
func (p *peer) best(partition int, lane string) string {
	p.t.Helper()
	l := p.list("ZRANGEBYSCORE", fmt.Sprintf("ff:idx:{fp:%d}:lane:%s:eligible", partition, lane), "-inf", "+inf", "LIMIT", "0", "1")
	if len(l) == 0 {
		return ""
	}
	return l[0]
}

func (p *peer) grant(id, lane, caps string, ttl int64) []string {
	p.t.Helper()
	return p.fcall("ff_issue_claim_grant", []string{p.key(id, "core"), p.key(id, "claim_grant"), p.laneIndex(id, lane, "eligible")},
		id, p.worker, p.instance, lane, "", num(ttl), "", "", caps)
}

// claimGranted is what a worker does with a grant: the fresh claim, and the resumed
// one when it is told to.
func (p *peer) claimGranted(id, lane string, ttl int64) (*peerLease, []string) {
	p.t.Helper()
	n := orDefault(p.core(id, "total_attempt_count")[0], "0")
	lease, attempt := p.uuid(), p.uuid()
	keys := []string{p.key(id, "core"), p.key(id, "claim_grant"), p.laneIndex(id, lane, "eligible"), p.index(id, "lease_expiry"),
		p.leases(id, p.instance), p.attempt(id, n), p.attempt(id, n) + ":usage", p.attempt(id, n) + ":policy", p.key(id, "attempts"),
		p.key(id, "lease:current"), p.key(id, "lease:history"), p.laneIndex(id, lane, "active"), p.index(id, "attempt_timeout"),
		p.index(id, "execution_deadline")}
	r := p.fcall("ff_claim_execution", keys, id, p.worker, p.instance, lane, "", lease, num(ttl), num(ttl*2/3), attempt, "{}", "", "")
	if r[0] == "0" && r[1] == "use_claim_resumed_execution" {
		return p.claimResumed(id, lane, ttl)
	}
	if r[0] == "0" {
		return nil, r
	}
	return &peerLease{id: id, lane: lane, lease: r[2], epoch: r[3], attempt: r[5], index: r[6], instance: p.instance, ttl: ttl}, r
}

func (p *peer) claimResumed(id, lane string, ttl int64) (*peerLease, []string) {
	p.t.Helper()
	n := orDefault(p.core(id, "current_attempt_index")[0], "0")
	keys := []string{p.key(id, "core"), p.key(id, "claim_grant"), p.laneIndex(id, lane, "eligible"), p.index(id, "lease_expiry"),
		p.leases(id, p.instance), p.attempt(id, n), p.key(id, "lease:current"), p.key(id, "lease:history"), p.laneIndex(id, lane, "active"),
		p.index(id, "attempt_timeout"), p.index(id, "execution_deadline")}
	r := p.fcall("ff_claim_resumed_execution", keys, id, p.worker, p.instance, lane, "", p.uuid(), num(ttl), "")
	if r[0] == "0" {
		return nil, r
	}
	return &peerLease{id: id, lane: lane, lease: r[2], epoch: r[3], attempt: r[5], index: r[6], instance: p.instance, ttl: ttl}, r
}

// claimNext is a worker's poll of one lane on one partition (spec 10 §6.3).
func (p *peer) claimNext(partition int, lane, caps string, ttl int64) *peerLease {
	p.t.Helper()
	id := p.best(partition, lane)
	if id == "" {
		return nil
	}
	r := p.grant(id, lane, caps, 5000)
	if r[0] == "0" {
		if r[1] == "capability_mismatch" {
			p.block(id, lane, "route", "waiting_for_capable_worker")
		}
		return nil
	}
	l, _ := p.claimGranted(id, lane, ttl)
	return l
}

// must claims a certain execution.
func (p *peer) must(id, lane string, ttl int64) *peerLease {
	p.t.Helper()
	p.good(p.grant(id, lane, "", 5000))
	l, r := p.claimGranted(id, lane, ttl)
	if l == nil {
		p.t.Fatalf("claiming %s: %q", id, r)
	}
	return l
}

func (p *peer) renew(l *peerLease) []string {
	p.t.Helper()
	return p.fcall("ff_renew_lease", []string{p.key(l.id, "core"), p.key(l.id, "lease:current"), p.key(l.id, "lease:history"), p.index(l.id, "lease_expiry")},
		l.id, l.index, l.attempt, l.lease, l.epoch, num(l.ttl), "5000")
}

func (p *peer) progress(l *peerLease, percent, message string) []string {
	p.t.Helper()
	return p.fcall("ff_update_progress", []string{p.key(l.id, "core")}, l.id, l.lease, l.epoch, percent, message)
}

func (p *peer) complete(l *peerLease, result string) []string {
	p.t.Helper()
	return p.fcall("ff_complete_execution", []string{p.key(l.id, "core"), p.attempt(l.id, l.index), p.index(l.id, "lease_expiry"),
		p.leases(l.id, l.instance), p.laneIndex(l.id, l.lane, "terminal"), p.key(l.id, "lease:current"), p.key(l.id, "lease:history"),
		p.laneIndex(l.id, l.lane, "active"), p.meta(l.id, l.index), p.key(l.id, "result"), p.index(l.id, "attempt_timeout"),
		p.index(l.id, "execution_deadline")}, l.id, l.lease, l.epoch, l.attempt, result)
}

// fail reads the policy first, to send the retry policy in it (spec 03 §30).
func (p *peer) fail(l *peerLease, reason, category string) []string {
	p.t.Helper()
	var policy struct {
		Retry json.RawMessage `json:"retry_policy"`
	}
	_ = json.Unmarshal([]byte(p.text("GET", p.key(l.id, "policy"))), &policy)
	return p.fcall("ff_fail_execution", []string{p.key(l.id, "core"), p.attempt(l.id, l.index), p.index(l.id, "lease_expiry"),
		p.leases(l.id, l.instance), p.laneIndex(l.id, l.lane, "terminal"), p.laneIndex(l.id, l.lane, "delayed"), p.key(l.id, "lease:current"),
		p.key(l.id, "lease:history"), p.laneIndex(l.id, l.lane, "active"), p.meta(l.id, l.index), p.index(l.id, "attempt_timeout"),
		p.index(l.id, "execution_deadline")}, l.id, l.lease, l.epoch, l.attempt, reason, category, string(policy.Retry))
}

func (p *peer) delay(l *peerLease, until int64) []string {
	p.t.Helper()
	return p.fcall("ff_delay_execution", p.parkKeys(l, "delayed"), l.id, l.lease, l.epoch, l.attempt, num(until))
}

func (p *peer) waitChildren(l *peerLease) []string {
	p.t.Helper()
	return p.fcall("ff_move_to_waiting_children", p.parkKeys(l, "blocked:dependencies"), l.id, l.lease, l.epoch, l.attempt)
}

func (p *peer) parkKeys(l *peerLease, queue string) []string {
	return []string{p.key(l.id, "core"), p.attempt(l.id, l.index), p.key(l.id, "lease:current"), p.key(l.id, "lease:history"),
		p.index(l.id, "lease_expiry"), p.leases(l.id, l.instance), p.laneIndex(l.id, l.lane, "active"), p.laneIndex(l.id, l.lane, queue),
		p.index(l.id, "attempt_timeout")}
}

// cancel is the backend's cancel: it reads four fields first (spec 07 §8.1).
func (p *peer) cancel(id, reason, source, lease, epoch string) []string {
	p.t.Helper()
	x := p.core(id, "lane_id", "current_attempt_index", "current_waitpoint_id", "current_worker_instance_id")
	lane, n, wp := orDefault(x[0], "default"), orDefault(x[1], "0"), orDefault(x[2], p.uuid())
	point := "ff:wp:" + tagOfID(id) + ":" + wp
	keys := []string{p.key(id, "core"), p.attempt(id, n), p.meta(id, n), p.key(id, "lease:current"), p.key(id, "lease:history"),
		p.index(id, "lease_expiry"), p.leases(id, x[3]), p.key(id, "suspension:current"), point, point + ":condition",
		p.index(id, "suspension_timeout"), p.laneIndex(id, lane, "terminal"), p.index(id, "attempt_timeout"), p.index(id, "execution_deadline"),
		p.laneIndex(id, lane, "eligible"), p.laneIndex(id, lane, "delayed")}
	for _, b := range []string{"dependencies", "budget", "quota", "route", "operator"} {
		keys = append(keys, p.laneIndex(id, lane, "blocked:"+b))
	}
	return p.fcall("ff_cancel_execution", keys, id, reason, source, lease, epoch)
}

func (p *peer) lane(id string) string { return orDefault(p.core(id, "lane_id")[0], "default") }

func (p *peer) priority(id string, n int) []string {
	p.t.Helper()
	return p.fcall("ff_change_priority", []string{p.key(id, "core"), p.laneIndex(id, p.lane(id), "eligible")}, id, strconv.Itoa(n))
}

func (p *peer) tag(id, k, v string) []string {
	p.t.Helper()
	return p.fcall("ff_set_execution_tags", []string{p.key(id, "core"), p.key(id, "tags")}, k, v)
}

func (p *peer) replay(id string) []string {
	p.t.Helper()
	lane := p.lane(id)
	return p.fcall("ff_replay_execution", []string{p.key(id, "core"), p.laneIndex(id, lane, "terminal"), p.laneIndex(id, lane, "eligible"),
		p.key(id, "lease:history")}, id, num(p.now()))
}

// revoke answers nil when nobody holds the execution (spec 07 §8.4).
func (p *peer) revoke(id, reason string) []string {
	p.t.Helper()
	instance := p.core(id, "current_worker_instance_id")[0]
	if instance == "" {
		return nil
	}
	return p.fcall("ff_revoke_lease", []string{p.key(id, "core"), p.key(id, "lease:current"), p.key(id, "lease:history"),
		p.index(id, "lease_expiry"), p.leases(id, instance)}, id, "", reason)
}

func (p *peer) reclaimGrant(id, caps string, ttl int64) []string {
	p.t.Helper()
	return p.fcall("ff_issue_reclaim_grant", []string{p.key(id, "core"), p.key(id, "claim_grant"), p.index(id, "lease_expiry")},
		id, p.worker, p.instance, p.lane(id), "", num(ttl), "", "", caps)
}

func (p *peer) reclaim(id string, ttl int64) (*peerLease, []string) {
	p.t.Helper()
	x := p.core(id, "lane_id", "current_attempt_index")
	lane, n := x[0], orDefault(x[1], "0")
	old, _ := strconv.Atoi(n)
	next := strconv.Itoa(old + 1)
	r := p.fcall("ff_reclaim_execution", []string{p.key(id, "core"), p.key(id, "claim_grant"), p.attempt(id, n), p.meta(id, n),
		p.attempt(id, next), p.attempt(id, next) + ":usage", p.key(id, "attempts"), p.key(id, "lease:current"), p.key(id, "lease:history"),
		p.index(id, "lease_expiry"), p.leases(id, p.instance), p.laneIndex(id, lane, "active"), p.index(id, "attempt_timeout"),
		p.index(id, "execution_deadline")}, id, p.worker, p.instance, lane, p.uuid(), num(ttl), p.uuid(), "{}", "1000")
	if r[0] == "0" {
		return nil, r
	}
	return &peerLease{id: id, lane: lane, lease: r[2], epoch: r[3], attempt: r[5], index: r[6], instance: p.instance, ttl: ttl}, r
}

// grantAndClaim is the operator's claim; it answers no attempt id.
func (p *peer) grantAndClaim(id string, ttl int64) (*peerLease, []string) {
	p.t.Helper()
	lane, attempt := p.lane(id), p.uuid()
	r := p.fcall("ff_issue_grant_and_claim", []string{p.key(id, "core"), p.key(id, "claim_grant"), p.laneIndex(id, lane, "eligible"),
		p.index(id, "lease_expiry"), p.leases(id, "operator"), p.key(id, "attempts"), p.key(id, "lease:current"), p.key(id, "lease:history"),
		p.laneIndex(id, lane, "active"), p.index(id, "attempt_timeout"), p.index(id, "execution_deadline")},
		id, "operator", "operator", lane, "", p.uuid(), num(ttl), attempt, "{}", "", "")
	if r[0] == "0" {
		return nil, r
	}
	return &peerLease{id: id, lane: lane, lease: r[2], epoch: r[3], attempt: p.core(id, "current_attempt_id")[0], index: r[4],
		instance: "operator", ttl: ttl}, r
}

// block moves an execution to blocked:<set>.
func (p *peer) block(id, lane, set, reason string) []string {
	p.t.Helper()
	return p.fcall("ff_block_execution_for_admission", []string{p.key(id, "core"), p.laneIndex(id, lane, "eligible"),
		p.laneIndex(id, lane, "blocked:"+set)}, id, reason, "no connected worker satisfies required_capabilities", num(p.now()))
}

func (p *peer) unblock(id, lane, set, reason string) []string {
	p.t.Helper()
	return p.fcall("ff_unblock_execution", []string{p.key(id, "core"), p.laneIndex(id, lane, "blocked:"+set), p.laneIndex(id, lane, "eligible")},
		id, num(p.now()), reason)
}

// The scanners of the reference's engine (spec 06 §5), each for one partition.

func (p *peer) due(key string, limit int) []string {
	p.t.Helper()
	return p.list("ZRANGEBYSCORE", key, "-inf", num(p.now()), "LIMIT", "0", strconv.Itoa(limit))
}

func (p *peer) scanLeases(partition int) {
	p.t.Helper()
	tag := fmt.Sprintf("{fp:%d}", partition)
	for _, id := range p.due("ff:idx:"+tag+":lease_expiry", 50) {
		p.mark(id)
	}
}

func (p *peer) mark(id string) []string {
	p.t.Helper()
	return p.fcall("ff_mark_lease_expired_if_due", []string{p.key(id, "core"), p.key(id, "lease:current"), p.index(id, "lease_expiry"),
		p.key(id, "lease:history")}, id)
}

func (p *peer) scanDelayed(partition int, lanes ...string) {
	p.t.Helper()
	for _, lane := range lanes {
		for _, id := range p.due(fmt.Sprintf("ff:idx:{fp:%d}:lane:%s:delayed", partition, lane), 50) {
			p.good(p.fcall("ff_promote_delayed", []string{p.key(id, "core"), p.laneIndex(id, lane, "delayed"), p.laneIndex(id, lane, "eligible")},
				id, num(p.now())))
		}
	}
}

// scanExpiry is attempt_timeout or execution_deadline.
func (p *peer) scanExpiry(partition int, kind string) {
	p.t.Helper()
	for _, id := range p.due(fmt.Sprintf("ff:idx:{fp:%d}:%s", partition, kind), 50) {
		p.expire(id, kind)
	}
}

func (p *peer) expire(id, reason string) []string {
	p.t.Helper()
	x := p.core(id, "lane_id", "current_attempt_index")
	lane, n := orDefault(x[0], "default"), x[1]
	return p.fcall("ff_expire_execution", []string{p.key(id, "core"), p.attempt(id, n), p.meta(id, n), p.key(id, "lease:current"),
		p.key(id, "lease:history"), p.index(id, "lease_expiry"), p.leases(id, ""), p.laneIndex(id, lane, "active"),
		p.laneIndex(id, lane, "terminal"), p.index(id, "attempt_timeout"), p.index(id, "execution_deadline"), p.laneIndex(id, lane, "suspended"),
		p.index(id, "suspension_timeout"), p.key(id, "suspension:current")}, id, reason)
}

// blockedSets are the sets of admission and the reasons that belong to them.
var blockedSets = map[string]string{"budget": "waiting_for_budget", "quota": "waiting_for_quota", "route": "waiting_for_capable_worker"}

func (p *peer) scanBlocked(partition int, lanes ...string) {
	p.t.Helper()
	for _, lane := range lanes {
		for _, set := range []string{"budget", "quota", "route"} {
			reason := blockedSets[set]
			for _, id := range p.list("ZRANGEBYSCORE", fmt.Sprintf("ff:idx:{fp:%d}:lane:%s:blocked:%s", partition, lane, set), "-inf", "+inf", "LIMIT", "0", "100") {
				p.unblock(id, lane, set, reason)
			}
		}
	}
}

// scanRetention deletes what ended a day ago, with plain commands (spec 06 §5.7).
func (p *peer) scanRetention(partition int, lanes ...string) {
	p.t.Helper()
	const day = 86400000
	for _, lane := range lanes {
		key := fmt.Sprintf("ff:idx:{fp:%d}:lane:%s:terminal", partition, lane)
		for _, id := range p.list("ZRANGEBYSCORE", key, "-inf", num(p.now()-day), "LIMIT", "0", "20") {
			x := p.core(id, "completed_at", "total_attempt_count")
			if x[0] == "" {
				p.do("ZREM", key, id)
				continue
			}
			doomed := []string{}
			for _, name := range []string{"payload", "result", "tags", "lease:current", "lease:history", "claim_grant", "attempts", "suspension:current"} {
				doomed = append(doomed, p.key(id, name))
			}
			total, _ := strconv.Atoi(x[1])
			for i := range total {
				n := strconv.Itoa(i)
				doomed = append(doomed, p.attempt(id, n), p.attempt(id, n)+":usage", p.attempt(id, n)+":policy", strings.TrimSuffix(p.meta(id, n), ":meta"), p.meta(id, n))
			}
			p.do("DEL", doomed...)
			p.do("DEL", p.key(id, "core"), p.key(id, "policy"))
			p.do("ZREM", key, id)
			p.do("SREM", p.index(id, "all_executions"), id)
		}
	}
}

// scanIndexes is the reference's index check: it answers what it would warn about
// (spec 06 §5.17).
func (p *peer) scanIndexes(partition int) (warnings []string) {
	p.t.Helper()
	for _, id := range p.list("SMEMBERS", fmt.Sprintf("ff:idx:{fp:%d}:all_executions", partition)) {
		x := p.core(id, "lifecycle_phase", "eligibility_state", "ownership_state", "lane_id")
		expected := ""
		switch {
		case x[0] == "active" && x[2] == "leased":
			expected = "active"
		case x[0] == "runnable":
			expected = map[string]string{"eligible_now": "eligible", "not_eligible_until_time": "delayed", "blocked_by_dependencies": "blocked:dependencies",
				"blocked_by_budget": "blocked:budget", "blocked_by_quota": "blocked:quota", "blocked_by_route": "blocked:route",
				"blocked_by_operator": "blocked:operator"}[x[1]]
		case x[0] == "suspended" || x[0] == "terminal":
			expected = x[0]
		case x[0] == "":
			warnings = append(warnings, id+" has no core")
		}
		if expected != "" && p.text("ZSCORE", p.laneIndex(id, orDefault(x[3], "default"), expected), id) == "" {
			warnings = append(warnings, fmt.Sprintf("%s %v is not in %s", id, x, expected))
		}
	}
	return warnings
}

// describe is describe_execution and read_execution_info of the reference, as strict
// as they are (spec 01 §1.3, spec 07 §3).
func (p *peer) describe(id string) (map[string]string, error) {
	p.t.Helper()
	x := p.hash(p.key(id, "core"))
	if len(x) == 0 {
		return nil, nil
	}
	known := func(field string, values ...string) error {
		if !slices.Contains(values, x[field]) {
			return fmt.Errorf("%s is %q", field, x[field])
		}
		return nil
	}
	number := func(field string, bits int, optional bool) error {
		if x[field] == "" && optional {
			return nil
		}
		var err error
		if bits < 0 {
			_, err = strconv.ParseInt(x[field], 10, 64)
		} else {
			_, err = strconv.ParseUint(x[field], 10, bits)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		return nil
	}
	id128 := func(field string, optional bool) error {
		if x[field] == "" && optional {
			return nil
		}
		if _, err := uuid.Parse(x[field]); err != nil {
			return fmt.Errorf("%s is %q: %w", field, x[field], err)
		}
		return nil
	}
	checks := []error{
		known("public_state", "waiting", "delayed", "rate_limited", "waiting_children", "active", "suspended", "resumable", "completed", "failed",
			"cancelled", "expired", "skipped"),
		known("lifecycle_phase", "submitted", "runnable", "active", "suspended", "terminal"),
		known("ownership_state", "unowned", "leased", "lease_expired_reclaimable", "lease_revoked"),
		known("eligibility_state", "eligible_now", "not_eligible_until_time", "blocked_by_dependencies", "blocked_by_budget", "blocked_by_quota",
			"blocked_by_route", "blocked_by_lane_state", "blocked_by_operator", "not_applicable"),
		known("blocking_reason", "none", "waiting_for_worker", "waiting_for_retry_backoff", "waiting_for_resume_delay", "waiting_for_delay",
			"waiting_for_signal", "waiting_for_children", "waiting_for_budget", "waiting_for_quota", "waiting_for_capable_worker",
			"paused_by_operator", "paused_by_policy"),
		known("terminal_outcome", "none", "success", "failed", "cancelled", "expired", "skipped"),
		known("attempt_state", "none", "pending_first_attempt", "running_attempt", "attempt_interrupted", "pending_retry_attempt",
			"pending_replay_attempt", "attempt_terminal"),
		id128("flow_id", true), number("created_at", -1, false), number("last_mutation_at", -1, false), number("total_attempt_count", 32, true),
		number("delay_until", -1, true), number("started_at", -1, true), number("completed_at", -1, true), number("priority", -1, false),
	}
	if n := len(x["lane_id"]); n == 0 || n > 64 {
		checks = append(checks, fmt.Errorf("lane_id is %q", x["lane_id"]))
	}
	if x["current_attempt_id"] != "" {
		checks = append(checks, id128("current_attempt_id", false), number("current_attempt_index", 32, false))
	}
	if x["current_worker_instance_id"] != "" && x["lease_expires_at"] != "" {
		checks = append(checks, number("lease_expires_at", -1, false), number("current_lease_epoch", 64, false), id128("current_lease_id", false),
			number("current_attempt_index", 32, false), number("lease_last_renewed_at", -1, true))
	}
	for _, err := range checks {
		if err != nil {
			return x, fmt.Errorf("describe_execution %s: %w", id, err)
		}
	}
	return x, nil
}

// see is describe for what must be readable, and must have a state.
func (p *peer) see(id, state string) map[string]string {
	p.t.Helper()
	x, err := p.describe(id)
	if err != nil {
		p.t.Fatal(err)
	}
	if x["public_state"] != state {
		p.t.Fatalf("the peer sees %s as %q, want %q", id, x["public_state"], state)
	}
	return x
}

// connect is what a worker of the reference does first (spec 10 §3).
func (p *peer) connect(namespace string) map[string]string {
	p.t.Helper()
	if s := p.text("PING"); s != "PONG" {
		p.t.Fatalf("PING: %s", s)
	}
	p.do("SET", "ff:worker:"+namespace+":"+p.instance+":alive", "1", "NX", "PX", "60000")
	return p.hash("ff:config:partitions")
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

package valkey_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

var (
	mixedSeed  = flag.Uint64("mixed.seed", 0, "seed of the mixed test; 0 takes those of the source")
	mixedSteps = flag.Int("mixed.steps", 2500, "commands of the mixed test")
)

// mixed lets a peer and a store work on the same data, in turn, at random.
type mixed struct {
	t      *testing.T
	ctx    context.Context
	r      *rand.Rand
	clock  *valkeytest.Clock
	server *valkeytest.Server
	store  *valkey.Store
	peer   *peer
	ids    []string
	theirs []*peerLease
	ours   []ff.Claimed
	step   int
	what   string
}

var mixedLanes = []string{"alpha", "beta"}

func TestPeerAndStoreAtRandomAgree(t *testing.T) {
	seeds := []uint64{1, 2}
	if *mixedSeed != 0 {
		seeds = []uint64{*mixedSeed}
	}
	for _, seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { newMixed(t, seed).run(*mixedSteps) })
	}
}

func newMixed(t *testing.T, seed uint64) *mixed {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	m := &mixed{t: t, ctx: t.Context(), r: rand.New(rand.NewPCG(seed, 0)), clock: clock, server: server, peer: newPeer(t, server),
		store: openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions})}
	m.peer.uuid = func() string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", m.r.Uint32(), m.r.Uint64()>>16) }
	return m
}

func (m *mixed) run(steps int) {
	for m.step = range steps {
		m.command()
		m.clock.Advance(time.Millisecond)
		if m.r.IntN(4) == 0 {
			m.clock.Advance(time.Duration(m.r.IntN(1500)) * time.Millisecond)
		}
		if m.step%250 == 249 {
			m.settle()
			m.check()
		}
	}
	m.drain()
	m.forget()
}

// fail ends the test with what the data was.
func (m *mixed) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("step %d, %s: %s", m.step, m.what, fmt.Sprintf(format, args...))
}

// may accepts what a store may answer to a command that comes at the wrong time.
func (m *mixed) may(err error) {
	m.t.Helper()
	switch code := ff.CodeOf(err); {
	case err == nil:
	case code == ff.CodeCorruption || code == ff.CodeInternal || code == ff.CodeTransport || code == ff.CodeUnavailable || code == ff.CodeInvalidInput:
		m.fail("%v", err)
	}
}

func (m *mixed) any() string {
	if len(m.ids) == 0 {
		m.peerCreates()
	}
	if m.r.IntN(3) > 0 { // rather a new one
		return m.ids[len(m.ids)-1-m.r.IntN(min(len(m.ids), 20))]
	}
	return pick(m.r, m.ids)
}

func (m *mixed) id(text string) ff.ExecutionID {
	id, err := ff.ParseExecutionID(text)
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

func (m *mixed) peerLease() *peerLease {
	if len(m.theirs) == 0 {
		return nil
	}
	return pick(m.r, m.theirs)
}

func (m *mixed) ourLease() (ff.LeaseRef, bool) {
	if len(m.ours) == 0 {
		return ff.LeaseRef{}, false
	}
	c := pick(m.r, m.ours)
	return c.Ref(), true
}

func (m *mixed) keep(l *peerLease) {
	if l != nil {
		m.theirs = append(m.theirs, l)
	}
}

func (m *mixed) keepOurs(list ...ff.Claimed) {
	for _, c := range list {
		// What was claimed is what is stored.
		x, err := m.store.Execution(m.ctx, c.Execution.ID)
		if err != nil {
			m.fail("%v", err)
		}
		if x.Lease.ID != c.Execution.Lease.ID || !x.Deadline.Equal(c.Execution.Deadline) || !x.AttemptTimeoutAt.Equal(c.Execution.AttemptTimeoutAt) ||
			x.Attempt.Index != c.Execution.Attempt.Index || x.Attempt.Type != c.Execution.Attempt.Type || x.LeaseEpoch != c.Execution.LeaseEpoch {
			say := func(x *ff.Execution) string {
				return fmt.Sprintf("lease %v/%d, attempt %d %s, deadline %d, timeout %d", x.Lease.ID, x.LeaseEpoch, x.Attempt.Index, x.Attempt.Type,
					x.Deadline.UnixMilli(), x.AttemptTimeoutAt.UnixMilli())
			}
			m.fail("claimed: %s; stored: %s", say(&c.Execution), say(&x))
		}
	}
	m.ours = append(m.ours, list...)
}

const (
	retrying = `{"priority":0,"retry_policy":{"max_retries":2,"backoff":{"type":"fixed","delay_ms":700},"retryable_categories":[]},"max_reclaim_count":3,"max_replay_count":3,"budget_ids":[],"max_signals_per_execution":10000}`
	timed    = `{"priority":0,"retry_policy":{"max_retries":1,"backoff":{"type":"exponential","initial_delay_ms":100,"max_delay_ms":60000,"multiplier":1.5,"jitter":false},"retryable_categories":[]},"timeout_policy":{"attempt_timeout_ms":1500,"max_reclaim_count":100},"max_reclaim_count":100,"max_replay_count":10,"budget_ids":[],"max_signals_per_execution":10000}`
)

func (m *mixed) peerCreates() {
	c := &peerCreate{lane: pick(m.r, mixedLanes), namespace: "ns", partition: m.r.IntN(int(fewPartitions.Flow)), priority: m.r.IntN(3), payload: "in",
		policy: pick(m.r, []string{"", retrying, timed})}
	now := m.peer.now()
	switch m.r.IntN(5) {
	case 0:
		c.delayUntil = now + int64(m.r.IntN(3000))
	case 1:
		c.deadline = now + int64(m.r.IntN(6000))
	case 2:
		c.tags = map[string]string{"a.b": "c"}
	}
	id, _ := m.peer.create(c)
	m.ids = append(m.ids, id)
}

func (m *mixed) weCreate() {
	c := ff.CreateExecution{Lane: ff.LaneID(pick(m.r, mixedLanes)), Kind: "job", Priority: m.r.IntN(3), Payload: []byte("in"), Namespace: "ns"}
	c.ID = m.id(m.peer.newID(m.r.IntN(int(fewPartitions.Flow))))
	if text := pick(m.r, []string{"", retrying, timed}); text != "" {
		var err error
		if c.Policy, err = ff.ParseExecutionPolicy([]byte(text)); err != nil {
			m.t.Fatal(err)
		}
	}
	now, err := m.store.Now(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	switch m.r.IntN(4) {
	case 0:
		c.Delay = time.Duration(1+m.r.IntN(3000)) * time.Millisecond
	case 1:
		c.Deadline = now.Add(time.Duration(m.r.IntN(6000)) * time.Millisecond)
	}
	r, err := m.store.CreateExecution(m.ctx, c)
	if err != nil {
		m.fail("%v", err)
	}
	m.ids = append(m.ids, r.ID.String())
}

var us = ff.Claimant{Worker: "go", Instance: "go-1"}

// command does one thing.
func (m *mixed) command() {
	id, ttl := m.any(), int64(1000+m.r.IntN(2500))
	theirs := m.peerLease()
	ref, held := m.ourLease()
	commands := []struct {
		weight int
		name   string
		f      func()
	}{
		{5, "peer creates", m.peerCreates},
		{5, "we create", m.weCreate},
		{14, "peer claims", func() { m.keep(m.peer.claimNext(m.r.IntN(4), pick(m.r, mixedLanes), "", ttl)) }},
		{14, "we claim", func() {
			r, err := m.store.Claim(m.ctx, ff.Claim{Claimant: us, Lanes: []ff.LaneID{"alpha", "beta"}, Max: 1 + m.r.IntN(3), LeaseTTL: time.Duration(ttl) * time.Millisecond})
			m.may(err)
			m.keepOurs(r.Claimed...)
		}},
		{4, "peer grants", func() { m.peer.grant(id, m.peer.lane(id), "", int64(200+m.r.IntN(1500))) }},
		{3, "peer takes up a grant", func() { l, _ := m.peer.claimGranted(id, m.peer.lane(id), ttl); m.keep(l) }},
		{3, "peer takes up a resumed grant", func() { l, _ := m.peer.claimResumed(id, m.peer.lane(id), ttl); m.keep(l) }},
		{4, "we grant", func() {
			who := us
			if m.r.IntN(2) == 0 { // for the peer's worker
				who = ff.Claimant{Worker: "rust", Instance: "rust-1"}
			}
			g, err := m.store.GrantNext(m.ctx, ff.GrantNext{Claimant: who, Lane: ff.LaneID(pick(m.r, mixedLanes)), TTL: time.Duration(200+m.r.IntN(1500)) * time.Millisecond})
			m.may(err)
			if err == nil && !g.ID.IsZero() && m.r.IntN(2) == 0 {
				if who == us {
					r, err := m.store.ClaimGranted(m.ctx, ff.ClaimGranted{Claimant: us, ID: g.ID, LeaseTTL: time.Duration(ttl) * time.Millisecond})
					if err != nil {
						m.fail("our own grant: %v", err)
					}
					m.keepOurs(r.Claimed)
				} else {
					l, r := m.peer.claimGranted(g.ID.String(), m.peer.lane(g.ID.String()), ttl)
					if l == nil {
						m.fail("the peer cannot take up our grant: %q", r)
					}
					m.keep(l)
				}
			}
		}},
		{3, "we take up a grant", func() {
			r, err := m.store.ClaimGranted(m.ctx, ff.ClaimGranted{Claimant: us, ID: m.id(id), LeaseTTL: time.Duration(ttl) * time.Millisecond})
			m.may(err)
			if err == nil {
				m.keepOurs(r.Claimed)
			}
		}},
		{4, "peer reclaims", func() {
			if m.r.IntN(4) > 0 {
				m.peer.reclaimGrant(id, "", int64(200+m.r.IntN(1500)))
			}
			l, _ := m.peer.reclaim(id, ttl)
			m.keep(l)
		}},
		{3, "we grant a reclaim", func() {
			_, err := m.store.GrantReclaim(m.ctx, ff.GrantReclaim{Claimant: us, ID: m.id(id), TTL: time.Duration(200+m.r.IntN(1500)) * time.Millisecond})
			m.may(err)
		}},
		{2, "operator of the peer claims", func() { l, _ := m.peer.grantAndClaim(id, ttl); m.keep(l) }},
		{4, "peer renews", func() {
			if theirs != nil {
				m.peer.renew(theirs)
			}
		}},
		{4, "we renew", func() {
			if held {
				_, err := m.store.RenewLeases(m.ctx, ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: time.Duration(ttl) * time.Millisecond})
				m.may(err)
			}
		}},
		{6, "peer completes", func() {
			if theirs != nil {
				m.peer.complete(theirs, "out")
			}
		}},
		{6, "we complete", func() {
			if held {
				_, err := m.store.CompleteExecution(m.ctx, ff.CompleteExecution{LeaseRef: ref, Result: []byte("out")})
				m.may(err)
			}
		}},
		{6, "peer fails", func() {
			if theirs != nil {
				m.peer.fail(theirs, "boom", pick(m.r, []string{"transient", "permanent"}))
			}
		}},
		{6, "we fail", func() {
			if held {
				_, err := m.store.FailExecution(m.ctx, ff.FailExecution{LeaseRef: ref, Reason: "bang", Category: pick(m.r, []string{"timeout", "bug"})})
				m.may(err)
			}
		}},
		{4, "peer delays", func() {
			if theirs != nil {
				m.peer.delay(theirs, m.peer.now()+int64(m.r.IntN(2500))-200)
			}
		}},
		{4, "we delay", func() {
			if held {
				_, err := m.store.DelayExecution(m.ctx, ff.DelayExecution{LeaseRef: ref, For: time.Duration(1+m.r.IntN(2500)) * time.Millisecond})
				m.may(err)
			}
		}},
		{3, "we release", func() {
			if held {
				_, err := m.store.ReleaseExecutions(m.ctx, ff.ReleaseExecutions{Leases: []ff.LeaseRef{ref}})
				m.may(err)
			}
		}},
		{3, "we act as operator", func() {
			ref := ff.LeaseRef{ID: m.id(id)}
			var err error
			switch m.r.IntN(4) {
			case 0:
				_, err = m.store.CompleteExecution(m.ctx, ff.CompleteExecution{LeaseRef: ref, Source: ff.SourceOperatorOverride})
			case 1:
				_, err = m.store.FailExecution(m.ctx, ff.FailExecution{LeaseRef: ref, Reason: "stuck", Category: "operator", Source: ff.SourceOperatorOverride})
			default:
				_, err = m.store.DelayExecution(m.ctx, ff.DelayExecution{LeaseRef: ref, For: time.Second, Source: ff.SourceOperatorOverride})
			}
			m.may(err)
		}},
		{1, "peer waits for children", func() {
			if theirs != nil {
				m.peer.waitChildren(theirs)
			}
		}},
		{2, "peer cancels", func() { m.peer.cancel(id, "no more", "operator_override", "", "") }},
		{1, "peer's worker cancels", func() {
			if theirs != nil {
				m.peer.cancel(theirs.id, "no more", "worker", theirs.lease, theirs.epoch)
			}
		}},
		{2, "we cancel", func() {
			_, err := m.store.CancelExecution(m.ctx, ff.CancelExecution{ID: m.id(id), Reason: "enough"})
			m.may(err)
		}},
		{3, "peer replays", func() { m.peer.replay(id) }},
		{3, "we replay", func() {
			_, err := m.store.ReplayExecution(m.ctx, ff.ReplayExecution{ID: m.id(id), Reason: "again"})
			m.may(err)
		}},
		{3, "peer revokes", func() { m.peer.revoke(id, "operator") }},
		{3, "we revoke", func() {
			_, err := m.store.RevokeLease(m.ctx, ff.RevokeLease{ID: m.id(id), Reason: "operator"})
			m.may(err)
		}},
		{3, "peer changes the priority", func() { m.peer.priority(id, m.r.IntN(4)) }},
		{3, "we change the priority", func() {
			_, err := m.store.ChangePriority(m.ctx, ff.ChangePriority{ID: m.id(id), Priority: m.r.IntN(4)})
			m.may(err)
		}},
		{1, "peer tags", func() { m.peer.tag(id, "x.y", "1") }},
		{1, "we tag", func() {
			_, err := m.store.SetExecutionTags(m.ctx, ff.SetExecutionTags{ID: m.id(id), Tags: map[string]string{"x.y": "2"}})
			m.may(err)
		}},
		{1, "progress", func() {
			if theirs != nil {
				m.peer.progress(theirs, "40", "there")
			}
			if held {
				m.may(m.store.UpdateProgress(m.ctx, ff.UpdateProgress{LeaseRef: ref, Message: "here"}))
			}
		}},
		{3, "peer blocks", func() {
			set := pick(m.r, []string{"budget", "quota", "route"})
			m.peer.block(id, m.peer.lane(id), set, blockedSets[set])
		}},
		{2, "peer unblocks", func() { m.peer.scanBlocked(m.r.IntN(4), mixedLanes...) }},
		{4, "peer scans", func() { m.peerScans(m.r.IntN(4), m.r.IntN(4)) }},
		{4, "we sweep", func() {
			_, err := m.store.Sweep(m.ctx, ff.Sweep{Kind: pick(m.r, ff.SweepKinds)})
			m.may(err)
		}},
	}
	total := 0
	for _, c := range commands {
		total += c.weight
	}
	n := m.r.IntN(total)
	for _, c := range commands {
		if n -= c.weight; n < 0 {
			m.what = c.name + " " + id
			c.f()
			return
		}
	}
}

func (m *mixed) peerScans(partition, kind int) {
	switch kind {
	case 0:
		m.peer.scanLeases(partition)
	case 1:
		m.peer.scanDelayed(partition, mixedLanes...)
	case 2:
		m.peer.scanExpiry(partition, "attempt_timeout")
	default:
		m.peer.scanExpiry(partition, "execution_deadline")
	}
}

// settle lets our loops do what is due.
func (m *mixed) settle() {
	m.what = "settling"
	for _, kind := range ff.SweepKinds {
		for {
			r, err := m.store.Sweep(m.ctx, ff.Sweep{Kind: kind})
			if err != nil || r.Errors > 0 {
				m.fail("sweep %s: %+v, %v", kind, r, err)
			}
			if !r.More {
				break
			}
		}
	}
}

// members reads a set or sorted set; of a set the scores are 0.
func (m *mixed) members(key string) map[string]float64 {
	out := map[string]float64{}
	switch kind := m.peer.text("TYPE", key); kind {
	case "none":
	case "set":
		for _, id := range m.peer.list("SMEMBERS", key) {
			out[id] = 0
		}
	case "zset":
		list, err := m.server.Do("ZRANGE", key, "0", "-1", "WITHSCORES").AsZScores()
		if err != nil {
			m.t.Fatal(err)
		}
		for _, z := range list {
			out[z.Member] = z.Score
		}
	default:
		m.t.Fatalf("%s is a %s", key, kind)
	}
	return out
}

func (m *mixed) keys(pattern string) []string {
	list := m.peer.list("KEYS", pattern)
	slices.Sort(list)
	return list
}

var allLaneIndexes = []string{"eligible", "delayed", "active", "terminal", "suspended", "blocked:dependencies", "blocked:budget", "blocked:quota",
	"blocked:route", "blocked:operator"}

// view is everything that is stored of the executions, by raw reads.
type mixedView struct {
	cores map[string]map[string]string
	index map[string]map[string]float64
}

func (v *mixedView) has(key, id string) bool { _, ok := v.index[key][id]; return ok }

func (m *mixed) read() *mixedView {
	v := &mixedView{cores: map[string]map[string]string{}, index: map[string]map[string]float64{}}
	for _, key := range m.keys("ff:exec:*:core") {
		x := m.peer.hash(key)
		id := strings.TrimSuffix(key[strings.Index(key, "}:{")+2:], ":core")
		v.cores[id] = x
	}
	for _, pattern := range []string{"ff:idx:{*", "ffx:idx:{*"} {
		for _, key := range m.keys(pattern) {
			if !strings.HasSuffix(key, ":lanes") && !strings.HasSuffix(key, ":waiting") && m.peer.text("TYPE", key) != "hash" {
				v.index[key] = m.members(key)
			}
		}
	}
	return v
}

// check compares all indexes with what the records say.
func (m *mixed) check() {
	m.t.Helper()
	m.what = "checking"
	v := m.read()
	var wrong []string
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	counts := map[string]map[ff.PublicState]int{}
	now := m.peer.now()
	for id, x := range v.cores {
		m.checkExecution(v, id, x, now, counts, bad)
	}
	m.checkMembers(v, now, bad)
	for p := range int(fewPartitions.Flow) {
		wrong = append(wrong, m.peer.scanIndexes(p)...)
	}
	m.checkListings(counts, bad)
	if len(wrong) > 0 {
		slices.Sort(wrong)
		m.fail("%d wrong:\n%s", len(wrong), strings.Join(wrong[:min(30, len(wrong))], "\n"))
	}
}

func (m *mixed) checkExecution(v *mixedView, id string, x map[string]string, now int64, counts map[string]map[ff.PublicState]int, bad func(string, ...any)) {
	p, tag, lane := m.peer, tagOfID(id), x["lane_id"]
	if _, err := p.describe(id); err != nil {
		bad("%v", err)
	}
	rec, err := m.store.Execution(m.ctx, m.id(id))
	if err != nil {
		bad("%v", err)
		return
	}
	if counts[lane] == nil {
		counts[lane] = map[ff.PublicState]int{}
	}
	counts[lane][rec.PublicState()]++
	if got := string(rec.PublicState()); got != x["public_state"] {
		// Quirk Q7 of spec 01: a route block is written as rate_limited.
		if x["public_state"] != "rate_limited" || x["eligibility_state"] != "blocked_by_route" || got != "waiting" {
			bad("%s is %s to us and %s to peers", id, got, x["public_state"])
		}
	}
	home := map[string]string{"active": "active", "terminal": "terminal", "suspended": "suspended"}[x["lifecycle_phase"]]
	if x["lifecycle_phase"] == "runnable" {
		home = map[string]string{"eligible_now": "eligible", "not_eligible_until_time": "delayed", "blocked_by_dependencies": "blocked:dependencies",
			"blocked_by_budget": "blocked:budget", "blocked_by_quota": "blocked:quota", "blocked_by_route": "blocked:route"}[x["eligibility_state"]]
	}
	for _, other := range mixedLanes {
		for _, name := range allLaneIndexes {
			if in := v.has(p.laneIndex(id, other, name), id); in != (other == lane && name == home) {
				bad("%s (%s %s %s %s) is in %s:%s: %v", id, x["lifecycle_phase"], x["eligibility_state"], x["ownership_state"], x["attempt_state"], other, name, in)
			}
		}
	}
	float := func(field string) float64 { f, _ := strconv.ParseFloat(x[field], 64); return f }
	score := v.index[p.laneIndex(id, lane, home)][id]
	switch home {
	case "eligible":
		if want := float("created_at") - float("priority")*1e12; score != want {
			bad("%s: eligible score %.0f, want %.0f", id, score, want)
		}
	case "delayed":
		if score != float("delay_until") {
			bad("%s: delayed score %.0f, want %s", id, score, x["delay_until"])
		}
	case "terminal":
		if score != float("completed_at") {
			bad("%s: terminal score %.0f, want %s", id, score, x["completed_at"])
		}
	}
	active := x["lifecycle_phase"] == "active"
	leased, lapsed, revoked := active && x["ownership_state"] == "leased", active && x["ownership_state"] == "lease_expired_reclaimable",
		active && x["ownership_state"] == "lease_revoked"
	if in := v.has(p.index(id, "lease_expiry"), id); in != (leased || lapsed) {
		bad("%s (%s) is in lease_expiry: %v", id, x["ownership_state"], in)
	} else if at := v.index[p.index(id, "lease_expiry")][id]; in && at != float("lease_expires_at") {
		bad("%s: lease_expiry says %.0f, the core %s", id, at, x["lease_expires_at"])
	}
	if leased && float("lease_expires_at") <= float64(now) {
		bad("%s: a lapsed lease is not marked", id)
	}
	if leased && !v.has(p.leases(id, x["current_worker_instance_id"]), id) {
		bad("%s is not among the leases of %s", id, x["current_worker_instance_id"])
	}
	// A peer that revokes or marks leaves the entry.
	if at, in := v.index[p.index(id, "attempt_timeout")][id]; in && !leased && (!active || at <= float64(now)) {
		bad("%s (%s %s) is in attempt_timeout", id, x["lifecycle_phase"], x["ownership_state"])
	} else if at := v.index[p.index(id, "attempt_timeout")][id]; leased && !rec.AttemptTimeoutAt.Equal(instant(at)) {
		bad("%s: attempt_timeout is %.0f, the record says %v", id, at, rec.AttemptTimeoutAt.UnixMilli())
	}
	in, at := v.has(p.index(id, "execution_deadline"), id), v.index[p.index(id, "execution_deadline")][id]
	if in && home == "terminal" {
		bad("%s is terminal and in execution_deadline", id)
	} else if home != "terminal" && !rec.Deadline.Equal(instant(at)) {
		bad("%s: execution_deadline is %.0f, the record says %d", id, at, rec.Deadline.UnixMilli())
	}
	own := func(name string) string { return "ffx:idx:" + tag + ":" + name }
	if at, ok := v.index[own("created")][id]; !ok || at != float("created_at") {
		bad("%s: in created %v, %.0f", id, ok, at)
	}
	if in := v.has(own("lane:"+lane+":lost"), id); in != (lapsed || revoked) {
		bad("%s (%s) is in lost: %v", id, x["ownership_state"], in)
	}
	for _, o := range []string{"failed", "cancelled", "expired", "skipped"} {
		if in := v.has(own("lane:"+lane+":outcome:"+o), id); in != (home == "terminal" && x["terminal_outcome"] == o) {
			bad("%s (%s %s) is in outcome:%s: %v", id, x["lifecycle_phase"], x["terminal_outcome"], o, in)
		}
	}
	if current := p.hash(p.key(id, "lease:current")); len(current) > 0 && current["lease_id"] != x["current_lease_id"] {
		bad("%s: lease:current has %s, the core %q (%s)", id, current["lease_id"], x["current_lease_id"], x["ownership_state"])
	}
	m.checkAttempts(id, &rec, bad)
	m.checkEvents(id, &rec, bad)
}

func instant(score float64) time.Time {
	if score == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(score))
}

func (m *mixed) checkAttempts(id string, x *ff.Execution, bad func(string, ...any)) {
	list, err := m.store.Attempts(m.ctx, m.id(id))
	if err != nil {
		bad("%s: attempts: %v", id, err)
		return
	}
	if len(list) != x.TotalAttempts || len(m.members(m.peer.key(id, "attempts"))) != x.TotalAttempts {
		bad("%s: %d attempts, in the list of attempts %d, want %d", id, len(list), len(m.members(m.peer.key(id, "attempts"))), x.TotalAttempts)
	}
	for i, a := range list {
		current := i == len(list)-1
		switch {
		case !current && a.EndedAt.IsZero():
			bad("%s: attempt %d has not ended (%s) although %d follow", id, i, a.State, len(list)-1-i)
		case current && x.Terminal() && (a.EndedAt.IsZero() || a.State == ff.AttemptStarted):
			bad("%s is %s and its attempt %d is %s", id, x.PublicState(), i, a.State)
		case current && x.State.Ownership == ff.OwnershipLeased && (a.State != ff.AttemptStarted || a.LeaseID != x.Lease.ID || a.LeaseEpoch != x.LeaseEpoch):
			bad("%s is leased (%v, %d), its attempt %+v", id, x.Lease.ID, x.LeaseEpoch, a)
		case current && x.Attempt != a:
			bad("%s: the latest attempt is\n%+v\nand in the list\n%+v", id, x.Attempt, a)
		}
	}
}

// checkEvents: whoever worked on it, one log tells it all, in order, once.
func (m *mixed) checkEvents(id string, x *ff.Execution, bad func(string, ...any)) {
	list := m.events(id)
	epoch := uint64(0)
	seen := map[string]int{}
	ended := 0
	for i, e := range list {
		seen[fmt.Sprintf("%s %d %s %d", e.Type, e.LeaseEpoch, e.Reason, e.At.UnixMilli())]++
		if i > 0 && e.At.Before(list[i-1].At) {
			bad("%s: event %d (%s at %d) is before the one before it (%s at %d)", id, i, e.Type, e.At.UnixMilli(), list[i-1].Type, list[i-1].At.UnixMilli())
		}
		if e.Type == ff.EventAcquired || e.Type == ff.EventReclaimed {
			epoch++
			if e.LeaseEpoch != epoch {
				bad("%s: event %d is of epoch %d, want %d", id, i, e.LeaseEpoch, epoch)
			}
		}
		if e.Type == ff.EventCompletion && x.Terminal() && e.At.Equal(x.CompletedAt) && e.Outcome == x.State.Outcome {
			ended++
		}
	}
	if epoch != x.LeaseEpoch {
		bad("%s: events of %d leases, want %d", id, epoch, x.LeaseEpoch)
	}
	if x.Terminal() && ended != 1 {
		bad("%s is %s since %d; its events tell that %d times", id, x.PublicState(), x.CompletedAt.UnixMilli(), ended)
	}
	for what, n := range seen {
		if n > 1 {
			bad("%s: %d times the event %s", id, n, what)
		}
	}
}

// events reads all events of an execution, in small pages.
func (m *mixed) events(id string) (list []ff.Event) {
	after := ff.EventCursor("")
	for {
		r, err := m.store.ReadEvents(m.ctx, ff.ReadEvents{ID: m.id(id), After: after, Limit: 3})
		if err != nil {
			m.fail("events of %s: %v", id, err)
		}
		if len(r.Events) == 0 {
			return list
		}
		list, after = append(list, r.Events...), r.Next
	}
}

// checkMembers: nothing is in an index that has no business there.
func (m *mixed) checkMembers(v *mixedView, now int64, bad func(string, ...any)) {
	for key, members := range v.index {
		for id := range members {
			x := v.cores[id]
			if x == nil {
				bad("%s has %s, which does not exist", key, id)
				continue
			}
			switch {
			case strings.HasSuffix(key, ":leases"):
				instance := strings.TrimSuffix(key[strings.Index(key, ":worker:")+len(":worker:"):], ":leases")
				if x["lifecycle_phase"] != "active" || x["current_worker_instance_id"] != instance {
					bad("%s has %s, which is %s of %q", key, id, x["lifecycle_phase"], x["current_worker_instance_id"])
				}
			case strings.HasSuffix(key, ":retention"):
				if x["lifecycle_phase"] != "terminal" {
					bad("%s has %s, which is %s", key, id, x["lifecycle_phase"])
				}
			case strings.HasSuffix(key, ":grants"):
				// A peer may use one up before its time, and grant again after it.
				if members[id] <= float64(now) && m.peer.text("TYPE", m.peer.key(id, "claim_grant")) == "none" {
					bad("%s has %s, whose grant has lapsed (%d, now %d, %s %s)", key, id, int64(members[id]), now, x["lifecycle_phase"], x["eligibility_state"])
				}
			}
		}
	}
}

// checkListings: counts and lists are those of a recount.
func (m *mixed) checkListings(counts map[string]map[ff.PublicState]int, bad func(string, ...any)) {
	lanes, err := m.store.Lanes(m.ctx)
	if err != nil {
		bad("%v", err)
	}
	for _, l := range lanes {
		want := counts[string(l.Lane)]
		got := l.Counts
		if !maps.Equal(want, got) && len(want)+len(got) > 0 {
			bad("counts of %s: %v, want %v", l.Lane, got, want)
		}
	}
	for lane, want := range counts {
		for _, state := range ff.PublicStates {
			n := 0
			q := ff.ListExecutions{Lane: ff.LaneID(lane), State: state, Limit: 100}
			for {
				r, err := m.store.ListExecutions(m.ctx, q)
				if err != nil {
					bad("%v", err)
					break
				}
				n += len(r.Executions)
				if q.Cursor = r.Next; r.Next == "" {
					break
				}
			}
			if n != want[state] {
				bad("the list of %s %s has %d, want %d", lane, state, n, want[state])
			}
		}
	}
}

// drain has everything done that is left: nothing may be lost.
func (m *mixed) drain() {
	m.what = "draining"
	for round := 0; ; round++ {
		m.clock.Advance(4 * time.Second)
		m.settle()
		for p := range int(fewPartitions.Flow) {
			m.peer.scanBlocked(p, mixedLanes...)
			for _, lane := range mixedLanes { // nobody resolves dependencies here
				for id := range m.members(fmt.Sprintf("ff:idx:{fp:%d}:lane:%s:blocked:dependencies", p, lane)) {
					m.peer.cancel(id, "no children", "operator_override", "", "")
				}
			}
			for range 3 {
				for _, lane := range mixedLanes {
					if l := m.peer.claimNext(p, lane, "", 60000); l != nil {
						m.peer.good(m.peer.complete(l, ""))
					}
				}
			}
		}
		r, err := m.store.Claim(m.ctx, ff.Claim{Claimant: us, Lanes: []ff.LaneID{"beta", "alpha"}, Max: 100})
		if err != nil {
			m.fail("%v", err)
		}
		m.keepOurs(r.Claimed...)
		for i := range r.Claimed {
			if _, err := m.store.CompleteExecution(m.ctx, ff.CompleteExecution{LeaseRef: r.Claimed[i].Ref()}); err != nil {
				m.fail("%v", err)
			}
		}
		open := 0
		for _, id := range m.ids {
			if m.peer.core(id, "lifecycle_phase")[0] != "terminal" {
				open++
			}
		}
		if open == 0 {
			break
		}
		if round > 40 {
			m.fail("%d executions do not end", open)
		}
	}
	m.settle()
	m.check()
}

// forget lets retention pass, for both sides' trimmers.
func (m *mixed) forget() {
	m.what = "forgetting"
	m.clock.Advance(24*time.Hour + time.Minute)
	for range 3 {
		for p := range 2 {
			m.peer.scanRetention(p, mixedLanes...)
		}
	}
	m.settle()
	m.check()
	for p := range int(fewPartitions.Flow) {
		for range len(m.ids)/20 + 1 {
			if m.r.IntN(2) == 0 {
				m.peer.scanRetention(p, mixedLanes...)
			}
		}
	}
	for range 5 {
		m.settle()
	}
	m.check()
	var left []string
	for _, pattern := range []string{"ff:exec:*", "ff:attempt:*", "ff:stream:*", "ffx:exec:*", "ff:idx:{*", "ffx:idx:{*"} {
		for _, key := range m.keys(pattern) {
			if kind := m.peer.text("TYPE", key); !strings.HasSuffix(key, ":lanes") && kind != "hash" || strings.HasPrefix(key, "ff:exec") {
				left = append(left, key)
			}
		}
	}
	if len(left) > 0 {
		m.fail("%d keys are left: %q", len(left), left[:min(20, len(left))])
	}
}

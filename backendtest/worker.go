package backendtest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var workerBehaviours = []behaviour{
	{"a registration is listed with what it says", workerListed},
	{"a registration again refreshes and overwrites", workerRefreshed},
	{"an exclusive registration refuses a live instance id", workerExclusive},
	{"a live instance id cannot move to another worker", workerReassigned},
	{"of concurrent exclusive registrations one wins", workerConcurrent},
	{"heartbeats keep a registration alive", workerHeartbeats},
	{"a registration that lapsed is gone", workerLapses},
	{"a worker marked dead is gone", workerDead},
	{"workers are listed by namespace and instance in pages", workerPages},
	{"a worker is listed with the number of its leases", workerLeases},
	{"registrations that cannot be are refused", badWorkers},
}

const liveness = 30 * time.Second

// lapse lets a registration end: it may live through the millisecond of its end.
func (s *subject) lapse() { s.Advance(liveness + time.Millisecond) }

func (s *subject) register(r ff.RegisterWorker) ff.RegisterWorkerResult {
	s.Helper()
	if r.LivenessTTL == 0 {
		r.LivenessTTL = liveness
	}
	got, err := s.RegisterWorker(s.Context(), r)
	s.must(err)
	return got
}

func (s *subject) workers(q ff.ListWorkers) []ff.WorkerInfo {
	s.Helper()
	return paged(s, func(cursor string) ([]ff.WorkerInfo, string) {
		q.Cursor = cursor
		r, err := s.ListWorkers(s.Context(), q)
		s.must(err)
		return r.Workers, r.Next
	})
}

func (s *subject) heartbeat(instance ff.WorkerInstanceID) ff.HeartbeatWorkerResult {
	s.Helper()
	r, err := s.HeartbeatWorker(s.Context(), ff.HeartbeatWorker{Instance: instance})
	s.must(err)
	return r
}

func workerListed(s *subject) {
	lanes := []ff.LaneID{"b", "a"}
	r := s.register(ff.RegisterWorker{Claimant: who("one", "gpu"), Lanes: lanes})
	s.equal("the answer", r, ff.RegisterWorkerResult{ExpiresAt: s.now().Add(liveness)})
	s.equal("the list", s.workers(ff.ListWorkers{}), []ff.WorkerInfo{{Worker: "w", Instance: "one", Lanes: lanes, Capabilities: capabilitySet("gpu"),
		LivenessTTL: liveness, RegisteredAt: s.now(), HeartbeatAt: s.now(), ExpiresAt: s.now().Add(liveness)}})
}

func workerRefreshed(s *subject) {
	s.register(ff.RegisterWorker{Claimant: who("one", "gpu")})
	s.Advance(time.Second)
	r := s.register(ff.RegisterWorker{Claimant: who("one", "cpu"), Lanes: []ff.LaneID{"a"}})
	s.equal("the answer", r, ff.RegisterWorkerResult{Refreshed: true, ExpiresAt: s.now().Add(liveness)})
	list := s.workers(ff.ListWorkers{})
	s.equal("the capabilities", list[0].Capabilities, capabilitySet("cpu"))
	s.equal("the lanes", list[0].Lanes, []ff.LaneID{"a"})
}

func workerExclusive(s *subject) {
	first := ff.RegisterWorker{Claimant: who("one"), LivenessTTL: liveness, Exclusive: true}
	s.register(first)
	_, err := s.RegisterWorker(s.Context(), first)
	s.refused(err, ff.ErrDuplicateWorkerInstance)
	other := first
	other.Namespace = "red"
	s.register(other)
	s.lapse()
	s.equal("refreshed after the lapse", s.register(first).Refreshed, false)
}

func workerReassigned(s *subject) {
	s.register(ff.RegisterWorker{Claimant: who("one")})
	other := ff.RegisterWorker{Claimant: ff.Claimant{Worker: "other", Instance: "one"}, LivenessTTL: liveness}
	_, err := s.RegisterWorker(s.Context(), other)
	s.refused(err, ff.ErrInvalidInput)
	if err != nil && !strings.Contains(err.Error(), "instance_id reassigned") {
		s.Errorf("the error says %q", err)
	}
	s.lapse()
	s.register(other)
	s.equal("the worker", s.workers(ff.ListWorkers{})[0].Worker, ff.WorkerID("other"))
}

func workerConcurrent(s *subject) {
	var won atomic.Int64
	inParallel(8, func(int) {
		_, err := s.RegisterWorker(s.Context(), ff.RegisterWorker{Claimant: who("one"), LivenessTTL: liveness, Exclusive: true})
		if err == nil {
			won.Add(1)
		} else {
			s.refused(err, ff.ErrDuplicateWorkerInstance)
		}
	})
	s.equal("registrations", won.Load(), int64(1))
}

func workerHeartbeats(s *subject) {
	s.register(ff.RegisterWorker{Claimant: who("one")})
	registered := s.now()
	for range 5 {
		s.Advance(liveness - time.Millisecond)
		s.equal("the heartbeat", s.heartbeat("one"), ff.HeartbeatWorkerResult{Registered: true, ExpiresAt: s.now().Add(liveness)})
	}
	w := s.workers(ff.ListWorkers{})[0]
	if !w.RegisteredAt.Equal(registered) || !w.HeartbeatAt.Equal(s.now()) {
		s.Errorf("registered %s (want %s), last heartbeat %s (want %s)", w.RegisteredAt, registered, w.HeartbeatAt, s.now())
	}
}

func workerLapses(s *subject) {
	s.register(ff.RegisterWorker{Claimant: who("one")})
	s.lapse()
	s.equal("listed", len(s.workers(ff.ListWorkers{})), 0)
	s.equal("the heartbeat", s.heartbeat("one"), ff.HeartbeatWorkerResult{})
	s.equal("the heartbeat of one never seen", s.heartbeat("two"), ff.HeartbeatWorkerResult{})
	s.sweep(ff.SweepRetention)
	s.equal("refreshed", s.register(ff.RegisterWorker{Claimant: who("one")}).Refreshed, false)
}

func workerDead(s *subject) {
	s.register(ff.RegisterWorker{Claimant: who("one")})
	mark := ff.MarkWorkerDead{Instance: "one", Reason: "shutdown"}
	for _, want := range []bool{true, false} {
		r, err := s.MarkWorkerDead(s.Context(), mark)
		s.must(err)
		s.equal("marked", r.Marked, want)
	}
	s.equal("the heartbeat", s.heartbeat("one"), ff.HeartbeatWorkerResult{})
	s.equal("listed", len(s.workers(ff.ListWorkers{})), 0)
	for _, reason := range []string{strings.Repeat("x", 257), "line\nbreak"} {
		mark.Reason = reason
		_, err := s.MarkWorkerDead(s.Context(), mark)
		s.refused(err, ff.ErrInvalidInput)
	}
}

func workerPages(s *subject) {
	var want []string
	for _, ns := range []ff.Namespace{"", "blue", "red"} {
		for i := range 5 {
			instance := ff.WorkerInstanceID(fmt.Sprintf("i%d", i))
			s.register(ff.RegisterWorker{Claimant: who(instance), Namespace: ns})
			want = append(want, string(ns)+"/"+string(instance))
		}
	}
	names := func(list []ff.WorkerInfo) (names []string) {
		for _, w := range list {
			names = append(names, string(w.Namespace)+"/"+string(w.Instance))
		}
		return names
	}
	s.equal("all", names(s.workers(ff.ListWorkers{AllNamespaces: true, Limit: 4})), want)
	s.equal("of the empty namespace", names(s.workers(ff.ListWorkers{Limit: 2})), want[:5])
	s.equal("of one namespace", names(s.workers(ff.ListWorkers{Namespace: "blue", Limit: 5})), want[5:10])
}

func workerLeases(s *subject) {
	s.register(ff.RegisterWorker{Claimant: who("a")})
	s.register(ff.RegisterWorker{Claimant: who("b")})
	held := func(a, b int) {
		s.Helper()
		list := s.workers(ff.ListWorkers{})
		s.equal("leases of a and b", []int{list[0].Leases, list[1].Leases}, []int{a, b})
	}
	held(0, 0)
	first, second, third := s.start(ff.CreateExecution{}), s.start(ff.CreateExecution{}), s.start(ff.CreateExecution{})
	held(3, 0)
	s.complete(first)
	_, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: second.Execution.ID})
	s.must(err)
	held(1, 0)
	s.claim(ff.Claim{Claimant: who("b")})
	held(1, 1)
	_, err = s.ReleaseExecutions(s.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{third.Ref()}})
	s.must(err)
	held(0, 1)
	s.pass(ttl)
	held(0, 0)
}

func badWorkers(s *subject) {
	for _, c := range []ff.RegisterWorker{
		{LivenessTTL: liveness}, {Claimant: who("one")}, {Claimant: who("two words"), LivenessTTL: liveness},
		{Claimant: who("one"), LivenessTTL: liveness, Namespace: "two words"},
		{Claimant: who("one"), LivenessTTL: liveness, Lanes: []ff.LaneID{""}},
	} {
		_, err := s.RegisterWorker(s.Context(), c)
		s.refused(err, ff.ErrInvalidInput)
	}
	_, err := s.HeartbeatWorker(s.Context(), ff.HeartbeatWorker{})
	s.refused(err, ff.ErrInvalidInput)
	_, err = s.ListWorkers(s.Context(), ff.ListWorkers{Limit: -1})
	s.refused(err, ff.ErrInvalidInput)
}

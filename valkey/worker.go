package valkey

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// Registrations of workers are in the keys that the reference has: the alive key,
// the capability hash and the index of its namespace (spec 10 §3). A worker without
// capabilities is in neither hash nor index there, so this implementation has a
// record and an index of its own beside them, which say when a registration ends.

func workerInfoKey(ns ff.Namespace, i ff.WorkerInstanceID) string {
	return "ffx:worker:" + string(ns) + ":" + string(i)
}

func workerInfoIndex(ns ff.Namespace) string { return "ffx:idx:" + string(ns) + ":workers" }

// RegisterWorker announces a process. An exclusive registration is the connect
// preamble of a worker, command by command (spec 10 §3.1).
func (s *Store) RegisterWorker(ctx context.Context, c ff.RegisterWorker) (r ff.RegisterWorkerResult, err error) {
	if err := c.Validate(); err != nil {
		return r, err
	}
	if c.Exclusive {
		err = s.preamble(ctx, &c)
	} else {
		r.Refreshed, err = s.register(ctx, &c)
	}
	if err != nil {
		return r, err
	}
	now, err := s.Now(ctx)
	if err != nil {
		return r, err
	}
	r.ExpiresAt = now.Add(c.LivenessTTL)
	return r, s.recordWorker(ctx, &c, now)
}

func (s *Store) liveWorker(ctx context.Context, ns ff.Namespace, i ff.WorkerInstanceID) (bool, error) {
	m, err := s.plain(ctx, s.client.B().Exists().Key(workerAliveKey(ns, i)).Build())
	n, _ := m.AsInt64()
	return n == 1, err
}

// workerOf is the worker whose instance is registered; empty when that is unknown.
func (s *Store) workerOf(ctx context.Context, ns ff.Namespace, i ff.WorkerInstanceID) (string, error) {
	for _, key := range []string{workerInfoKey(ns, i), workerCapsKey(ns, i)} {
		name, err := s.client.Do(ctx, s.client.B().Hget().Key(key).Field("worker_id").Build()).ToString()
		if err == nil {
			return name, nil
		}
		if !valkey.IsValkeyNil(err) {
			return "", s.lift(ctx, err)
		}
	}
	return "", nil
}

// preamble takes the instance id for this process, then writes or removes its
// capabilities; the hash is there before the index names it, and has no expiry.
func (s *Store) preamble(ctx context.Context, c *ff.RegisterWorker) error {
	if err := s.Ping(ctx); err != nil {
		return err
	}
	alive := s.client.B().Set().Key(workerAliveKey(c.Namespace, c.Instance)).Value("1").Nx().Px(c.LivenessTTL).Build()
	m, err := s.plain(ctx, alive)
	if err != nil {
		return err
	}
	if m.IsNil() {
		return ff.Errorf(ff.CodeDuplicateWorkerInstance, "duplicate worker_instance_id '%s': another process already holds %s", c.Instance, workerAliveKey(c.Namespace, c.Instance))
	}
	if _, err := s.partitionHash(ctx); err != nil {
		return err
	}
	caps, index := workerCapsKey(c.Namespace, c.Instance), workersKey(c.Namespace)
	commands := []valkey.Completed{s.client.B().Del().Key(caps).Build(), s.client.B().Srem().Key(index).Member(string(c.Instance)).Build()}
	if !c.Capabilities.IsZero() {
		s.log.Info("worker capabilities", "worker_instance_id", c.Instance, "worker_caps_hash", c.Capabilities.Digest(), "worker_caps", c.Capabilities.CSV())
		commands = []valkey.Completed{s.capsCommand(c, time.Now()), s.client.B().Sadd().Key(index).Member(string(c.Instance)).Build()}
	}
	for _, command := range commands {
		if _, err := s.plain(ctx, command); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) capsCommand(c *ff.RegisterWorker, now time.Time) valkey.Completed {
	return s.client.B().Hset().Key(workerCapsKey(c.Namespace, c.Instance)).FieldValue().FieldValue("worker_id", string(c.Worker)).
		FieldValue("lanes_csv", lanesCSV(c.Lanes)).FieldValue("caps_csv", c.Capabilities.CSV()).FieldValue("ttl_ms", millis(c.LivenessTTL)).
		FieldValue("registered_at_ms", ms(now)).FieldValue("last_heartbeat_ms", ms(now)).Build()
}

func lanesCSV(lanes []ff.LaneID) string {
	names := make([]string, len(lanes))
	for i, l := range lanes {
		names[i] = string(l)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}

// register is ff_register_worker; on a cluster, where its keys are on several
// nodes, the same commands one by one (quirk 01 Q6). It reports whether the instance
// was live before.
func (s *Store) register(ctx context.Context, c *ff.RegisterWorker) (live bool, err error) {
	if live, err = s.liveWorker(ctx, c.Namespace, c.Instance); err != nil {
		return live, err
	}
	if live {
		holder, err := s.workerOf(ctx, c.Namespace, c.Instance)
		if err != nil {
			return live, err
		}
		if holder != "" && holder != string(c.Worker) {
			return live, ff.InvalidInput("worker_instance_id", "instance_id reassigned: %q is live as an instance of worker %q", c.Instance, holder)
		}
	}
	if !s.cluster {
		call := callRegisterWorker(c, time.Now())
		_, err := s.answer(ctx, &call)
		return live, err
	}
	return live, s.registerByKeys(ctx, c)
}

func (s *Store) registerByKeys(ctx context.Context, c *ff.RegisterWorker) error {
	caps := workerCapsKey(c.Namespace, c.Instance)
	for _, command := range []valkey.Completed{
		s.client.B().Set().Key(workerAliveKey(c.Namespace, c.Instance)).Value("1").Px(c.LivenessTTL).Build(),
		s.capsCommand(c, time.Now()),
		s.client.B().Pexpire().Key(caps).Milliseconds(c.LivenessTTL.Milliseconds()).Build(),
		s.client.B().Sadd().Key(workersKey(c.Namespace)).Member(string(c.Instance)).Build(),
	} {
		if _, err := s.plain(ctx, command); err != nil {
			return err
		}
	}
	return nil
}

// recordWorker keeps the registration in this implementation's own record.
func (s *Store) recordWorker(ctx context.Context, c *ff.RegisterWorker, now time.Time) error {
	lanes := make([]string, len(c.Lanes))
	for i, l := range c.Lanes {
		lanes[i] = string(l)
	}
	key := workerInfoKey(c.Namespace, c.Instance)
	for _, command := range []valkey.Completed{
		s.client.B().Hset().Key(key).FieldValue().FieldValue("worker_id", string(c.Worker)).FieldValue("lanes", strings.Join(lanes, "\x00")).
			FieldValue("caps_csv", c.Capabilities.CSV()).FieldValue("ttl_ms", millis(c.LivenessTTL)).
			FieldValue("registered_at_ms", ms(now)).FieldValue("last_heartbeat_ms", ms(now)).Build(),
		s.client.B().Pexpire().Key(key).Milliseconds(c.LivenessTTL.Milliseconds()).Build(),
		s.client.B().Sadd().Key(workerInfoIndex(c.Namespace)).Member(string(c.Instance)).Build(),
		s.client.B().Sadd().Key(namespacesKey).Member(string(c.Namespace)).Build(),
	} {
		if _, err := s.plain(ctx, command); err != nil {
			return err
		}
	}
	return nil
}

// HeartbeatWorker keeps a registration alive: the alive key, and with it the
// capability hash, which has an expiry from the first heartbeat on.
func (s *Store) HeartbeatWorker(ctx context.Context, c ff.HeartbeatWorker) (ff.HeartbeatWorkerResult, error) {
	if err := c.Instance.Validate(); err != nil {
		return ff.HeartbeatWorkerResult{}, err
	}
	now, err := s.Now(ctx)
	if err != nil {
		return ff.HeartbeatWorkerResult{}, err
	}
	info, caps := workerInfoKey(c.Namespace, c.Instance), workerCapsKey(c.Namespace, c.Instance)
	ttl, err := s.storedTTL(ctx, info, caps)
	if err != nil || ttl == 0 {
		return ff.HeartbeatWorkerResult{}, err
	}
	m, err := s.plain(ctx, s.client.B().Pexpire().Key(workerAliveKey(c.Namespace, c.Instance)).Milliseconds(ttl).Build())
	if n, _ := m.AsInt64(); err != nil || n == 0 {
		return ff.HeartbeatWorkerResult{}, err
	}
	for _, key := range []string{info, caps} {
		m, err := s.plain(ctx, s.client.B().Pexpire().Key(key).Milliseconds(ttl).Build())
		if err == nil {
			if n, _ := m.AsInt64(); n == 1 {
				_, err = s.plain(ctx, s.client.B().Hset().Key(key).FieldValue().FieldValue("last_heartbeat_ms", ms(now)).Build())
			}
		}
		if err != nil {
			return ff.HeartbeatWorkerResult{}, err
		}
	}
	return ff.HeartbeatWorkerResult{Registered: true, ExpiresAt: now.Add(time.Duration(ttl) * time.Millisecond)}, nil
}

// storedTTL is how long a registration lives without a heartbeat; 0 when there is
// none.
func (s *Store) storedTTL(ctx context.Context, keys ...string) (int64, error) {
	for _, key := range keys {
		text, err := s.client.Do(ctx, s.client.B().Hget().Key(key).Field("ttl_ms").Build()).ToString()
		if valkey.IsValkeyNil(err) {
			continue
		}
		if err != nil {
			return 0, s.lift(ctx, err)
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
			return n, nil
		}
	}
	return 0, nil
}

// MarkWorkerDead removes a registration (spec 03 §25.1).
func (s *Store) MarkWorkerDead(ctx context.Context, c ff.MarkWorkerDead) (ff.MarkWorkerDeadResult, error) {
	if err := c.Validate(); err != nil {
		return ff.MarkWorkerDeadResult{}, err
	}
	var r ff.MarkWorkerDeadResult
	for _, command := range []valkey.Completed{
		s.client.B().Del().Key(workerAliveKey(c.Namespace, c.Instance)).Build(),
		s.client.B().Del().Key(workerCapsKey(c.Namespace, c.Instance)).Build(),
		s.client.B().Srem().Key(workersKey(c.Namespace)).Member(string(c.Instance)).Build(),
		s.client.B().Del().Key(workerInfoKey(c.Namespace, c.Instance)).Build(),
		s.client.B().Srem().Key(workerInfoIndex(c.Namespace)).Member(string(c.Instance)).Build(),
	} {
		isDel := command.Commands()[0] == "DEL"
		m, err := s.plain(ctx, command)
		if err != nil {
			return ff.MarkWorkerDeadResult{}, err
		}
		if n, _ := m.AsInt64(); isDel && n == 1 {
			r.Marked = true
		}
	}
	return r, nil
}

// registration names one worker process.
type registration struct {
	ns ff.Namespace
	i  ff.WorkerInstanceID
}

// ListWorkers lists live workers, those of peers too.
func (s *Store) ListWorkers(ctx context.Context, c ff.ListWorkers) (ff.ListWorkersResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListWorkersResult{}, err
	}
	all, err := s.registrations(ctx, &c)
	if err != nil {
		return ff.ListWorkersResult{}, err
	}
	limit := ff.PageLimit(c.Limit)
	var r ff.ListWorkersResult
	for len(all) > 0 {
		n := min(len(all), limit+1-len(r.Workers))
		live, err := s.describeWorkers(ctx, all[:n])
		if err != nil {
			return ff.ListWorkersResult{}, err
		}
		all = all[n:]
		r.Workers = append(r.Workers, live...)
		if len(r.Workers) > limit {
			r.Workers = r.Workers[:limit]
			last := r.Workers[limit-1]
			r.Next = string(last.Namespace) + "\x00" + string(last.Instance)
			return r, nil
		}
	}
	return r, nil
}

// registrations are those behind the cursor in order, live or not.
func (s *Store) registrations(ctx context.Context, c *ff.ListWorkers) ([]registration, error) {
	namespaces := []string{string(c.Namespace)}
	if c.AllNamespaces {
		var err error
		if namespaces, err = s.client.Do(ctx, s.client.B().Smembers().Key(namespacesKey).Build()).AsStrSlice(); err != nil {
			return nil, s.lift(ctx, err)
		}
		slices.Sort(namespaces)
	}
	afterNS, afterInstance, resumed := strings.Cut(c.Cursor, "\x00")
	if c.Cursor != "" && !resumed {
		return nil, ff.BadCursor(c.Cursor)
	}
	var all []registration
	for _, ns := range namespaces {
		if resumed && ns < afterNS {
			continue
		}
		var instances []string
		for _, key := range []string{workerInfoIndex(ff.Namespace(ns)), workersKey(ff.Namespace(ns))} {
			some, err := s.client.Do(ctx, s.client.B().Smembers().Key(key).Build()).AsStrSlice()
			if err != nil {
				return nil, s.lift(ctx, err)
			}
			instances = append(instances, some...)
		}
		slices.Sort(instances)
		for _, i := range slices.Compact(instances) {
			if !resumed || ns > afterNS || i > afterInstance {
				all = append(all, registration{ff.Namespace(ns), ff.WorkerInstanceID(i)})
			}
		}
	}
	return all, nil
}

// describeWorkers reads registrations, without those that have lapsed.
func (s *Store) describeWorkers(ctx context.Context, some []registration) (list []ff.WorkerInfo, err error) {
	commands := make([]valkey.Completed, 0, 3*len(some))
	for _, w := range some {
		commands = append(commands, s.client.B().Pexpiretime().Key(workerAliveKey(w.ns, w.i)).Build(),
			s.client.B().Hgetall().Key(workerInfoKey(w.ns, w.i)).Build(), s.client.B().Hgetall().Key(workerCapsKey(w.ns, w.i)).Build())
	}
	results := s.client.DoMulti(ctx, commands...)
	for i, w := range some {
		expires, err := results[3*i].AsInt64()
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		if expires < 0 {
			continue
		}
		info, err := results[3*i+1].AsStrMap()
		if err == nil && len(info) == 0 {
			info, err = results[3*i+2].AsStrMap()
		}
		if err != nil {
			return nil, s.lift(ctx, err)
		}
		got, err := workerInfoOf(w, info)
		if err != nil {
			s.log.Error("a registration cannot be read and is left out", "namespace", w.ns, "worker_instance_id", w.i, "err", err)
			continue
		}
		got.ExpiresAt = time.UnixMilli(expires)
		list = append(list, got)
	}
	return list, s.countLeases(ctx, list)
}

func workerInfoOf(w registration, info map[string]string) (ff.WorkerInfo, error) {
	f := &fields{hash: "registration of " + string(w.i), m: info}
	got := ff.WorkerInfo{Worker: ff.WorkerID(info["worker_id"]), Instance: w.i, Namespace: w.ns,
		LivenessTTL: time.Duration(f.number("ttl_ms")) * time.Millisecond, RegisteredAt: f.instant("registered_at_ms"), HeartbeatAt: f.instant("last_heartbeat_ms")}
	separator, lanes := "\x00", info["lanes"]
	if lanes == "" {
		separator, lanes = ",", info["lanes_csv"]
	}
	for _, lane := range strings.Split(lanes, separator) {
		if lane != "" {
			got.Lanes = append(got.Lanes, ff.LaneID(lane))
		}
	}
	var err error
	if got.Capabilities, err = ff.ParseCapabilityCSV(info["caps_csv"]); err != nil {
		f.fail("caps_csv", err.Error())
	}
	return got, f.err
}

// countLeases fills in how many executions each worker holds.
func (s *Store) countLeases(ctx context.Context, list []ff.WorkerInfo) error {
	commands := make([]valkey.Completed, 0, len(list)*int(s.partitions.Flow))
	for _, w := range list {
		for p := range s.partitions.Flow {
			commands = append(commands, s.client.B().Scard().Key(tagOf(p).workerLeases(w.Instance)).Build())
		}
	}
	if len(commands) == 0 {
		return nil
	}
	for i, r := range s.client.DoMulti(ctx, commands...) {
		n, err := r.AsInt64()
		if err != nil {
			return s.lift(ctx, err)
		}
		list[i/int(s.partitions.Flow)].Leases += int(n)
	}
	return nil
}

// pruneWorkers takes registrations that have lapsed out of the indexes. Those of
// peers stay while their capability hash does.
func (s *Store) pruneWorkers(ctx context.Context) {
	all, err := s.registrations(ctx, &ff.ListWorkers{AllNamespaces: true})
	if err != nil || len(all) == 0 {
		return
	}
	commands := make([]valkey.Completed, 0, 2*len(all))
	for _, w := range all {
		commands = append(commands, s.client.B().Exists().Key(workerInfoKey(w.ns, w.i)).Build(), s.client.B().Exists().Key(workerCapsKey(w.ns, w.i)).Build())
	}
	results := s.client.DoMulti(ctx, commands...)
	commands = commands[:0:0]
	for i, w := range all {
		info, err1 := results[2*i].AsInt64()
		caps, err2 := results[2*i+1].AsInt64()
		if err1 == nil && info == 0 {
			commands = append(commands, s.client.B().Srem().Key(workerInfoIndex(w.ns)).Member(string(w.i)).Build())
		}
		if err2 == nil && caps == 0 {
			commands = append(commands, s.client.B().Srem().Key(workersKey(w.ns)).Member(string(w.i)).Build())
		}
	}
	if len(commands) > 0 {
		s.client.DoMulti(ctx, commands...)
	}
}

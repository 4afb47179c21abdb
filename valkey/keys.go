package valkey

import (
	"strconv"
	"strings"

	ff "github.com/flowfabric/flowfabric"
)

// The keys of the store (spec 01 §5). The keys of one execution, of its lane and
// of its partition share the hash tag of the partition, so that one function may
// use them together, on a cluster too. An execution id has the tag in it: such a
// key has it twice, and the first counts (spec 01 §3.3).
//
// Keys that begin with `ffx:` are of this implementation alone; the reference
// neither reads nor writes them.

// tag is the hash tag of a flow partition, which also holds executions.
type tag string

func tagOf(partition uint16) tag { return tag("{fp:" + strconv.Itoa(int(partition)) + "}") }

// execution keys.
type executionKeys struct{ base, attempts, streams, own string }

func keysOf(id ff.ExecutionID) executionKeys {
	t, text := string(tagOf(id.Partition())), id.String()
	return executionKeys{base: "ff:exec:" + t + ":" + text, attempts: "ff:attempt:" + t + ":" + text + ":", streams: "ff:stream:" + t + ":" + text + ":",
		own: "ffx:exec:" + t + ":" + text}
}

func (k executionKeys) core() string         { return k.base + ":core" }
func (k executionKeys) payload() string      { return k.base + ":payload" }
func (k executionKeys) result() string       { return k.base + ":result" }
func (k executionKeys) policy() string       { return k.base + ":policy" }
func (k executionKeys) tags() string         { return k.base + ":tags" }
func (k executionKeys) leaseCurrent() string { return k.base + ":lease:current" }
func (k executionKeys) leaseHistory() string { return k.base + ":lease:history" }
func (k executionKeys) claimGrant() string   { return k.base + ":claim_grant" }
func (k executionKeys) attemptList() string  { return k.base + ":attempts" }
func (k executionKeys) suspension() string   { return k.base + ":suspension:current" }
func (k executionKeys) waitpoints() string   { return k.base + ":waitpoints" }
func (k executionKeys) signals() string      { return k.base + ":signals" }

// suspendDedup has the answer to the suspension with an idempotency key; suspendKeys
// has those keys.
func (k executionKeys) suspendDedup(key string) string {
	return "ff:dedup:suspend:" + strings.TrimPrefix(k.base, "ff:exec:") + ":" + key
}
func (k executionKeys) suspendKeys() string { return k.own + ":dedup" }

// events has the entries of the log that are about the execution.
func (k executionKeys) events() string { return k.own + ":events" }

// tails is set while somebody waits for frames of the execution.
func (k executionKeys) tails() string { return k.own + ":tails" }

// attempt, attemptUsage, attemptPolicy, stream, streamMeta and summary are of one attempt.
func (k executionKeys) attempt(n int) string       { return k.attempts + strconv.Itoa(n) }
func (k executionKeys) attemptUsage(n int) string  { return k.attempt(n) + ":usage" }
func (k executionKeys) attemptPolicy(n int) string { return k.attempt(n) + ":policy" }
func (k executionKeys) stream(n int) string        { return k.streams + strconv.Itoa(n) }
func (k executionKeys) streamMeta(n int) string    { return k.stream(n) + ":meta" }
func (k executionKeys) summary(n int) string       { return k.attempt(n) + ":summary" }

// waitpoint, its condition and its signals.
func (t tag) waitpoint(id ff.WaitpointID) string          { return "ff:wp:" + string(t) + ":" + id.String() }
func (t tag) waitpointCondition(id ff.WaitpointID) string { return t.waitpoint(id) + ":condition" }

func (t tag) waitpointSignals(id ff.WaitpointID) string { return t.waitpoint(id) + ":signals" }

func (t tag) signal(id ff.SignalID) string { return "ff:signal:" + string(t) + ":" + id.String() }
func (t tag) signalDedup(id ff.WaitpointID, key string) string {
	return "ff:sigdedup:" + string(t) + ":" + id.String() + ":" + key
}
func (t tag) signalDelivery() string { return "ff:part:" + string(t) + ":signal_delivery" }

// secrets has the secrets that sign waitpoints, the same on each partition.
func (t tag) secrets() string { return "ff:sec:" + string(t) + ":waitpoint_hmac" }

// noop stands where a function's optional key is absent.
func (t tag) noop() string { return "ff:noop:" + string(t) }

func (t tag) idempotency(ns ff.Namespace, key string) string {
	return "ff:idem:" + string(t) + ":" + string(ns) + ":" + key
}

// The indexes of one lane on one partition.
func (t tag) lane(lane ff.LaneID, index string) string {
	return "ff:idx:" + string(t) + ":lane:" + string(lane) + ":" + index
}

const (
	laneEligible            = "eligible"
	laneDelayed             = "delayed"
	laneActive              = "active"
	laneTerminal            = "terminal"
	laneSuspended           = "suspended"
	laneBlockedDependencies = "blocked:dependencies"
	laneBlockedBudget       = "blocked:budget"
	laneBlockedQuota        = "blocked:quota"
	laneBlockedRoute        = "blocked:route"
	laneBlockedOperator     = "blocked:operator"
)

// laneIndexes are all of them: an execution is in one.
var laneIndexes = []string{laneEligible, laneDelayed, laneActive, laneTerminal, laneSuspended,
	laneBlockedDependencies, laneBlockedBudget, laneBlockedQuota, laneBlockedRoute, laneBlockedOperator}

// The indexes of one partition.
func (t tag) index(name string) string { return "ff:idx:" + string(t) + ":" + name }

func (t tag) leaseExpiry() string       { return t.index("lease_expiry") }
func (t tag) attemptTimeout() string    { return t.index("attempt_timeout") }
func (t tag) executionDeadline() string { return t.index("execution_deadline") }
func (t tag) suspensionTimeout() string { return t.index("suspension_timeout") }
func (t tag) pendingWaitpoints() string { return t.index("pending_waitpoint_expiry") }
func (t tag) allExecutions() string     { return t.index("all_executions") }
func (t tag) workerLeases(i ff.WorkerInstanceID) string {
	return t.index("worker:" + string(i) + ":leases")
}

// The indexes of this implementation. lost has the executions of a lane whose
// lease was lost, in the order of claims; grants those that are reserved, by the
// end of the reservation; created all executions of the partition, by their age;
// outcome those of a lane that ended with a certain outcome other than success,
// by their age; events is the log.
func (t tag) lost(lane ff.LaneID) string {
	return "ffx:idx:" + string(t) + ":lane:" + string(lane) + ":lost"
}

// waiting is set while somebody waits for work in the lane.
func (t tag) waiting(lane ff.LaneID) string {
	return "ffx:idx:" + string(t) + ":lane:" + string(lane) + ":waiting"
}
func (t tag) outcome(lane ff.LaneID, o ff.TerminalOutcome) string {
	return "ffx:idx:" + string(t) + ":lane:" + string(lane) + ":outcome:" + string(o)
}

// retention has what ended with a retention of its own, by when that is over.
func (t tag) retention() string { return "ffx:idx:" + string(t) + ":retention" }

// incoming has the edges that lead to a member of a flow.
func (t tag) incoming(flow ff.FlowID, id ff.ExecutionID) string {
	return "ff:flow:" + string(t) + ":" + flow.String() + ":in:" + id.String()
}

// lanes has the lanes that have executions on the partition.
func (t tag) lanes() string   { return "ffx:idx:" + string(t) + ":lanes" }
func (t tag) grants() string  { return "ffx:idx:" + string(t) + ":grants" }
func (t tag) created() string { return "ffx:idx:" + string(t) + ":created" }
func (t tag) events() string  { return "ffx:part:" + string(t) + ":events" }

// eventsWaiting is set while somebody waits for an event of the partition.
func (t tag) eventsWaiting() string { return t.events() + ":waiting" }

// Keys without a hash tag.
const (
	partitionConfigKey = "ff:config:partitions"
	lanesKey           = "ff:idx:lanes"
)

func workerAliveKey(ns ff.Namespace, i ff.WorkerInstanceID) string {
	return "ff:worker:" + string(ns) + ":" + string(i) + ":alive"
}

func workerCapsKey(ns ff.Namespace, i ff.WorkerInstanceID) string {
	return "ff:worker:" + string(ns) + ":" + string(i) + ":caps"
}

func workersKey(ns ff.Namespace) string { return "ff:idx:" + string(ns) + ":workers" }

// leadKey says which process does the sweeps of a kind for the others.
func leadKey(mode string, kind ff.SweepKind) string { return "ffx:lead:" + mode + ":" + string(kind) }

// namespacesKey has the namespaces in which workers have registered with this
// implementation.
const namespacesKey = "ffx:idx:worker_namespaces"

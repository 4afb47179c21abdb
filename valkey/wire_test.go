package valkey_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	valkeygo "github.com/valkey-io/valkey-go"

	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// A trace is what the reference's library of the same version answered and wrote,
// starting from an empty server.
type trace struct {
	Name  string            `json:"name"`
	T0    int64             `json:"t0"`   // the server's time when the recording began
	Vars  map[string]string `json:"vars"` // what the saves of the steps got while recording
	Steps []traceStep       `json:"steps"`
}

type traceStep struct {
	FCall     string                 `json:"fcall"`
	Keys      []string               `json:"keys"`
	Args      []string               `json:"args"`
	Cmd       []string               `json:"cmd"`
	SleepMS   int64                  `json:"sleep_ms"`
	Save      map[string]int         `json:"save"`
	Reply     any                    `json:"reply"`
	Published []string               `json:"published"`
	Changes   map[string]*traceValue `json:"changes"` // nil for a key that was deleted
}

type traceValue struct {
	Type string `json:"type"`
	TTL  bool   `json:"ttl"`
	Data any    `json:"data"`
}

// TestWireTraces replays the recorded traces on our library and compares every
// reply, published message, key and field.
func TestWireTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/wire/*/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces in testdata/wire: %v", err)
	}
	queue := make(chan string, len(files))
	for _, file := range files {
		queue <- file
	}
	close(queue)

	// Functions and channels belong to a whole server, so each worker has its own.
	var workers sync.WaitGroup
	for range 4 {
		s := newWireServer(t)
		workers.Go(func() {
			for file := range queue {
				name := strings.TrimSuffix(strings.TrimPrefix(file, "testdata/wire/"), ".json")
				t.Run(name, func(t *testing.T) { s.replay(t, readTrace(t, file)) })
			}
		})
	}
	workers.Wait()
}

func readTrace(t *testing.T, file string) trace {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var tr trace
	if err := decoder.Decode(&tr); err != nil {
		t.Fatal(err)
	}
	return tr
}

// wireServer is a server with our library whose messages are all listened to.
type wireServer struct {
	client   valkeygo.Client
	messages chan string // "channel payload"
}

// syncChannel carries the test's own marks between the messages of the steps.
const syncChannel = "wire-test-sync"

func newWireServer(t *testing.T) *wireServer {
	t.Helper()
	client, err := valkeygo.NewClient(valkeygo.ClientOption{
		InitAddress:  []string{valkeytest.Start(t).Addr},
		AlwaysRESP2:  true, // replies as the traces have them
		DisableCache: true,
		DisableRetry: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &wireServer{client: client, messages: make(chan string, 1024)}
	ctx, cancel := context.WithCancel(context.Background())
	var listener sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		listener.Wait()
		client.Close()
	})
	if err := s.do("FUNCTION", "LOAD", valkey.Library()).Error(); err != nil {
		t.Fatal(err)
	}

	ready := make(chan struct{})
	var once sync.Once
	listener.Go(func() {
		onSubscribed := valkeygo.WithOnSubscriptionHook(ctx, func(valkeygo.PubSubSubscription) {
			once.Do(func() { close(ready) })
		})
		_ = client.Receive(onSubscribed, client.B().Psubscribe().Pattern("*").Build(), func(m valkeygo.PubSubMessage) {
			s.messages <- m.Channel + " " + m.Message
		})
	})
	select {
	case <-ready:
	case <-time.After(10 * time.Second):
		t.Fatal("no subscription within 10 seconds")
	}
	return s
}

func (s *wireServer) do(args ...string) valkeygo.ValkeyResult {
	return s.client.Do(context.Background(), s.client.B().Arbitrary(args[0]).Args(args[1:]...).Build())
}

// call returns a reply in the form of the traces, or the error of the server.
func (s *wireServer) call(args ...string) any {
	reply, err := s.do(args...).ToAny()
	if err != nil && !valkeygo.IsValkeyNil(err) {
		return err
	}
	return reply
}

// published returns the messages since it was last called.
func (s *wireServer) published(t *testing.T) []string {
	t.Helper()
	s.call("PUBLISH", syncChannel, "")
	var messages []string
	for {
		select {
		case m := <-s.messages:
			if strings.HasPrefix(m, syncChannel+" ") {
				return messages
			}
			messages = append(messages, m)
		case <-time.After(10 * time.Second):
			t.Fatal("the messages of a step did not come")
		}
	}
}

// dump reads all keys.
func (s *wireServer) dump(t *testing.T) map[string]*traceValue {
	t.Helper()
	keys, err := s.do("KEYS", "*").AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	b := s.client.B()
	var about, contents valkeygo.Commands
	for _, key := range keys {
		about = append(about, b.Type().Key(key).Build(), b.Pttl().Key(key).Build())
	}
	state := map[string]*traceValue{}
	answers := s.client.DoMulti(context.Background(), about...)
	for i, key := range keys {
		kind, err := answers[2*i].ToString()
		ttl, err2 := answers[2*i+1].AsInt64()
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		state[key] = &traceValue{Type: kind, TTL: ttl >= 0}
		switch kind {
		case "string":
			contents = append(contents, b.Get().Key(key).Build())
		case "hash":
			contents = append(contents, b.Hgetall().Key(key).Build())
		case "set":
			contents = append(contents, b.Smembers().Key(key).Build())
		case "zset":
			contents = append(contents, b.Zrange().Key(key).Min("0").Max("-1").Withscores().Build())
		case "stream":
			contents = append(contents, b.Xrange().Key(key).Start("-").End("+").Build())
		default:
			t.Fatalf("%s is a %s", key, kind)
		}
	}
	for i, answer := range s.client.DoMulti(context.Background(), contents...) {
		value := state[keys[i]]
		if value.Data, err = decodeContent(value.Type, answer); valkeygo.IsValkeyNil(err) {
			delete(state, keys[i]) // it has expired meanwhile
		} else if err != nil {
			t.Fatalf("%s: %v", keys[i], err)
		}
	}
	return state
}

func decodeContent(kind string, answer valkeygo.ValkeyResult) (any, error) {
	switch kind {
	case "string":
		return answer.ToString()
	case "hash", "zset":
		fields, err := answer.AsStrMap()
		return anyMap(fields), err
	case "stream":
		entries, err := answer.AsXRange()
		list := make([]any, len(entries))
		for i, entry := range entries {
			list[i] = anyMap(entry.FieldValues)
		}
		return list, err
	default:
		members, err := answer.AsStrSlice()
		list := make([]any, len(members))
		for i, member := range members {
			list[i] = member
		}
		return list, err
	}
}

func anyMap(fields map[string]string) map[string]any {
	m := make(map[string]any, len(fields))
	for name, value := range fields {
		m[name] = value
	}
	return m
}

// replay runs the steps of a trace. After each one all keys must be what the
// changes of the recording add up to.
func (s *wireServer) replay(t *testing.T, tr trace) {
	s.call("FLUSHALL")
	s.published(t)
	now, err := s.do("TIME").AsIntSlice()
	if err != nil {
		t.Fatal(err)
	}
	c := comparer{recorded: tr.T0, replayed: now[0]*1000 + now[1]/1000}
	vars := map[string]string{}
	expected := map[string]*traceValue{}
	for i, step := range tr.Steps {
		if step.SleepMS > 0 {
			time.Sleep(time.Duration(step.SleepMS) * time.Millisecond)
		}
		what := fmt.Sprintf("step %d %s", i, step.FCall+strings.Join(step.Cmd, " "))
		if command := step.command(); command != nil {
			for j := range command {
				command[j] = c.fill(command[j], vars)
			}
			reply := s.call(command...)
			for name, at := range step.Save {
				if list, ok := reply.([]any); ok && at < len(list) {
					vars[name], _ = list[at].(string)
					c.replace = append(c.replace, tr.Vars[name], vars[name])
				}
			}
			if diff := c.reply(step.Reply, reply); diff != "" {
				t.Fatalf("%s: reply: %s", what, diff)
			}
		}
		if diff := c.published(step.Published, s.published(t)); diff != "" {
			t.Fatalf("%s: published: %s", what, diff)
		}
		for key, value := range step.Changes {
			if key = c.fill(key, vars); value == nil {
				delete(expected, key)
			} else {
				expected[key] = value
			}
		}
		for _, diff := range c.keys(expected, s.dump(t)) {
			t.Errorf("%s: %s", what, diff)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

func (step traceStep) command() []string {
	if step.FCall == "" {
		return slices.Clone(step.Cmd)
	}
	command := []string{"FCALL", step.FCall, strconv.Itoa(len(step.Keys))}
	return append(append(command, step.Keys...), step.Args...)
}

// comparer compares recorded with replayed values. Of a number that may be a time
// only the distance to the beginning counts, within limits.
type comparer struct {
	recorded, replayed int64    // the times of the beginnings
	replace            []string // saved values: recorded, replayed, …
}

const tolerance = 3000 // milliseconds

var (
	placeholder = regexp.MustCompile(`@T[+-]\d+|\$\{\w+\}`)
	timeLike    = regexp.MustCompile(`-?\d{12,17}`)
	entryID     = regexp.MustCompile(`\b(\d{13})-\d+\b`)
	tokenLike   = regexp.MustCompile(`(\w+):[0-9a-f]{40}\b`)
)

// fill replaces the placeholders in a key or an argument.
func (c *comparer) fill(text string, vars map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(p string) string {
		if name, ok := strings.CutPrefix(p, "${"); ok {
			return vars[strings.TrimSuffix(name, "}")]
		}
		offset, _ := strconv.ParseInt(p[len("@T"):], 10, 64)
		return strconv.FormatInt(c.replayed+offset, 10)
	})
}

func (c *comparer) reply(want, got any) string {
	if text, ok := want.(string); ok && strings.HasPrefix(text, "ERR ") {
		if isRefusal(got) {
			return ""
		}
		return fmt.Sprintf("got %v, want an error", got)
	}
	return c.value(want, got)
}

// isRefusal tells an error: of the server, or as a function answers it.
func isRefusal(reply any) bool {
	if list, ok := reply.([]any); ok {
		return len(list) > 0 && fmt.Sprint(list[0]) == "0"
	}
	err, ok := reply.(error)
	if !ok {
		return false
	}
	_, ok = valkeygo.IsValkeyErr(err)
	return ok
}

// published compares the messages of a step; ours may have more on our own channels.
func (c *comparer) published(want, got []string) string {
	got = slices.DeleteFunc(got, func(m string) bool { return strings.HasPrefix(m, "ffx:") })
	if len(want) != len(got) {
		return fmt.Sprintf("got %q, want %q", got, want)
	}
	for i := range want {
		wantChannel, wantText, _ := strings.Cut(want[i], " ")
		gotChannel, gotText, _ := strings.Cut(got[i], " ")
		if wantChannel != gotChannel || !c.text(wantText, gotText) {
			return fmt.Sprintf("got %q, want %q", got[i], want[i])
		}
	}
	return ""
}

// keys lists what differs between two states.
func (c *comparer) keys(want, got map[string]*traceValue) []string {
	var diffs []string
	add := func(key, format string, args ...any) {
		diffs = append(diffs, key+": "+fmt.Sprintf(format, args...))
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if want[key] == nil {
			add(key, "is %v, but should not be there", got[key].Data)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		w, g := want[key], got[key]
		switch {
		case g == nil:
			add(key, "is missing")
		case w.Type != g.Type:
			add(key, "is a %s, want a %s", g.Type, w.Type)
		case w.TTL != g.TTL:
			add(key, "has an expiry: %v, want %v", g.TTL, w.TTL)
		case w.Type == "set":
			if diff := c.value(sortedSet(w.Data), sortedSet(g.Data)); diff != "" {
				add(key, "%s", diff)
			}
		default:
			if diff := c.value(w.Data, g.Data); diff != "" {
				add(key, "%s", diff)
			}
		}
	}
	return diffs
}

func sortedSet(data any) any {
	list, _ := data.([]any)
	return slices.SortedFunc(slices.Values(list), func(a, b any) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
}

// value tells how two values of JSON differ, or "".
func (c *comparer) value(want, got any) string {
	switch want := want.(type) {
	case []any:
		list, ok := got.([]any)
		if !ok || len(want) != len(list) {
			return fmt.Sprintf("got %v, want %v", got, want)
		}
		for i := range want {
			if diff := c.value(want[i], list[i]); diff != "" {
				return fmt.Sprintf("[%d]: %s", i, diff)
			}
		}
	case map[string]any:
		fields, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("got %v, want %v", got, want)
		}
		for name := range fields {
			if _, known := want[name]; !known {
				return fmt.Sprintf("has the field %s: %v", name, fields[name])
			}
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if _, ok := fields[name]; !ok {
				return "lacks the field " + name
			}
			if diff := c.value(want[name], fields[name]); diff != "" {
				return name + ": " + diff
			}
		}
	case nil:
		if got != nil {
			return fmt.Sprintf("got %v, want nothing", got)
		}
	default:
		if _, isText := want.(string); isText != isString(got) || !c.text(fmt.Sprint(want), fmt.Sprint(got)) {
			return fmt.Sprintf("got %T %v, want %T %v", got, got, want, want)
		}
	}
	return ""
}

func isString(v any) bool {
	_, ok := v.(string)
	return ok
}

// text compares two texts, which may be JSON.
func (c *comparer) text(want, got string) bool {
	for i := 0; i < len(c.replace); i += 2 {
		want = strings.ReplaceAll(want, c.replace[i], c.replace[i+1])
	}
	want, got = canonical(want), canonical(got)
	if want == got {
		return true
	}
	wantTimes, gotTimes := timeLike.FindAllString(want, -1), timeLike.FindAllString(got, -1)
	if len(wantTimes) != len(gotTimes) ||
		timeLike.ReplaceAllString(want, "#") != timeLike.ReplaceAllString(got, "#") {
		return false
	}
	for i := range wantTimes {
		w, _ := strconv.ParseInt(wantTimes[i], 10, 64)
		g, _ := strconv.ParseInt(gotTimes[i], 10, 64)
		if drift := (g - c.replayed) - (w - c.recorded); w != g && (drift < -tolerance || drift > tolerance) {
			return false
		}
	}
	return true
}

// canonical leaves out what no replay can repeat: the order of JSON members, the
// count in an entry id and the signature in a token.
func canonical(text string) string {
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		var value any
		if decoder.Decode(&value) == nil && !decoder.More() {
			if ordered, err := json.Marshal(value); err == nil {
				text = string(ordered)
			}
		}
	}
	text = entryID.ReplaceAllString(text, "$1")
	return tokenLike.ReplaceAllString(text, "$1:")
}

// requiredFunctions are those that clients call; the order is that of the files.
var requiredFunctions = []string{
	"ff_version",
	// lease
	"ff_renew_lease", "ff_mark_lease_expired_if_due", "ff_revoke_lease",
	// execution
	"ff_create_execution", "ff_complete_execution", "ff_cancel_execution", "ff_delay_execution",
	"ff_move_to_waiting_children", "ff_fail_execution", "ff_reclaim_execution", "ff_expire_execution",
	"ff_set_execution_tags", "ff_update_progress",
	// scheduling
	"ff_issue_claim_grant", "ff_claim_execution", "ff_issue_reclaim_grant", "ff_issue_grant_and_claim",
	"ff_change_priority", "ff_promote_delayed",
	// worker
	"ff_register_worker", "ff_heartbeat_worker",
	// suspension and signal
	"ff_suspend_execution", "ff_resume_execution", "ff_create_pending_waitpoint", "ff_expire_suspension",
	"ff_close_waitpoint", "ff_rotate_waitpoint_hmac_secret", "ff_list_waitpoint_hmac_kids",
	"ff_deliver_signal", "ff_buffer_signal_for_pending_waitpoint", "ff_claim_resumed_execution",
	// stream
	"ff_append_frame", "ff_read_attempt_stream", "ff_read_summary",
	// budget and quota
	"ff_create_budget", "ff_report_usage_and_check", "ff_reset_budget", "ff_record_spend", "ff_release_budget",
	"ff_block_execution_for_admission", "ff_unblock_execution", "ff_create_quota_policy",
	"ff_check_admission_and_record", "ff_release_admission",
	// flow
	"ff_create_flow", "ff_add_execution_to_flow", "ff_cancel_flow", "ff_ack_cancel_member", "ff_set_flow_tags",
	"ff_stage_dependency_edge", "ff_apply_dependency_to_child", "ff_resolve_dependency",
	"ff_evaluate_flow_eligibility", "ff_promote_blocked_to_eligible", "ff_replay_execution",
	"ff_set_edge_group_policy", "ff_drain_sibling_cancel_group", "ff_reconcile_sibling_cancel_group",
}

func TestLibraryHasItsFunctions(t *testing.T) {
	s := newWireServer(t)
	reply, err := s.do("FUNCTION", "LIST", "LIBRARYNAME", valkey.LibraryName).ToArray()
	if err != nil || len(reply) != 1 {
		t.Fatalf("FUNCTION LIST: %v, %v", reply, err)
	}
	library, err := reply[0].AsMap()
	if err != nil {
		t.Fatal(err)
	}
	list := library["functions"]
	functions, err := list.ToArray()
	if err != nil {
		t.Fatal(err)
	}
	registered := map[string]bool{}
	for _, function := range functions {
		about, err := function.AsMap()
		if err != nil {
			t.Fatal(err)
		}
		name := about["name"]
		text, err := name.ToString()
		if err != nil {
			t.Fatal(err)
		}
		registered[text] = true
	}
	for _, name := range requiredFunctions {
		if !registered[name] {
			t.Errorf("%s is missing", name)
		}
	}
	if version, err := s.do("FCALL", "ff_version", "0").ToString(); version != valkey.LibraryVersion {
		t.Errorf("ff_version is %q (%v), want %q", version, err, valkey.LibraryVersion)
	}
}

// The keys and arguments of one execution, for what no trace has.
const (
	wireID   = "{fp:7}:550e8400-e29b-41d4-a716-446655440000"
	wireExec = "ff:exec:{fp:7}:" + wireID
	wireAtt  = "ff:attempt:{fp:7}:" + wireID
	wireIdx  = "ff:idx:{fp:7}:"
	wireLane = wireIdx + "lane:default:"
	wireNull = "ff:noop:{fp:7}"
)

func (s *wireServer) fcall(function string, keys []string, args ...string) any {
	return s.call(traceStep{FCall: function, Keys: keys, Args: args}.command()...)
}

func (s *wireServer) create(index, priority, policy, delayUntil, deadline string) any {
	return s.fcall("ff_create_execution", []string{wireExec + ":core", wireExec + ":payload", wireExec + ":policy",
		wireExec + ":tags", wireLane + index, wireNull, wireIdx + "execution_deadline", wireIdx + "all_executions"},
		wireID, "ns", "default", "job", priority, "me", policy, "", delayUntil, "", "", deadline, "7")
}

func (s *wireServer) grant(ttl string) any {
	return s.fcall("ff_issue_claim_grant", []string{wireExec + ":core", wireExec + ":claim_grant", wireLane + "eligible"},
		wireID, "w", "w-1", "default", "", ttl, "", "", "")
}

func (s *wireServer) claim(policy, timeout, deadline string) any {
	return s.fcall("ff_claim_execution", []string{wireExec + ":core", wireExec + ":claim_grant", wireLane + "eligible",
		wireIdx + "lease_expiry", wireIdx + "worker:w-1:leases", wireNull, wireNull, wireNull, wireExec + ":attempts",
		wireExec + ":lease:current", wireExec + ":lease:history", wireLane + "active",
		wireIdx + "attempt_timeout", wireIdx + "execution_deadline"},
		wireID, "w", "w-1", "default", "", "lease", "30000", "20000", "attempt", policy, timeout, deadline)
}

func (s *wireServer) fail(more ...string) any {
	return s.fcall("ff_fail_execution", []string{wireExec + ":core", wireAtt + ":0", wireIdx + "lease_expiry",
		wireIdx + "worker:w-1:leases", wireLane + "terminal", wireLane + "delayed", wireExec + ":lease:current",
		wireExec + ":lease:history", wireLane + "active", "ff:stream:{fp:7}:" + wireID + ":0:meta",
		wireIdx + "attempt_timeout", wireIdx + "execution_deadline"},
		append([]string{wireID, "lease", "1", "attempt", "boom", "transient"}, more...)...)
}

func (s *wireServer) reclaim(cap string) any {
	return s.fcall("ff_reclaim_execution", []string{wireExec + ":core", wireExec + ":claim_grant", wireAtt + ":0",
		"ff:stream:{fp:7}:" + wireID + ":0:meta", wireNull, wireNull, wireExec + ":attempts", wireExec + ":lease:current",
		wireExec + ":lease:history", wireIdx + "lease_expiry", wireIdx + "worker:w-2:leases", wireLane + "active",
		wireIdx + "attempt_timeout", wireIdx + "execution_deadline"},
		wireID, "w", "w-2", "default", "lease2", "30000", "attempt2", "{}", cap)
}

// mustOK fails unless the function replied OK, and returns the fields.
func mustOK(t *testing.T, reply any) []any {
	t.Helper()
	list, ok := reply.([]any)
	if !ok || len(list) < 2 || list[1] != "OK" {
		t.Fatalf("got %v, want OK", reply)
	}
	return list[2:]
}

// A function that refuses an argument has written nothing.
func TestLibraryRefusesBeforeItWrites(t *testing.T) {
	s := newWireServer(t)
	active := func() {
		mustOK(t, s.create("eligible", "0", `{"max_reclaim_count":null}`, "", ""))
		mustOK(t, s.grant("5000"))
		mustOK(t, s.claim("", "", ""))
	}
	claimable := func() {
		mustOK(t, s.create("eligible", "0", "", "", ""))
		mustOK(t, s.grant("5000"))
	}
	for name, test := range map[string]struct{ before, call func() }{
		"delay of create":      {func() {}, func() { mustRefuse(t, s.create("delayed", "0", "", "soon", "")) }},
		"deadline of create":   {func() {}, func() { mustRefuse(t, s.create("eligible", "0", "", "", "soon")) }},
		"priority of create":   {func() {}, func() { mustRefuse(t, s.create("eligible", "nan", "", "", "")) }},
		"time of a grant":      {func() { mustOK(t, s.create("eligible", "0", "", "", "")) }, func() { mustRefuse(t, s.grant("1.5")) }},
		"policy of an attempt": {claimable, func() { mustRefuse(t, s.claim("{", "", "")) }},
		"timeout of a claim":   {claimable, func() { mustRefuse(t, s.claim("", "soon", "")) }},
		"deadline of a claim":  {claimable, func() { mustRefuse(t, s.claim("", "", "soon")) }},
		"retries of a failure": {active, func() { mustRefuse(t, s.fail(`{"max_retries":null}`)) }},
		"backoff of a failure": {active, func() { mustRefuse(t, s.fail(`{"max_retries":3,"backoff":null}`)) }},
		"delay of a worker": {active, func() {
			mustRefuse(t, s.fcall("ff_delay_execution", slices.Repeat([]string{wireExec + ":core"}, 9), wireID, "lease", "1", "attempt", "soon"))
		}},
		"renewal": {active, func() {
			mustRefuse(t, s.fcall("ff_renew_lease", slices.Repeat([]string{wireExec + ":core"}, 4), wireID, "0", "attempt", "lease", "1", "1.5", "0"))
		}},
		"reclaim cap of a policy": {func() {
			active()
			s.call("HSET", wireExec+":core", "ownership_state", "lease_revoked")
		}, func() { mustRefuse(t, s.reclaim("5")) }},
	} {
		t.Run(name, func(t *testing.T) {
			s.call("FLUSHALL")
			test.before()
			before := s.dump(t)
			test.call()
			same := comparer{}
			for _, diff := range same.keys(before, s.dump(t)) {
				t.Error(diff)
			}
		})
	}
}

func mustRefuse(t *testing.T, reply any) {
	t.Helper()
	if !isRefusal(reply) {
		t.Errorf("got %v, want an error", reply)
	}
}

// What our library does better than the reference where nobody can tell by the
// replies it has recorded.
func TestLibraryImprovements(t *testing.T) {
	s := newWireServer(t)
	indexed := func(index string) bool { return s.call("ZSCORE", wireLane+index, wireID) != nil }
	later := strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)
	claimed := func(t *testing.T, policy string) {
		mustOK(t, s.create("eligible", "0", policy, "", ""))
		mustOK(t, s.grant("5000"))
		mustOK(t, s.claim("", "", ""))
	}
	for name, test := range map[string]func(t *testing.T){
		"a delay that is over": func(t *testing.T) {
			mustOK(t, s.create("delayed", "0", "", "1", ""))
			if !indexed("eligible") || indexed("delayed") {
				t.Error("not in the eligible index alone")
			}
		},
		"a delay for the eligible index": func(t *testing.T) {
			mustOK(t, s.create("eligible", "0", "", later, ""))
			if indexed("eligible") || !indexed("delayed") {
				t.Error("not in the delayed index alone")
			}
		},
		"a grant that outlived its time": func(t *testing.T) {
			mustOK(t, s.create("eligible", "0", "", "", ""))
			s.call("HSET", wireExec+":claim_grant", "worker_id", "other", "grant_expires_at", "1")
			mustOK(t, s.grant("5000"))
		},
		"a backoff with a fraction": func(t *testing.T) {
			claimed(t, "")
			due := fmt.Sprint(mustOK(t, s.fail(`{"max_retries":1,"backoff":{"type":"fixed","delay_ms":1000.5}}`))[1])
			if strings.Contains(due, ".") || s.call("HGET", wireExec+":core", "delay_until") != due {
				t.Errorf("due at %s", due)
			}
		},
		"the stored retry policy": func(t *testing.T) {
			claimed(t, `{"retry_policy":{"max_retries":1}}`)
			if how := mustOK(t, s.fail())[0]; how != "retry_scheduled" {
				t.Error(how)
			}
		},
		"many tags": func(t *testing.T) {
			mustOK(t, s.create("eligible", "0", "", "", ""))
			var tags []string
			for i := range 3000 {
				tags = append(tags, fmt.Sprintf("a.b%d", i), "v")
			}
			mustOK(t, s.fcall("ff_set_execution_tags", []string{wireExec + ":core", wireExec + ":tags"}, append(tags, tags...)...))
		},
		"the reclaim cap tells the flow": func(t *testing.T) {
			claimed(t, "")
			s.call("HSET", wireExec+":core", "flow_id", "f", "ownership_state", "lease_revoked")
			s.published(t)
			mustRefuse(t, s.reclaim("0"))
			if messages := s.published(t); len(messages) != 1 || !strings.Contains(messages[0], `"failed"`) {
				t.Error(messages)
			}
		},
		"a revocation that is history": func(t *testing.T) {
			mustOK(t, s.create("eligible", "0", "", "", ""))
			s.call("HSET", wireExec+":core", "lease_revoked_at", "1")
			mustOK(t, s.grant("5000"))
			mustOK(t, s.claim("", "", ""))
			mustOK(t, s.fcall("ff_renew_lease", []string{wireExec + ":core", wireExec + ":lease:current",
				wireExec + ":lease:history", wireIdx + "lease_expiry"}, wireID, "0", "attempt", "lease", "1", "30000", "0"))
		},
		"a cancel with keys from before the takeover": func(t *testing.T) {
			claimed(t, "")
			s.call("HSET", wireExec+":core", "ownership_state", "lease_revoked")
			s.call("HSET", wireExec+":claim_grant", "worker_id", "w")
			mustOK(t, s.reclaim("5"))
			keys := append([]string{wireExec + ":core", wireAtt + ":0", wireNull, wireExec + ":lease:current",
				wireExec + ":lease:history", wireIdx + "lease_expiry", wireIdx + "worker:w-1:leases", wireNull, wireNull, wireNull,
				wireNull, wireLane + "terminal"}, slices.Repeat([]string{wireNull}, 9)...)
			mustOK(t, s.fcall("ff_cancel_execution", keys, wireID, "enough", "operator_override"))
			if old, current := s.call("HGET", wireAtt+":0", "attempt_state"), s.call("HGET", wireAtt+":1", "attempt_state"); old != "interrupted_reclaimed" || current != "ended_cancelled" {
				t.Errorf("the attempts are %v and %v", old, current)
			}
			if n := s.call("EXISTS", wireIdx+"worker:w-2:leases"); n != int64(0) {
				t.Error("the lease of the worker is still listed")
			}
		},
		"a waiting worker is woken": func(t *testing.T) {
			mark := "ffx:idx:{fp:7}:lane:default:waiting"
			s.call("SET", mark, "1")
			mustOK(t, s.create("eligible", "0", "", "", ""))
			if messages := s.published(t); len(messages) != 1 || messages[0] != "ffx:wake {fp:7}default" {
				t.Error(messages)
			}
			if s.call("EXISTS", mark) != int64(0) {
				t.Error("the mark is still there")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.call("FLUSHALL")
			s.published(t)
			test(t)
		})
	}
}

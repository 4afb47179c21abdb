package flowfabric

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// ConditionKind is the kind of a node of a resume condition.
type ConditionKind string

// The kinds (spec 01 §7.10, 11 §5.4).
const (
	// ConditionSignal is met by one signal to one waitpoint.
	ConditionSignal ConditionKind = "Single"
	// ConditionAllOf is met when all its members are.
	ConditionAllOf ConditionKind = "AllOf"
	// ConditionCount is met by a number of distinct waitpoints, signals or sources.
	ConditionCount ConditionKind = "Count"
	// ConditionOperator is met by ResumeExecution only.
	ConditionOperator ConditionKind = "OperatorOnly"
	// ConditionTimeout is met by the timeout only.
	ConditionTimeout ConditionKind = "TimeoutOnly"
)

// CountKind says what a ConditionCount counts.
type CountKind string

// The things to count. All counts of one suspension that count the same share what
// they have counted.
const (
	DistinctWaitpoints CountKind = "DistinctWaitpoints"
	DistinctSignals    CountKind = "DistinctSignals"
	DistinctSources    CountKind = "DistinctSources"
)

// Limits of conditions.
const (
	// MaxConditionDepth bounds how deep conditions nest.
	MaxConditionDepth = 4
	// MaxConditionNodes bounds the nodes of a condition.
	MaxConditionNodes = 256
	// MaxWaitpoints bounds the waitpoints of one suspension.
	MaxWaitpoints = 64
	// MaxWaitpointKeyBytes bounds the key of a waitpoint.
	MaxWaitpointKeyBytes = 256
	// MaxSignalNameBytes bounds the name of a signal.
	MaxSignalNameBytes = 256
)

// reservedPrefix begins names that conditions use for what no signal may do.
const reservedPrefix = "__"

// Names that stand in the plain form of conditions that no signal meets.
const (
	operatorOnlyName = reservedPrefix + "operator_only" + reservedPrefix
	timeoutOnlyName  = reservedPrefix + "timeout_only" + reservedPrefix
)

// ResumeCondition says what ends a suspension. Make one with AwaitSignal, AllOf,
// AwaitCount, OperatorOnly or TimeoutOnly. Signals name waitpoints by their keys; a
// condition over the only waitpoint of a suspension may leave the key out.
type ResumeCondition struct {
	Kind ConditionKind `json:"kind"`
	// Key is the waitpoint of a ConditionSignal.
	Key string `json:"waitpoint_key,omitempty"`
	// Signal is the name that a signal must have; empty takes any.
	Signal string `json:"signal_name,omitempty"`
	// Members are the parts of a ConditionAllOf.
	Members []ResumeCondition `json:"members,omitempty"`
	// N is how many a ConditionCount needs, Of what it counts, Keys the waitpoints whose
	// signals count.
	N    int       `json:"n,omitempty"`
	Of   CountKind `json:"count_kind,omitempty"`
	Keys []string  `json:"waitpoints,omitempty"`
}

// AwaitSignal is met by a signal of that name, or by any when it is empty.
func AwaitSignal(name string) ResumeCondition {
	return ResumeCondition{Kind: ConditionSignal, Signal: name}
}

// AllOf is met when every condition is.
func AllOf(members ...ResumeCondition) ResumeCondition {
	return ResumeCondition{Kind: ConditionAllOf, Members: members}
}

// AwaitCount is met by n distinct waitpoints, signals or sources of signals.
func AwaitCount(n int, of CountKind, keys ...string) ResumeCondition {
	return ResumeCondition{Kind: ConditionCount, N: n, Of: of, Keys: keys}
}

// OperatorOnly is met by ResumeExecution only.
func OperatorOnly() ResumeCondition { return ResumeCondition{Kind: ConditionOperator} }

// TimeoutOnly is met by the timeout only.
func TimeoutOnly() ResumeCondition { return ResumeCondition{Kind: ConditionTimeout} }

// At gives the condition the waitpoint of that key.
func (c ResumeCondition) At(key string) ResumeCondition {
	if c.Kind == ConditionCount {
		c.Keys = []string{key}
		return c
	}
	c.Key = key
	return c
}

// Named restricts a ConditionCount to signals of that name.
func (c ResumeCondition) Named(signal string) ResumeCondition {
	c.Signal = signal
	return c
}

// Composite reports whether the condition is a tree: anything but a single signal, the
// operator or the timeout.
func (c *ResumeCondition) Composite() bool {
	return c.Kind == ConditionAllOf || c.Kind == ConditionCount
}

// WaitpointKeys are the keys that the condition refers to, each once, in order.
func (c *ResumeCondition) WaitpointKeys() []string {
	var keys []string
	known := map[string]bool{}
	c.walk("", func(n *ResumeCondition, _ string) {
		for _, key := range n.ownKeys() {
			if !known[key] {
				known[key] = true
				keys = append(keys, key)
			}
		}
	})
	return keys
}

func (c *ResumeCondition) ownKeys() []string {
	switch {
	case c.Kind == ConditionSignal && c.Key != "":
		return []string{c.Key}
	case c.Kind == ConditionCount:
		return c.Keys
	}
	return nil
}

// SignalNames are the names that signals must have, each once; none means any.
func (c *ResumeCondition) SignalNames() []string {
	switch c.Kind {
	case ConditionOperator:
		return []string{operatorOnlyName}
	case ConditionTimeout:
		return []string{timeoutOnlyName}
	}
	var names []string
	known := map[string]bool{"": true}
	c.walk("", func(n *ResumeCondition, _ string) {
		if !known[n.Signal] {
			known[n.Signal] = true
			names = append(names, n.Signal)
		}
	})
	return names
}

// Walk calls visit for every node with its path, "" for the root, then members[i],
// members[i].members[j] (spec 04b §9.2).
func (c *ResumeCondition) Walk(visit func(node *ResumeCondition, path string)) { c.walk("", visit) }

func (c *ResumeCondition) walk(path string, visit func(*ResumeCondition, string)) {
	visit(c, path)
	for i := range c.Members {
		c.Members[i].walk(MemberPath(path, i), visit)
	}
}

// MemberPath is the path of a member of the node of a path (spec 04b §9.2).
func MemberPath(parent string, i int) string {
	path := fmt.Sprintf("members[%d]", i)
	if parent != "" {
		path = parent + "." + path
	}
	return path
}

// Bind gives nodes without a key the only waitpoint there is. The nodes are copies.
func (c ResumeCondition) Bind(key string) ResumeCondition {
	switch c.Kind {
	case ConditionSignal:
		if c.Key == "" {
			c.Key = key
		}
	case ConditionCount:
		if len(c.Keys) == 0 {
			c.Keys = []string{key}
		}
	case ConditionAllOf:
		c.Members = slices.Clone(c.Members)
		for i := range c.Members {
			c.Members[i] = c.Members[i].Bind(key)
		}
	}
	return c
}

// validate checks the structure of a condition whose waitpoints are bound
// (spec 04b §9.1).
func (c *ResumeCondition) validate() error {
	nodes := 0
	c.walk("", func(*ResumeCondition, string) { nodes++ })
	if nodes > MaxConditionNodes {
		return InvalidInput("resume_condition", "must have at most %d nodes (got %d)", MaxConditionNodes, nodes)
	}
	return c.validateNode("", 1)
}

func (c *ResumeCondition) validateNode(path string, depth int) error {
	at := path
	if at == "" {
		at = "<root>"
	}
	bad := func(format string, args ...any) error {
		return InvalidInput("resume_condition", "%s at path %s", fmt.Sprintf(format, args...), at)
	}
	if err := checkSignalName("resume_condition", c.Signal); err != nil {
		return err
	}
	if part := c.foreignPart(); part != "" {
		return bad("%s has no %s", c.Kind, part)
	}
	switch c.Kind {
	case ConditionSignal:
		return checkText("waitpoint_key", c.Key, MaxWaitpointKeyBytes)
	case ConditionAllOf:
		return c.validateMembers(path, depth, bad)
	case ConditionCount:
		return c.validateCount(depth, bad)
	case ConditionOperator, ConditionTimeout:
		if path != "" {
			return bad("%s cannot be part of another condition: no signal meets it", c.Kind)
		}
		return nil
	}
	return bad("unknown kind %.40q", string(c.Kind))
}

// foreignPart names a part that conditions of the kind do not have: what was meant by it
// would be lost.
func (c *ResumeCondition) foreignPart() string {
	for _, part := range []struct {
		name string
		set  bool
		of   []ConditionKind
	}{
		{"waitpoint_key", c.Key != "", []ConditionKind{ConditionSignal}},
		{"signal_name", c.Signal != "", []ConditionKind{ConditionSignal, ConditionCount}},
		{"members", len(c.Members) > 0, []ConditionKind{ConditionAllOf}},
		{"n", c.N != 0, []ConditionKind{ConditionCount}},
		{"count_kind", c.Of != "", []ConditionKind{ConditionCount}},
		{"waitpoints", len(c.Keys) > 0, []ConditionKind{ConditionCount}},
	} {
		if part.set && !slices.Contains(part.of, c.Kind) {
			return part.name
		}
	}
	return ""
}

func (c *ResumeCondition) validateMembers(path string, depth int, bad func(string, ...any) error) error {
	switch {
	case depth > MaxConditionDepth:
		return bad("depth %d exceeds cap %d", depth, MaxConditionDepth)
	case len(c.Members) == 0:
		return bad("allof_empty_members")
	}
	for i := range c.Members {
		if err := c.Members[i].validateNode(MemberPath(path, i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *ResumeCondition) validateCount(depth int, bad func(string, ...any) error) error {
	switch {
	case depth > MaxConditionDepth:
		return bad("depth %d exceeds cap %d", depth, MaxConditionDepth)
	case c.N < 1:
		return bad("count_n_zero")
	case len(c.Keys) == 0:
		return bad("count_waitpoints_empty")
	}
	switch c.Of {
	case DistinctSignals, DistinctSources:
		return nil
	case DistinctWaitpoints:
		distinct := slices.Compact(slices.Sorted(slices.Values(c.Keys)))
		if c.N > len(distinct) {
			return bad("count_exceeds_waitpoint_set: n=%d > waitpoints.len()=%d", c.N, len(distinct))
		}
		return nil
	}
	return bad("unknown count kind %.40q", string(c.Of))
}

// checkSignalName checks a name that signals have or must have.
func checkSignalName(field, name string) error {
	if strings.HasPrefix(name, reservedPrefix) {
		return InvalidInput(field, "signal names do not begin with %s (got %.80q)", reservedPrefix, name)
	}
	return checkText(field, name, MaxSignalNameBytes)
}

// conditionNode is a node on the wire (spec 04b §9.2).
type conditionNode struct {
	CountKind CountKind       `json:"count_kind,omitempty"`
	Kind      string          `json:"kind"`
	Matcher   json.RawMessage `json:"matcher,omitempty"`
	Members   []conditionNode `json:"members,omitempty"`
	N         int             `json:"n,omitempty"`
	Path      string          `json:"path"`
	Keys      []string        `json:"waitpoints,omitempty"`
	Key       *string         `json:"waitpoint_key,omitempty"`
}

type conditionMatcher struct {
	Kind string `json:"kind"`
	Name string `json:"name,omitempty"`
}

func (c *ResumeCondition) node(path string) conditionNode {
	n := conditionNode{Kind: string(c.Kind), Path: path}
	switch c.Kind {
	case ConditionSignal:
		n.Key, n.Matcher = &c.Key, matcherJSON(c.Signal)
	case ConditionAllOf:
		for i := range c.Members {
			n.Members = append(n.Members, c.Members[i].node(MemberPath(path, i)))
		}
	case ConditionCount:
		n.CountKind, n.N, n.Keys, n.Matcher = c.Of, c.N, c.Keys, json.RawMessage("null")
		if c.Signal != "" {
			n.Matcher = matcherJSON(c.Signal)
		}
	default:
		n.Kind = "NeverBySignal"
	}
	return n
}

func matcherJSON(name string) json.RawMessage {
	m := conditionMatcher{Kind: "Wildcard"}
	if name != "" {
		m = conditionMatcher{Kind: "ByName", Name: name}
	}
	b, _ := compactJSON(m) // two texts always have a JSON form
	return json.RawMessage(b)
}

// compactJSON is JSON in which HTML is not escaped, as on the wire.
func compactJSON(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// conditionWire is a condition as the functions of the store read it.
type conditionWire struct {
	Override  bool            `json:"allow_operator_override"`
	Composite bool            `json:"composite,omitempty"`
	Type      string          `json:"condition_type"`
	Minimum   int             `json:"minimum_signal_count"`
	Names     []string        `json:"required_signal_names"`
	Mode      string          `json:"signal_match_mode"`
	Behavior  TimeoutBehavior `json:"timeout_behavior"`
	Tree      *conditionNode  `json:"tree,omitempty"`
	Version   int             `json:"v,omitempty"`
}

// Wire is the text of the condition for the functions of a store (spec 04b §9.2).
func (c *ResumeCondition) Wire(behavior TimeoutBehavior) (string, error) {
	w := conditionWire{Override: true, Type: "signal_set", Minimum: 1, Names: []string{}, Mode: "any", Behavior: behavior}
	switch {
	case c.Composite():
		n := c.node("")
		w.Composite, w.Type, w.Mode, w.Tree, w.Version = true, "composite", "composite", &n, 1
	case c.Kind != ConditionSignal:
		w.Names, w.Mode = c.SignalNames(), "all"
	case c.Signal != "":
		w.Names = []string{c.Signal}
	}
	return compactJSON(w)
}

// ParseConditionWire reads what Wire wrote. Of a condition that another program wrote
// in a form that Wire has no equal of (several names, a minimum) it keeps the names, as
// a ConditionAllOf of signals to the waitpoint of that key.
func ParseConditionWire(text, key string) (ResumeCondition, error) {
	var w conditionWire
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return ResumeCondition{}, Errorf(CodeCorruption, "resume_condition_json: %v", err)
	}
	if w.Composite && w.Tree != nil {
		return w.Tree.condition(), nil
	}
	switch {
	case len(w.Names) == 0:
		return AwaitSignal("").At(key), nil
	case len(w.Names) == 1 && w.Names[0] == operatorOnlyName:
		return OperatorOnly(), nil
	case len(w.Names) == 1 && w.Names[0] == timeoutOnlyName:
		return TimeoutOnly(), nil
	case len(w.Names) == 1:
		return AwaitSignal(w.Names[0]).At(key), nil
	}
	all := AllOf()
	for _, name := range w.Names {
		all.Members = append(all.Members, AwaitSignal(name).At(key))
	}
	return all, nil
}

func (n *conditionNode) condition() ResumeCondition {
	c := ResumeCondition{Kind: ConditionKind(n.Kind), N: n.N, Of: n.CountKind, Keys: n.Keys}
	if n.Key != nil {
		c.Key = *n.Key
	}
	var m conditionMatcher
	if json.Unmarshal(n.Matcher, &m) == nil && m.Kind == "ByName" {
		c.Signal = m.Name
	}
	for i := range n.Members {
		c.Members = append(c.Members, n.Members[i].condition())
	}
	if n.Kind == "NeverBySignal" {
		c.Kind = ConditionOperator
	}
	return c
}

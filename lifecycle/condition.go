package lifecycle

import (
	"slices"
	"strings"

	ff "github.com/flowfabric/flowfabric"
)

// What signals add to the satisfied set of a suspension, by their prefix. Counts of the
// same kind share their tokens (spec 04a §4).
const (
	leafPrefix     = "leaf:"
	waitPrefix     = "wp:"
	signalPrefix   = "sig:"
	sourcePrefix   = "src:"
	tokenSeparator = ":"
)

var countPrefixes = map[ff.CountKind]string{
	ff.DistinctWaitpoints: waitPrefix, ff.DistinctSignals: signalPrefix, ff.DistinctSources: sourcePrefix,
}

// feed gives a signal that came to a waitpoint to the condition of the suspension
// (spec 04b §4 and §5). A condition that is no tree takes signals to any waitpoint of
// the suspension.
func feed(s *Suspended, w *Waitpoint, sig *ff.Signal) ff.SignalEffect {
	c := &s.Condition
	if !c.Composite() {
		if c.Kind != ff.ConditionSignal || c.Signal != "" && c.Signal != sig.Name {
			return ff.EffectNone
		}
		s.ResumedBy = append(s.ResumedBy, sig.ID)
		return ff.EffectResumed
	}
	concerned, accepted, fresh := false, false, false
	c.Walk(func(n *ff.ResumeCondition, path string) {
		if !concerns(n, w.Key) {
			return
		}
		concerned = true
		if n.Signal != "" && n.Signal != sig.Name {
			return
		}
		accepted = true
		if token := tokenOf(n, path, w, sig); !slices.Contains(s.Tokens, token) {
			s.Tokens = append(s.Tokens, token)
			fresh = true
		}
	})
	switch {
	case !concerned:
		return ff.EffectNotInCondition
	case !accepted:
		return ff.EffectNotMatched
	case !fresh:
		return ff.EffectRepeated
	}
	s.ResumedBy = append(s.ResumedBy, sig.ID)
	if holds(c, "", s.Tokens) {
		return ff.EffectResumed
	}
	return ff.EffectAppended
}

// Met reports whether signals to one waitpoint meet a condition that is bound to it.
func Met(c *ff.ResumeCondition, at *ff.Waitpoint, signals []ff.Signal) bool {
	s, w := Suspended{}, Waitpoint{}
	s.Condition, w.Waitpoint = *c, *at
	for i := range signals {
		if feed(&s, &w, &signals[i]) == ff.EffectResumed {
			return true
		}
	}
	return false
}

// concerns reports whether signals to the waitpoint of that key can meet the node.
func concerns(n *ff.ResumeCondition, key string) bool {
	switch n.Kind {
	case ff.ConditionSignal:
		return n.Key == key
	case ff.ConditionCount:
		return slices.Contains(n.Keys, key)
	}
	return false
}

func tokenOf(n *ff.ResumeCondition, path string, w *Waitpoint, sig *ff.Signal) string {
	if n.Kind == ff.ConditionSignal {
		return leafPrefix + path
	}
	switch prefix := countPrefixes[n.Of]; prefix {
	case signalPrefix:
		return prefix + sig.ID.String()
	case sourcePrefix:
		return prefix + sig.SourceType + tokenSeparator + sig.SourceIdentity
	}
	return waitPrefix + w.ID.String()
}

// holds reports whether a node is met.
func holds(n *ff.ResumeCondition, path string, tokens []string) bool {
	switch n.Kind {
	case ff.ConditionSignal:
		return slices.Contains(tokens, leafPrefix+path)
	case ff.ConditionCount:
		have := 0
		for _, t := range tokens {
			if strings.HasPrefix(t, countPrefixes[n.Of]) {
				have++
			}
		}
		return have >= n.N
	case ff.ConditionAllOf:
		for i := range n.Members {
			if !holds(&n.Members[i], ff.MemberPath(path, i), tokens) {
				return false
			}
		}
		return true
	}
	return false
}

package lifecycle

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Summary is the summary of an attempt and its document in decoded form. Patches are
// merged as in spec 04c §5.2, with the deviations from a standard merge patch that the
// other stores have: empty lists and empty objects become empty objects that replace
// what was there, a list that begins with false merges like an object with the members
// 1, 2, …, and numbers are rounded to 14 digits.
type Summary struct {
	ff.Summary
	members map[string]any
}

// ReadSummary decodes what a store has. Errors: corruption.
func ReadSummary(s ff.Summary) (*Summary, error) {
	d := &Summary{Summary: s, members: map[string]any{}}
	if len(s.Document) == 0 {
		return d, nil
	}
	if err := json.Unmarshal(s.Document, &d.members); err != nil || d.members == nil {
		return nil, ff.Errorf(ff.CodeCorruption, "the stored summary is not a JSON object (%.60q)", s.Document)
	}
	return d, nil
}

// patch is the decoded payload of a summary frame.
type patch map[string]any

// maxPatchNesting is how deep lists and objects may lie in one another, the patch
// itself counted.
const maxPatchNesting = 1000

func readPatch(payload []byte) (p patch, err error) {
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, ff.InvalidInput("payload", "is a patch that cannot be read: %s", err.Error())
	}
	if deeper(map[string]any(p), maxPatchNesting) {
		return nil, ff.InvalidInput("payload", "is a patch with lists and objects more than %d deep", maxPatchNesting)
	}
	return p, nil
}

// deeper reports whether a value has more than levels lists and objects in one
// another.
func deeper(v any, levels int) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, m := range v {
			if levels == 0 || deeper(m, levels-1) {
				return true
			}
		}
		return levels == 0
	case []any:
		for _, e := range v {
			if levels == 0 || deeper(e, levels-1) {
				return true
			}
		}
		return levels == 0
	}
	return false
}

// merge applies a patch. After an error the document is half merged.
func (d *Summary) merge(p patch, now time.Time) error {
	if err := mergeObject(d.members, p, 0); err != nil {
		return err
	}
	d.Version++
	d.UpdatedAt = now
	if d.Version == 1 {
		d.FirstAppliedAt = now
	}
	return nil
}

// encode makes the document that is stored. Errors: retention_limit_exceeded.
func (d *Summary) encode() error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(d.members); err != nil {
		return ff.Errorf(ff.CodeInternal, "the summary cannot be encoded: %w", err)
	}
	d.Document = bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if n := len(d.Document); n > ff.MaxSummaryBytes {
		return ff.Errorf(ff.CodeRetentionLimitExceeded, "the summary would have %d bytes, more than %d", n, ff.MaxSummaryBytes)
	}
	return nil
}

// mergeObject merges a patch into an object at a level; the document has level 0.
func mergeObject(into map[string]any, p patch, level int) (err error) {
	if level > ff.MaxSummaryDepth {
		return errPatchDepth()
	}
	for k, v := range p {
		if v == nil {
			delete(into, k)
			continue
		}
		if into[k], err = merged(into[k], v, level+1); err != nil {
			return err
		}
	}
	return nil
}

func errPatchDepth() error {
	return ff.InvalidInput("payload", "patch_depth_exceeded: an object of a patch may lie in at most %d others", ff.MaxSummaryDepth)
}

// merged is what a member becomes by a value of the patch that is not null.
func merged(current, v any, level int) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) > 0 {
			into, ok := current.(map[string]any)
			if !ok {
				into = map[string]any{}
			}
			return into, mergeObject(into, v, level)
		}
	case []any:
		if len(v) > 0 && v[0] == false {
			return mergeFalseList(current, v, level)
		}
	}
	return taken(v, level), nil
}

// mergeFalseList merges a list that begins with false. In an object its items become
// members; otherwise it stays a list without its nulls at the end.
func mergeFalseList(current any, list []any, level int) (any, error) {
	if into, ok := current.(map[string]any); ok && len(into) > 0 {
		p := make(patch, len(list))
		for i, v := range list {
			p[strconv.Itoa(i+1)] = v
		}
		return into, mergeObject(into, p, level)
	}
	if level > ff.MaxSummaryDepth {
		return nil, errPatchDepth()
	}
	out, length, values := make([]any, len(list)), 0, 0
	for i, v := range list {
		if v == nil {
			continue
		}
		var err error
		if out[i], err = merged(nil, v, level+1); err != nil {
			return nil, err
		}
		length, values = i+1, values+1
	}
	if length > 10 && length > 2*values {
		return nil, ff.InvalidInput("payload", "has a list that begins with false and is mostly null (%d of %d)", length-values, length)
	}
	return out[:length], nil
}

// sentinelLevels is how many lists and objects below the document the text that stands
// for null is looked for.
const sentinelLevels = 32

// taken is the stored form of a value that is taken over as it is.
func taken(v any, level int) any {
	switch v := v.(type) {
	case string:
		if v == ff.SummaryNull && level <= sentinelLevels+1 {
			return nil
		}
	case float64:
		return rounded(v)
	case map[string]any:
		if len(v) == 0 {
			return map[string]any{} // Later patches may merge into it.
		}
		for k, m := range v {
			v[k] = taken(m, level+1)
		}
	case []any:
		if len(v) == 0 {
			return map[string]any{}
		}
		for i, e := range v {
			v[i] = taken(e, level+1)
		}
	}
	return v
}

// rounded is a number with the 14 digits that summaries keep.
func rounded(f float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 14, 64), 64)
	if err != nil {
		return f
	}
	return r
}

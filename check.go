package flowfabric

import "fmt"

// CheckStatus says how a check of a store came out.
type CheckStatus string

// The statuses: a warning is about what works and may hurt later, a problem about
// what keeps the store from working or loses data.
const (
	CheckOK      CheckStatus = "ok"
	CheckWarning CheckStatus = "warning"
	CheckProblem CheckStatus = "problem"
)

// Check is one thing that was looked at in a store, for the person who operates
// it. Neither Detail nor Advice holds secrets.
type Check struct {
	Name   string      `json:"check"`
	Status CheckStatus `json:"status"`
	// Node is the address of the node that was looked at, where there are several.
	Node string `json:"node,omitempty"`
	// Detail says what was found, Advice what to do about it.
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"`
}

// Checks are what a diagnosis found, in the order in which it looked.
type Checks []Check

// OK adds a check that found what it should.
func (l *Checks) OK(name, detail string, args ...any) {
	*l = append(*l, Check{Name: name, Status: CheckOK, Detail: fmt.Sprintf(detail, args...)})
}

// Warning adds a warning and what to do about it.
func (l *Checks) Warning(name, advice, detail string, args ...any) {
	*l = append(*l, Check{Name: name, Status: CheckWarning, Advice: advice, Detail: fmt.Sprintf(detail, args...)})
}

// Problem adds a problem and what to do about it.
func (l *Checks) Problem(name, advice, detail string, args ...any) {
	*l = append(*l, Check{Name: name, Status: CheckProblem, Advice: advice, Detail: fmt.Sprintf(detail, args...)})
}

// Count is how many checks came out in a way.
func (l Checks) Count(s CheckStatus) (n int) {
	for i := range l {
		if l[i].Status == s {
			n++
		}
	}
	return n
}

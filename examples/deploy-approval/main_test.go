package main

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAReleaseNeedsTwoPeople(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `web 1.4 is suspended: waiting_for_approval
  ann: approved "fine" → appended_to_waitpoint
  ann: approved "still fine" → appended_to_waitpoint_duplicate
  ben: approved "go" → resume_condition_satisfied
  completed: "web 1.4 is deployed, approved by ann and ben"
web 1.5 is suspended: waiting_for_approval
  ann: approved "fine" → appended_to_waitpoint
  ben: rejected "not on a Friday" → signal_ignored_matcher_failed
  cancelled: rejected by ben: not on a Friday
web 1.6 is suspended: waiting_for_approval
  ann: approved "fine" → appended_to_waitpoint
  expired: suspension_timeout:expire
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", &out, want)
	}
}

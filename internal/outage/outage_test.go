package outage_test

import (
	"testing"
	"time"

	"github.com/flowfabric/flowfabric/internal/outage"
)

func TestAnOutageBeginsOnceAndEndsOnceWithItsCount(t *testing.T) {
	var o outage.Outage
	if _, _, ended := o.Worked(time.Now()); ended {
		t.Error("an outage ended that had not begun")
	}
	began := time.Now()
	for i := range 3 {
		if first := o.Failed(); first != (i == 0) {
			t.Errorf("failure %d: first %v", i, first)
		}
	}
	if _, _, ended := o.Worked(began); ended {
		t.Error("what began before the last failure ended the outage")
	}
	if failed, lasted, ended := o.Worked(time.Now()); !ended || failed != 3 || lasted < 0 {
		t.Errorf("%d failures in %s, ended %v", failed, lasted, ended)
	}
	if _, _, ended := o.Worked(time.Now()); ended {
		t.Error("the outage ended twice")
	}
	if !o.Failed() {
		t.Error("the next outage has no first failure")
	}
}

func TestAnOutageGoesOnWhileFailuresAndSuccessesAlternate(t *testing.T) {
	o := outage.Outage{Quiet: time.Minute}
	if !o.Failed() {
		t.Error("the first failure was not the first")
	}
	if _, _, ended := o.Worked(time.Now()); ended {
		t.Error("a success soon after a failure ended the outage")
	}
	if o.Failed() {
		t.Error("a second outage began within the first")
	}
	if failed, _, ended := o.Worked(time.Now().Add(time.Minute)); !ended || failed != 2 {
		t.Errorf("%d failures, ended %v", failed, ended)
	}
}

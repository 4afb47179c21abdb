package valkey_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/uuid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// commandsOf are how often the server has run a command; all commands together
// without a name.
func commandsOf(t testing.TB, server *valkeytest.Server, name string) int {
	t.Helper()
	info, err := server.Do("INFO", "commandstats").ToString()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, m := range regexp.MustCompile(`cmdstat_([^:]*):calls=(\d+)`).FindAllStringSubmatch(info, -1) {
		if n, _ := strconv.Atoi(m[2]); name == "" || m[1] == name {
			sum += n
		}
	}
	return sum
}

// batch creates many executions.
func batch(t *testing.T, s ff.Backend, n int, make func(i int) ff.CreateExecution) (ids []ff.ExecutionID) {
	t.Helper()
	for i := 0; i < n; {
		var c ff.CreateExecutions
		for ; i < n && len(c.Executions) < 1000; i++ {
			c.Executions = append(c.Executions, make(i))
		}
		r, err := s.CreateExecutions(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Results {
			ids = append(ids, r.Results[i].ID)
		}
	}
	return ids
}

var onePartition = ff.PartitionConfig{Flow: 1, Budget: 1, Quota: 1}

func sweepIndexes(t *testing.T, s ff.Backend) ff.SweepResult {
	t.Helper()
	r, err := s.Sweep(t.Context(), ff.Sweep{Kind: ff.SweepIndex})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Others want the server too: no call of a repair may keep it for long.
func TestACallThatRepairsIndexesMakesABoundedNumberOfCommands(t *testing.T) {
	server := valkeytest.Start(t)
	s := openStore(t, server.URL(), valkey.Options{Partitions: onePartition})
	ids := batch(t, s, 3000, func(i int) ff.CreateExecution {
		return ff.CreateExecution{Lane: ff.LaneID(fmt.Sprintf("lane-%d", i%500)), Kind: "k"}
	})
	for _, damaged := range []bool{false, true} {
		if damaged {
			for _, id := range ids[:200] {
				if err := server.Do("ZREM", "ffx:idx:{fp:0}:created", id.String()).Error(); err != nil {
					t.Fatal(err)
				}
			}
			for range 300 {
				gone := ff.MakeExecutionID(0, uuid.New())
				if err := server.Do("ZADD", "ffx:idx:{fp:0}:created", "1", gone.String()).Error(); err != nil {
					t.Fatal(err)
				}
			}
		}
		commands, calls, whole := commandsOf(t, server, ""), commandsOf(t, server, "fcall"), commandsOf(t, server, "zdiff")
		r := sweepIndexes(t, s)
		commands, calls = commandsOf(t, server, "")-commands, commandsOf(t, server, "fcall")-calls
		if commands > 4000*calls {
			t.Errorf("%d commands in %d calls", commands, calls)
		}
		if commandsOf(t, server, "zdiff") != whole {
			t.Error("a whole index was compared with another")
		}
		if want := map[bool]int{true: 500}[damaged]; r.Processed != want || r.Errors != 0 {
			t.Errorf("repaired %d, %d errors, want %d", r.Processed, r.Errors, want)
		}
	}
	if r := sweepIndexes(t, s); r.Processed != 0 {
		t.Errorf("repaired %d again", r.Processed)
	}
}

// A repair looks for the lanes that have executions on a partition, not for all.
func TestARepairOfManyLanesCostsWhatTheyHaveNotTheirNumberTimesThePartitions(t *testing.T) {
	server := valkeytest.Start(t)
	s := openStore(t, server.URL(), valkey.Options{Partitions: ff.PartitionConfig{Flow: 64, Budget: 1, Quota: 1}})
	const lanes = 1000
	batch(t, s, lanes, func(i int) ff.CreateExecution {
		return ff.CreateExecution{Lane: ff.LaneID(fmt.Sprintf("lane-%d", i)), Kind: "k"}
	})
	before := commandsOf(t, server, "")
	sweepIndexes(t, s)
	if n := commandsOf(t, server, "") - before; n > 60*lanes {
		t.Errorf("%d commands for %d lanes", n, lanes)
	}
}

// The lanes of peers are written down once, not by every sweep.
func TestLanesThatAreKnownAreNotNamedAgain(t *testing.T) {
	server := valkeytest.Start(t)
	s := openStore(t, server.URL(), valkey.Options{Partitions: onePartition})
	batch(t, s, 200, func(i int) ff.CreateExecution {
		return ff.CreateExecution{Lane: ff.LaneID(fmt.Sprintf("lane-%d", i)), Kind: "k"}
	})
	before := commandsOf(t, server, "sadd")
	if _, err := s.Sweep(t.Context(), ff.Sweep{Kind: ff.SweepDelayed}); err != nil {
		t.Fatal(err)
	}
	if n := commandsOf(t, server, "sadd") - before; n != 0 {
		t.Errorf("%d times a lane was named", n)
	}
}

// What cannot be repaired costs a listing once, not each time.
func TestAListingDoesNotRepairWhatCannotBeReadAgainAndAgain(t *testing.T) {
	server := valkeytest.Start(t)
	s := openStore(t, server.URL(), valkey.Options{Partitions: onePartition})
	ids := batch(t, s, 2000, func(int) ff.CreateExecution { return ff.CreateExecution{Lane: "main", Kind: "k"} })
	broken := ids[0].String()
	for _, c := range [][]string{{"DEL", "ff:exec:{fp:0}:" + broken + ":core"}, {"SET", "ff:exec:{fp:0}:" + broken + ":core", "x"},
		{"ZREM", "ffx:idx:{fp:0}:created", broken}} {
		if err := server.Do(c[0], c[1:]...).Error(); err != nil {
			t.Fatal(err)
		}
	}
	list := func() int {
		before := commandsOf(t, server, "")
		r, err := s.ListExecutions(t.Context(), ff.ListExecutions{Limit: 10, Oldest: true})
		if err != nil || len(r.Executions) != 10 {
			t.Fatalf("listed %d, %v", len(r.Executions), err)
		}
		if _, err := s.Lanes(t.Context()); err != nil {
			t.Fatal(err)
		}
		return commandsOf(t, server, "") - before
	}
	list()
	if n := list(); n > 500 {
		t.Errorf("the second listing took %d commands", n)
	}
	// Nor does the loop scan the partition for ever.
	sweepIndexes(t, s)
	before := commandsOf(t, server, "")
	sweepIndexes(t, s)
	if n := commandsOf(t, server, "") - before; n > 10000 {
		t.Errorf("the second repair took %d commands", n)
	}
}

// When an index by age cannot be completed at all, listings leave it to the loop.
func TestAListingLeavesAPartitionAloneThatStaysIncomplete(t *testing.T) {
	server := valkeytest.Start(t)
	ids := batch(t, openStore(t, server.URL(), valkey.Options{Partitions: onePartition}), 300, func(int) ff.CreateExecution { return ff.CreateExecution{Lane: "main", Kind: "k"} })
	do := func(command string, args ...string) {
		t.Helper()
		if err := server.Do(command, args...).Error(); err != nil {
			t.Fatal(err)
		}
	}
	do("ZREM", "ffx:idx:{fp:0}:created", ids[0].String())
	do("ACL", "SETUSER", "reader", "on", "nopass", "~*", "&*", "+@all")
	reader := openStore(t, "valkey://reader:x@"+server.Addr, valkey.Options{Partitions: onePartition})
	do("ACL", "SETUSER", "reader", "-zadd") // from now on it cannot repair
	for i, most := range []int{3, 0} {
		before := commandsOf(t, server, "sscan")
		if r, err := reader.ListExecutions(t.Context(), ff.ListExecutions{Limit: 10}); err != nil || len(r.Executions) != 10 {
			t.Fatalf("listed %d, %v", len(r.Executions), err)
		}
		if n := commandsOf(t, server, "sscan") - before; n > most {
			t.Errorf("listing %d looked %d times for what is missing", i+1, n)
		}
	}
}

// A store without the extensions, as a peer, has ended more in one millisecond than a
// call looks at.
func TestEndsOfOneMillisecondAreAllFound(t *testing.T) {
	c := newCrowd(t, valkey.Options{})
	other, err := valkey.Open(t.Context(), c.server.URL(), valkey.Options{Extensions: valkey.ExtensionsOff})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, n := range []int{450, 350} { // the second after a repair has seen the first
		for _, id := range c.create(n, ff.CreateExecution{Lane: "main"}) {
			if _, err := other.CancelExecution(t.Context(), ff.CancelExecution{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		sweepIndexes(t, c.Store)
	}
	if n := c.number("ZCARD", "ffx:idx:{fp:0}:lane:main:outcome:cancelled"); n != 800 {
		t.Errorf("%d of 800 are known as cancelled", n)
	}
}

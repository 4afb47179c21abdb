package httpapi

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
)

// A {} takes two bytes in the body and hundreds in memory.
func TestLongListsAreRefusedBeforeTheyTakeMemory(t *testing.T) {
	const n = 200_000
	body := []byte(`{"executions":[` + strings.Repeat("{},", n) + `{}]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Decode[CreateMany](body, RefuseUnknown, "executions")
	runtime.ReadMemStats(&after)
	if e, ok := ff.AsError(err); !ok || e.Field != "executions" || !strings.Contains(err.Error(), "must hold 1 to 1000 items (got 200001)") {
		t.Errorf("got %v", err)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 100*n {
		t.Errorf("refusing %d items took %d bytes", n, taken)
	}
}

func TestItemsAreCountedAtTheTopOnly(t *testing.T) {
	for list, want := range map[string]int{
		`[]`: 1, `[1]`: 1, `[1,2]`: 2, `[[1,2],{"a":[3,4],"b":5}]`: 2, `[",",",\",",1]`: 3, `["\\",2]`: 2, `{"a":1,"b":2}`: 1, `null`: 1, ``: 1,
	} {
		if got := countItems(json.RawMessage(list)); got != want {
			t.Errorf("%s counts %d items, want %d", list, got, want)
		}
	}
}

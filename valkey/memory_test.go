package valkey

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAMemoryForgetsAndDoesNotGrowWithTheKeysThatItEverHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory[int, string](time.Minute)
		m.put(-1, "old")
		for i := range 100 * leastMost {
			m.put(i, "new")
			time.Sleep(time.Second)
		}
		if _, ok := m.get(-1); ok {
			t.Error("it remembers for ever")
		}
		if v, ok := m.get(100*leastMost - 1); !ok || v != "new" {
			t.Error("it forgot at once")
		}
		if len(m.at) > leastMost {
			t.Errorf("it has %d keys", len(m.at))
		}
	})
}

package valkey

import "time"

// memory remembers a value per key for some time. Keys come from callers: what is
// older is dropped when there are twice as many as were left the last time.
type memory[K comparable, V any] struct {
	keep time.Duration
	at   map[K]remembered[V]
	most int
}

type remembered[V any] struct {
	value V
	since time.Time
}

// leastMost is how many keys a memory has before it looks for old ones.
const leastMost = 256

func newMemory[K comparable, V any](keep time.Duration) memory[K, V] {
	return memory[K, V]{keep: keep, at: map[K]remembered[V]{}, most: leastMost}
}

func (m *memory[K, V]) get(k K) (v V, ok bool) {
	r, ok := m.at[k]
	if !ok || time.Since(r.since) > m.keep {
		return v, false
	}
	return r.value, true
}

func (m *memory[K, V]) put(k K, v V) {
	if len(m.at) >= m.most {
		for old, r := range m.at {
			if time.Since(r.since) > m.keep {
				delete(m.at, old)
			}
		}
		m.most = max(leastMost, 2*len(m.at))
	}
	m.at[k] = remembered[V]{v, time.Now()}
}

func (m *memory[K, V]) drop(k K) { delete(m.at, k) }

func (m *memory[K, V]) clear() { clear(m.at) }

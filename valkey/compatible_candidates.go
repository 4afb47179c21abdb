package valkey

import (
	"context"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// candidate is an execution that a claimant may have.
type candidate struct {
	id    ff.ExecutionID
	parts parts
	x     ff.Execution
	// bytes is the size of the input.
	bytes int64
	// from is which index it was found in.
	from int
}

// queue goes through the indexes of what may be claimed of a lane on a partition, in
// the order of claims. What is taken leaves its index; the rest is skipped.
type queue struct {
	s       *compatible
	keys    []string
	offered ff.CapabilitySet
	skipped []int64
	chunk   int64
	ended   bool
}

// Sizes of the chunks that a queue reads: more the longer it goes on.
const (
	firstChunk = 4
	lastChunk  = 128
)

func (s *compatible) queue(offered ff.CapabilitySet, want int, keys ...string) *queue {
	return &queue{s: s, keys: keys, offered: offered, skipped: make([]int64, len(keys)), chunk: int64(min(max(want, firstChunk), lastChunk))}
}

// next are the next candidates. None, before the queue has ended, means that it saw
// only what the claimant may not have. Candidates that are not taken in the end are
// to be given to pass.
func (q *queue) next(ctx context.Context) ([]candidate, error) {
	lists, err := q.read(ctx)
	if err != nil {
		return nil, err
	}
	merged := q.merge(lists)
	q.chunk = min(2*q.chunk, lastChunk)
	return q.s.eligible(ctx, q, merged)
}

// pass says that a candidate stays in its index.
func (q *queue) pass(c *candidate) { q.skipped[c.from]++ }

// goTo goes on behind what an earlier claim has seen.
func (q *queue) goTo(far [2]int64) {
	for i := range q.skipped {
		q.skipped[i] = max(q.skipped[i], far[i])
	}
}

func (q *queue) read(ctx context.Context) ([][]valkey.ZScore, error) {
	commands := make([]valkey.Completed, len(q.keys))
	for i, key := range q.keys {
		commands[i] = q.s.client.B().Zrange().Key(key).Min(itoa(q.skipped[i])).Max(itoa(q.skipped[i] + q.chunk - 1)).Withscores().Build()
	}
	lists := make([][]valkey.ZScore, len(q.keys))
	q.ended = true
	for i, r := range q.s.send(ctx, commands...) {
		var err error
		if lists[i], err = r.AsZScores(); err != nil {
			return nil, q.s.lift(ctx, err)
		}
		q.ended = q.ended && int64(len(lists[i])) < q.chunk
	}
	return lists, nil
}

type indexed struct {
	text string
	from int
}

// merge orders what was read. It stops where an index goes on behind what was read
// of it.
func (q *queue) merge(lists [][]valkey.ZScore) (merged []indexed) {
	at := make([]int, len(lists))
	for {
		best := -1
		for i, list := range lists {
			if at[i] == len(list) {
				if int64(len(list)) == q.chunk {
					return merged
				}
				continue
			}
			if best < 0 || list[at[i]].Score < lists[best][at[best]].Score {
				best = i
			}
		}
		if best < 0 {
			return merged
		}
		merged = append(merged, indexed{lists[best][at[best]].Member, best})
		at[best]++
	}
}

// Commands that a candidate is read with, besides those for its parts.
const candidateCount = partCount + 1

// eligible are those of the found that the claimant may have. What is no execution
// any more is taken out of its index.
func (s *compatible) eligible(ctx context.Context, q *queue, found []indexed) (list []candidate, err error) {
	var commands, strays []valkey.Completed
	var read []candidate
	for _, f := range found {
		id, err := ff.ParseExecutionID(f.text)
		if err != nil {
			s.log.Error("an index has something that is no execution", "key", q.keys[f.from], "value", f.text)
			q.skipped[f.from]++
			continue
		}
		read = append(read, candidate{id: id, from: f.from})
		commands = append(append(commands, s.partCommands(id)...), s.client.B().Strlen().Key(keysOf(id).payload()).Build())
	}
	results := s.send(ctx, commands...)
	for i := range read {
		c, r := &read[i], results[i*candidateCount:(i+1)*candidateCount]
		p, there, err := readParts(r)
		if err := s.recordError(ctx, c.id, true, err); err != nil && ff.CodeOf(err) != ff.CodeCorruption {
			return nil, err
		}
		if err == nil && !there {
			strays = append(strays, s.client.B().Zrem().Key(q.keys[c.from]).Member(c.id.String()).Build())
			continue
		}
		if err == nil {
			c.parts = p
			c.bytes, err = r[partCount].AsInt64()
		}
		if err == nil {
			c.x, err = c.parts.before(c.id, "fresh")
		}
		switch {
		case err != nil:
			s.log.Error("an execution cannot be read and is passed over by claims", "execution", c.id, "err", err)
		case q.keys[c.from] != tagOf(c.id.Partition()).lane(c.x.Lane, laneEligible) && !lost(&c.x):
			strays = append(strays, s.client.B().Zrem().Key(q.keys[c.from]).Member(c.id.String()).Build())
			continue
		case lifecycle.Claimable(&c.x) && q.offered.Satisfies(c.x.Required):
			list = append(list, *c)
			continue
		}
		q.pass(c)
	}
	s.follow(ctx, strays...)
	return list, nil
}

// lost reports whether the lease of an execution was lost.
func lost(x *ff.Execution) bool {
	return x.State.Phase == ff.PhaseActive && (x.State.Ownership == ff.OwnershipLeaseExpired || x.State.Ownership == ff.OwnershipLeaseRevoked)
}

// lostCommand notes that the lease of an execution was lost, in the order of claims.
func (s *compatible) lostCommand(id ff.ExecutionID, lane ff.LaneID, created time.Time, priority int) valkey.Completed {
	score := lifecycle.Score(&ff.Execution{CreatedAt: created, Priority: priority})
	return s.client.B().Zadd().Key(tagOf(id.Partition()).lost(lane)).ScoreMember().ScoreMember(float64(score), id.String()).Build()
}

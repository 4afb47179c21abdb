package flowfabric

import (
	"strconv"
	"strings"
)

// PartitionConfig has the number of partitions of each family (spec 01 §3.1).
// It is fixed when a store is first used.
type PartitionConfig struct {
	Flow   uint16 `json:"num_flow_partitions"`
	Budget uint16 `json:"num_budget_partitions"`
	Quota  uint16 `json:"num_quota_partitions"`
}

// DefaultPartitionConfig is used when nothing else is configured.
var DefaultPartitionConfig = PartitionConfig{Flow: 256, Budget: 32, Quota: 32}

// Validate checks that every count is positive.
func (c PartitionConfig) Validate() error {
	for _, f := range []struct {
		name string
		n    uint16
	}{
		{"num_flow_partitions", c.Flow},
		{"num_budget_partitions", c.Budget},
		{"num_quota_partitions", c.Quota},
	} {
		if f.n == 0 {
			return InvalidInput(f.name, "must be > 0 (used as divisor in partition math)")
		}
	}
	return nil
}

// FlowPartition is the partition of a flow and of its members.
func (c PartitionConfig) FlowPartition(id FlowID) uint16 { return CRC16(id[:]) % c.Flow }

// LanePartition is the partition of the executions of a lane outside of flows.
func (c PartitionConfig) LanePartition(lane LaneID) uint16 { return CRC16([]byte(lane)) % c.Flow }

// BudgetPartition is the partition of a budget.
func (c PartitionConfig) BudgetPartition(id BudgetID) uint16 { return CRC16(id[:]) % c.Budget }

// QuotaPartition is the partition of a quota policy.
func (c PartitionConfig) QuotaPartition(id QuotaPolicyID) uint16 { return CRC16(id[:]) % c.Quota }

// PartitionFamily is what a partition holds.
type PartitionFamily string

// The families. Executions live on the partitions of flows.
const (
	FamilyFlow      PartitionFamily = "flow"
	FamilyExecution PartitionFamily = "execution"
	FamilyBudget    PartitionFamily = "budget"
	FamilyQuota     PartitionFamily = "quota"
)

// Partition is one bucket of a family.
type Partition struct {
	Family PartitionFamily
	Index  uint16
}

// Key is the hash tag of the partition: `{fp:N}`, `{b:N}` or `{q:N}`.
func (p Partition) Key() string {
	prefix := "fp"
	switch p.Family {
	case FamilyBudget:
		prefix = "b"
	case FamilyQuota:
		prefix = "q"
	}
	return "{" + prefix + ":" + strconv.Itoa(int(p.Index)) + "}"
}

// ParsePartitionKey reads a hash tag. `{fp:N}` is of the flow family. Errors:
// invalid_input with the four texts of spec 11 §1.10.
func ParsePartitionKey(s string) (Partition, error) {
	const field = "partition_key"
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return Partition{}, InvalidInput(field, "partition key must be wrapped in '{...}' (got %q)", s)
	}
	prefix, number, ok := strings.Cut(s[1:len(s)-1], ":")
	if !ok {
		return Partition{}, InvalidInput(field, "partition key body must be '<prefix>:<index>' (got %q)", s)
	}
	family, ok := map[string]PartitionFamily{"fp": FamilyFlow, "b": FamilyBudget, "q": FamilyQuota}[prefix]
	if !ok {
		return Partition{}, InvalidInput(field, "unknown partition family prefix '%s' (expected 'fp', 'b', 'q')", prefix)
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return Partition{}, InvalidInput(field, "partition index '%s' is not a valid u16", number)
	}
	return Partition{Family: family, Index: uint16(n)}, nil
}

var crc16Table = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()

// CRC16 is the checksum by which ids and lanes are spread over partitions: CRC16
// XMODEM, as Valkey Cluster uses it for key slots (spec 01 §3.2).
func CRC16(b []byte) uint16 {
	var crc uint16
	for _, c := range b {
		crc = crc<<8 ^ crc16Table[byte(crc>>8)^c]
	}
	return crc
}

// FNV1a is the 64-bit FNV-1a hash (spec 01 §10).
func FNV1a(b []byte) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, c := range b {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	return h
}

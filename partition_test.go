package flowfabric

import (
	"testing"

	"github.com/google/uuid"
)

// The worked examples of spec 01 §3.2.
func TestCRC16IsThatOfClusterKeySlots(t *testing.T) {
	if got := CRC16([]byte("123456789")); got != 0x31C3 {
		t.Fatalf("CRC16(123456789) = %#x, want 0x31c3", got)
	}
	for _, c := range []struct {
		uuid          string
		crc           uint16
		mod256, mod32 uint16
	}{
		{"550e8400-e29b-41d4-a716-446655440000", 0x9018, 24, 24},
		{"11111111-1111-4111-8111-111111111111", 0x76BF, 191, 31},
		{"00000000-0000-0000-0000-000000000000", 0, 0, 0},
		{"ffffffff-ffff-ffff-ffff-ffffffffffff", 0x0041, 65, 1},
	} {
		u := uuid.MustParse(c.uuid)
		if got := CRC16(u[:]); got != c.crc {
			t.Errorf("CRC16(%s) = %#x, want %#x", c.uuid, got, c.crc)
		}
		if got := DefaultPartitionConfig.FlowPartition(FlowID(u)); got != c.mod256 {
			t.Errorf("flow partition of %s = %d, want %d", c.uuid, got, c.mod256)
		}
		if got := DefaultPartitionConfig.BudgetPartition(BudgetID(u)); got != c.mod32 {
			t.Errorf("budget partition of %s = %d, want %d", c.uuid, got, c.mod32)
		}
		if got := DefaultPartitionConfig.QuotaPartition(QuotaPolicyID(u)); got != c.mod32 {
			t.Errorf("quota partition of %s = %d, want %d", c.uuid, got, c.mod32)
		}
	}
}

func TestLanesAreSpreadOverPartitionsByTheirName(t *testing.T) {
	for lane, want := range map[LaneID]uint16{"default": 86, "workers-a": 193, "workers-b": 162, "hot": 205, "a": 135} {
		if got := DefaultPartitionConfig.LanePartition(lane); got != want {
			t.Errorf("partition of lane %q = %d, want %d", lane, got, want)
		}
	}
	if id := NewExecutionID("default", DefaultPartitionConfig); id.Partition() != 86 || !id.IsCanonical() {
		t.Errorf("an execution of lane default got id %s", id)
	}
}

func TestPartitionKeysAreReadAndWritten(t *testing.T) {
	for _, p := range []Partition{{FamilyFlow, 42}, {FamilyBudget, 42}, {FamilyQuota, 65535}} {
		got, err := ParsePartitionKey(p.Key())
		if err != nil || got != p {
			t.Errorf("ParsePartitionKey(%q) = %v, %v", p.Key(), got, err)
		}
	}
	if got := (Partition{FamilyExecution, 7}).Key(); got != "{fp:7}" {
		t.Errorf("an execution's partition key is %q", got)
	}
	for in, want := range map[string]string{
		"fp:7":       `invalid_input: partition_key: partition key must be wrapped in '{...}' (got "fp:7")`,
		"{fp7}":      `invalid_input: partition_key: partition key body must be '<prefix>:<index>' (got "{fp7}")`,
		"{zz:0}":     `invalid_input: partition_key: unknown partition family prefix 'zz' (expected 'fp', 'b', 'q')`,
		"{b:70000}":  `invalid_input: partition_key: partition index '70000' is not a valid u16`,
		"{":          `invalid_input: partition_key: partition key must be wrapped in '{...}' (got "{")`,
		"{q:}":       `invalid_input: partition_key: partition index '' is not a valid u16`,
		"":           `invalid_input: partition_key: partition key must be wrapped in '{...}' (got "")`,
		"{fp:-1}":    `invalid_input: partition_key: partition index '-1' is not a valid u16`,
		"{fp:1}{}":   `invalid_input: partition_key: partition index '1}{' is not a valid u16`,
		"{fp:1}:abc": `invalid_input: partition_key: partition key must be wrapped in '{...}' (got "{fp:1}:abc")`,
	} {
		if _, err := ParsePartitionKey(in); err == nil || err.Error() != want {
			t.Errorf("ParsePartitionKey(%q): %v, want %s", in, err, want)
		}
	}
}

// The worked examples of spec 01 §10.
func TestFNV1aIsTheSixtyFourBitHash(t *testing.T) {
	for in, want := range map[string]uint64{
		"": 0xcbf29ce484222325, "a": 0xaf63dc4c8601ec8c, "gpu": 0xd5235618fae1fad5, "cuda,gpu": 0xcb7518f80227be3c,
		"gpu,cuda": 0x32511bb2804b7648, "worker-1": 0x24913ec59027ebed, "worker-gpu-pool-1": 0xa5362ecfcc0f76ff,
	} {
		if got := FNV1a([]byte(in)); got != want {
			t.Errorf("FNV1a(%q) = %x, want %x", in, got, want)
		}
	}
}

func TestPartitionCountsMustBePositive(t *testing.T) {
	if err := DefaultPartitionConfig.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (PartitionConfig{Flow: 1, Budget: 0, Quota: 1}).Validate(); err == nil {
		t.Error("zero budget partitions were accepted")
	}
}

func FuzzParsePartitionKey(f *testing.F) {
	for _, s := range []string{"{fp:7}", "{b:1}", "{q:99999}", "", "{:}", "{fp:}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePartitionKey(s)
		if err != nil {
			return
		}
		if again, err := ParsePartitionKey(p.Key()); err != nil || again != p {
			t.Fatalf("%q parsed as %v, whose key parses as %v, %v", s, p, again, err)
		}
	})
}

package valkey

import (
	"context"
	"strconv"

	ff "github.com/flowfabric/flowfabric"
)

// Size is how many bytes of memory the primaries use.
func (s *Store) Size(ctx context.Context) (total int64, err error) {
	for address, node := range s.primaries(ctx) {
		info, err := node.Do(ctx, node.B().Info().Section("memory").Build()).ToString()
		if err != nil {
			return 0, s.lift(ctx, err)
		}
		n, err := strconv.ParseInt(infoField(info, "used_memory"), 10, 64)
		if err != nil {
			return 0, ff.Errorf(ff.CodeInternal, "%s does not say how much memory it uses", address)
		}
		total += n
	}
	return total, nil
}

package sqlite

import (
	"context"

	"github.com/flowfabric/flowfabric/sqlstore"
)

var selectSize = &sqlstore.Statement{SQL: `select (page_count - freelist_count) * page_size
from pragma_page_count, pragma_freelist_count, pragma_page_size`}

// Size is how many bytes the pages in use take.
func (s *Store) Size(ctx context.Context) (n int64, err error) {
	c, release, err := s.shared.driver.Read(ctx)
	if err != nil {
		return 0, mapError(err)
	}
	defer release()
	err = c.Query(selectSize, nil, func(r sqlstore.Row) error {
		n = r.Int(0)
		return nil
	})
	return n, mapError(err)
}

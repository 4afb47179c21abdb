package sqlstore

import "context"

var selectSize = statement("select (select page_count - freelist_count from pragma_page_count, pragma_freelist_count) * page_size from pragma_page_size")

// Size is how many bytes the store's pages in use take.
func (s *Store) Size(ctx context.Context) (int64, error) {
	return read(ctx, s, func(c Conn) (n int64, err error) {
		err = c.Query(selectSize, nil, func(r Row) error {
			n = r.Int(0)
			return nil
		})
		return n, err
	})
}

package worker_test

import (
	"net/http/httptest"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/backend"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/server"
)

// onEveryStore runs a test on SQLite, on a server and on Valkey.
func onEveryStore(t *testing.T, test func(t *testing.T, b ff.Backend)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { test(t, storetest.OpenWithEngine(t)) })
	t.Run("server", func(t *testing.T) {
		api, err := server.New(storetest.OpenWithEngine(t), server.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(api.Handler())
		t.Cleanup(s.Close)
		test(t, open(t, s.URL))
	})
	t.Run("Valkey", func(t *testing.T) { test(t, open(t, valkeytest.Start(t).URL())) })
}

func open(t testing.TB, url string) ff.Backend {
	t.Helper()
	b, err := backend.Open(t.Context(), url, backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return b
}

package server_test

import (
	"context"
	"net"
	"net/http"
	"testing"

	"go.uber.org/goleak"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves a store on a loopback port and returns its base URL. The server
// stops at the end of the test.
func start(t testing.TB, store ff.Backend, o server.Options) string {
	t.Helper()
	o.Listen = "127.0.0.1:0"
	s, err := server.New(store, o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Bind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop := serve(t, s, l)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return "http://" + l.Addr().String()
}

// serve runs a server in the background; stop ends it and returns its error.
func serve(t testing.TB, s *server.Server, l net.Listener) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	return func() error {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		return <-ended
	}
}

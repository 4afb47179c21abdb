package valkeytest_test

import (
	"context"
	"testing"
	"time"

	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// open opens a client of a URL that ends with the test.
func open(t *testing.T, url string) valkey.Client {
	t.Helper()
	option, err := valkey.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client, err := valkey.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func TestServerForgetsWithoutAOFAndKeepsWithIt(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]valkeytest.Option{"forgets": nil, "keeps": {valkeytest.WithAOF()}} {
		s := valkeytest.Start(t, options...)
		addr := s.Addr
		for _, end := range []func(){s.Kill, s.Stop, func() {}} {
			must(t, s.Do("SET", "k", "v"))
			end()
			s.Restart()
			if n, err := s.Do("EXISTS", "k").AsInt64(); err != nil || (n == 1) != (name == "keeps") {
				t.Errorf("a server that %s has %d keys, %v", name, n, err)
			}
		}
		if s.Addr != addr {
			t.Errorf("the address %s became %s", addr, s.Addr)
		}
	}
}

func TestServerPauses(t *testing.T) {
	t.Parallel()
	s := valkeytest.Start(t)
	s.Pause()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := s.Client().Do(ctx, s.Client().B().Ping().Build()).Error(); err == nil || s.Running() {
		t.Errorf("a paused server answered PING: %v", err)
	}
	s.Resume()
	must(t, s.Do("PING"))
	s.Pause()
}

func TestServerTakesConfigAndPassword(t *testing.T) {
	t.Parallel()
	s := valkeytest.Start(t, valkeytest.WithPassword(`a "b`), valkeytest.WithConfig("maxmemory", "64mb"))
	client := open(t, s.URL())
	got, err := client.Do(context.Background(), client.B().ConfigGet().Parameter("maxmemory").Build()).AsStrMap()
	if err != nil || got["maxmemory"] != "67108864" {
		t.Errorf("CONFIG GET = %v, %v", got, err)
	}
	if c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.Addr}}); err == nil {
		c.Close()
		t.Error("the server took a client without the password")
	}
}

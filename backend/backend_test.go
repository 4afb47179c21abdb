package backend_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/backend"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStoresAreOpenedByTheirURL(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for url, location := range map[string]string{
		"sqlite::memory:":                             ":memory:",
		"sqlite:a.db":                                 filepath.Join(dir, "a.db"),
		"sqlite:" + filepath.Join(dir, "b"):           filepath.Join(dir, "b"),
		"sqlite://" + filepath.Join(dir, "c.sqlite3"): filepath.Join(dir, "c.sqlite3"),
		"d.db":                        filepath.Join(dir, "d.db"),
		filepath.Join(dir, "e:f.db"):  filepath.Join(dir, "e:f.db"),
		"./my flow fabric.db":         filepath.Join(dir, "my flow fabric.db"),
		"sqlite:name with spaces?#%.": filepath.Join(dir, "name with spaces?#%."),
	} {
		if err := tryStore(t, url, location); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func tryStore(t *testing.T, url, location string) error {
	t.Helper()
	b, err := backend.Open(t.Context(), url, backend.Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	info, err := b.Info(t.Context())
	if err != nil {
		return err
	}
	if want := resolved(location); info.Store != "sqlite" || info.Location != want {
		return fmt.Errorf("opened %s at %s, want %s", info.Store, info.Location, want)
	}
	return nil
}

// resolved is a path without the links that may lead to the temporary directory.
func resolved(path string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil && path != ":memory:" {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

func TestAServerIsAStore(t *testing.T) {
	store, err := backend.Open(t.Context(), "sqlite::memory:", backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s, err := server.New(store, server.Options{Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(s.Handler())
	defer hs.Close()
	remote, err := backend.Open(t.Context(), hs.URL, backend.Options{Client: []client.Option{client.WithToken("secret")}})
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	created, err := remote.CreateExecution(t.Context(), ff.CreateExecution{Lane: "l", Kind: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if x, err := store.Execution(t.Context(), created.ID); err != nil || x.Kind != "k" {
		t.Errorf("%+v, %v", x, err)
	}
}

func TestOtherURLsSayWhatThereIs(t *testing.T) {
	for url, says := range map[string]string{
		"":                             "sqlite:PATH",
		"mysql://me:secret@h":          "sqlite:PATH",
		"me:secret@h":                  "sqlite:PATH",
		"http://me:secret@":            "WithToken",
		"http://me:secret@h:x":         "WithToken",
		"flowfabric":                   "sqlite:PATH",
		"sqlite:":                      "needs a path",
		"sqlite://":                    "needs a path",
		"valkey://:secret@":            "lacks its host",
		"rediss://:secret@h:x":         "is not a Valkey URL",
		"postgres://me:secret@h/db":    "no postgres store",
		"http://":                      "is not a URL",
		"http://me:secret@example.com": "WithToken",
	} {
		b, err := backend.Open(t.Context(), url, backend.Options{})
		if b != nil {
			t.Errorf("%q opened %T", url, b)
		}
		if ff.CodeOf(err) != ff.CodeInvalidInput || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestAStoreThatCannotBeOpenedIsNil(t *testing.T) {
	for _, url := range []string{"sqlite:" + filepath.Join(t.TempDir(), "missing", "a.db"), filepath.Join(t.TempDir(), "missing", "a.db")} {
		if b, err := backend.Open(t.Context(), url, backend.Options{}); b != nil || ff.CodeOf(err) != ff.CodeUnavailable {
			t.Errorf("%s: %v, %v", url, b, err)
		}
	}
}

func ExampleOpen() {
	ctx := context.Background()
	store, err := backend.Open(ctx, "sqlite::memory:", backend.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	created, err := store.CreateExecution(ctx, ff.CreateExecution{Lane: "mail", Kind: "send"})
	fmt.Println(created.State, err)
	// Output: waiting <nil>
}

package valkey

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// loadLibraries loads what a node lacks, on every primary.
func (s *Store) loadLibraries(ctx context.Context, o *Options) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	return s.loadAll(ctx, o.ForceReload)
}

// reload is loadLibraries after a function was missing. One caller loads, the
// others find it done.
func (s *Store) reload(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.log.Warn("Valkey has lost the function libraries; loading them", "store", s.location)
	return s.loadAll(ctx, false)
}

func (s *Store) loadAll(ctx context.Context, force bool) error {
	for address, node := range s.primaries(ctx) {
		if err := s.loadNode(ctx, node, force); err != nil {
			if e, ok := ff.AsError(err); ok {
				at := *e
				at.Detail = "loading functions on " + address + ": " + e.Detail
				return &at
			}
			return err
		}
	}
	return nil
}

// loadNode compares versions before it loads (spec 02 §8.2). A compatible library
// of the same version is left alone, whoever loaded it, unless it is an older build
// of ours: otherwise two kinds of servers would replace each other's for ever. A
// newer one is left alone too.
func (s *Store) loadNode(ctx context.Context, node valkey.Client, force bool) error {
	version, err := functionVersion(ctx, node, "ff_version")
	if err != nil {
		return s.lift(ctx, err)
	}
	if force || version < libraryVersion || version == libraryVersion && isOlderBuild(ctx, node) {
		err := s.loadFunctions(ctx, node, Library())
		if err != nil && !force && version == libraryVersion && isForbidden(err) {
			s.log.Warn("the function library is an older build, which stays because it cannot be replaced", "err", err)
		} else if err != nil {
			return err
		}
	} else if version > libraryVersion {
		s.log.Warn("the server has a newer function library; it stays", "installed", version, "ours", libraryVersion)
	}
	return s.loadExtensions(ctx, node, force)
}

var libraryVersion, _ = strconv.Atoi(LibraryVersion)

// functionVersion asks a library for its version; 0 when it is not there.
func functionVersion(ctx context.Context, node valkey.Client, function string) (int, error) {
	text, err := node.Do(ctx, node.B().Fcall().Function(function).Numkeys(0).Build()).ToString()
	if isMissing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, nil //nolint:nilerr // a library that cannot name its version is replaced
	}
	return n, nil
}

// isOlderBuild reports whether the compatible library of a node is ours and older.
func isOlderBuild(ctx context.Context, node valkey.Client) bool {
	list, err := node.Do(ctx, node.B().FunctionList().Libraryname(LibraryName).Withcode().Build()).ToArray()
	if err != nil || len(list) == 0 {
		return false
	}
	entry, err := list[0].AsMap()
	if err != nil {
		return false
	}
	code := entry["library_code"]
	text, _ := code.ToString()
	installed, ours := buildOf(text), buildOf(libraryHeader)
	return installed > 0 && installed < ours
}

// buildOf is the number of a build of ours; 0 for a library of somebody else.
func buildOf(code string) int {
	_, rest, ok := strings.Cut(code, "-- flowfabric for Go, build ")
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.Atoi(strings.TrimSpace(line))
	return n
}

// loadFunctions loads one library, trying again while the node is not ready
// (spec 02 §8.2).
func (s *Store) loadFunctions(ctx context.Context, node valkey.Client, source string) error {
	for _, pause := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 7 * time.Second, 0} {
		err := node.Do(ctx, node.B().FunctionLoad().Replace().FunctionCode(source).Build()).Error()
		if err == nil {
			return nil
		}
		text := err.Error()
		if strings.Contains(text, "Error compiling") || strings.Contains(text, "syntax error") || strings.Contains(text, "Function load") {
			return ff.Errorf(ff.CodeInternal, "the server refuses a function library: %w", err)
		}
		lifted := s.lift(ctx, err)
		if pause == 0 || ff.CodeOf(lifted) == ff.CodeUnsupportedStore || errors.Is(lifted, context.Canceled) {
			return lifted
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return lifted
		}
	}
	return nil
}

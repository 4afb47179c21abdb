package valkey

import (
	"context"
	"strings"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// ExtensionUse says whether a store uses the extension library. Without it everything
// works through the compatible functions, with more round trips; only the log of all
// events is missing.
type ExtensionUse string

const (
	// ExtensionsAuto uses the extensions where they are there or can be loaded.
	ExtensionsAuto ExtensionUse = ""
	// ExtensionsOff does without.
	ExtensionsOff ExtensionUse = "off"
	// ExtensionsRequired refuses a server that does not let them be loaded.
	ExtensionsRequired ExtensionUse = "required"
)

// ParseExtensionUse reads auto, off or required; true and false stand for required and
// off. Errors: invalid_input.
func ParseExtensionUse(text string) (ExtensionUse, error) {
	switch v := strings.ToLower(text); v {
	case "", "auto":
		return ExtensionsAuto, nil
	case "off", "false", "0":
		return ExtensionsOff, nil
	case "required", "true", "1":
		return ExtensionsRequired, nil
	}
	return "", ff.InvalidInput("store", "extensions must be auto, off or required (got %q)", text)
}

// loadExtensions loads the extensions where they are missing. Where they may not be
// loaded the store decides to do without, unless it has already begun with them.
func (s *Store) loadExtensions(ctx context.Context, node valkey.Client, force bool) error {
	if s.extensions == ExtensionsOff {
		return nil
	}
	version, err := functionVersion(ctx, node, "ffx_version")
	if err != nil {
		return s.lift(ctx, err)
	}
	if !force && version >= ExtensionsVersion {
		return nil
	}
	err = s.loadFunctions(ctx, node, Extensions())
	switch {
	case err == nil || !isForbidden(err):
		return err
	case s.extensions == ExtensionsRequired:
		return ff.Errorf(ff.CodeUnsupportedStore, "the extensions cannot be loaded (%w): let the user load functions (+function|load), load them by hand "+
			"(flowfabric library --extensions | valkey-cli -x FUNCTION LOAD REPLACE), or do without them (extensions=auto or off)", err)
	}
	s.log.Warn("the extensions cannot be loaded", "store", s.location, "err", err)
	s.extensions = ExtensionsOff
	return nil
}

// isForbidden reports whether the server does not let functions be loaded: the user
// may not, or the command is not there.
func isForbidden(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "noperm") || strings.Contains(text, "unknown command") || strings.Contains(text, "unknown subcommand")
}

// begun is the store as it is to be used after boot.
func (s *Store) begun() ff.Backend {
	if s.extensions == ExtensionsOff {
		s.log.Info("the store works through the compatible functions, without the extensions", "store", s.location)
		return newCompatible(s)
	}
	s.extensions = ExtensionsRequired
	s.ways = ways{find: s.findWork, poll: safetyPoll,
		claim: func(ctx context.Context, at place, t *taking) error { return s.claimAt(ctx, at, t, nil) }}
	return s
}

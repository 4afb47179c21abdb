package sqlite

import (
	"context"
	"errors"
	"fmt"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	zs "zombiezen.com/go/sqlite"
)

func TestErrorsOfSQLiteHaveOurCodes(t *testing.T) {
	for code, want := range map[zs.ResultCode]ff.Code{
		zs.ResultFull:          ff.CodeUnavailable,
		zs.ResultIOErr:         ff.CodeUnavailable,
		zs.ResultIOErrWrite:    ff.CodeUnavailable,
		zs.ResultReadOnly:      ff.CodeUnavailable,
		zs.ResultBusy:          ff.CodeUnavailable,
		zs.ResultCorrupt:       ff.CodeCorruption,
		zs.ResultNoMem:         ff.CodeResourceExhausted,
		zs.ResultConstraint:    ff.CodeInternal,
		zs.ResultCantOpenIsDir: ff.CodeUnavailable,
	} {
		cause := code.ToError()
		err := mapError(fmt.Errorf("step: %w", cause))
		if ff.CodeOf(err) != want || !errors.Is(err, cause) {
			t.Errorf("%s: got %v, want code %s with its cause", code, err, want)
		}
	}
	for _, err := range []error{nil, context.Canceled, ff.NewError(ff.CodeStaleLease, "")} {
		if got := mapError(err); !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
}

package sqlite

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// lock keeps other processes away from a database file for as long as the store
// is open. The lock itself is the operating system's and ends with the process;
// the file beside the database only says who holds it.
type lock struct{ file *os.File }

// holder is the content of the lock file.
type holder struct {
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Started time.Time `json:"started"`
}

// acquire takes the lock of a database file. Errors: unsupported_store naming
// the holder, unavailable when the directory cannot be written.
func acquire(path string) (*lock, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, ff.Errorf(ff.CodeUnavailable, "the lock file cannot be opened (check the permissions of the directory): %w", err)
	}
	free, err := tryLock(f)
	if err != nil {
		_ = f.Close()
		return nil, ff.Errorf(ff.CodeUnavailable, "the lock on %s failed (the file system must support file locks): %w", name, err)
	}
	if !free {
		defer func() { _ = f.Close() }()
		return nil, ff.Errorf(ff.CodeUnsupportedStore, "%s is in use by %s; stop it, or talk to it over its HTTP address instead of opening the file", path, readHolder(f))
	}
	host, _ := os.Hostname()
	b, err := json.Marshal(holder{PID: os.Getpid(), Host: host, Started: time.Now().UTC().Truncate(time.Second)})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(b, '\n'), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, ff.Errorf(ff.CodeUnavailable, "the lock file cannot be written: %w", err)
	}
	return &lock{f}, nil
}

func readHolder(f *os.File) string {
	b, _ := io.ReadAll(io.LimitReader(f, 4096))
	var h holder
	if json.Unmarshal(b, &h) != nil || h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("process %d on host %q, started %s", h.PID, h.Host, h.Started.Format(time.RFC3339))
}

// release gives the lock back. The file stays: deleting it would let two
// processes lock two files of the same name.
func (l *lock) release() {
	_ = l.file.Truncate(0)
	_ = l.file.Close()
}

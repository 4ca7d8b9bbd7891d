package bolt

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"stint/store"
	"stint/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a database that does not care for space.
var small = Options{ReserveBytes: -1, LogBytes: noLog}

// noLog is for tests of the file alone: every change goes to it at once.
const noLog = -1

// logged is small with a log.
var logged = Options{ReserveBytes: -1}

func dbPath(dir string) string { return filepath.Join(dir, "work.db") }

func mustOpen(t testing.TB, dir string, o Options) *DB {
	t.Helper()
	db, err := Open(dbPath(dir), o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db.(*DB)
}

func TestSuite(t *testing.T) {
	tiny := logged
	tiny.LogBytes, tiny.limits.directSize = 2000, 1200
	for name, o := range map[string]Options{"file": small, "log": logged, "tiny log": tiny} {
		t.Run(name, func(t *testing.T) {
			open := func(t *testing.T, dir string) store.DB {
				db, err := Open(dbPath(dir), o)
				if err != nil {
					t.Fatalf("open: %v", err)
				}
				return db
			}
			storetest.Run(t, open, storetest.Caps{Survives: true, Checks: 30})
		})
	}
}

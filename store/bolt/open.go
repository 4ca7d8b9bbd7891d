package bolt

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"stint/internal/defect"
	"stint/store"
	"stint/store/internal/inbox"
)

// Options are how a database is opened. The zero value is good.
type Options struct {
	// Health is told when writes begin to fail and succeed again. It may be called before Open returns.
	Health store.Health
	// Logger hears of damage, a full disk and compaction; nil: nobody.
	Logger *slog.Logger
	// ReserveBytes is how much disk space is kept beside the database for finishing work while the disk is full.
	// 0: 16 MiB; negative: none.
	ReserveBytes int64
	// LogBytes is the room of each of the two files of the log. 0: 4 MiB; negative: there is no log, and every batch is
	// a transaction of the file, which is slower. More makes rarer, larger transactions; the reserve must hold what both
	// make of the file when the disk is full.
	LogBytes int
	// LockTimeout is how long Open waits for another process that has the database open. 0: one second.
	LockTimeout time.Duration
	// BeforeSync is called before each append to the log and each commit of the file, from a goroutine of each, with the number of
	// syncs that follow; for benchmarks that want a slow disk.
	BeforeSync func(syncs int)

	limits limits
	hooks  hooks
}

// hooks let tests put a disk that fails under the engine.
type hooks struct {
	opened   func(*bbolt.DB)             // every handle, before it is used
	allocate func(*os.File, int64) error // how the reserve gets its space
	syncLog  func(*os.File) error        // how an append to the log is made durable
}

// limits are the figures that tests make small.
type limits struct {
	freelistLong int           // pages; a longer list of free pages is not written at each commit
	compactFrom  int64         // bytes; a smaller file is not compacted
	compactLive  int64         // bytes; more live data than this is not copied while the queues wait
	regainEvery  time.Duration // how often a full disk is tried
	restAfter    time.Duration // without an append, what the log holds is brought into the file
	mmapSize     int           // bytes of address space
	directSize   int           // bytes of a group that goes past the log
}

const (
	defaultReserve = 16 << 20
	defaultLog     = 4 << 20
	defaultLock    = time.Second
	// maxEpoch is the largest epoch that an item id has room for.
	maxEpoch = 1<<(64-store.EpochShift) - 1
	// mapSmall is how much address space is taken at once where there is little of it, in bytes; on 64 bits it is 64 times
	// that. It is not memory. To take more later stops all reads and writes until the last read has ended.
	mapSmall = 1 << 28
	// compactShare: a file is compacted when less than one part in so many is in use.
	compactShare = 4
)

func (o Options) withDefaults() Options {
	if o.Health == nil {
		o.Health = func(error) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserve
	}
	o.ReserveBytes = max(0, o.ReserveBytes)
	if o.LogBytes == 0 {
		o.LogBytes = defaultLog
	}
	if o.LockTimeout == 0 {
		o.LockTimeout = defaultLock
	}
	if o.BeforeSync == nil {
		o.BeforeSync = func(int) {}
	}
	o.limits = o.limits.withDefaults()
	if o.LogBytes > 0 {
		o.limits.directSize = min(o.limits.directSize, o.LogBytes/2) // a group must have room in the log
	}
	if o.hooks.opened == nil {
		o.hooks.opened = func(*bbolt.DB) {}
	}
	if o.hooks.allocate == nil {
		o.hooks.allocate = allocate
	}
	if o.hooks.syncLog == nil {
		o.hooks.syncLog = syncData
	}
	return o
}

func (l limits) withDefaults() limits {
	if l.freelistLong == 0 {
		l.freelistLong = 4096
	}
	if l.compactFrom == 0 {
		l.compactFrom = 64 << 20
	}
	if l.compactLive == 0 {
		l.compactLive = 32 << 20
	}
	if l.regainEvery == 0 {
		l.regainEvery = 250 * time.Millisecond
	}
	if l.restAfter == 0 {
		l.restAfter = time.Second
	}
	if l.directSize == 0 {
		l.directSize = directSize
	}
	if l.mmapSize == 0 {
		l.mmapSize = mapSmall
		if strconv.IntSize == 64 {
			l.mmapSize = mapSmall << 6
		}
	}
	return l
}

// Open opens the database at path, or makes it, with the directories above it. Only one process can have it open.
//
// Errors: store.ErrLocked, store.ErrNewer, store.ErrCorrupt, store.ErrFull when there is no room even for the first
// small commit, and those of the file system.
func Open(path string, opts Options) (store.DB, error) {
	opts = opts.withDefaults()
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock, err := takeLock(path+lockSuffix, opts.LockTimeout)
	if err != nil {
		return nil, err
	}
	db, err := openLocked(path, opts)
	if err != nil {
		lock.Close()
		return nil, err
	}
	db.lock = lock
	go db.writer.run()
	go db.front.run()
	return db, nil
}

func openLocked(path string, opts Options) (*DB, error) {
	if err := removeLeftovers(path); err != nil {
		return nil, err
	}
	absent, err := isAbsent(path)
	if err != nil {
		return nil, err
	}
	if absent {
		if err := runSteps(creation(path)); err != nil {
			return nil, fullOr(err)
		}
	}
	if err := verify(path); err != nil {
		return nil, err
	}
	h, err := openHandle(path, opts)
	if err != nil {
		return nil, err
	}
	return start(path, opts, h)
}

// fullOr names a lack of space in the setting up of files, where nothing is at stake yet.
func fullOr(err error) error {
	if isNoSpace(err) {
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return err
}

// start makes the database of an open handle, in a new epoch.
func start(path string, opts Options, h *bbolt.DB) (*DB, error) {
	db := &DB{
		path: path, opts: opts, handle: h,
		in:     inbox.New[request](inboxRoom),
		queues: make(map[string]*Queue),
	}
	w := newWriter(db)
	db.writer = w
	db.front = newFront(db, w)
	if err := w.begin(); err != nil {
		err = errors.Join(err, db.closeHandle())
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// openHandle opens the file with bbolt and checks that it is ours. Damage that makes bbolt panic is an error here.
func openHandle(path string, opts Options) (h *bbolt.DB, err error) {
	var file *os.File
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = corrupt(path, fmt.Errorf("%v", p))
		}
		if err != nil {
			if h != nil {
				_ = h.Close() // nothing was written
			} else if file != nil {
				letGo(file) // bbolt does not when it panics
			}
			h = nil
		}
	}()
	o := &bbolt.Options{
		Timeout:      opts.LockTimeout,
		FreelistType: bbolt.FreelistMapType,
		// With the list as the file has it, opening writes nothing: a newer format is left alone, and a full disk is no hindrance.
		NoFreelistSync:  true,
		NoSync:          defect.NoSync,
		NoGrowSync:      defect.NoSync,
		InitialMmapSize: opts.limits.mmapSize,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag&^os.O_CREATE, mode)
			file = f
			return f, err
		},
	}
	h, err = openMapped(path, o)
	if err != nil {
		return nil, explain(path, err)
	}
	opts.hooks.opened(h)
	return h, checkFile(h, file)
}

// openMapped opens with less address space where there is not so much.
func openMapped(path string, o *bbolt.Options) (*bbolt.DB, error) {
	for {
		h, err := bbolt.Open(path, 0o600, o)
		if err == nil || o.InitialMmapSize == 0 || !cannotMap(err) {
			return h, err
		}
		o.InitialMmapSize /= 16
		if o.InitialMmapSize < 1<<20 {
			o.InitialMmapSize = 0
		}
	}
}

func explain(path string, err error) error {
	var pe *os.PathError
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%w: %s; stop the other process, or give this one another directory", store.ErrLocked, path)
	case errors.As(err, &pe), cannotMap(err):
		return fmt.Errorf("open %s: %w", path, err)
	}
	return corrupt(path, err)
}

// corrupt says what is wrong with a file and what to do.
func corrupt(path string, cause error) error {
	return fmt.Errorf("%w: %s: %w; put a backup in its place, or move it away to start with an empty one",
		store.ErrCorrupt, path, cause)
}

// checkFile makes sure that a file that bbolt can open is whole and of a format we know.
func checkFile(h *bbolt.DB, file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("look at the database: %w", err)
	}
	return h.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return corrupt(file.Name(), fmt.Errorf("it has %d bytes, but was written with %d", info.Size(), tx.Size()))
		}
		b := tx.Bucket(metaBucket)
		if b == nil {
			return corrupt(file.Name(), errors.New("it is not one of this program's databases"))
		}
		format, err := decodeMeta(formatKey, b.Get(formatKey))
		if err != nil {
			return corrupt(file.Name(), fmt.Errorf("its format: %w", err))
		}
		if format > formatVersion {
			return fmt.Errorf("%w: %s has format %d, this program reads up to %d; use the program that wrote it, or a later one",
				store.ErrNewer, file.Name(), format, formatVersion)
		}
		return nil
	})
}

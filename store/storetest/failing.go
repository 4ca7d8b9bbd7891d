package storetest

import (
	"sync"

	"stint/store"
)

// Verdict is what happens to a batch. The zero value lets it pass.
type Verdict struct {
	// Err is the outcome the caller is told, instead of the engine's.
	Err error
	// Apply hands the batch to the engine although Err is set: the write that failed and yet is there.
	Apply bool
	// Hold keeps the outcome back until Release. Whether the engine has the batch is not affected.
	Hold bool
}

// FailingDB passes a database on, but for what its verdicts say. Make it with [Failing].
type FailingDB struct {
	db     store.DB
	decide func(queue string, b *store.Batch) Verdict

	mu   sync.Mutex // guards held
	held []func()
}

// Failing wraps a database. decide is called for each batch, in the goroutine that submits it; nil lets all pass.
func Failing(db store.DB, decide func(queue string, b *store.Batch) Verdict) *FailingDB {
	return &FailingDB{db: db, decide: decide}
}

// Held is how many outcomes are kept back at this moment.
func (f *FailingDB) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.held)
}

// Release tells the outcomes that are kept back, in the order in which they came, from the caller's goroutine, and returns how
// many there were.
func (f *FailingDB) Release() int {
	f.mu.Lock()
	held := f.held
	f.held = nil
	f.mu.Unlock()
	for _, tell := range held {
		tell()
	}
	return len(held)
}

// Queue implements store.DB.
func (f *FailingDB) Queue(name string) (store.Queue, error) {
	q, err := f.db.Queue(name)
	if err != nil {
		return nil, err
	}
	return &failingQueue{Queue: q, db: f, name: name}, nil
}

// Close implements store.DB. What is still held is told first.
func (f *FailingDB) Close() error {
	err := f.db.Close()
	f.Release()
	return err
}

type failingQueue struct {
	store.Queue
	db   *FailingDB
	name string
}

// Submit implements store.Queue.
func (q *failingQueue) Submit(b *store.Batch) {
	var v Verdict
	if q.db.decide != nil {
		v = q.db.decide(q.name, b)
	}
	done := func(err error) {
		if v.Err != nil {
			err = v.Err
		}
		q.db.tell(v.Hold, func() { b.Done(err) })
	}
	if v.Err != nil && !v.Apply {
		go done(v.Err)
		return
	}
	q.Queue.Submit(&store.Batch{Ops: b.Ops, Done: done})
}

func (f *FailingDB) tell(hold bool, tell func()) {
	if !hold {
		tell()
		return
	}
	f.mu.Lock()
	f.held = append(f.held, tell)
	f.mu.Unlock()
}

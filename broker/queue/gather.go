package queue

import (
	"time"

	"stint/internal/fifo"
)

const (
	// pace is the least time between two batches while answers flow: what has to be written shares a commit.
	pace = 2 * time.Millisecond
	// Answers flow while there are flowAnswers in flowWindow.
	flowWindow  = 20 * time.Millisecond
	flowAnswers = 80
	// dropPace is how long after the last batch one leaves that only removes replies which their senders have.
	dropPace = 20 * time.Millisecond
	// crowd is how many changes a batch has at least after which the next one waits for half as many, for as long as a write
	// usually takes and maxCompany at most.
	crowd      = 16
	maxCompany = time.Millisecond
	// A new item is not written at once if items are usually answered within quickAlone of their arrival, which the disk takes
	// too, or, while answers flow, within quickAnswer or as soon as the disk would have what is in memory: then its notice does not
	// come later than those that wait for a write. It waits for maxHope at most. An average counts nothing beyond maxUsual.
	quickAlone  = time.Millisecond
	quickAnswer = 4 * time.Millisecond
	maxHope     = 100 * time.Millisecond
	maxUsual    = time.Second
)

// Flow is how busy queues are that share a goroutine and a database. Its zero value is idle.
type Flow struct {
	now, last int // answers since since, and in the window before
	since     time.Time
	write     time.Duration // what a batch usually takes from Take to its result
	bytes     int64         // of the items in a batch, usually
}

// answered notes an answer.
func (f *Flow) answered(now time.Time) {
	switch age := now.Sub(f.since); {
	case age >= 2*flowWindow:
		f.last, f.now, f.since = 0, 0, now
	case age >= flowWindow:
		f.last, f.now, f.since = f.now, 0, now
	}
	f.now++
}

// on says that answers have come one after the other until now.
func (f *Flow) on(now time.Time) bool {
	return max(f.last, f.now) >= flowAnswers && now.Sub(f.since) < 2*flowWindow
}

// wrote notes what a batch took.
func (f *Flow) wrote(bytes int, took time.Duration) {
	f.write += (took - f.write) / 16
	f.bytes += (int64(bytes) - f.bytes) / 16
}

// writing is about how long it takes to write so many bytes.
func (f *Flow) writing(bytes int) time.Duration {
	if int64(bytes) <= f.bytes || f.bytes == 0 {
		return f.write
	}
	return time.Duration(float64(f.write) * float64(bytes) / float64(f.bytes))
}

// hopes are items, oldest first, that are written only if they are not answered soon: nothing of them is on disk and their
// senders have been told nothing. Entries that no longer hope stay until they are met.
type hopes struct {
	fifo.List[*item]
	bytes int
}

func (h *hopes) push(it *item) {
	it.hopes = true
	h.Push(it)
	h.bytes += it.size
}

// first is the oldest that still hopes; nil if none does.
func (h *hopes) first() *item {
	for h.Len() > 0 {
		if it := h.First(); it.hopes && (it.phase == waiting || it.phase == leased) {
			return it
		}
		h.pop()
	}
	return nil
}

func (h *hopes) pop() {
	it := h.Pop()
	it.hopes = false
	h.bytes -= it.size
}

// arrive puts a new item where it is written soon, or only unless it is answered first.
func (q *Queue) arrive(it *item) {
	it.arrived = q.now
	if it.dedupDue || it.spill || q.patience() == 0 {
		q.touch(it)
		return
	}
	q.hopes.push(it)
}

// patience is how long a new item waits for its answer before it is written; 0: not at all, for the usual answer takes longer,
// or none has come yet.
func (q *Queue) patience() time.Duration {
	if q.usual <= quickAlone || q.usual <= max(quickAnswer, q.flow.writing(q.memBytes)) && q.flow.on(q.now) {
		return min(3*q.usual, maxHope)
	}
	return 0
}

// hopeUntil is when the oldest item that hopes has to be written. ok is false when none hopes.
func (q *Queue) hopeUntil() (t time.Time, ok bool) {
	it := q.hopes.first()
	if it == nil || q.stats.Leased == 0 { // nobody is at work on anything
		return time.Time{}, it != nil
	}
	return it.arrived.Add(q.patience()), true
}

// endHopes puts those that have waited long enough with what is written next.
func (q *Queue) endHopes() {
	all := q.hurry()
	for {
		until, ok := q.hopeUntil()
		if !ok || !all && q.now.Before(until) {
			return
		}
		it := q.hopes.first()
		q.hopes.pop()
		q.touch(it)
		q.took(2 * q.now.Sub(it.arrived))
	}
}

// dashHopes puts all of them with what is written next.
func (q *Queue) dashHopes() {
	for it := q.hopes.first(); it != nil; it = q.hopes.first() {
		q.hopes.pop()
		q.touch(it)
	}
}

// hurry says that everything is to be written now.
func (q *Queue) hurry() bool {
	return q.stopping || q.gathered() >= maxPendingOps/4
}

// gatherUntil is how long the next batch waits for company or for answers; the zero time: not at all. Items that wait
// without a processor at work, and senders that wait for one notice at a time, are never held up: a pace needs a flow of
// answers, and to wait for an answer needs processors that usually give it sooner than the disk would.
func (q *Queue) gatherUntil() time.Time {
	if q.hurry() || len(q.regChanges)+len(q.replyPuts)+len(q.extra) > 0 {
		return time.Time{}
	}
	next := q.lastTake.Add(dropPace)
	switch {
	case len(q.dirty) > 0 && !q.flow.on(q.now):
		return q.companyUntil()
	case len(q.dirty) > 0:
		next = q.lastTake.Add(pace)
	case len(q.replyDrops) == 0:
		next, _ = q.hopeUntil()
		return next
	}
	if until, ok := q.hopeUntil(); ok && until.Before(next) {
		return until
	}
	return next
}

// companyUntil is how long a small batch that follows a large one waits for company. Senders with many items on their way would
// otherwise have nearly all of them in one batch, then all have nothing to do until it is written, then a few of them in the
// next: in halves, one is on its way while the other is written.
func (q *Queue) companyUntil() time.Time {
	if q.lastSize < crowd || 2*len(q.dirty) >= q.lastSize {
		return time.Time{}
	}
	return q.lastDone.Add(min(q.flow.write, maxCompany))
}

// answered notes how long an item took from its arrival to its answer. What was read back has waited for long.
func (q *Queue) answered(it *item) {
	q.flow.answered(q.now)
	if it.arrived.IsZero() {
		q.took(maxUsual)
		return
	}
	q.took(q.now.Sub(it.arrived))
}

// took is a moving average, of times that are all more than 0.
func (q *Queue) took(t time.Duration) {
	t = max(min(t, maxUsual), time.Microsecond)
	if q.usual == 0 {
		q.usual = t
		return
	}
	q.usual += (t - q.usual) / 16
}

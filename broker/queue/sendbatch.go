package queue

import (
	"bytes"
	"strings"

	"stint/wire"
)

// ReplyTo is where the reply to an item of a batch goes: the message's reply subject and, behind a space, the key of the
// item; with gathered another space and a g. It stands in the item's record in place of the subject, so that a reply keeps
// its key over a restart. (A header of the item's would reach the processor.) Without a subject it is empty.
func ReplyTo(subject, key string, gathered bool) string {
	if subject == "" {
		return ""
	}
	return string(AppendReplyTo(nil, subject, []byte(key), gathered))
}

// AppendReplyTo appends to dst what CutReplyTo takes apart: what ReplyTo gives, or without a subject the key alone.
func AppendReplyTo(dst []byte, subject string, key []byte, gathered bool) []byte {
	if subject == "" {
		return append(dst, key...)
	}
	dst = append(append(append(dst, subject...), ' '), key...)
	if gathered {
		dst = append(dst, gatheredMark...)
	}
	return dst
}

// CutReplyTo gives what ReplyTo gives, and the key, as parts of what AppendReplyTo wrote for the same subject.
func CutReplyTo(text, subject string, gathered bool) (to, key string) {
	if subject == "" {
		return "", text
	}
	key = text[len(subject)+1:]
	if gathered {
		key = key[:len(key)-len(gatheredMark)]
	}
	return text, key
}

const gatheredMark = " g"

// SplitReply gives the parts of what ReplyTo made. A subject alone is its own first part.
func SplitReply(to string) (subject, key string, gathered bool) {
	at := strings.IndexByte(to, ' ')
	if at < 0 {
		return to, "", false
	}
	key, gathered = strings.CutSuffix(to[at+1:], gatheredMark)
	return to[:at], key, gathered
}

// waiter waits for word that an item is safe: the sender of that one item, or the batch that it came in.
type waiter struct {
	to    string // accept subject; empty: nobody, or batch
	batch *sentBatch
	key   string // of the item in the batch
	again bool   // the item was there before, under the same message id
}

func (w *waiter) waits() bool { return w.to != "" || w.batch != nil }

// sentBatch is a message of several items whose accept notice has not been said.
type sentBatch struct {
	to     string
	left   int // items of which it is not known yet whether they are safe
	notice wire.BatchAccepted
}

// one notes that the fate of one more item is known, and adds the notice when it was the last.
func (b *sentBatch) one(to []Msg) []Msg {
	b.left--
	if b.left > 0 {
		return to
	}
	return append(to, Msg{To: b.to, Body: b.notice.Body()})
}

// sendBatch takes in the items of one message. What the queue has no room for is refused as a whole; what is wrong with
// one item keeps out that one alone. Each frame takes an id, so that a sender can tell the ids from the first.
func (q *Queue) sendBatch(e *SentBatch) {
	if err := q.refusesBatch(e); err != nil {
		q.stats.Refused += uint64(len(e.Items))
		q.refuse(e.AcceptedReply, e.Reply, err)
		return
	}
	waiters := q.waiters(e)
	for i := range e.Items {
		x := &e.Items[i]
		w := waiters[i : i+1 : i+1]
		switch {
		case x.Err != nil:
			q.next++
			q.stats.Refused++
			q.tellWaiter(w[0], x.Err)
			q.sayTo(x.Reply, x.Err)
		case x.MsgID != "" && q.duplicate(&x.Sent, w[0]):
			q.next++
		default:
			q.takeOne(x, w)
		}
	}
}

func (q *Queue) takeOne(x *BatchItem, w []waiter) {
	it := q.newItem(&x.Sent)
	it.shared = true
	if !q.opt.Persistent { // a store in memory keeps what it is given, for as long as it is there
		it.rec.Body = bytes.Clone(it.rec.Body)
	}
	if w[0].waits() {
		it.accepts = w
	}
	q.take(it)
}

func (q *Queue) refusesBatch(e *SentBatch) *wire.Error {
	items, size, ids := 0, 0, 0
	for i := range e.Items {
		x := &e.Items[i]
		if x.Err != nil {
			continue
		}
		items++
		size += x.Size()
		if x.MsgID != "" {
			ids++
		}
	}
	return q.refuses(items, size, ids)
}

// waiters are one for each item, in one piece of memory.
func (q *Queue) waiters(e *SentBatch) []waiter {
	all := make([]waiter, len(e.Items))
	if e.AcceptedReply == "" {
		return all
	}
	b := &sentBatch{to: e.AcceptedReply, left: len(e.Items)}
	b.notice.First, b.notice.Count = q.next+1, len(e.Items)
	for i := range all {
		all[i].batch, all[i].key = b, e.Items[i].Key
	}
	return all
}

// acceptNotices adds the notices for an item that is safe, or will be, to those who sent it alone, with their bodies in text.
func acceptNotices(to []Msg, text []byte, id uint64, accepts []waiter) ([]Msg, []byte) {
	at := len(text)
	for i := range accepts {
		if accepts[i].to == "" {
			continue
		}
		if len(text) == at {
			text = wire.AppendAccepted(text, id, false)
		}
		to = append(to, Msg{To: accepts[i].to, Body: text[at:len(text):len(text)]})
	}
	return to, text
}

// batchNotices are the notices of the batches of which this item was the last that was not safe. Unlike those of
// acceptNotices they cannot be made ready before the commit is known to be good: another item of the batch may be settled
// meanwhile.
func batchNotices(to []Msg, id uint64, accepts []waiter) []Msg {
	for _, w := range accepts {
		if w.batch == nil {
			continue
		}
		if w.again {
			w.batch.notice.Duplicate(w.key, id)
		}
		to = w.batch.one(to)
	}
	return to
}

// sayDuplicate says that an item was there before, as the one with this id.
func (q *Queue) sayDuplicate(w waiter, id uint64) {
	switch {
	case w.batch != nil:
		w.batch.notice.Duplicate(w.key, id)
		q.out.Msgs = w.batch.one(q.out.Msgs)
	case w.to != "":
		q.say(Msg{To: w.to, Body: wire.Accepted(id, true)})
	}
}

// tellWaiter says that an item is not queued, or that nobody knows whether it is.
func (q *Queue) tellWaiter(w waiter, err *wire.Error) {
	if w.batch == nil {
		q.sayTo(w.to, err)
		return
	}
	w.batch.notice.Refuse(w.key, err)
	q.out.Msgs = w.batch.one(q.out.Msgs)
}

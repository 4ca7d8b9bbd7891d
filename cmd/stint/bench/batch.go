package bench

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// sendBatch sends the items of the slots in one message. Items of one message are for one queue.
func (s *sender) sendBatch(slots []int, now time.Duration) error {
	s.messages++
	number := s.sent.Add(int64(len(slots))) - int64(len(slots))
	first := &s.slots[slots[0]]
	first.batch = append(first.batch[:0], slots...)
	s.out = s.out[:0]
	for at, i := range slots {
		slot := &s.slots[i]
		putStamp(slot.msg.Data, number+int64(at), now)
		slot.at.Store(int64(now))
		var key [4]byte
		s.out = wire.AppendFrame(s.out, strconv.AppendInt(key[:0], int64(at), 10), nil, slot.msg.Data)
	}
	err := s.nc.PublishMsg(&nats.Msg{
		Subject: s.Queues[s.messages%len(s.Queues)],
		Reply:   s.replies,
		Header: nats.Header{
			wire.HeaderBatch:         {strconv.Itoa(len(slots))},
			wire.HeaderBatchReplies:  {"gathered"},
			wire.HeaderAcceptedReply: first.msg.Header[wire.HeaderAcceptedReply],
		},
		Data: s.out,
	})
	if err != nil {
		return fmt.Errorf("publishing %d items from %d on: %w", len(slots), number, err)
	}
	return nil
}

// acceptedBatch takes the notice for the items of the slots.
func (s *sender) acceptedBatch(slots []int, notice []byte) error {
	b, ok := wire.ParseBatchAccepted(notice)
	if !ok {
		return fmt.Errorf("the accept notice is not one of a batch: %.200q", notice)
	}
	if b.Count != len(slots) || len(b.Refused)+len(b.Duplicates) > 0 {
		return fmt.Errorf("of %d items not all were accepted: %.200q", len(slots), notice)
	}
	for _, i := range append([]int(nil), slots...) { // the first slot is used again once it is free
		s.acceptedOne(i)
	}
	return nil
}

// answeredBatch takes the answers of one message.
func (s *sender) answeredBatch(now time.Duration, count string, body []byte) error {
	frames := wire.ReadFrames(count, body)
	for frames.Next() {
		h, err := frames.Header()
		if err != nil {
			return err
		}
		if err := s.answeredOne(now, h, frames.Body); err != nil {
			return err
		}
	}
	if err := frames.Err(); err != nil {
		return fmt.Errorf("a message of answers cannot be read: %w", err)
	}
	return nil
}

// answerBatch answers the items of one message in one. Only when there is no more credit they go in several: what is held
// back here would keep the sender from adding.
func (p *processor) answerBatch(lease, count string, body []byte) error {
	frames := wire.ReadFrames(count, body)
	n := 0
	for frames.Next() {
		if len(frames.Body) < stampSize {
			return fmt.Errorf("an item of %d bytes came, which nobody sent", len(frames.Body))
		}
		if p.credit != nil && !p.credit.tryTake() {
			if err := p.publishFrames(lease, n); err != nil {
				return err
			}
			n = 0
			p.credit.take()
		}
		p.out = wire.AppendFrame(p.out, frames.Key, nil, frames.Body[:stampSize])
		n++
	}
	if err := frames.Err(); err != nil {
		return fmt.Errorf("a message of work cannot be read: %w", err)
	}
	return p.publishFrames(lease, n)
}

// publishFrames publishes the frames that have gathered.
func (p *processor) publishFrames(lease string, n int) error {
	if n == 0 {
		return nil
	}
	err := p.nc.PublishMsg(&nats.Msg{Subject: lease, Header: nats.Header(wire.BatchHeader(n)), Data: p.out})
	p.out = p.out[:0]
	if err != nil {
		return fmt.Errorf("answering: %w", err)
	}
	return nil
}

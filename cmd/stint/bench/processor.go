package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"stint/wire"
)

// workTimeout is how long an item may stay with a processor before another gets it: what Stint's queues have by default.
const workTimeout = 5 * time.Minute

// processor is a process that answers.
type processor struct {
	spec
	nc     *nats.Conn
	credit *credit // nil: it may answer as fast as it can
	out    []byte  // frames of the message that is being made
}

func (p *processor) name() string { return fmt.Sprintf("processor %d", p.Index+1) }

func (p *processor) ready(context.Context) (event, error) {
	var err error
	p.nc, err = connect(p.URL, p.name(), p.fail)
	return event{}, err
}

// fail reports what goes wrong between commands. It goes to standard error, which the runner shows when the round fails; and
// the round does fail, for want of answers at the latest.
func (p *processor) fail(err error) { fmt.Fprintf(os.Stderr, "%s: %v\n", p.name(), err) }

func (p *processor) do(ctx context.Context, command string, _ func(event) error) (event, error) {
	if command != doWork {
		return event{}, unknownCommand(command)
	}
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	if p.Backlog > 0 {
		if err := p.listenForCredit(); err != nil {
			return event{}, err
		}
	}
	switch p.Kind {
	case JetStream, JetStreamSync:
		return event{}, p.pull(ctx)
	case Relay:
		return event{}, p.subscribe(ctx)
	}
	return event{}, errors.Join(p.subscribe(ctx), p.register(ctx))
}

// subscribe answers work as it comes. The broker does not send more than the capacity.
func (p *processor) subscribe(ctx context.Context) error {
	err := listen(p.nc, processorSubject(p.Index), func(m *nats.Msg) {
		answer := p.answer
		if count := wire.BatchCount(wire.Header(m.Header)); count != "" {
			answer = func(lease string, body []byte) error { return p.answerBatch(lease, count, body) }
		}
		if err := answer(m.Reply, m.Data); err != nil {
			p.fail(err)
		}
	})
	if err != nil {
		return err
	}
	return p.nc.FlushWithContext(ctx)
}

func (p *processor) answer(subject string, body []byte) error {
	if len(body) < stampSize {
		return fmt.Errorf("an item of %d bytes came, which nobody sent", len(body))
	}
	if p.credit != nil {
		p.credit.take()
	}
	if err := p.nc.Publish(subject, body[:stampSize]); err != nil {
		return fmt.Errorf("answering: %w", err)
	}
	return nil
}

func (p *processor) register(ctx context.Context) error {
	body := wire.RegisterBody(wire.Registration{Processor: processorSubject(p.Index), Capacity: p.Capacity, Batch: p.Batch})
	for _, address := range p.Queues {
		m, err := p.nc.RequestWithContext(ctx, wire.RegisterSubject(address), body)
		if err != nil {
			return fmt.Errorf("registering with %s: %w", address, err)
		}
		if status, _ := wire.ParseStatus(m.Data); status.Status != "ok" {
			return fmt.Errorf("registering with %s: the answer is %.200q", address, m.Data)
		}
	}
	return nil
}

// pull takes work from JetStream.
func (p *processor) pull(ctx context.Context) error {
	js, err := jetstream.New(p.nc)
	if err != nil {
		return err
	}
	for _, address := range p.Queues {
		consumer, err := js.CreateOrUpdateConsumer(ctx, streamName(address), p.consumerConfig())
		if err != nil {
			return fmt.Errorf("making the consumer of %s: %w", address, err)
		}
		_, err = consumer.Consume(p.take, jetstream.PullMaxMessages(p.Capacity),
			jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { p.fail(err) }))
		if err != nil {
			return fmt.Errorf("pulling from %s: %w", address, err)
		}
	}
	return p.nc.FlushWithContext(ctx)
}

func (p *processor) consumerConfig() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       consumerName,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       workTimeout,
		MaxAckPending: p.Processors * p.Capacity,
	}
}

func (p *processor) take(m jetstream.Msg) {
	err := p.answer(m.Headers().Get(headerReply), m.Data())
	if err == nil {
		err = m.Ack()
	}
	if err != nil {
		p.fail(err)
	}
}

func (p *processor) close() {
	if p.nc != nil {
		p.nc.Close()
	}
}

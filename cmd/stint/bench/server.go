package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Hosts start what the server process of a round runs. The command line fills it in, as it knows how serve does it.
type Hosts struct {
	// Stint runs the broker as serve does, with its databases in dir, on a free loopback port, with a persistent queue at
	// each address. beforeSync, unless nil, is called before so many syncs of a database.
	Stint func(ctx context.Context, dir string, addresses []string, beforeSync func(syncs int)) (Host, error)
	// NATS runs the same NATS server and no broker. config is text for its server file; it may be empty.
	NATS func(ctx context.Context, dir, config string) (Host, error)
}

// Host is something that runs.
type Host struct {
	URL string
	// Connect makes a connection from within the process, as the broker's own is made. NATS sets it.
	Connect func() (*nats.Conn, error)
	Close   func() error
}

// server is the process in the middle.
type server struct {
	spec
	hosts   Hosts
	host    Host
	relay   *relay
	profile *os.File // nil: none is being written
}

func (s *server) ready(ctx context.Context) (event, error) {
	var err error
	switch s.Kind {
	case Stint, StintSlow:
		s.host, err = s.hosts.Stint(ctx, s.Dir, s.Queues, s.slowSync())
	case Relay:
		err = s.startRelay(ctx)
	case JetStream, JetStreamSync:
		err = s.startJetStream(ctx)
	default:
		err = fmt.Errorf("there is no kind %q", s.Kind)
	}
	return event{URL: s.host.URL}, err
}

// slowSync delays syncs.
func (s *server) slowSync() func(int) {
	if s.SlowSync == 0 {
		return nil
	}
	return func(syncs int) { <-time.After(time.Duration(syncs) * s.SlowSync) }
}

func (s *server) startRelay(ctx context.Context) error {
	var err error
	if s.host, err = s.hosts.NATS(ctx, s.Dir, ""); err != nil {
		return err
	}
	nc, err := s.host.Connect()
	if err != nil {
		return err
	}
	s.relay = &relay{nc: nc, failed: make(chan error, 1)}
	return s.relay.start(&s.spec)
}

// startJetStream makes a stream for each queue. The consumers are made by the processors: what nobody takes out needs none.
func (s *server) startJetStream(ctx context.Context) error {
	var err error
	if s.host, err = s.hosts.NATS(ctx, s.Dir, s.jetStreamConfig()); err != nil {
		return err
	}
	nc, err := s.host.Connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	for _, address := range s.Queues {
		if _, err := js.CreateStream(ctx, streamConfig(address)); err != nil {
			return fmt.Errorf("making the stream %s: %w", address, err)
		}
	}
	return nil
}

func (s *server) jetStreamConfig() string {
	sync := ""
	if s.Kind == JetStreamSync {
		sync = "  sync_interval: always\n"
	}
	return "jetstream {\n  store_dir: " + strconv.Quote(filepath.ToSlash(filepath.Join(s.Dir, "jetstream"))) + "\n" + sync + "}\n"
}

func streamConfig(address string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:      streamName(address),
		Subjects:  []string{address},
		Retention: jetstream.WorkQueuePolicy,
		Storage:   jetstream.FileStorage,
		Replicas:  1,
	}
}

func (s *server) do(_ context.Context, command string, _ func(event) error) (event, error) {
	switch command {
	case doBegin:
		return event{}, s.begin()
	case doFinish:
		return event{}, errors.Join(s.finish(), s.relayFailure())
	}
	return event{}, unknownCommand(command)
}

func (s *server) relayFailure() error {
	if s.relay == nil {
		return nil
	}
	select {
	case err := <-s.relay.failed:
		return err
	default:
		return nil
	}
}

// begin starts the processor profile, if one is wanted.
func (s *server) begin() error {
	if s.CPUProfile == "" {
		return nil
	}
	file, err := os.Create(s.CPUProfile)
	if err != nil {
		return fmt.Errorf("making the file of --cpuprofile: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return errors.Join(err, file.Close())
	}
	s.profile = file
	return nil
}

// finish writes the profiles.
func (s *server) finish() error {
	var err error
	if s.profile != nil {
		pprof.StopCPUProfile()
		err = s.profile.Close()
		s.profile = nil
	}
	if s.MemProfile == "" {
		return err
	}
	file, err2 := os.Create(s.MemProfile)
	if err2 != nil {
		return errors.Join(err, fmt.Errorf("making the file of --memprofile: %w", err2))
	}
	runtime.GC() // which the profile's figures of what is in use are of
	return errors.Join(err, pprof.WriteHeapProfile(file), file.Close())
}

// close leaves the files as they are: they are removed.
func (s *server) close() {
	if s.relay != nil {
		s.relay.nc.Close()
	}
	if s.host.Close != nil {
		_ = s.host.Close() // what it could not write is removed anyway
	}
}

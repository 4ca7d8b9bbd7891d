package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	serverReady   = 10 * time.Second // for the server inside to listen
	readyStep     = 50 * time.Millisecond
	reservedFiles = 256      // descriptors kept for databases, logs and the server's other listeners
	defaultConns  = 64 << 10 // connections, where the limit of descriptors allows them
	fewestConns   = 16
	closedConns   = 100 // that the server remembers for its monitoring; its own default is 10,000, which was 130 MB
)

// embedded is the NATS server inside the process.
type embedded struct {
	server *server.Server
	opts   *server.Options
	log    *natsLog
	login  login
	once   sync.Once
}

// startNATS runs a NATS server and comes back when clients can connect.
func startNATS(c *config, log *slog.Logger) (*embedded, error) {
	e, err := setUpNATS(c, log)
	if err != nil {
		return nil, err
	}
	if err := e.listen(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// setUpNATS runs a NATS server that is reached from inside the process only, until it listens. One with routes listens
// at once, for the server waits with them until it does.
func setUpNATS(c *config, log *slog.Logger) (*embedded, error) {
	o, who, err := serverOptions(c, log)
	if err != nil {
		return nil, err
	}
	if err := checkFree(o.Host, o.Port); err != nil {
		return nil, err
	}
	o.DontListen = o.Cluster.Port == 0
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("setting up the NATS server: %w", err)
	}
	e := &embedded{server: s, opts: o, login: who, log: newNATSLog(log, c.NATS.Config != "")}
	s.SetLoggerV2(e.log, o.Debug, o.Trace, o.TraceVerbose)
	s.Start()
	if err := e.ready(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// listen lets clients in.
func (e *embedded) listen() error {
	if e.opts.DontListen {
		e.server.AcceptLoop(make(chan struct{})) // which comes back when the listener is there
	}
	return e.ready()
}

// ready waits for the listener. A server that could not have it logs a fatal error and counts as running otherwise.
func (e *embedded) ready() error {
	for deadline := time.Now().Add(serverReady); ; {
		ok := e.server.ReadyForConnections(readyStep)
		select {
		case err := <-e.log.fatal:
			return err
		default:
		}
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the NATS server does not listen on %s after %s: look at its log above",
				hostPort(e.opts.Host, e.opts.Port), serverReady)
		}
	}
}

// failed yields the error with which the server gave up.
func (e *embedded) failed() <-chan error { return e.log.fatal }

// close may be called more than once, which the server itself does not allow.
func (e *embedded) close() {
	e.once.Do(func() {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	})
}

// url is where clients connect.
func (e *embedded) url() string { return e.server.ClientURL() }

// connect makes the broker's own connection.
func (e *embedded) connect(options ...nats.Option) (*nats.Conn, error) {
	url, all := e.ownURL(), e.login.options
	if e.login.inside {
		all = append(all, nats.InProcessServer(e.server))
	}
	nc, err := nats.Connect(url, append(all, options...)...)
	if err != nil {
		return nil, fmt.Errorf("connecting the broker to its NATS server at %s: %w", url, err)
	}
	return nc, nil
}

// ownURL is the client address as this process reaches it: loopback if the server listens everywhere.
func (e *embedded) ownURL() string {
	host, port := e.opts.Host, e.opts.Port
	if a, ok := e.server.Addr().(*net.TCPAddr); ok {
		port = a.Port
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "nats://" + hostPort(host, port)
}

// presence is what the server knows about subscriptions in the account of the broker's connection. Its functions are nil
// where the server cannot know: subscriptions behind a gateway are not announced.
type presence struct {
	interest func(subject string) bool
	changes  func() uint64 // another number when subscriptions come or go
}

func (e *embedded) presence(nc *nats.Conn) (presence, error) {
	if e.opts.Gateway.Name != "" {
		return presence{}, nil
	}
	id, err := nc.GetClientID()
	if err != nil {
		return presence{}, fmt.Errorf("asking for the id of the broker's connection: %w", err)
	}
	conns, err := e.server.Connz(&server.ConnzOptions{CID: id, Username: true})
	if err != nil {
		return presence{}, fmt.Errorf("looking up the broker's connection: %w", err)
	}
	if len(conns.Conns) != 1 {
		return presence{}, errors.New("the NATS server does not know the broker's connection: was it closed?")
	}
	name := conns.Conns[0].Account
	if name == "" {
		name = server.DEFAULT_GLOBAL_ACCOUNT // which the server leaves out
	}
	account, err := e.server.LookupAccount(name)
	if err != nil {
		return presence{}, fmt.Errorf("looking up the broker's account %q: %w", name, err)
	}
	return presence{account.SubscriptionInterest, func() uint64 { return e.turnover(name) }}, nil
}

// turnover counts the subscriptions that have come and gone in an account. How many there are would not do: that is the
// same after one has left and another come.
func (e *embedded) turnover(account string) uint64 {
	z, err := e.server.Subsz(&server.SubszOptions{Account: account})
	if err != nil {
		return 0 // never for these options; processors are then looked at now and then, as without a number
	}
	return z.NumInserts + z.NumRemoves
}

// serverOptions are those of the server inside the process: the server file's, if one is named, and ours where it says
// nothing. It changes nothing outside.
func serverOptions(c *config, log *slog.Logger) (*server.Options, login, error) {
	o := &server.Options{}
	if file := c.NATS.Config; file != "" {
		var err error
		if o, err = server.ProcessConfigFile(file); err != nil {
			return nil, login{}, fmt.Errorf("the NATS server file of nats.config is not valid: %w", err)
		}
		warnIgnored(o, file, log)
	}
	o.NoSigs = true
	// Each lease is a subject of its own, which nothing is published to again: they push out of the cache what is. With 1,000 busy
	// queues an item costs a seventh less without one.
	o.NoSublistCache = true
	o.ConfigFile = "" // a reload would drop the broker's own user; so it is refused
	listenOn(o, c, log)
	if o.MaxPayload == 0 {
		o.MaxPayload = int32(max(server.MAX_PAYLOAD_SIZE, c.neededPayload()))
	}
	if o.JetStream && o.StoreDir == "" {
		o.StoreDir = filepath.Join(c.DataDir, "jetstream") // its own default lies below the system's temporary files
	}
	if o.MaxClosedClients == 0 {
		o.MaxClosedClients = closedConns
	}
	limitConnections(o, log)
	who, err := loginFor(c, o)
	return o, who, err
}

// listenOn decides about the address: the flag, then the server file, then the configuration.
func listenOn(o *server.Options, c *config, log *slog.Logger) {
	named := o.Host != "" || o.Port != 0
	if named && !c.listenFlag {
		if c.listenGiven {
			log.Warn("listen of the configuration is not used: the NATS server file names an address", "file", c.NATS.Config)
		}
		return
	}
	host, port, _ := net.SplitHostPort(c.Listen)
	o.Host = host
	if o.Host == "" {
		o.Host = server.DEFAULT_HOST
	}
	o.Port, _ = strconv.Atoi(port)
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT // 0 would mean 4222
	}
}

func warnIgnored(o *server.Options, file string, log *slog.Logger) {
	if o.LogFile != "" || o.Syslog || o.RemoteSyslog != "" {
		log.Warn("log settings of the NATS server file are not used: stint logs for the server", "file", file)
	}
}

// limitConnections keeps clients from using up the file descriptors, without which neither a database nor a log can be
// opened. A client beyond the limit is told so by the server.
func limitConnections(o *server.Options, log *slog.Logger) {
	room := max(fewestConns, fileLimit()-reservedFiles)
	if o.MaxConn == 0 {
		o.MaxConn = min(defaultConns, room)
	}
	if o.MaxConn > room {
		log.Warn("max_connections is above what the limit of open files allows: raise the limit (ulimit -n)",
			"max_connections", o.MaxConn, "allowed", room)
	}
}

// neededPayload is what the largest item of any queue needs.
func (c *config) neededPayload() int64 {
	var largest int64
	for _, q := range c.Queues {
		largest = max(largest, q.MaxItemBytes)
	}
	return largest + payloadExtra
}

// checkPayload says which queue takes items that the server would not let through.
func (c *config) checkPayload(limit int64) error {
	for _, q := range c.Queues {
		if q.MaxItemBytes+payloadExtra > limit {
			return fmt.Errorf("queue %s: max_item_bytes is %d, which with %d bytes for headers is above the NATS server's "+
				"max_payload of %d: lower it to %d, or raise max_payload in the server's configuration",
				q.Address, q.MaxItemBytes, payloadExtra, limit, limit-payloadExtra)
		}
	}
	return nil
}

// checkFree tries the address first: a NATS server that cannot have it goes on without a listener.
func checkFree(host string, port int) error {
	switch port {
	case server.RANDOM_PORT:
		port = 0
	case 0:
		port = server.DEFAULT_PORT
	}
	l, err := net.Listen("tcp", hostPort(host, port))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cannot listen on %s: the address is in use: stop the broker or NATS server that runs there, or "+
			"choose another address with --listen or the key listen", hostPort(host, port))
	case err != nil:
		return fmt.Errorf("cannot listen on %s: %w: choose another address with --listen or the key listen",
			hostPort(host, port), err)
	}
	return l.Close()
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

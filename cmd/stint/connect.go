package main

import (
	"errors"
	"os"
	"time"

	"github.com/nats-io/jsm.go/natscontext"
	"github.com/nats-io/nats.go"
	"github.com/spf13/pflag"
)

const (
	connectTimeout = 5 * time.Second
	reconnectWait  = 250 * time.Millisecond // a broker that restarts is soon back
)

// connectFlags say where a client command connects, with the names, variables and contexts of the nats command: a flag
// goes before its variable, and both before the context, which is the selected one unless another is named.
type connectFlags struct {
	server, context, creds, user, password, nkey string
	ca, cert, key                                string
	inboxPrefix                                  string
}

// connectVariables are the environment variables that stand in for flags.
func (f *connectFlags) variables() map[string]*string {
	return map[string]*string{
		"NATS_URL": &f.server, "NATS_CONTEXT": &f.context, "NATS_CREDS": &f.creds,
		"NATS_USER": &f.user, "NATS_PASSWORD": &f.password, "NATS_NKEY": &f.nkey,
		"NATS_CA": &f.ca, "NATS_CERT": &f.cert, "NATS_KEY": &f.key, "NATS_INBOX_PREFIX": &f.inboxPrefix,
	}
}

func (f *connectFlags) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.server, "server", "s", "", "NATS `URL` (NATS_URL); default nats://127.0.0.1:4222")
	flags.StringVar(&f.context, "context", "", "`NAME` of a context of the nats command (NATS_CONTEXT)")
	flags.StringVar(&f.creds, "creds", "", "credentials `FILE` (NATS_CREDS)")
	flags.StringVar(&f.user, "user", "", "`NAME` of a user, or a token (NATS_USER)")
	flags.StringVar(&f.password, "password", "", "the user's `PASSWORD` (NATS_PASSWORD)")
	flags.StringVar(&f.nkey, "nkey", "", "key seed `FILE` (NATS_NKEY)")
	flags.StringVar(&f.ca, "tlsca", "", "certificate authority `FILE` (NATS_CA)")
	flags.StringVar(&f.cert, "tlscert", "", "client certificate `FILE` (NATS_CERT)")
	flags.StringVar(&f.key, "tlskey", "", "client key `FILE` (NATS_KEY)")
	flags.StringVar(&f.inboxPrefix, "inbox-prefix", "", "`SUBJECT` above the inboxes instead of _INBOX (NATS_INBOX_PREFIX)")
}

// connect gives a connection or a failure with the exit code for it.
func (f *connectFlags) connect(name string, more ...nats.Option) (*nats.Conn, error) {
	for variable, flag := range f.variables() {
		if *flag == "" {
			*flag = os.Getenv(variable)
		}
	}
	from, err := natscontext.New(f.context, f.hasContext(), f.overrides()...)
	if err != nil {
		return nil, failf(exitConnect, "reading the NATS context: %w", err)
	}
	options, err := from.NATSOptions(append([]nats.Option{
		nats.Name(name),
		nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1), // the command's own timeout ends the wait
		nats.ReconnectWait(reconnectWait),
	}, more...)...)
	if err != nil {
		return nil, failf(exitConnect, "reading the credentials: %w", err)
	}
	url := from.ServerURL()
	nc, err := nats.Connect(url, options...)
	if err != nil {
		return nil, failf(exitConnect, "cannot connect to %s: %w%s", redactURLs(url), err, connectHint(err))
	}
	return nc, nil
}

func connectHint(err error) string {
	switch {
	case errors.Is(err, nats.ErrAuthorization):
		return ": sign in with --creds, --user, --nkey or --context"
	case errors.Is(err, nats.ErrNoServers):
		return ": start a broker with stint serve, or name its address with --server or NATS_URL"
	}
	return ""
}

// hasContext says whether there is a context to load. Without a home directory none can be selected, which is no error.
func (f *connectFlags) hasContext() bool {
	return f.context != "" || natscontext.SelectedContext() != ""
}

// overrides are the settings that go before the context's.
func (f *connectFlags) overrides() []natscontext.Option {
	var out []natscontext.Option
	add := func(value string, option func(string) natscontext.Option) {
		if value != "" {
			out = append(out, option(value))
		}
	}
	add(f.server, natscontext.WithServerURL)
	add(f.nkey, natscontext.WithNKey)
	add(f.ca, natscontext.WithCA)
	add(f.cert, natscontext.WithCertificate)
	add(f.key, natscontext.WithKey)
	add(f.inboxPrefix, natscontext.WithInboxPrefix)
	add(f.creds, natscontext.WithCreds)
	switch {
	case f.user != "" && f.password == "":
		out = append(out, natscontext.WithToken(f.user))
	case f.user != "":
		out = append(out, natscontext.WithUser(f.user), natscontext.WithPassword(f.password))
	}
	return out
}

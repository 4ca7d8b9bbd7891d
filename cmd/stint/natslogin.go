package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// inProcess is the server's word for a connection that does not come over the network.
const inProcess = "IN_PROCESS"

// login is how the broker's own connection is made.
//
// A plain server has no users, and the broker connects over loopback TCP, whose buffers make it a tenth faster under load
// than a connection inside the process. With TLS the broker connects inside the process, where the server asks for none:
// it would need a certificate for the loopback address otherwise.
//
// When a server file has users and the configuration names none for the broker, the broker brings a user of its own: a
// key pair made at each start, whose secret half never leaves the process and which the server takes from connections
// inside the process only. It may do what a broker does and nothing else, it works beside passwords, tokens, keys and
// mapped certificates alike, and there is no secret to keep in a file. Rejected: a random password, which the server
// does not take beside a token or mapped certificates, and which it would warn about; the account's first user, who may
// do either too little or too much. Only operator mode (signed JWTs) leaves no room for it; there nats.creds is needed.
type login struct {
	options []nats.Option
	inside  bool // connect inside the process
}

// loginFor decides about the login and adds the broker's user to the server's options where it needs one.
func loginFor(c *config, o *server.Options) (login, error) {
	options, err := c.NATS.options()
	if err != nil {
		return login{}, err
	}
	inside := o.TLSConfig != nil && c.NATS.TLS == (tlsConfig{})
	switch {
	case len(c.NATS.signIn()) > 0 || !hasUsers(o):
		return login{options, inside}, nil
	case len(o.TrustedOperators) > 0:
		return login{}, fmt.Errorf("the NATS server file %s is in operator mode: name the broker's credentials file in nats.creds",
			c.NATS.Config)
	}
	account, err := brokerAccount(o, c.NATS.Account)
	if err != nil {
		return login{}, err
	}
	own, err := addOwnUser(o, account, c.addresses())
	if err != nil {
		return login{}, err
	}
	return login{[]nats.Option{own}, true}, nil
}

func hasUsers(o *server.Options) bool {
	return len(o.Users)+len(o.Nkeys)+len(o.TrustedOperators)+len(o.Accounts) > 0 ||
		o.Username != "" || o.Authorization != "" || o.AuthCallout != nil
}

// brokerAccount finds the account the queues live in; nil is the global one.
func brokerAccount(o *server.Options, name string) (*server.Account, error) {
	if name == "" {
		return onlyAccount(o)
	}
	for _, a := range o.Accounts {
		if a.Name == name {
			return a, nil
		}
	}
	if name == server.DEFAULT_GLOBAL_ACCOUNT {
		return nil, nil
	}
	known := []string{server.DEFAULT_GLOBAL_ACCOUNT}
	for _, a := range o.Accounts {
		known = append(known, a.Name)
	}
	slices.Sort(known)
	return nil, fmt.Errorf("nats.account is %q, which the NATS server file does not have: name one of %s",
		name, strings.Join(known, ", "))
}

// onlyAccount is the account that has users, the system account aside.
func onlyAccount(o *server.Options) (*server.Account, error) {
	found := map[string]*server.Account{}
	add := func(a *server.Account) {
		switch {
		case a == nil:
			found[server.DEFAULT_GLOBAL_ACCOUNT] = nil
		case a.Name != o.SystemAccount && a.Name != server.DEFAULT_SYSTEM_ACCOUNT:
			found[a.Name] = a
		}
	}
	for _, u := range o.Users {
		add(u.Account)
	}
	for _, u := range o.Nkeys {
		add(u.Account)
	}
	if len(found) > 1 || o.AuthCallout != nil {
		return nil, fmt.Errorf("the NATS server file has users in several accounts (%s): say in nats.account which one the "+
			"queues live in", strings.Join(slices.Sorted(maps.Keys(found)), ", "))
	}
	for _, a := range found {
		return a, nil
	}
	return nil, nil
}

// addOwnUser makes the broker's private user.
func addOwnUser(o *server.Options, account *server.Account, addresses []string) (nats.Option, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("making the broker's own key: %w", err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("making the broker's own key: %w", err)
	}
	o.Nkeys = append(o.Nkeys, &server.NkeyUser{
		Nkey:                   public,
		Account:                account,
		Permissions:            brokerPermissions(addresses),
		AllowedConnectionTypes: map[string]struct{}{inProcess: {}},
	})
	if o.AuthCallout != nil {
		o.AuthCallout.AuthUsers = append(o.AuthCallout.AuthUsers, public)
	}
	return nats.Nkey(public, pair.Sign), nil
}

// brokerPermissions are the least a broker needs. It publishes wherever clients ask it to, since their inboxes and
// processor subjects are theirs to choose; so what it must never be talked into is denied by name.
func brokerPermissions(addresses []string) *server.Permissions {
	subscribe := []string{"_INBOX.>", "$SRV.>"}
	deny := []string{"$SYS.>", "$JS.>", "$KV.>", "$O.>", "$MQTT.>", "$NRG.>", "$GR.>", "$LDS.>", "_R_.>", "_GR_.>"}
	for _, a := range addresses {
		own := []string{a, a + ".register", a + ".unregister", a + ".lease.>", a + ".talk.>"}
		subscribe = append(subscribe, own...)
		deny = append(deny, own...)
	}
	return &server.Permissions{
		Subscribe: &server.SubjectPermission{Allow: subscribe},
		Publish:   &server.SubjectPermission{Allow: []string{">"}, Deny: deny},
	}
}

// options is how the configuration says to sign in.
func (n *natsConfig) options() ([]nats.Option, error) {
	var out []nats.Option
	switch {
	case n.User != "":
		out = append(out, nats.UserInfo(n.User, n.Password))
	case n.Token != "":
		out = append(out, nats.Token(n.Token))
	case n.Creds != "":
		out = append(out, nats.UserCredentials(n.Creds))
	case n.NKey != "":
		key, err := nats.NkeyOptionFromSeed(n.NKey)
		if err != nil {
			return nil, fmt.Errorf("reading the key file of nats.nkey, %s: %w", n.NKey, err)
		}
		out = append(out, key)
	}
	if n.TLS.CA != "" {
		out = append(out, nats.RootCAs(n.TLS.CA))
	}
	if n.TLS.Cert != "" {
		out = append(out, nats.ClientCert(n.TLS.Cert, n.TLS.Key))
	}
	return out, nil
}

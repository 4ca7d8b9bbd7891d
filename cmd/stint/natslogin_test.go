package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// usersConfig is the documented example, at a free port.
func usersConfig(t *testing.T) *config {
	t.Helper()
	t.Setenv("SENDER_PASSWORD", "sesame")
	t.Setenv("PROCESSOR_PASSWORD", "abracadabra")
	return plainConfig(t, `{"address": "orders", "nats": {"config": "testdata/users.conf"}}`)
}

// errorsOf is an option that collects what the server holds against a connection.
func errorsOf(into chan<- error) nats.Option {
	return nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { into <- err })
}

// denied tries to publish or subscribe and wants to hear that it may not.
func denied(t *testing.T, nc *nats.Conn, said <-chan error, try func()) {
	t.Helper()
	try()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-said:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("the server says %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing was denied")
	}
}

func received(t *testing.T, from <-chan *nats.Msg) *nats.Msg {
	t.Helper()
	select {
	case m := <-from:
		return m
	case <-time.After(5 * time.Second):
		t.Fatal("nothing came")
		return nil
	}
}

func TestUsersFile(t *testing.T) {
	e := mustStart(t, usersConfig(t))
	senderSaid, processorSaid, brokerSaid := make(chan error, 8), make(chan error, 8), make(chan error, 8)
	broker := brokerConn(t, e, errorsOf(brokerSaid))
	sender := client(t, e, nats.UserInfo("sender", "sesame"), nats.CustomInboxPrefix("_INBOX_sender"), errorsOf(senderSaid))
	processor := client(t, e, nats.UserInfo("processor", "abracadabra"), nats.CustomInboxPrefix("_INBOX_processor"),
		errorsOf(processorSaid))

	intake := subscribe(t, broker, "orders")
	leases := make(chan *nats.Msg, 8) // as the broker does it: SubscribeSync turns "no responders" into an error
	if _, err := broker.ChanSubscribe("orders.lease.*.*", leases); err != nil {
		t.Fatal(err)
	}
	work, replies := subscribe(t, processor, "stint.processor.1"), subscribe(t, sender, "_INBOX_sender.1")
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(sender.PublishRequest("orders", "_INBOX_sender.1", []byte("an item")))
	item := next(t, intake)
	ok(broker.PublishRequest("stint.processor.1", "orders.lease.1.1", item.Data))
	ok(next(t, work).Respond([]byte("done")))
	ok(broker.Publish(item.Reply, received(t, leases).Data))
	if got := next(t, replies); string(got.Data) != "done" {
		t.Errorf("the reply is %q", got.Data)
	}

	// Nobody at a processor's subject: the broker hears of it at the lease.
	ok(broker.PublishRequest("stint.processor.2", "orders.lease.1.2", item.Data))
	if m := received(t, leases); m.Subject != "orders.lease.1.2" || m.Header.Get("Status") != "503" {
		t.Errorf("at %s came %v", m.Subject, m.Header)
	}

	t.Run("a sender may not pose as a processor", func(t *testing.T) {
		denied(t, sender, senderSaid, func() { _ = sender.Publish("orders.lease.1.1", nil) })
		denied(t, sender, senderSaid, func() { _ = sender.Publish("orders.register", nil) })
	})
	t.Run("a sender may not read what is not for it", func(t *testing.T) {
		denied(t, sender, senderSaid, func() { _, _ = sender.SubscribeSync("_INBOX_processor.>") })
		denied(t, sender, senderSaid, func() { _, _ = sender.SubscribeSync("orders") })
	})
	t.Run("a processor may not send", func(t *testing.T) {
		denied(t, processor, processorSaid, func() { _ = processor.Publish("orders", nil) })
	})
	t.Run("the broker may not be talked into anything", func(t *testing.T) {
		for _, subject := range []string{"orders", "orders.lease.1.1", "$SYS.REQ.SERVER.PING", "$JS.API.INFO"} {
			denied(t, broker, brokerSaid, func() { _ = broker.Publish(subject, nil) })
		}
		denied(t, broker, brokerSaid, func() { _, _ = broker.SubscribeSync("stint.processor.>") })
	})
	if _, err := nats.Connect(e.url()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without a user: %v", err)
	}
}

// The broker's key is no use over the network, even to somebody who has it.
func TestOwnUserIsForTheProcessOnly(t *testing.T) {
	e := mustStart(t, serverFile(t, "authorization { token: sesame }"))
	brokerConn(t, e)
	if nc, err := nats.Connect(e.url(), e.login.options...); err == nil {
		nc.Close()
		t.Error("the broker's user came in over the network")
	}
}

// Whatever way clients sign in, they still do, and the broker does too.
func TestOwnUserStandsBesideOthers(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pair.PublicKey()
	for _, c := range []struct {
		name, file string
		login      nats.Option
	}{
		{"token", "authorization { token: sesame }", nats.Token("sesame")},
		{"one user", "authorization { user: u, password: sesame }", nats.UserInfo("u", "sesame")},
		{"users", "authorization { users: [{user: u, password: sesame}] }", nats.UserInfo("u", "sesame")},
		{"key", fmt.Sprintf("authorization { users: [{nkey: %s}] }", public), nats.Nkey(public, pair.Sign)},
		{"nobody in particular", "authorization { users: [{user: u, password: x}] }\nno_auth_user: u", nats.Name("x")},
		{"account", "accounts { A: { users: [{user: u, password: sesame}] } }", nats.UserInfo("u", "sesame")},
		{"system account aside", `accounts { SYS: { users: [{user: s, password: x}] }, A: { users: [{user: u, password: sesame}] } }
system_account: SYS`, nats.UserInfo("u", "sesame")},
		{"system account alone", `accounts { SYS: { users: [{user: s, password: x}] } }
system_account: SYS`, nats.Name("x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := mustStart(t, serverFile(t, c.file))
			broker, other := brokerConn(t, e), client(t, e, c.login)
			known, err := e.presence(broker)
			if err != nil {
				t.Fatal(err)
			}
			intake := subscribe(t, broker, "orders")
			subscribe(t, other, "processor")
			if !known.interest("processor") {
				t.Error("the broker does not see the subscription: another account?")
			}
			if err := other.Publish("orders", []byte("an item")); err != nil {
				t.Fatal(err)
			}
			next(t, intake)
		})
	}
}

func TestBrokerAccount(t *testing.T) {
	two := "accounts { A: { users: [{user: a, password: x}] }, B: { users: [{user: b, password: x}] } }\n"
	for _, c := range []struct{ name, file, account, want string }{
		{"several", two, "", "users in several accounts (A, B): say in nats.account"},
		{"global and another", "authorization { users: [{user: a, password: x}] }\n" +
			"accounts { B: { users: [{user: b, password: x}] } }", "", "several accounts ($G, B)"},
		{"unknown", two, "C", `nats.account is "C", which the NATS server file does not have: name one of $G, A, B`},
		{"operator", "operator: " + operatorJWT(t), "", "is in operator mode: name the broker's credentials file in nats.creds"},
	} {
		config := serverFile(t, c.file)
		config.NATS.Account = c.account
		_, _, err := serverOptions(config, quiet)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the error is %v", c.name, err)
		}
	}

	config := serverFile(t, two)
	config.NATS.Account = "B"
	e := mustStart(t, config)
	intake := subscribe(t, brokerConn(t, e), "orders")
	if err := client(t, e, nats.UserInfo("a", "x")).Publish("orders", []byte("from A")); err != nil {
		t.Fatal(err)
	}
	if err := client(t, e, nats.UserInfo("b", "x")).Publish("orders", []byte("from B")); err != nil {
		t.Fatal(err)
	}
	if m := next(t, intake); string(m.Data) != "from B" {
		t.Errorf("the broker is not in account B: %q", m.Data)
	}
}

func TestBrokerSignsInAsTold(t *testing.T) {
	seed := filepath.Join(t.TempDir(), "broker.nk")
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := pair.Seed()
	public, _ := pair.PublicKey()
	if err := os.WriteFile(seed, text, 0o600); err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf("authorization { users: [{user: u, password: p}, {nkey: %s}] }", public)
	for _, n := range []natsConfig{{User: "u", Password: "p"}, {NKey: seed}} {
		c := serverFile(t, file)
		n.Config = c.NATS.Config
		c.NATS = n
		e := mustStart(t, c)
		if len(e.opts.Nkeys) != 1 {
			t.Errorf("%+v: the broker brought a user all the same", n)
		}
		brokerConn(t, e)
	}
	c := serverFile(t, file)
	c.NATS.NKey = filepath.Join(t.TempDir(), "none")
	if _, err := startNATS(c, quiet); err == nil || !strings.Contains(err.Error(), "reading the key file of nats.nkey") {
		t.Errorf("the error is %v", err)
	}
	c = serverFile(t, "authorization { token: sesame }")
	c.NATS.Token = "wrong"
	e := mustStart(t, c)
	if _, err := e.connect(); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("with a wrong token: %v", err)
	}
}

func TestServerWithTLS(t *testing.T) {
	certs := makeCerts(t)
	server := fmt.Sprintf("cert_file: %q, key_file: %q, ca_file: %q", certs.cert, certs.key, certs.ca)
	ca := nats.RootCAs(certs.ca)
	both := []nats.Option{ca, nats.ClientCert(certs.cert, certs.key)}
	for _, c := range []struct {
		name, file string
		client     []nats.Option
		own        tlsConfig
	}{
		{"server certificate", "tls { " + server + " }", []nats.Option{ca}, tlsConfig{}},
		{"client certificates", "tls { " + server + ", verify: true }", both, tlsConfig{}},
		{"handshake first", "tls { " + server + ", handshake_first: true }", []nats.Option{ca, nats.TLSHandshakeFirst()}, tlsConfig{}},
		{
			"users by certificate",
			"tls { " + server + ", verify_and_map: true }\nauthorization { users: [{user: \"localhost\"}] }", both,
			tlsConfig{},
		},
		{
			"the broker over the network",
			"tls { " + server + ", verify: true }", both,
			tlsConfig{CA: certs.ca, Cert: certs.cert, Key: certs.key},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := serverFile(t, c.file)
			config.NATS.TLS = c.own
			e := mustStart(t, config)
			if url := e.url(); !strings.HasPrefix(url, "tls://") {
				t.Errorf("clients are told %s", url)
			}
			intake := subscribe(t, brokerConn(t, e), "orders")
			if err := client(t, e, c.client...).Publish("orders", nil); err != nil {
				t.Fatal(err)
			}
			next(t, intake)
			if nc, err := nats.Connect(e.url(), nats.Timeout(300*time.Millisecond)); err == nil {
				nc.Close()
				t.Error("a client without the authority's certificate came in")
			}
		})
	}
}

func TestPermissionsOfTheDocumentedBroker(t *testing.T) {
	data, err := os.ReadFile("testdata/outside.conf")
	if err != nil {
		t.Fatal(err)
	}
	p := brokerPermissions([]string{"orders"})
	for _, subject := range slices.Concat(p.Publish.Deny[len(p.Publish.Deny)-5:], []string{"$SYS.>", "$JS.>"}) {
		if !strings.Contains(string(data), `"`+subject+`"`) {
			t.Errorf("the example does not deny %s", subject)
		}
	}
}

type certFiles struct{ ca, cert, key string }

// makeCerts makes an authority and a certificate for localhost, good for both sides.
func makeCerts(t *testing.T) certFiles {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	check(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
	check(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		check(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	return certFiles{write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", keyDER)}
}

// operatorJWT is what puts a server into operator mode.
func operatorJWT(t *testing.T) string {
	t.Helper()
	pair, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pair.PublicKey()
	token, err := jwt.NewOperatorClaims(public).Encode(pair)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

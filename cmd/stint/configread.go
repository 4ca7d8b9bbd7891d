package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"stint/wire"
)

// Ranges of the numbers. Times go to 30 days, as the headers of a send do; an attempt may not last longer either.
const (
	longest      = int64(wire.MaxTimeout / time.Millisecond)
	maxQueues    = 10_000
	payloadExtra = 16 << 10        // bytes that headers and subjects may add to an item on its way through NATS
	maxPayload   = 64 << 20        // NATS itself takes no more
	mostBytes    = int64(1) << 50  // 1 PiB
	mostItems    = 100_000_000_000 // ids and counters have room for more; a disk has not
)

var (
	times      = span{1, longest, "milliseconds"}
	attempts   = span{1, wire.MaxAttempts, "attempts"}
	items      = span{1, min(mostItems, math.MaxInt), "items"}
	sizes      = span{1, mostBytes, "bytes"}
	itemSizes  = span{1, maxPayload - payloadExtra, "bytes"}
	inMemory   = span{1, 1 << 24, "items"}
	memorySize = span{1, min(1<<36, math.MaxInt), "bytes"}
	entries    = span{1, 1 << 30, "entries"}
	processors = span{1, 1 << 20, "processors"}
)

const (
	listenRule    = `host:port, such as "127.0.0.1:4222"; port 0 takes a free one`
	persistorRule = `1 to 100 letters, digits, ".", "_" and "-", beginning with a letter or digit, as it names a file`
	nameRule      = `1 to 256 characters, none of them a control character`
	fileRule      = "the name of a file"
	urlRule       = `one or more server URLs such as "nats://host:4222" or "tls://host:4222", parted by commas`
)

// loadConfig reads the file with this name, or gives the defaults for an empty name. Its error is a *problems, or says
// why the file cannot be read.
func loadConfig(name string) (*config, error) {
	if name == "" {
		return defaultConfig(), nil
	}
	data, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: name an existing file with --config, or leave it out for the defaults", err)
	}
	if err != nil {
		return nil, err
	}
	return decodeConfig(name, data)
}

// decodeConfig reads a configuration. name is for problems only; no other file is looked at.
func decodeConfig(name string, data []byte) (*config, error) {
	doc := &document{problems: problems{file: name}, lines: map[string]int{}}
	root, ok := parseJSON(data, &doc.problems)
	if !ok {
		return nil, doc.err()
	}
	if root.kind != "object" {
		doc.add(root.line, "", `must be a JSON object such as {"address": "orders"}, not %s`, root)
		return nil, doc.err()
	}
	c := doc.readConfig(root)
	if err := doc.err(); err != nil {
		return nil, err // what follows from wrong values would only be noise
	}
	doc.checkConfig(c)
	c.complete()
	doc.checkFiles(c)
	if err := doc.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func (d *document) readConfig(root value) *config {
	c, o := emptyConfig(), d.newObject("", root)
	o.text("listen", &c.Listen, listenRule, validListen)
	c.listenGiven = o.members["listen"].value.text != ""
	o.text("data_dir", &c.DataDir, "the name of a directory", validPath)
	o.whole("drain_timeout", &c.DrainTimeout, times)
	readLog(o.object("log"), &c.Log)
	readNATS(o.object("nats"), &c.NATS)
	readPersistors(o.object("persistors"), c.Persistors)
	readQueues(o, c)
	readPools(o, c)
	o.close()
	return c
}

func readLog(o *object, c *logConfig) {
	o.choice("format", &c.Format, "text", "json")
	o.choice("level", &c.Level, "debug", "info", "warn", "error")
	o.close()
}

func readNATS(o *object, c *natsConfig) {
	o.text("config", &c.Config, fileRule, validPath)
	o.text("url", &c.URL, urlRule, validURLs)
	o.text("account", &c.Account, "the name of an account", nil)
	o.text("user", &c.User, "a user name", nil)
	o.text("password", &c.Password, "a string", nil)
	o.text("token", &c.Token, "a string", nil)
	o.text("creds", &c.Creds, fileRule, validPath)
	o.text("nkey", &c.NKey, fileRule, validPath)
	t := o.object("tls")
	t.text("ca", &c.TLS.CA, fileRule, validPath)
	t.text("cert", &c.TLS.Cert, fileRule, validPath)
	t.text("key", &c.TLS.Key, fileRule, validPath)
	t.close()
	o.close()
}

func readPersistors(o *object, into map[string]persistorConfig) {
	for _, name := range o.order {
		var p persistorConfig
		if !validPersistor(name) {
			o.doc.report(joinPath(o.path, name), "is no name for a persistor: use %s", persistorRule)
		}
		entry := o.object(name)
		entry.text("file", &p.File, fileRule, validPath)
		entry.close()
		into[name] = p
	}
	o.close()
}

// readQueues reads the list of queues, or the one queue whose keys stand at the top, as in the vert.x module.
func readQueues(top *object, c *config) {
	before := len(top.known)
	single := readQueue(top)
	keys := slices.DeleteFunc(slices.Clone(top.known[before:]), func(key string) bool {
		_, given := top.members[key]
		return !given
	})
	list, found := top.want("queues", "list", "a list of objects")
	switch {
	case found && len(keys) > 0:
		top.doc.report(joinPath(top.path, keys[0]),
			"is for a file with one queue: move it into an entry of queues, or remove queues")
	case found:
		c.Queues = top.doc.readQueueList(list)
	case len(keys) > 0:
		c.Queues = []queueConfig{single}
	default:
		c.Queues = []queueConfig{workQueue()}
	}
}

func (d *document) readQueueList(list value) []queueConfig {
	if len(list.items) == 0 || len(list.items) > maxQueues {
		d.report("queues", "has %d entries: give 1 to %d, or leave it out for the queue work", len(list.items), maxQueues)
		return nil
	}
	var out []queueConfig
	for i, item := range list.items {
		path := fmt.Sprintf("queues[%d]", i)
		d.lines[path] = item.line
		if item.kind != "object" {
			d.report(path, `must be an object such as {"address": "orders"}, not %s`, item)
			continue
		}
		o := d.newObject(path, item)
		out = append(out, readQueue(o))
		o.close()
	}
	return out
}

func readQueue(o *object) queueConfig {
	var address, persistor string
	o.text("address", &address, "a literal NATS subject such as \"orders\"", nil)
	o.text("persistor_address", &persistor, persistorRule, validPersistor)
	q := defaultQueue(persistor != "")
	q.Address, q.PersistorAddress = address, persistor
	o.text("collection", &q.Collection, nameRule, validName)
	o.whole("process_timeout", &q.ProcessTimeout, times)
	o.whole("max_attempts", &q.MaxAttempts, attempts)
	o.whole("max_deaths", &q.MaxDeaths, attempts)
	readBackoff(o.object("backoff"), &q.Backoff)
	o.whole("max_items", &q.MaxItems, items)
	o.whole("max_bytes", &q.MaxBytes, sizes)
	o.whole("max_item_bytes", &q.MaxItemBytes, itemSizes)
	o.whole("window_items", &q.WindowItems, inMemory)
	o.whole("window_bytes", &q.WindowBytes, memorySize)
	o.whole("max_processors", &q.MaxProcessors, processors)
	o.whole("registration_ttl", &q.RegistrationTTL, times)
	o.whole("reply_ttl", &q.ReplyTTL, times)
	o.whole("max_replies", &q.MaxReplies, entries)
	o.whole("dedup_window", &q.DedupWindow, times)
	o.whole("max_dedup", &q.MaxDedup, entries)
	o.texts("reply_subjects", &q.ReplySubjects, wire.CheckPattern)
	o.texts("processor_subjects", &q.ProcessorSubjects, wire.CheckPattern)
	return q
}

func readBackoff(o *object, b *backoffConfig) {
	o.choice("kind", &b.Kind, backoffFixed, backoffExponential)
	o.whole("base", &b.Base, times)
	b.Max = max(b.Max, b.Base) // a long base alone is no contradiction to the default
	o.whole("max", &b.Max, times)
	o.fraction("jitter", &b.Jitter)
	o.close()
}

// checkConfig finds what is wrong between keys.
func (d *document) checkConfig(c *config) {
	d.checkNATS(c)
	d.checkAddresses(c)
	d.checkPools(c)
	used := map[string]bool{}
	for i := range c.Queues {
		d.checkQueue(d.queuePath(i), &c.Queues[i])
		used[c.Queues[i].PersistorAddress] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.Persistors)) {
		if !used[name] {
			d.report(joinPath("persistors", name), "is not the persistor_address of any queue: correct one of the two")
		}
	}
}

// queuePath is where the keys of a queue stand.
func (d *document) queuePath(i int) string {
	if _, list := d.lines["queues"]; !list {
		return ""
	}
	return fmt.Sprintf("queues[%d]", i)
}

// checkAddresses checks each alone, then looks for the first one that cannot stand beside those before it.
func (d *document) checkAddresses(c *config) {
	all, good := c.addresses(), true
	for i, address := range all {
		path := joinPath(d.queuePath(i), "address")
		if address == "" {
			d.report(path, `is missing: give the subject of the queue, such as "orders"`)
			good = false
		} else if err := wire.CheckAddress(address); err != nil {
			d.report(path, "%v", err)
			good = false
		}
	}
	if !good || wire.CheckAddresses(all) == nil {
		return
	}
	i := sort.Search(len(all)-1, func(i int) bool { return wire.CheckAddresses(all[:i+1]) != nil })
	d.report(joinPath(d.queuePath(i), "address"), "%v", wire.CheckAddresses(all[:i+1]))
}

func (d *document) checkQueue(path string, q *queueConfig) {
	if q.PersistorAddress == "" && q.Collection != "" {
		d.report(joinPath(path, "collection"),
			"means nothing without persistor_address, which makes a queue persistent: add that, or remove this")
	}
	for _, above := range []struct {
		key   string
		value int64
	}{{"max_bytes", q.MaxBytes}, {"window_bytes", q.WindowBytes}} {
		if above.value < q.MaxItemBytes {
			d.report(joinPath(path, above.key), "is %d, too little for one item of max_item_bytes, %d: raise it, or lower that",
				above.value, q.MaxItemBytes)
		}
	}
	if q.Backoff.Max < q.Backoff.Base {
		d.report(joinPath(joinPath(path, "backoff"), "max"), "is %d, less than base, %d: raise it, or lower base", q.Backoff.Max, q.Backoff.Base)
	}
}

// checkNATS finds keys that contradict each other or have no effect.
func (d *document) checkNATS(c *config) {
	n := &c.NATS
	switch {
	case n.URL != "" && n.Config != "":
		d.report("nats.url", "contradicts nats.config: use an outside server, or a server file for the one inside, not both")
	case n.URL != "" && c.listenGiven:
		d.report("listen", "has no effect with nats.url, an outside server: remove one of the two")
	}
	given := n.signIn()
	if n.URL == "" && n.Config == "" {
		for _, key := range append(given, n.others()...) {
			d.report("nats."+key, "has no effect without nats.config or nats.url: the server inside has no users by default")
		}
		return
	}
	if len(given) > 1 {
		d.report("nats."+given[1], "contradicts nats.%s: sign in in one way", given[0])
	}
	if n.Password != "" && n.User == "" {
		d.report("nats.password", "has no effect without nats.user")
	}
	if n.Account != "" && (n.URL != "" || len(given) > 0) {
		d.report("nats.account", "has no effect when the broker signs in as a user, who has an account: remove it")
	}
	if (n.TLS.Cert == "") != (n.TLS.Key == "") {
		d.report("nats.tls", "needs both cert and key, or neither")
	}
}

// signIn names the keys that say who the broker is.
func (n *natsConfig) signIn() []string {
	return present([]string{"user", "token", "creds", "nkey"}, n.User, n.Token, n.Creds, n.NKey)
}

// others names the remaining keys that need a server with users.
func (n *natsConfig) others() []string {
	return present([]string{"account", "password", "tls.ca", "tls.cert", "tls.key"},
		n.Account, n.Password, n.TLS.CA, n.TLS.Cert, n.TLS.Key)
}

func present(keys []string, values ...string) []string {
	var out []string
	for i, key := range keys {
		if values[i] != "" {
			out = append(out, key)
		}
	}
	return out
}

// checkFiles looks for two owners of one database or of one collection in it.
func (d *document) checkFiles(c *config) {
	type place struct{ file, collection string }
	owners := map[place]string{}
	persistors := map[string]string{}
	for i, q := range c.Queues {
		if q.PersistorAddress == "" {
			continue
		}
		file := filepath.Clean(c.Persistors[q.PersistorAddress].File)
		if first, ok := persistors[file]; ok && first != q.PersistorAddress {
			d.report(joinPath(d.queuePath(i), "persistor_address"),
				"%q has the same file as %q, %s: a database has one persistor", q.PersistorAddress, first, file)
			continue
		}
		persistors[file] = q.PersistorAddress
		at := place{file, q.Collection}
		if first, ok := owners[at]; ok {
			d.report(joinPath(d.queuePath(i), "collection"), "%q of persistor %q belongs to the queue %s already: name another",
				q.Collection, q.PersistorAddress, first)
			continue
		}
		owners[at] = q.Address
	}
}

func validListen(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n <= 65535 && !strings.ContainsAny(host, " /\t\r\n")
}

func validPath(s string) bool { return !strings.ContainsRune(s, 0) }

var persistorName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func validPersistor(s string) bool { return persistorName.MatchString(s) }

func validName(s string) bool {
	return len(s) <= 256 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func validURLs(s string) bool {
	for part := range strings.SplitSeq(s, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return false
		}
	}
	return true
}

package main

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"stint/broker/queue"
)

const exampleFile = "../../config.example.json"

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{
			"not JSON", "{\n  \"address\": \"a\",\n}",
			`c.json:3: is not valid JSON: invalid character '}' looking for beginning of object key string`,
		},
		{"empty", "", `c.json:1: is not valid JSON: unexpected end of JSON input`},
		{"after the end", "{}\n{}", `c.json:2: is not valid JSON: invalid character '{' after top-level value`},
		{"NaN", `{"max_items": NaN}`, `c.json:1: is not valid JSON: invalid character 'N' looking for beginning of value`},
		{"not UTF-8", "{\"address\": \"\xff\"}", `c.json: is not UTF-8: save it in that encoding`},
		{"not an object", `["a"]`, `c.json:1: must be a JSON object such as {"address": "orders"}, not a list`},
		{"typing error", "{\n \"addresss\": \"a\"}", `c.json:2: addresss: is not a known key: did you mean "address"?`},
		{"other spelling", `{"processTimeout": 1}`, `c.json:1: processTimeout: is not a known key: did you mean "process_timeout"?`},
		{
			"unknown", `{"log": {"colour": true}}`,
			`c.json:1: log.colour: is not a known key: known here are format, level`,
		},
		{
			"all at once", "{\n \"listen\": 4222,\n \"data_dir\": [],\n \"drain_timeout\": \"10s\"\n}",
			"c.json:2: listen: must be host:port, such as \"127.0.0.1:4222\"; port 0 takes a free one, not 4222\n" +
				"c.json:3: data_dir: must be the name of a directory, not a list\n" +
				"c.json:4: drain_timeout: must be a whole number of milliseconds from 1 to 2592000000, not \"10s\"",
		},
		{
			"twice", "{\"address\": \"a\",\n \"address\": \"b\"}",
			`c.json:2: address: is given twice, first on line 1: remove one`,
		},
		{"null", `{"address": null}`, `c.json:1: address: must be a literal NATS subject such as "orders", not null`},
		{
			"no address", `{"process_timeout": 1}`,
			`c.json: address: is missing: give the subject of the queue, such as "orders"`,
		},
		{
			"bad addresses", `{"queues": [{"address": "a.*"}, {"address": "$SYS.a"}, {"address": "a.register"}]}`,
			`c.json:1: queues[0].address: address "a.*" contains a wildcard: name one subject, without * and >
c.json:1: queues[1].address: address "$SYS.a" starts with $, which NATS keeps for itself: choose another first character
c.json:1: queues[2].address: address "a.register" ends in the reserved word register: end it in another word`,
		},
		{
			"same address", `{"queues": [{"address": "a"}, {"address": "b"}, {"address": "a"}]}`,
			`c.json:1: queues[2].address: address "a" is given to two queues: give each queue an address of its own`,
		},
		{
			"address inside", `{"queues": [{"address": "a"}, {"address": "b"}, {"address": "b.lease.x"}, {"address": "c"}]}`,
			`c.json:1: queues[2].address: address "b.lease.x" lies inside the reserved subjects of the queue at "b": rename one of the two`,
		},
		{
			"one and many", `{"address": "a", "queues": [{"address": "b"}]}`,
			`c.json:1: address: is for a file with one queue: move it into an entry of queues, or remove queues`,
		},
		{"no queue", `{"queues": []}`, `c.json:1: queues: has 0 entries: give 1 to 10000, or leave it out for the queue work`},
		{"not a queue", `{"queues": ["a"]}`, `c.json:1: queues[0]: must be an object such as {"address": "orders"}, not "a"`},
		{
			"deep", `{"queues": [{"address": "a"}, {"address": "b", "backoff": {"base": 0}}]}`,
			`c.json:1: queues[1].backoff.base: must be a whole number of milliseconds from 1 to 2592000000, not 0`,
		},
		{
			"numbers", `{"address": "a", "max_items": 1.5, "max_bytes": 1e3, "max_attempts": -1, "window_items": 99999999999999999999,
 "backoff": {"jitter": 1.01}}`,
			"c.json:1: max_attempts: must be a whole number of attempts from 1 to 1000000, not -1\n" +
				"c.json:1: max_items: must be a whole number of items from 1 to 100000000000, not 1.5\n" +
				"c.json:1: max_bytes: must be a whole number of bytes from 1 to 1125899906842624, not 1e3\n" +
				"c.json:1: window_items: must be a whole number of items from 1 to 16777216, not 99999999999999999999\n" +
				"c.json:2: backoff.jitter: must be a number from 0 to 1, not 1.01",
		},
		{
			"backoff", `{"address": "a", "backoff": {"kind": "linear"}}`,
			`c.json:1: backoff.kind: must be "fixed" or "exponential", not "linear"`,
		},
		{
			"backoff range", `{"address": "a", "backoff": {"base": 10, "max": 5}}`,
			`c.json:1: backoff.max: is 5, less than base, 10: raise it, or lower base`,
		},
		{
			"item above the window", `{"address": "a", "max_item_bytes": 2000, "window_bytes": 1999}`,
			`c.json:1: window_bytes: is 1999, too little for one item of max_item_bytes, 2000: raise it, or lower that`,
		},
		{
			"item above NATS", `{"address": "a", "max_item_bytes": 67108864}`,
			`c.json:1: max_item_bytes: must be a whole number of bytes from 1 to 67092480, not 67108864`,
		},
		{
			"persistor is a path", `{"address": "a", "persistor_address": "../b"}`,
			`c.json:1: persistor_address: must be 1 to 100 letters, digits, ".", "_" and "-", beginning with a letter or digit, as it names a file, not "../b"`,
		},
		{
			"collection alone", `{"address": "a", "collection": "c"}`,
			`c.json:1: collection: means nothing without persistor_address, which makes a queue persistent: add that, or remove this`,
		},
		{
			"collection shared", `{"queues": [{"address": "a", "persistor_address": "p", "collection": "b"}, {"address": "b", "persistor_address": "p"}]}`,
			`c.json: queues[1].collection: "b" of persistor "p" belongs to the queue a already: name another`,
		},
		{
			"file shared", `{"persistors": {"p": {"file": "x.db"}, "q": {"file": "./x.db"}},
 "queues": [{"address": "a", "persistor_address": "p"}, {"address": "b", "persistor_address": "q"}]}`,
			`c.json:2: queues[1].persistor_address: "q" has the same file as "p", x.db: a database has one persistor`,
		},
		{
			"persistor nobody uses", `{"address": "a", "persistor_address": "test.persistor", "persistors": {"test.persister": {}}}`,
			`c.json:1: persistors["test.persister"]: is not the persistor_address of any queue: correct one of the two`,
		},
		{
			"patterns", `{"address": "a", "reply_subjects": ["ok.>", ">.a"], "processor_subjects": [7]}`,
			`c.json:1: reply_subjects[1]: pattern ">.a" has > before its end: put > last, or use * for one token
c.json:1: processor_subjects: must be a list of strings, not 7`,
		},
		{
			"two servers", `{"nats": {"config": "n.conf", "url": "nats://h:4222"}}`,
			`c.json:1: nats.url: contradicts nats.config: use an outside server, or a server file for the one inside, not both`,
		},
		{
			"listen outside", `{"listen": "127.0.0.1:0", "nats": {"url": "nats://h:4222"}}`,
			`c.json:1: listen: has no effect with nats.url, an outside server: remove one of the two`,
		},
		{
			"login without users", `{"nats": {"user": "u", "tls": {"ca": "ca.pem"}}}`,
			`c.json:1: nats.user: has no effect without nats.config or nats.url: the server inside has no users by default
c.json:1: nats.tls.ca: has no effect without nats.config or nats.url: the server inside has no users by default`,
		},
		{
			"two logins", `{"nats": {"url": "nats://h", "token": "t", "creds": "c"}}`,
			`c.json:1: nats.creds: contradicts nats.token: sign in in one way`,
		},
		{
			"password alone", `{"nats": {"url": "nats://h", "password": "p"}}`,
			`c.json:1: nats.password: has no effect without nats.user`,
		},
		{
			"account of a user", `{"nats": {"config": "n.conf", "account": "A", "user": "u"}}`,
			`c.json:1: nats.account: has no effect when the broker signs in as a user, who has an account: remove it`,
		},
		{
			"half a certificate", `{"nats": {"url": "tls://h", "tls": {"cert": "c.pem"}}}`,
			`c.json:1: nats.tls: needs both cert and key, or neither`,
		},
		{
			"url", `{"nats": {"url": "http://h:4222"}}`,
			`c.json:1: nats.url: must be one or more server URLs such as "nats://host:4222" or "tls://host:4222", parted by commas, not "http://h:4222"`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decodeConfig("c.json", []byte(c.file))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("other problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConfigReportsABoundedNumberOfProblems(t *testing.T) {
	var file strings.Builder
	file.WriteString(`{"queues": [{}`)
	for range 30 {
		file.WriteString(",{}")
	}
	file.WriteString("]}")
	_, err := decodeConfig("c.json", []byte(file.String()))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxProblems+1 || lines[maxProblems] != "c.json: and 11 more problems" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func mustDecode(t testing.TB, file string) *config {
	t.Helper()
	c, err := decodeConfig("c.json", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConfigOfTheVertxModule(t *testing.T) {
	memory := mustDecode(t, `{"address": "test.orderQueue"}`)
	q := memory.Queues[0].options()
	if q.Address != "test.orderQueue" || q.Persistor != "" || q.MaxItems != 1_000_000 {
		t.Errorf("in memory: %+v", q)
	}

	stored := mustDecode(t, `{
		"address": "test.orderQueue",
		"process_timeout": 300000,
		"persistor_address": "test.persistor",
		"collection": "work"
	}`)
	q = stored.Queues[0].options()
	if q.Persistor != "test.persistor" || q.Collection != "work" || q.ProcessTimeout.Minutes() != 5 || q.MaxItems != 100_000_000 {
		t.Errorf("persistent: %+v", q)
	}
	if file := stored.Persistors["test.persistor"].File; file != "stint-data/test.persistor.db" {
		t.Errorf("the database is %s", file)
	}
}

func TestConfigOfAnEmptyFileIsTheDefault(t *testing.T) {
	if diff := cmp.Diff(defaultConfig(), mustDecode(t, "\ufeff{}"), ignoreGiven); diff != "" {
		t.Error(diff)
	}
}

var ignoreGiven = cmpopts.IgnoreUnexported(config{})

func TestDefaultQueueIsTheQueuePackages(t *testing.T) {
	for _, persistent := range []bool{false, true} {
		q := defaultQueue(persistent)
		want := queue.Config{ReplySubjects: []string{}, ProcessorSubjects: []string{}}.WithDefaults(persistent)
		if diff := cmp.Diff(want, q.options().Config); diff != "" {
			t.Errorf("persistent %v: %s", persistent, diff)
		}
	}
}

func TestConfigReadsEveryKey(t *testing.T) {
	c := mustDecode(t, `{"queues": [{
		"address": "a", "process_timeout": 1, "persistor_address": "p", "collection": "c", "max_attempts": 2, "max_deaths": 3,
		"backoff": {"kind": "fixed", "base": 4, "max": 5, "jitter": 0}, "max_items": 6, "max_bytes": 1000, "max_item_bytes": 100,
		"window_items": 8, "window_bytes": 900, "max_processors": 10, "registration_ttl": 11, "reply_ttl": 12, "max_replies": 13,
		"dedup_window": 14, "max_dedup": 15, "reply_subjects": ["r.*"], "processor_subjects": ["p.>"]
	}]}`)
	o := c.Queues[0].options()
	want := queue.Config{
		Address: "a", ProcessTimeout: 1e6, MaxAttempts: 2, MaxDeaths: 3, Backoff: queue.Backoff{Fixed: true, Base: 4e6, Max: 5e6},
		MaxItems: 6, MaxBytes: 1000, MaxItemBytes: 100, WindowItems: 8, WindowBytes: 900, MaxProcessors: 10,
		RegistrationTTL: 11e6, ReplyTTL: 12e6, MaxReplies: 13, DedupWindow: 14e6, MaxDedup: 15,
		ReplySubjects: []string{"r.*"}, ProcessorSubjects: []string{"p.>"},
	}
	if diff := cmp.Diff(want, o.Config); diff != "" {
		t.Error(diff)
	}
	if o.Persistor != "p" || o.Collection != "c" {
		t.Errorf("persistor %q, collection %q", o.Persistor, o.Collection)
	}
}

func TestLongBackoffAloneIsValid(t *testing.T) {
	c := mustDecode(t, `{"address": "a", "backoff": {"base": 600000}}`)
	if b := c.Queues[0].Backoff; b.Max != 600_000 {
		t.Errorf("max is %d", b.Max)
	}
}

func TestExampleFileHasEveryKeyWithItsDefault(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := decodeConfig(exampleFile, data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaultConfig(), c, ignoreGiven); diff != "" {
		t.Errorf("other than the defaults: %s", diff)
	}
	p := &problems{}
	root, _ := parseJSON(data, p)
	wantKeys(t, tagsOf("", reflect.TypeFor[config]()), slices.DeleteFunc(keysOf("", root), isOfPool), isOfPool)
}

// isOfPool says whether a key is one of a pool's; those are in a file of their own.
func isOfPool(key string) bool { return strings.HasPrefix(key, ".pools.") }

// wantKeys compares keys, without those that are left out.
func wantKeys(t *testing.T, want, got []string, left func(string) bool) {
	t.Helper()
	if diff := cmp.Diff(slices.DeleteFunc(want, left), got, sortStrings); diff != "" {
		t.Errorf("keys of the file (-want +got): %s", diff)
	}
}

const poolsFile = "../../examples/pools/stint.json"

// The file has every key of a pool, with the default where it does not depend on the machine.
func TestExampleFileOfPools(t *testing.T) {
	data, err := os.ReadFile(poolsFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := decodeConfig(poolsFile, data)
	if err != nil {
		t.Fatal(err)
	}
	p := &problems{}
	root, _ := parseJSON(data, p)
	wantKeys(t, tagsOf("", reflect.TypeFor[config]()), slices.Compact(slices.Sorted(slices.Values(slices.DeleteFunc(keysOf("", root),
		func(key string) bool { return !isOfPool(key) })))), func(key string) bool { return !isOfPool(key) })
	want := defaultPool()
	got := c.Pools[0]
	want.Address, want.Command, want.Children, want.MinChildren = got.Address, got.Command, got.Children, got.Children
	want.Node, got.Node = nil, nil
	want.ProcessTimeout = got.ProcessTimeout
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("other than the defaults: %s", diff)
	}
}

var sortStrings = cmpopts.SortSlices(strings.Compare)

// tagsOf lists the keys that a file can have; entries of maps and lists are called "*".
func tagsOf(path string, t reflect.Type) []string {
	switch t.Kind() {
	case reflect.Pointer:
		return tagsOf(path, t.Elem())
	case reflect.Map:
		return tagsOf(path+".*", t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return tagsOf(path+".*", t.Elem())
		}
	case reflect.Struct:
		var out []string
		for f := range t.Fields() {
			if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "" && key != "-" {
				out = append(out, path+"."+key)
				out = append(out, tagsOf(path+"."+key, f.Type)...)
			}
		}
		return out
	}
	return nil
}

func keysOf(path string, v value) []string {
	var out []string
	for _, item := range v.items {
		out = append(out, keysOf(path+".*", item)...)
	}
	for _, m := range v.members {
		if path == ".persistors" || path == ".pools.*.env" || path == ".pools.*.node.require" || path == ".pools.*.node.user_defined" {
			if path != ".persistors" {
				continue
			}
			out = append(out, keysOf(path+".*", m.value)...)
			continue
		}
		out = append(out, path+"."+m.key)
		out = append(out, keysOf(path+"."+m.key, m.value)...)
	}
	return out
}

func TestRedactedHasNoSecret(t *testing.T) {
	c := mustDecode(t, `{"nats": {"url": "nats://me:sesame@h:1, nats://sesame@i:2,tls://j", "user": "u", "password": "sesame"}}`)
	text := string(c.redacted().encode())
	if strings.Contains(text, "sesame") {
		t.Errorf("a secret shows: %s", text)
	}
	if want := `"url": "nats://********@h:1,nats://********@i:2,tls://j"`; !strings.Contains(text, want) {
		t.Errorf("no %s in %s", want, text)
	}
	if c.NATS.Password != "sesame" {
		t.Error("the configuration itself was changed")
	}
	token := mustDecode(t, `{"nats": {"url": "nats://h", "token": "sesame"}}`)
	if strings.Contains(string(token.redacted().encode()), "sesame") {
		t.Error("the token shows")
	}
}

func TestMoveDataLeavesNamedFiles(t *testing.T) {
	c := mustDecode(t, `{"persistors": {"b": {"file": "/db/b"}},
		"queues": [{"address": "a", "persistor_address": "a"}, {"address": "b", "persistor_address": "b"}]}`)
	c.moveData("/data")
	want := map[string]persistorConfig{"a": {"/data/a.db"}, "b": {"/db/b"}}
	if diff := cmp.Diff(want, c.Persistors); diff != "" {
		t.Error(diff)
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"address", "max_items", "max_bytes", "key", "ca"}
	for word, want := range map[string]string{
		"addresss": "address", "addrss": "address", "MaxItems": "max_items", "max-byte": "max_bytes", "maxitmes": "max_items",
		"kye": "key", "zzz": "", "x": "",
	} {
		got := suggest(word, known)
		if want == "" && !strings.HasPrefix(got, "known here are ") || want != "" && got != `did you mean "`+want+`"?` {
			t.Errorf("%s: %s", word, got)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"abc", "abc", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// FuzzDecodeConfig: any input either has problems, each with the file's name, or is a configuration that reads back as
// itself, in which every number keeps the promises that the rest of the program relies on.
func FuzzDecodeConfig(f *testing.F) {
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte(`{"address": "test.orderQueue", "process_timeout": 5, "persistor_address": "p", "collection": "c"}`))
	f.Add([]byte(`{"queues": [{"address": "a"}, {"address": "b", "backoff": {"base": 600000, "jitter": -0.0}}]}`))
	f.Add([]byte(`{"nats": {"url": "nats://u:p@h:1,tls://i"}, "persistors": {"a/b": {"file": ""}}}`))
	f.Add([]byte(`{"nats": {"url": "nats://u:p@h:1,tls://i"}}`))
	f.Add([]byte(`{"":{"":[{"":null}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeConfig("c.json", data)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "c.json") {
					t.Fatalf("a problem without the file: %q", line)
				}
			}
			return
		}
		again, err := decodeConfig("c.json", c.encode())
		if err != nil {
			t.Fatalf("the encoded configuration is not valid: %v\n%s", err, c.encode())
		}
		if diff := cmp.Diff(c, again, ignoreGiven); diff != "" {
			t.Fatalf("read back: %s", diff)
		}
		for _, q := range c.Queues {
			if q.Address == "" || q.MaxItemBytes > q.WindowBytes || millis(q.ProcessTimeout) <= 0 || slices.Contains(q.ReplySubjects, "") {
				t.Fatalf("accepted: %+v", q)
			}
		}
		if bytes.Contains(c.redacted().encode(), []byte(`"password": "p`)) {
			t.Fatal("a password shows")
		}
	})
}

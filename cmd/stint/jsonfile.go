package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// This file reads JSON strictly, and says everything that is wrong with it at once. The decoder of the standard library
// stops at the first problem, takes the last of two equal keys in silence and cannot say where a value stood.

const (
	maxConfigFile = 4 << 20 // bytes of a configuration file
	maxProblems   = 20      // reported for one file; the rest is counted
	maxShown      = 40      // bytes of a wrong value that are repeated in a problem
)

// problems is what is wrong with one file. It is an error when there is at least one.
type problems struct {
	file  string
	list  []problem
	extra int
}

type problem struct {
	line int
	text string
}

// add reports a problem. line 0 is none in particular; key may be empty for the file as a whole.
func (p *problems) add(line int, key, format string, args ...any) {
	if len(p.list) == maxProblems {
		p.extra++
		return
	}
	var b strings.Builder
	b.WriteString(p.file)
	if line > 0 {
		fmt.Fprintf(&b, ":%d", line)
	}
	if key != "" {
		b.WriteString(": " + key)
	}
	fmt.Fprintf(&b, ": "+format, args...)
	p.list = append(p.list, problem{line, b.String()})
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return p
}

// Error lists the problems, one on a line, in the order of the file.
func (p *problems) Error() string {
	slices.SortStableFunc(p.list, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	var b strings.Builder
	for i, one := range p.list {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.text)
	}
	if p.extra > 0 {
		fmt.Fprintf(&b, "\n%s: and %d more problems", p.file, p.extra)
	}
	return b.String()
}

// value is one JSON value and where it begins.
type value struct {
	kind    string // object, list, string, number, boolean or null
	line    int
	text    string // of a string; of a number or boolean as it is written
	members []member
	items   []value
}

type member struct {
	key   string
	line  int
	value value
}

// String shows the value in a problem: short, and never the content of an object.
func (v value) String() string {
	switch v.kind {
	case "object":
		return "an object"
	case "list":
		return "a list"
	case "string":
		return fmt.Sprintf("%q", clip(v.text))
	}
	return clip(v.text)
}

func clip(s string) string {
	if len(s) <= maxShown {
		return s
	}
	end := maxShown
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}

// readFile reads at most maxConfigFile bytes.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigFile {
		return nil, fmt.Errorf("%s is larger than %d bytes: a configuration is not", name, maxConfigFile)
	}
	return data, nil
}

// parseJSON reads one JSON value with nothing after it. A problem with the syntax is reported and gives false.
func parseJSON(data []byte, p *problems) (value, bool) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		p.add(0, "", "is not UTF-8: save it in that encoding")
		return value{}, false
	}
	var raw json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		var syntax *json.SyntaxError
		line := 0
		if errors.As(err, &syntax) {
			line = 1 + bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n"))
		}
		p.add(line, "", "is not valid JSON: %v", err)
		return value{}, false
	}
	r := jsonReader{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	r.dec.UseNumber()
	return r.value(), true
}

// jsonReader turns the tokens of valid JSON into a tree. It recurses with the depth of the input, which the syntax check
// has bounded to 10,000.
type jsonReader struct {
	data []byte
	dec  *json.Decoder
	at   int64
	line int // of the token read last
}

func (r *jsonReader) token() json.Token {
	tok, _ := r.dec.Token()
	end := r.dec.InputOffset()
	r.line += bytes.Count(r.data[r.at:end], []byte("\n"))
	r.at = end
	return tok
}

func (r *jsonReader) value() value {
	tok := r.token()
	v := value{line: r.line}
	switch tok := tok.(type) {
	case json.Delim:
		r.fill(&v, tok)
	case string:
		v.kind, v.text = "string", tok
	case json.Number:
		v.kind, v.text = "number", tok.String()
	case bool:
		v.kind, v.text = "boolean", strconv.FormatBool(tok)
	default:
		v.kind, v.text = "null", "null"
	}
	return v
}

func (r *jsonReader) fill(v *value, open json.Delim) {
	if open == '{' {
		v.kind = "object"
		for r.dec.More() {
			key, _ := r.token().(string)
			line := r.line
			v.members = append(v.members, member{key: key, line: line, value: r.value()})
		}
	} else {
		v.kind = "list"
		for r.dec.More() {
			v.items = append(v.items, r.value())
		}
	}
	r.token()
}

// document is a file while it is being read: its problems, and where each key stands for those found later.
type document struct {
	problems
	lines map[string]int
}

// report adds a problem with a key path, at the line where the key stands if it was given.
func (d *document) report(path, format string, args ...any) {
	d.add(d.lines[path], path, format, args...)
}

// object is a JSON object whose keys are taken one by one. What has been asked for is what it may contain, so the list of
// known keys cannot differ from the reader. An absent object has no members; all of its keys keep their defaults.
type object struct {
	doc     *document
	path    string
	members map[string]member
	order   []string
	known   []string
}

// newObject reports keys that are there twice. v may be absent or, after a report, of another kind.
func (d *document) newObject(path string, v value) *object {
	o := &object{doc: d, path: path, members: make(map[string]member, len(v.members))}
	for _, m := range v.members {
		if first, ok := o.members[m.key]; ok {
			d.add(m.line, joinPath(path, m.key), "is given twice, first on line %d: remove one", first.line)
			continue
		}
		o.members[m.key] = m
		o.order = append(o.order, m.key)
		d.lines[joinPath(path, m.key)] = m.line
	}
	return o
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// joinPath names a key inside an object: queues[0].address, persistors["test.persistor"].
func joinPath(path, key string) string {
	switch {
	case !plainKey.MatchString(key):
		return fmt.Sprintf("%s[%q]", path, clip(key))
	case path == "":
		return key
	}
	return path + "." + key
}

// take looks a key up and notes that it is known.
func (o *object) take(key string) (value, bool) {
	o.known = append(o.known, key)
	m, ok := o.members[key]
	return m.value, ok
}

// want takes a key whose value is of one kind; allowed says in words what it may be.
func (o *object) want(key, kind, allowed string) (value, bool) {
	v, ok := o.take(key)
	if ok && v.kind != kind {
		o.refuse(key, allowed, v)
		ok = false
	}
	return v, ok
}

func (o *object) refuse(key, allowed string, v value) {
	o.doc.report(joinPath(o.path, key), "must be %s, not %s", allowed, v)
}

// object takes an object.
func (o *object) object(key string) *object {
	v, _ := o.want(key, "object", "an object")
	return o.doc.newObject(joinPath(o.path, key), v)
}

// text takes a string. The empty string means the default, so a file can name every key. ok may be nil.
func (o *object) text(key string, dst *string, allowed string, ok func(string) bool) {
	v, found := o.want(key, "string", allowed)
	if !found || v.text == "" {
		return
	}
	if ok != nil && !ok(v.text) {
		o.refuse(key, allowed, v)
		return
	}
	*dst = v.text
}

// choice takes one of some words.
func (o *object) choice(key string, dst *string, words ...string) {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	o.text(key, dst, strings.Join(quoted, " or "), func(s string) bool { return slices.Contains(words, s) })
}

// span is a range of whole numbers and what they count.
type span struct {
	low, high int64
	unit      string
}

// whole takes a whole number in its range.
func (o *object) whole(key string, dst *int64, s span) {
	allowed := fmt.Sprintf("a whole number of %s from %d to %d", s.unit, s.low, s.high)
	v, found := o.want(key, "number", allowed)
	if !found {
		return
	}
	n, err := strconv.ParseInt(v.text, 10, 64)
	if err != nil || n < s.low || n > s.high {
		o.refuse(key, allowed, v)
		return
	}
	*dst = n
}

// fraction takes a number from 0 to 1.
func (o *object) fraction(key string, dst *float64) {
	const allowed = "a number from 0 to 1"
	v, found := o.want(key, "number", allowed)
	if !found {
		return
	}
	f, err := strconv.ParseFloat(v.text, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > 1 {
		o.refuse(key, allowed, v)
		return
	}
	*dst = f
}

// texts takes a list of strings, each of which check accepts.
func (o *object) texts(key string, dst *[]string, check func(string) error) {
	const allowed = "a list of strings"
	v, found := o.want(key, "list", allowed)
	if !found {
		return
	}
	*dst = make([]string, 0, len(v.items))
	for i, item := range v.items {
		if item.kind != "string" {
			o.refuse(key, allowed, item)
			return
		}
		if err := check(item.text); err != nil {
			o.doc.add(item.line, fmt.Sprintf("%s[%d]", joinPath(o.path, key), i), "%v", err)
		}
		*dst = append(*dst, item.text)
	}
}

// close reports the keys that nobody asked for.
func (o *object) close() {
	for _, key := range o.order {
		if slices.Contains(o.known, key) {
			continue
		}
		o.doc.report(joinPath(o.path, key), "is not a known key: %s", suggest(key, o.known))
	}
}

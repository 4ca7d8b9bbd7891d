package wire

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of names, in bytes.
const (
	MaxSubject = 1024 // a subject that a client names
	MaxAddress = 256  // an address; its lease subjects are up to 31 bytes longer
)

// CheckAddress says whether one address can belong to a queue: a literal subject of at most MaxAddress bytes that does
// not start with $ or _ and whose last token is not one of register, unregister, lease, talk and event. The error says
// what to change; the caller adds which key or flag it came from.
func CheckAddress(address string) error {
	what := flaw(address, MaxAddress)
	if what == "" {
		what = addressFlaw(address)
	}
	if what != "" {
		return fmt.Errorf("address %s %s", show(address), what)
	}
	return nil
}

func addressFlaw(address string) string {
	last := address[strings.LastIndexByte(address, '.')+1:]
	switch {
	case address[0] == '$':
		return flawDollar
	case address[0] == '_':
		return "starts with _, which clients use for their inboxes: begin it with a letter or a digit"
	case reserved(last):
		return "ends in the reserved word " + last + ": end it in another word"
	}
	return ""
}

// CheckAddresses checks all addresses of one broker: each by itself, no address twice, none at or under the reserved
// subjects of another (A.register, A.unregister, A.lease, A.talk, A.event). An address merely below another (orders and
// orders.eu) is fine.
func CheckAddresses(addresses []string) error {
	seen := make(map[string]bool, len(addresses))
	for _, address := range addresses {
		if err := CheckAddress(address); err != nil {
			return err
		}
		if seen[address] {
			return fmt.Errorf("address %s is given to two queues: give each queue an address of its own", show(address))
		}
		seen[address] = true
	}
	for _, address := range addresses {
		if at := reservedBy(address, seen); at >= 0 {
			return fmt.Errorf("address %s lies inside the reserved subjects of the queue at %s: rename one of the two",
				show(address), show(address[:at]))
		}
	}
	return nil
}

// reservedBy looks for an address of the set that subject is at or under a reserved subject of, and gives its length,
// or -1. Only a place where a reserved word follows costs a lookup.
func reservedBy(subject string, addresses map[string]bool) int {
	for at := range len(subject) {
		if subject[at] != '.' {
			continue
		}
		word, _, _ := strings.Cut(subject[at+1:], ".")
		if reserved(word) && addresses[subject[:at]] {
			return at
		}
	}
	return -1
}

// CheckSubject says whether a client may name this subject for the broker to publish to: literal, with no * or > at
// all, no white space or control character, no empty token, valid UTF-8, at most MaxSubject bytes, not starting with $.
// The error says what to change.
func CheckSubject(subject string) error {
	what := flaw(subject, MaxSubject)
	if what == "" && subject[0] == '$' {
		what = flawDollar
	}
	if what != "" {
		return fmt.Errorf("subject %s %s", show(subject), what)
	}
	return nil
}

const flawDollar = "starts with $, which NATS keeps for itself: choose another first character"

// flaw says in words what keeps a name from being a literal subject, or nothing. It does not allocate: the subjects of
// every send pass here.
func flaw(name string, limit int) string {
	if name == "" {
		return "is empty: name a subject such as orders.done"
	}
	if len(name) > limit {
		return fmt.Sprintf("is %d bytes long: use at most %d", len(name), limit)
	}
	tokenStart := true
	ascii := true
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.' && tokenStart:
			return flawToken
		case c == '*' || c == '>':
			return "contains a wildcard: name one subject, without * and >"
		case c <= ' ' || c == 0x7f:
			return flawSpace
		case c >= utf8.RuneSelf:
			ascii = false
		}
		tokenStart = name[i] == '.'
	}
	if tokenStart {
		return flawToken
	}
	if !ascii {
		return flawUnicode(name)
	}
	return ""
}

const (
	flawToken = "has an empty token: remove the leading, trailing or doubled dot"
	flawSpace = "contains white space or a control character: leave it out"
)

func flawUnicode(name string) string {
	if !utf8.ValidString(name) {
		return "is not valid UTF-8: encode it as UTF-8"
	}
	for _, r := range name {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return flawSpace
		}
	}
	return ""
}

// CheckPattern says whether pattern is one an operator may allow: a subject in which a whole token may be * (any one
// token) and the last may be > (one or more tokens). A wildcard inside a token is refused, as NATS would take it
// literally and nobody means that; so is a first $, as no subject that starts with it is ever allowed.
func CheckPattern(pattern string) error {
	what := patternFlaw(pattern)
	if what != "" {
		return fmt.Errorf("pattern %s %s", show(pattern), what)
	}
	return nil
}

func patternFlaw(pattern string) string {
	tokens := strings.Split(pattern, ".")
	for i, token := range tokens {
		switch {
		case token == "*", token == ">" && i == len(tokens)-1:
			tokens[i] = "w"
		case token == ">":
			return "has > before its end: put > last, or use * for one token"
		case strings.ContainsAny(token, "*>"):
			return "has a wildcard inside a token: let * or > stand alone between dots"
		}
	}
	if what := flaw(strings.Join(tokens, "."), MaxSubject); what != "" {
		return what
	}
	if pattern[0] == '$' {
		return flawDollar
	}
	return ""
}

// MatchPattern says whether a literal subject matches a NATS pattern. Both are taken as valid. It does not allocate.
func MatchPattern(pattern, subject string) bool {
	for {
		want, patternRest, patternMore := strings.Cut(pattern, ".")
		if want == ">" && !patternMore {
			return subject != ""
		}
		token, subjectRest, subjectMore := strings.Cut(subject, ".")
		if token == "" || want != "*" && want != token {
			return false
		}
		if !patternMore || !subjectMore {
			return patternMore == subjectMore
		}
		pattern, subject = patternRest, subjectRest
	}
}

// show quotes a name for a sentence and keeps a hostile one short.
func show(name string) string {
	const limit = 80
	if len(name) > limit {
		return fmt.Sprintf("%q...", clip(name, limit))
	}
	return fmt.Sprintf("%q", name)
}

// clip cuts s to at most limit bytes without cutting a character in two.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit
	for end > 0 && end > limit-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

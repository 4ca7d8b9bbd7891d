package wire

import (
	"strconv"
	"strings"
)

// The reserved words: the token that follows an address in the subjects of its queue.
const (
	wordRegister   = "register"
	wordUnregister = "unregister"
	wordLease      = "lease"
	wordTalk       = "talk"
	wordEvent      = "event"
)

func reserved(token string) bool {
	switch token {
	case wordRegister, wordUnregister, wordLease, wordTalk, wordEvent:
		return true
	}
	return false
}

// RegisterSubject is where processors register with the queue: A.register.
func RegisterSubject(address string) string { return address + "." + wordRegister }

// UnregisterSubject is where processors take their leave: A.unregister.
func UnregisterSubject(address string) string { return address + "." + wordUnregister }

// LeaseSubject is the reply subject of work: A.lease.<item>.<attempt>. Attempts count from 1; the subject of attempt 0
// is written, but ParseLease refuses it.
func LeaseSubject(address string, item uint64, attempt uint32) string {
	return string(AppendLease(make([]byte, 0, len(address)+32), address, item, attempt))
}

// AppendLease appends LeaseSubject to dst.
func AppendLease(dst []byte, address string, item uint64, attempt uint32) []byte {
	return appendNumbered(dst, address, wordLease, item, attempt)
}

// ParseLease reads a lease subject of the queue at address. It is true for exactly what LeaseSubject writes, with an
// attempt of at least 1. It does not allocate.
func ParseLease(address, subject string) (item uint64, attempt uint32, ok bool) {
	item, attempt, ok = parseNumbered(address, wordLease, subject)
	if attempt == 0 {
		return 0, 0, false
	}
	return item, attempt, ok
}

// LeasePattern matches every lease subject of the queue: A.lease.*.*
func LeasePattern(address string) string { return address + "." + wordLease + ".*.*" }

// TalkSubject is where the sender of an item takes turn n of a conversation: A.talk.<item>.<n>.
func TalkSubject(address string, item uint64, n uint32) string {
	return string(appendNumbered(make([]byte, 0, len(address)+32), address, wordTalk, item, n))
}

// ParseTalk reads a talk subject of the queue at address. It is true for exactly what TalkSubject writes, 0 included.
// It does not allocate.
func ParseTalk(address, subject string) (item uint64, n uint32, ok bool) {
	return parseNumbered(address, wordTalk, subject)
}

// TalkPattern matches every talk subject of the queue: A.talk.*.*
func TalkPattern(address string) string { return address + "." + wordTalk + ".*.*" }

// EventSubject is where the queue's optional events of one kind go: A.event.<kind>.
func EventSubject(address, kind string) string { return address + "." + wordEvent + "." + kind }

func appendNumbered(dst []byte, address, word string, item uint64, n uint32) []byte {
	dst = append(dst, address...)
	dst = append(dst, '.')
	dst = append(dst, word...)
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, item, idBase)
	dst = append(dst, '.')
	return strconv.AppendUint(dst, uint64(n), 10)
}

func parseNumbered(address, word, subject string) (item uint64, n uint32, ok bool) {
	rest, under := below(subject, address)
	if !under {
		return 0, 0, false
	}
	if rest, under = below(rest, word); !under {
		return 0, 0, false
	}
	id, count, _ := strings.Cut(rest, ".")
	item, okID := ParseID(id)
	n, okCount := parseCount(count)
	if !okID || !okCount {
		return 0, 0, false
	}
	return item, n, true
}

// below gives what follows "prefix." in a subject.
func below(subject, prefix string) (rest string, ok bool) {
	if len(subject) <= len(prefix) || subject[len(prefix)] != '.' || subject[:len(prefix)] != prefix {
		return "", false
	}
	return subject[len(prefix)+1:], true
}

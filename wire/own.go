package wire

import "strings"

// Own knows the subjects that belong to one broker. A client that could name one of them as its reply subject would make
// the broker talk to itself. Own is fixed once made and safe for any number of readers; a nil Own has nothing.
type Own struct {
	addresses map[string]bool
	extra     map[string]bool
}

// NewOwn makes the set from the addresses of a broker's queues, which are as [CheckAddress] wants them, and from further
// prefixes whose whole subject trees are the broker's ("stint" stands for stint and stint.>).
func NewOwn(addresses []string, extra ...string) *Own {
	return &Own{addresses: setOf(addresses), extra: setOf(extra)}
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// Has says whether a literal subject is an address, lies at or under its reserved subjects (register, unregister, lease,
// talk, event), or lies at or under an extra prefix. Its cost depends on the subject's length, not on the number of
// queues, and it does not allocate.
func (o *Own) Has(subject string) bool {
	if o == nil || strings.HasPrefix(subject, "_") && len(o.extra) == 0 {
		return false // no address starts as inboxes do
	}
	return o.addresses[subject] || reservedBy(subject, o.addresses) >= 0 || o.underExtra(subject)
}

func (o *Own) underExtra(subject string) bool {
	if len(o.extra) == 0 {
		return false
	}
	for at := 0; at < len(subject); at++ {
		dot := strings.IndexByte(subject[at:], '.')
		if dot < 0 {
			break
		}
		at += dot
		if o.extra[subject[:at]] {
			return true
		}
	}
	return o.extra[subject]
}

// CheckTarget says whether the broker may publish to a subject that a client has named. The code is invalid_subject for
// what CheckSubject refuses, except that a leading $ is forbidden_subject, as are the broker's own subjects and, when
// allowed is not empty, everything that matches none of its patterns.
func CheckTarget(subject string, own *Own, allowed []string) *Error {
	if err := checkNamed(subject); err != nil {
		return err
	}
	if own.Has(subject) {
		return Errorf(CodeForbiddenSubject,
			"subject %s belongs to the broker: name a subject of your own, such as an inbox", show(subject))
	}
	if len(allowed) == 0 {
		return nil
	}
	for _, pattern := range allowed {
		if MatchPattern(pattern, subject) {
			return nil
		}
	}
	return Errorf(CodeForbiddenSubject,
		"subject %s is not one that this queue allows: use an allowed subject, or ask the operator to add it", show(subject))
}

// checkNamed is CheckSubject with the code for the client.
func checkNamed(subject string) *Error {
	err := CheckSubject(subject)
	if err == nil {
		return nil
	}
	if strings.HasPrefix(subject, "$") && flaw(subject, MaxSubject) == "" {
		return Errorf(CodeForbiddenSubject, "%v", err)
	}
	return Errorf(CodeInvalidSubject, "%v", err)
}

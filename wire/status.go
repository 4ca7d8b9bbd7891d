package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// The values of "status".
const (
	statusAccepted = "accepted"
	statusOK       = "ok"
	statusError    = "error"
)

// maxStatusBody is more than any status body can be: a message of MaxMessage bytes, all escaped, and the rest.
const maxStatusBody = 16 << 10

// Accepted is the accept notice of an item. duplicate says that it was already there, under the id given.
func Accepted(id uint64, duplicate bool) []byte {
	return AppendAccepted(make([]byte, 0, 64), id, duplicate)
}

// AppendAccepted appends what Accepted gives.
func AppendAccepted(out []byte, id uint64, duplicate bool) []byte {
	out = append(out, acceptedHead...)
	out = strconv.AppendUint(out, id, idBase)
	if duplicate {
		return append(out, duplicateTail...)
	}
	return append(out, acceptedTail...)
}

// What an accept notice has before and after the id.
const (
	acceptedHead  = `{"status":"accepted","id":"`
	acceptedTail  = `"}`
	duplicateTail = `","duplicate":true}`
)

// OK is the answer to register and unregister.
func OK() []byte { return []byte(`{"status":"ok"}`) }

// Status is what Accepted, OK and Error.Body say, as a client reads it. Fields that the body does not have are empty.
type Status struct {
	Status    string `json:"status"` // accepted, ok or error
	ID        string `json:"id"`
	Message   string `json:"message"`
	Code      string `json:"code"`
	Duplicate bool   `json:"duplicate"`
}

// ParseStatus reads a status body. It is false for everything else, and for what is too large to be one. A processor's
// own reply may look the same; the broker's final errors also carry the header Nats-Service-Error-Code.
func ParseStatus(body []byte) (Status, bool) {
	if s, ok := parseAccepted(body); ok {
		return s, true
	}
	return decodeStatus(body)
}

func decodeStatus(body []byte) (Status, bool) {
	var s Status
	if len(body) > maxStatusBody || json.Unmarshal(body, &s) != nil {
		return Status{}, false
	}
	switch s.Status {
	case statusAccepted, statusOK, statusError:
		return s, true
	}
	return Status{}, false
}

// parseAccepted reads an accept notice as AppendAccepted writes it. A client may get as many of them as it sends items, and to
// decode any JSON took it longer than all else that it does with one.
func parseAccepted(body []byte) (Status, bool) {
	id, ok := bytes.CutPrefix(body, []byte(acceptedHead))
	if !ok {
		return Status{}, false
	}
	id, ok = bytes.CutSuffix(id, []byte(acceptedTail))
	duplicate := false
	if !ok {
		id, duplicate = bytes.CutSuffix(id, []byte(duplicateTail))
	}
	if len(id) > maxIDLen || !ok && !duplicate {
		return Status{}, false
	}
	for _, c := range id {
		if _, ok := idDigit(c); !ok {
			return Status{}, false
		}
	}
	return Status{Status: statusAccepted, ID: string(id), Duplicate: duplicate}, true
}

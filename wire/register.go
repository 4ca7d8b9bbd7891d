package wire

import (
	"encoding/json"
	"strconv"
)

const (
	// MaxCapacity is the most items one registration may hold at once.
	MaxCapacity = 10_000
	// MaxRegisterBody is the most bytes of a register or unregister body; a subject of MaxSubject bytes fits even when
	// every character is escaped.
	MaxRegisterBody = 16 << 10
)

// Registration is what a processor says of itself.
type Registration struct {
	Processor string // the subject it listens at
	Capacity  int    // how many items it may hold at once, 1 to MaxCapacity
}

// ParseRegister reads {"processor":"<subject>","capacity":N}. Capacity is 1 when absent. The code of an error is
// bad_request for a body that is too long or not a JSON object, for a missing or non-string processor and for a wrong
// capacity; invalid_subject or forbidden_subject (a leading $) for the subject itself. Keys that are not known are ignored,
// as processors of other systems add their own; of a key that is repeated the last counts.
func ParseRegister(body []byte) (Registration, *Error) {
	fields, err := registerFields(body)
	if err != nil {
		return Registration{}, err
	}
	r := Registration{Capacity: 1}
	if r.Processor, err = processorField(fields); err != nil {
		return Registration{}, err
	}
	raw, given := fields["capacity"]
	if !given {
		return r, nil
	}
	if r.Capacity, err = parseCapacity(raw); err != nil {
		return Registration{}, err
	}
	return r, nil
}

// ParseUnregister reads {"processor":"<subject>"}, by the rules of ParseRegister.
func ParseUnregister(body []byte) (string, *Error) {
	fields, err := registerFields(body)
	if err != nil {
		return "", err
	}
	return processorField(fields)
}

func registerFields(body []byte) (map[string]json.RawMessage, *Error) {
	if len(body) > MaxRegisterBody {
		return nil, Errorf(CodeBadRequest, "the body is %d bytes long: send at most %d, only processor and capacity are read",
			len(body), MaxRegisterBody)
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || fields == nil {
		return nil, Errorf(CodeBadRequest, `the body is not a JSON object: send {"processor":"<subject>"}`)
	}
	return fields, nil
}

func processorField(fields map[string]json.RawMessage) (string, *Error) {
	raw, given := fields["processor"]
	if !given {
		return "", Errorf(CodeBadRequest, `"processor" is missing: name the subject that the processor listens at`)
	}
	if raw[0] != '"' {
		return "", Errorf(CodeBadRequest, `"processor" is not a string: name the subject that the processor listens at`)
	}
	processor, err := unquote(raw)
	if err != nil {
		return "", Errorf(CodeBadRequest, `"processor" is not a string: %v`, err)
	}
	if err := checkNamed(processor); err != nil {
		return "", Errorf(err.Code, `"processor": %s`, err.Message)
	}
	return processor, nil
}

func parseCapacity(raw json.RawMessage) (int, *Error) {
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < 1 || n > MaxCapacity {
		return 0, Errorf(CodeBadRequest, `"capacity" is %s: give a whole number from 1 to %d`,
			clip(string(raw), 40), MaxCapacity)
	}
	return n, nil
}

// RegisterBody is the body that ParseRegister reads.
func RegisterBody(r Registration) []byte {
	return marshal(struct {
		Processor string `json:"processor"`
		Capacity  int    `json:"capacity"`
	}{r.Processor, r.Capacity})
}

// UnregisterBody is the body that ParseUnregister reads.
func UnregisterBody(processor string) []byte {
	return marshal(struct {
		Processor string `json:"processor"`
	}{processor})
}

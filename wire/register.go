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
	Batch     int    // how many items may come in one message, 1 to MaxBatch; 0: work comes in messages of its own
}

// ParseRegister reads {"processor":"<subject>","capacity":N,"batch":N}. Capacity is 1 when absent, batch 0. The code of an error is
// bad_request for a body that is too long or not a JSON object, for a missing or non-string processor and for a wrong
// capacity or batch; invalid_subject or forbidden_subject (a leading $) for the subject itself. Keys that are not known are ignored,
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
	if raw, given := fields["capacity"]; given {
		if r.Capacity, err = parseWhole("capacity", raw, 1, MaxCapacity); err != nil {
			return Registration{}, err
		}
	}
	if raw, given := fields["batch"]; given {
		if r.Batch, err = parseWhole("batch", raw, 0, MaxBatch); err != nil {
			return Registration{}, err
		}
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

func parseWhole(key string, raw json.RawMessage, least, most int) (int, *Error) {
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < least || n > most {
		return 0, Errorf(CodeBadRequest, `"%s" is %s: give a whole number from %d to %d`, key, clip(string(raw), 40), least, most)
	}
	return n, nil
}

// RegisterBody is the body that ParseRegister reads.
func RegisterBody(r Registration) []byte {
	return marshal(struct {
		Processor string `json:"processor"`
		Capacity  int    `json:"capacity"`
		Batch     int    `json:"batch,omitempty"`
	}{r.Processor, r.Capacity, r.Batch})
}

// UnregisterBody is the body that ParseUnregister reads.
func UnregisterBody(processor string) []byte {
	return marshal(struct {
		Processor string `json:"processor"`
	}{processor})
}

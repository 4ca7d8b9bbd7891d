package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// maxNoticeMessage is the most bytes of a message in the accept notice of a batch. The whole one goes to the reply subject.
const maxNoticeMessage = 256

// maxBatchNotice is more than the notice of a batch can be: MaxBatch keys and ids, all escaped, and a message for each code.
const maxBatchNotice = 1 << 20

// BatchAccepted is the accept notice of a batch. The items have consecutive ids in the order of their frames, from First on.
// Those in Duplicates and Refused have none of their own.
type BatchAccepted struct {
	First      uint64
	Count      int // frames
	Duplicates []DuplicateItem
	Refused    []RefusedItems
}

// DuplicateItem is an item that was there before, as the one with this id.
type DuplicateItem struct {
	Key string `json:"key"`
	ID  string `json:"id"`
}

// RefusedItems are the items of a batch that are not queued for one reason. Message is that of the first of them, cut to
// 256 bytes.
type RefusedItems struct {
	Code    Code     `json:"code"`
	Message string   `json:"message"`
	Keys    []string `json:"keys"`
}

// Refuse adds an item that is not queued.
func (b *BatchAccepted) Refuse(key string, err *Error) {
	for i := range b.Refused {
		if r := &b.Refused[i]; r.Code == err.Code {
			r.Keys = append(r.Keys, key)
			return
		}
	}
	b.Refused = append(b.Refused, RefusedItems{err.Code, clip(err.Message, maxNoticeMessage), []string{key}})
}

// Duplicate adds an item that was there before.
func (b *BatchAccepted) Duplicate(key string, id uint64) {
	b.Duplicates = append(b.Duplicates, DuplicateItem{key, FormatID(id)})
}

// Body is {"status":"accepted","id":"<first>","count":<n>}, with "duplicates" and "refused" if there are any.
func (b *BatchAccepted) Body() []byte {
	out := make([]byte, 0, 64)
	out = append(out, `{"status":"accepted","id":"`...)
	out = strconv.AppendUint(out, b.First, idBase)
	out = append(out, `","count":`...)
	out = strconv.AppendInt(out, int64(b.Count), 10)
	if len(b.Duplicates)+len(b.Refused) > 0 {
		rest := marshal(struct {
			Duplicates []DuplicateItem `json:"duplicates,omitempty"`
			Refused    []RefusedItems  `json:"refused,omitempty"`
		}{b.Duplicates, b.Refused})
		out = append(append(out, ','), bytes.TrimSuffix(rest[1:], []byte("}"))...)
	}
	return append(out, '}')
}

// ParseBatchAccepted reads the accept notice of a batch. It is false for everything else, and for what is too large to be
// one.
func ParseBatchAccepted(body []byte) (BatchAccepted, bool) {
	var s struct {
		Status     string          `json:"status"`
		ID         string          `json:"id"`
		Count      int             `json:"count"`
		Duplicates []DuplicateItem `json:"duplicates"`
		Refused    []RefusedItems  `json:"refused"`
	}
	if len(body) > maxBatchNotice || json.Unmarshal(body, &s) != nil || s.Status != statusAccepted || s.Count < 1 || s.Count > MaxBatch {
		return BatchAccepted{}, false
	}
	first, ok := ParseID(s.ID)
	return BatchAccepted{first, s.Count, s.Duplicates, s.Refused}, ok
}

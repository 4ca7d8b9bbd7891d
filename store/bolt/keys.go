package bolt

import (
	"encoding/binary"

	"stint/store"
)

// kind names a part of a queue: its bucket, and the first byte under the checksum of its records, so that a record
// found in the wrong bucket is damage. The numbers are on disk and never change.
type kind byte

const (
	kindReady    kind = 1
	kindDelayed  kind = 2
	kindDead     kind = 3
	kindExpiry   kind = 4
	kindDedup    kind = 5
	kindPrune    kind = 6
	kindReply    kind = 7
	kindLease    kind = 8
	kindRegister kind = 9
	kindCounts   kind = 10
	kindDamaged  kind = 11
	kindMeta     kind = 12
	kinds             = 13
)

// bucketNames are the names of a queue's buckets in the file.
var bucketNames = [kinds][]byte{
	kindReady:    []byte("ready"),
	kindDelayed:  []byte("delayed"),
	kindDead:     []byte("dead"),
	kindExpiry:   []byte("expiry"),
	kindDedup:    []byte("dedup"),
	kindPrune:    []byte("dedup-expiry"),
	kindReply:    []byte("replies"),
	kindLease:    []byte("leases"),
	kindRegister: []byte("registrations"),
	kindDamaged:  []byte("damaged"),
}

// words are what a Damage calls a record.
var words = [kinds]string{
	kindReady: "item", kindDelayed: "item", kindDead: "item", kindExpiry: "expiry", kindDedup: "dedup",
	kindReply: "reply", kindLease: "lease", kindRegister: "registration", kindCounts: "counters",
}

// Names in the root of the file and within a queue's bucket.
var (
	metaBucket  = []byte("stint")
	formatKey   = []byte("format")
	epochKey    = []byte("epoch")
	countsKey   = []byte("counts")
	queuePrefix = "queue/"
)

func areaKind(a store.Area) kind { return kind(a) }

// maxPlaceKey is the longest key of an item record: a time and an id.
const maxPlaceKey = 16

// appendPlaceKey appends the key of an item: as unsigned big-endian numbers, so that the order of the bytes is the order
// of delivery.
func appendPlaceKey(b []byte, p store.Place, id uint64) []byte {
	switch p.Area {
	case store.Ready:
		b = append(b, p.Priority)
	case store.Delayed:
		b = appendTime(b, p.Due)
	}
	return appendID(b, id)
}

func appendID(b []byte, id uint64) []byte { return binary.BigEndian.AppendUint64(b, id) }

// appendTime turns the sign about, so that times before 1970 sort first.
func appendTime(b []byte, ms int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(ms)^1<<63) }

func appendTimeKey(b []byte, ms int64, id uint64) []byte { return appendID(appendTime(b, ms), id) }

func keyTime(k []byte) int64 { return int64(binary.BigEndian.Uint64(k) ^ 1<<63) }

func keyID(k []byte) uint64 { return binary.BigEndian.Uint64(k) }

// splitPlaceKey takes the place and the id from the key of an item in that part; false: it is not such a key.
func splitPlaceKey(in kind, k []byte) (p store.Place, id uint64, ok bool) {
	p.Area = store.Area(in)
	switch {
	case in == kindReady && len(k) == 9:
		p.Priority = k[0]
		return p, keyID(k[1:]), true
	case in == kindDelayed && len(k) == 16:
		p.Due = keyTime(k)
		return p, keyID(k[8:]), true
	case in == kindDead && len(k) == 8:
		return p, keyID(k), true
	}
	return store.Place{}, 0, false
}

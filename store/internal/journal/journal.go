// Package journal is a file that groups of changes are appended to, one write and one sync each, and read back from after
// a crash.
//
// The file has its full size from the beginning and is written again and again from its start: an append changes no
// metadata, so a sync costs one flush of the device, and it never finds the disk full. What an older round left beyond
// the last append is told apart by the number of a group, and by a salt that is mixed into every checksum and is new each time
// the database is opened. So bytes that a sender chose can not pass for a group.
//
// A group that was torn by a crash is not there: nobody was told that it is. Since a group is appended only after the one
// before is on stable storage, nothing valid can stand after a torn group; where there is, the disk has damaged what was
// written, and [Read] says how many groups are missing.
//
// What it never does: it knows nothing of what a group holds, it has no goroutine, and it does not decide when the file
// may be used again from its start: that is for the one who has brought its groups to another place.
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
)

// The file begins with a head of one page, so that groups never share a page with it:
//
//	magic     8 bytes
//	identity  8 bytes, little endian: of the database the file belongs to
//	room      8 bytes, little endian: bytes that groups have
//	checksum  4 bytes, little endian: CRC-32C of the 24 bytes above
//
// Groups follow, each at a multiple of 8 bytes:
//
//	magic     4 bytes
//	length    4 bytes, little endian: of the content
//	number    8 bytes, little endian
//	checksum  4 bytes, little endian: CRC-32C of the content
//	checksum  4 bytes, little endian: CRC-32C of the salt and the 20 bytes above
//	content
const (
	headSize  = 4096
	groupHead = 24
	align     = 8
)

var (
	fileMagic  = [8]byte{'S', 't', 'i', 'n', 't', 'L', 'o', 'g'}
	groupMagic = [4]byte{0xA7, 'g', 'r', 'p'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// ErrForeign: the file belongs to another database.
var ErrForeign = errors.New("journal: the file belongs to another database")

// ErrCut: the file is shorter than it was made, or its head is damaged so that nobody can tell.
var ErrCut = errors.New("journal: the file is not whole")

// ErrRoom: the group is longer than what is left in the file. Nothing is written.
var ErrRoom = errors.New("journal: no room left")

// File is an open journal. It belongs to one goroutine.
type File struct {
	f    *os.File
	sync func(*os.File) error
	buf  []byte // what was appended in this round, as it stands in the file
	room int
	salt uint64
}

// Create makes the file at path with room for that many bytes of groups, all of them written, and syncs it. A file that
// is like this already is used as it is; any other is replaced. The caller syncs the directory. sync makes a file durable
// after each append.
func Create(path string, identity uint64, room int, sync func(*os.File) error) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the journal: %w", err)
	}
	j := &File{f: f, sync: sync, room: room, buf: make([]byte, 0, room)}
	if j.made(identity) {
		return j, nil
	}
	if err := errors.Join(f.Truncate(0), j.fill(identity)); err != nil {
		return nil, errors.Join(fmt.Errorf("make the journal %s of %d bytes: %w", path, room, err), f.Close())
	}
	return j, nil
}

// made says whether the file is one that fill has finished: its last page is written, and its head is good.
func (j *File) made(identity uint64) bool {
	info, err := j.f.Stat()
	if err != nil || info.Size() != int64(headSize+j.room) {
		return false
	}
	head := appendHead(nil, identity, j.room)
	got := make([]byte, len(head))
	_, err = j.f.ReadAt(got, 0)
	return err == nil && bytes.Equal(got, head)
}

// fill writes zeroes and then the head: a block that was only reserved would cost its first write a change of metadata.
func (j *File) fill(identity uint64) error {
	zero := make([]byte, 64<<10)
	size := int64(headSize + j.room)
	for at := int64(0); at < size; at += int64(len(zero)) {
		if _, err := j.f.WriteAt(zero[:min(int64(len(zero)), size-at)], at); err != nil {
			return err
		}
	}
	if err := j.sync(j.f); err != nil {
		return err
	}
	if _, err := j.f.WriteAt(appendHead(nil, identity, j.room), 0); err != nil {
		return err
	}
	return j.sync(j.f)
}

func appendHead(b []byte, identity uint64, room int) []byte {
	b = append(b, fileMagic[:]...)
	b = binary.LittleEndian.AppendUint64(b, identity)
	b = binary.LittleEndian.AppendUint64(b, uint64(room))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Begin starts a new round at the start of the file, with that salt. All groups of the round before must be safe elsewhere.
func (j *File) Begin(salt uint64) {
	j.buf = j.buf[:0]
	j.salt = salt
}

// Append writes a group and waits until it is on stable storage. After an error other than ErrRoom nobody knows what the
// file holds, and it must not be appended to again.
func (j *File) Append(number uint64, content []byte) error {
	size := (groupHead + len(content) + align - 1) / align * align
	if size > j.room-len(j.buf) {
		return ErrRoom
	}
	start := len(j.buf)
	j.buf = appendGroup(j.buf, j.salt, number, content)
	if _, err := j.f.WriteAt(j.buf[start:], int64(headSize+start)); err != nil {
		return fmt.Errorf("append to the journal: %w", err)
	}
	if err := j.sync(j.f); err != nil {
		return fmt.Errorf("sync the journal: %w", err)
	}
	return nil
}

func appendGroup(b []byte, salt, number uint64, content []byte) []byte {
	start := len(b)
	b = append(b, groupMagic[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(content)))
	b = binary.LittleEndian.AppendUint64(b, number)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(content, castagnoli))
	b = binary.LittleEndian.AppendUint32(b, headSum(salt, b[start:]))
	b = append(b, content...)
	for len(b)%align != 0 {
		b = append(b, 0)
	}
	return b
}

func headSum(salt uint64, head []byte) uint32 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], salt)
	return crc32.Update(crc32.Checksum(s[:], castagnoli), castagnoli, head)
}

// Empty says whether nothing was appended in this round.
func (j *File) Empty() bool { return len(j.buf) == 0 }

// Groups calls yield with the content of each group of this round, in order, until it returns an error, which is returned.
// The content must not be changed, and is good until Begin.
func (j *File) Groups(yield func(content []byte) error) error {
	for at := 0; at < len(j.buf); {
		n := int(binary.LittleEndian.Uint32(j.buf[at+4:]))
		at += groupHead
		if err := yield(j.buf[at : at+n : at+n]); err != nil {
			return err
		}
		at = (at + n + align - 1) / align * align
	}
	return nil
}

// Close closes the file and leaves it as it is.
func (j *File) Close() error { return j.f.Close() }

// Group is a group that was read back.
type Group struct {
	Number  uint64
	Content []byte
}

// Read returns the groups in the file that were written with that salt and have a larger number than after. lost is how
// many are missing before the last of them; the caller knows what may be missing before the first. A damaged head alone is no
// reason to give up what follows it, and comes back as ErrCut together with the groups. Other errors: ErrForeign, and those
// of the file system.
func Read(path string, identity, salt, after uint64) (groups []Group, lost uint64, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read the journal: %w", err)
	}
	whole, foreign := examine(b, identity)
	if foreign {
		return nil, 0, fmt.Errorf("%w: %s", ErrForeign, path)
	}
	for at := headSize; at+groupHead <= len(b); {
		g, ok := groupAt(b[at:], salt)
		if !ok || g.Number <= after {
			at += align
			continue
		}
		if n := len(groups); n > 0 {
			lost += g.Number - groups[n-1].Number - 1
		}
		groups, after = append(groups, g), g.Number
		at = (at + groupHead + len(g.Content) + align - 1) / align * align
	}
	if !whole {
		err = fmt.Errorf("%w: %s", ErrCut, path)
	}
	return groups, lost, err
}

// examine looks at a file's head and length.
func examine(b []byte, identity uint64) (whole, foreign bool) {
	if len(b) < headSize || [8]byte(b[:8]) != fileMagic || crc32.Checksum(b[:24], castagnoli) != binary.LittleEndian.Uint32(b[24:]) {
		return false, false
	}
	return uint64(len(b)-headSize) == binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[8:]) != identity
}

func groupAt(b []byte, salt uint64) (g Group, ok bool) {
	if [4]byte(b[:4]) != groupMagic || binary.LittleEndian.Uint32(b[20:]) != headSum(salt, b[:20]) {
		return g, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if uint64(n) > uint64(len(b)-groupHead) {
		return g, false
	}
	content := b[groupHead : groupHead+n : groupHead+n]
	if crc32.Checksum(content, castagnoli) != binary.LittleEndian.Uint32(b[16:]) {
		return g, false
	}
	return Group{Number: binary.LittleEndian.Uint64(b[8:]), Content: content}, true
}

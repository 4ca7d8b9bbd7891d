package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	identity = 0x1122334455667788
	salt     = 0x99aabbccddeeff00
)

func noSync(*os.File) error { return nil }

// mustCreate opens a journal without syncs, which a test does not need to find its bytes.
func mustCreate(t testing.TB, path string, room int) *File {
	t.Helper()
	j, err := Create(path, identity, room, noSync)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func mustAppend(t testing.TB, j *File, number uint64, content string) {
	t.Helper()
	if err := j.Append(number, []byte(content)); err != nil {
		t.Fatalf("group %d: %v", number, err)
	}
}

func image(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// text writes groups as "number:content", one a line.
func text(groups []Group) string {
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "%d:%q\n", g.Number, g.Content)
	}
	return b.String()
}

// wantGroups reads the file and compares.
func wantGroups(t testing.TB, what, path string, after uint64, lost uint64, want []Group) {
	t.Helper()
	got, n, err := Read(path, identity, salt, after)
	if err != nil && !errors.Is(err, ErrCut) {
		t.Fatalf("%s: %v", what, err)
	}
	if text(got) != text(want) || n != lost {
		t.Fatalf("%s: %d lost and\n%swant %d lost and\n%s", what, n, text(got), lost, text(want))
	}
}

// TestRounds: what was appended in a round is what is read, whatever the rounds before have left in the file.
func TestRounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	const room = 600
	secret := uint64(salt)
	rapid.Check(t, func(rt *rapid.T) {
		j, err := Create(path, identity, room, noSync)
		if err != nil {
			rt.Fatal(err)
		}
		defer j.Close()
		secret++ // the file holds what the last history left
		number := uint64(rapid.IntRange(0, 5).Draw(rt, "number"))
		after := number
		j.Begin(secret)
		var want []Group
		used := 0
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			if rapid.IntRange(0, 7).Draw(rt, "again") == 0 {
				j.Begin(secret)
				after, want, used = number, nil, 0
			}
			content := rapid.SliceOfN(rapid.Byte(), 0, 120).Draw(rt, "content")
			err := j.Append(number+1, content)
			size := (groupHead + len(content) + 7) / 8 * 8
			if fits := used+size <= room; fits != (err == nil) || !fits && !errors.Is(err, ErrRoom) {
				rt.Fatalf("%d bytes with %d of %d used: %v", size, used, room, err)
			}
			if err == nil {
				number++
				used += size
				want = append(want, Group{number, content})
			}
			got, lost, err := Read(path, identity, secret, after)
			if err != nil || lost != 0 || text(got) != text(want) {
				rt.Fatalf("%v, %d lost\n%swant\n%s", err, lost, text(got), text(want))
			}
			checkKept(rt, j, want)
		}
	})
}

// checkKept compares what the journal has in memory of its round.
func checkKept(t *rapid.T, j *File, want []Group) {
	i := 0
	err := j.Groups(func(content []byte) error {
		if i >= len(want) || !bytes.Equal(content, want[i].Content) {
			t.Fatalf("group %d of the round is %q", i, content)
		}
		i++
		return nil
	})
	if err != nil || i != len(want) || j.Empty() != (len(want) == 0) {
		t.Fatalf("%d of %d groups, empty: %v, %v", i, len(want), j.Empty(), err)
	}
}

func TestGroupsStops(t *testing.T) {
	j := mustCreate(t, filepath.Join(t.TempDir(), "j"), 400)
	j.Begin(salt)
	mustAppend(t, j, 1, "a")
	mustAppend(t, j, 2, "b")
	stop, n := errors.New("stop"), 0
	err := j.Groups(func([]byte) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("%d groups, %v", n, err)
	}
}

// three writes a round over the traces of an older one, and returns its groups, the image of the file before the last and
// after it, and where each group begins.
func three(t *testing.T, path string) (groups []Group, before, after []byte, at []int) {
	t.Helper()
	j := mustCreate(t, path, 400)
	j.Begin(salt)
	mustAppend(t, j, 1, strings.Repeat("stale", 10))
	mustAppend(t, j, 2, strings.Repeat("STALE", 40))
	j.Begin(salt)
	for i, content := range []string{"first", strings.Repeat("second", 5), "the third"} {
		before = image(t, path)
		at = append(at, headSize+len(j.buf))
		groups = append(groups, Group{uint64(3 + i), []byte(content)})
		mustAppend(t, j, uint64(3+i), content)
	}
	return groups, before, image(t, path), at
}

// TestTorn: a last group of which any part is missing is not there, and all before it are.
func TestTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	groups, before, after, at := three(t, path)
	wantGroups(t, "whole", path, 2, 0, groups)
	start := at[2]
	end := start + groupHead + len(groups[2].Content) // without what it is filled up with
	for i := start; i <= end+align; i++ {
		zeroes := append(bytes.Clone(after[:i]), make([]byte, len(after)-i)...)
		for what, torn := range map[string][]byte{
			"cut": after[:i], "zeroes": zeroes,
			"head only": append(bytes.Clone(after[:i]), before[i:]...),
			"tail only": append(bytes.Clone(before[:i]), after[i:]...),
		} {
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			want := groups[:2]
			if len(torn) >= end && bytes.Equal(torn[start:end], after[start:end]) {
				want = groups
			}
			wantGroups(t, fmt.Sprintf("%s at %d", what, i-start), path, 2, 0, want)
		}
	}
}

// TestFlip changes every bit of the file: the group that it hits is missing, which is said unless it is the first or the last.
func TestFlip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	groups, _, data, at := three(t, path)
	hit := func(offset int) int {
		for i, start := range at {
			if offset >= start && offset < start+groupHead+len(groups[i].Content) {
				return i
			}
		}
		return -1
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for offset := range data {
		if offset > 28 && offset < headSize {
			continue // nothing stands there
		}
		for bit := range 8 {
			f.WriteAt([]byte{data[offset] ^ 1<<bit}, int64(offset))
			var want []Group
			lost := uint64(0)
			for i, g := range groups {
				if i != hit(offset) {
					want = append(want, g)
				}
			}
			if hit(offset) == 1 {
				lost = 1
			}
			wantGroups(t, fmt.Sprintf("bit %d of byte %d", bit, offset), path, 2, lost, want)
		}
		f.WriteAt(data[offset:offset+1], int64(offset))
	}
}

// TestLost: groups are missing in several places.
func TestLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := mustCreate(t, path, 1000)
	j.Begin(salt)
	var at []int
	for n := uint64(11); n <= 20; n++ {
		at = append(at, headSize+len(j.buf))
		mustAppend(t, j, n, "content")
	}
	data := image(t, path)
	for _, n := range []int{0, 2, 3, 6, 9} {
		data[at[n]+groupHead] ^= 1
	}
	os.WriteFile(path, data, 0o600)
	var want []Group
	for _, n := range []uint64{12, 15, 16, 18, 19} {
		want = append(want, Group{n, []byte("content")})
	}
	wantGroups(t, "five of ten", path, 10, 3, want)
	wantGroups(t, "after 16", path, 16, 0, want[3:])
	wantGroups(t, "after all", path, 20, 0, nil)
}

// TestOldSalt: groups of another opening do not come back, not even those with larger numbers.
func TestOldSalt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := mustCreate(t, path, 400)
	j.Begin(salt + 1)
	for n := uint64(100); n < 108; n++ {
		mustAppend(t, j, n, "content")
	}
	wantGroups(t, "before the first of this opening", path, 0, 0, nil)
	j.Begin(salt)
	mustAppend(t, j, 7, "new")
	wantGroups(t, "after the first", path, 6, 0, []Group{{7, []byte("new")}})
}

// TestForged: the content of a damaged group is searched for groups, and what a sender may have put there is none, for it
// does not know the salt.
func TestForged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	for secret, want := range map[uint64][]Group{
		0: nil, salt ^ 1: nil, salt ^ 1<<63: nil,
		salt: {{9, []byte("forged")}}, // nothing but the salt stands in the way
	} {
		j := mustCreate(t, path, 400)
		j.Begin(salt)
		mustAppend(t, j, 1, string(appendGroup(nil, secret, 9, []byte("forged"))))
		wantGroups(t, "undamaged", path, 0, 0, []Group{{1, appendGroup(nil, secret, 9, []byte("forged"))}})
		data := image(t, path)
		data[headSize] ^= 1
		os.WriteFile(path, data, 0o600)
		wantGroups(t, fmt.Sprintf("with salt %x", secret), path, 0, 0, want)
	}
}

// TestRoom: a group for which there is no room leaves everything as it is.
func TestRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := mustCreate(t, path, 100)
	j.Begin(salt)
	mustAppend(t, j, 1, "a")
	before := image(t, path)
	if err := j.Append(2, bytes.Repeat([]byte{1}, 45)); !errors.Is(err, ErrRoom) {
		t.Fatalf("72 bytes into 68: %v", err)
	}
	if !bytes.Equal(before, image(t, path)) {
		t.Error("the file was written to")
	}
	mustAppend(t, j, 2, strings.Repeat("b", 40)) // just fits
	wantGroups(t, "full", path, 0, 0, []Group{{1, []byte("a")}, {2, []byte(strings.Repeat("b", 40))}})
	if info, _ := os.Stat(path); info.Size() != headSize+100 {
		t.Errorf("the file has %d bytes", info.Size())
	}
}

// TestAgain: a finished file is used as it is; any other is made anew.
func TestAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	const room = 70_000
	syncs := 0
	count := func(*os.File) error { syncs++; return nil }
	again := func(what string, id uint64, room, want int) {
		t.Helper()
		syncs = 0
		j, err := Create(path, id, room, count)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		info, _ := os.Stat(path)
		if syncs != want || info.Size() != int64(headSize+room) {
			t.Errorf("%s: %d syncs, %d bytes", what, syncs, info.Size())
		}
		if left := bytes.Trim(image(t, path)[headSize:], "\x00"); (len(left) > 0) != (want == 0) {
			t.Errorf("%s: it holds %q", what, left)
		}
		j.Begin(salt)
		mustAppend(t, j, 1, "content")
	}
	again("new", identity, room, 2)
	again("finished", identity, room, 0)
	wantGroups(t, "of another database", path, 0, 0, []Group{{1, []byte("content")}})
	again("another size", identity, room+8, 2)
	again("another database", identity+1, room+8, 2)
	if _, _, err := Read(path, identity, salt, 0); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file of another database: %v", err)
	}
	again("ours again", identity, room, 2)
	data := image(t, path)
	os.WriteFile(path, append(make([]byte, headSize), data[headSize:]...), 0o600)
	again("without a head", identity, room, 2)
}

// TestCreateFails: a file whose making was cut short by an error is made anew the next time.
func TestCreateFails(t *testing.T) {
	for at := range 2 {
		path := filepath.Join(t.TempDir(), "j")
		n := 0
		fail := func(*os.File) error {
			if n++; n > at {
				return syscall.EIO
			}
			return nil
		}
		if _, err := Create(path, identity, 400, fail); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), path) {
			t.Errorf("sync %d fails: %v", at, err)
		}
		n = -10
		j, err := Create(path, identity, 400, fail)
		if err != nil {
			t.Fatal(err)
		}
		j.Close()
		if made := n > -10; made != (at == 0) { // at the last sync all was written
			t.Errorf("after sync %d failed: made anew: %v", at, made)
		}
	}
	if _, err := Create(filepath.Join(t.TempDir(), "none", "j"), identity, 400, noSync); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}

// TestAppendFails: the write and the sync each fail with their own cause.
func TestAppendFails(t *testing.T) {
	broken := false
	j, err := Create(filepath.Join(t.TempDir(), "j"), identity, 400, func(*os.File) error {
		if broken {
			return syscall.EIO
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	j.Begin(salt)
	broken = true
	if err := j.Append(1, nil); !errors.Is(err, syscall.EIO) || errors.Is(err, ErrRoom) {
		t.Errorf("the sync fails: %v", err)
	}
	broken = false
	j.Close()
	if err := j.Append(2, nil); !errors.Is(err, os.ErrClosed) || errors.Is(err, ErrRoom) {
		t.Errorf("the write fails: %v", err)
	}
}

func TestReadMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	if _, _, err := Read(path, identity, salt, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for _, size := range []int{0, 1, 16, headSize, headSize + groupHead - 1} {
		os.WriteFile(path, make([]byte, size), 0o600)
		wantGroups(t, fmt.Sprintf("%d zeroes", size), path, 0, 0, nil)
	}
}

// FuzzRead reads any bytes, with a good group somewhere among them: nothing but whole groups comes out, in the order of their
// numbers.
func FuzzRead(f *testing.F) {
	head := appendHead(nil, identity, 100)
	f.Add([]byte{}, uint16(0), uint64(1), []byte("x"), uint64(0))
	f.Add(append(head, make([]byte, headSize)...), uint16(headSize), uint64(1), []byte("content"), uint64(0))
	f.Add(append(appendGroup(make([]byte, headSize), salt, 3, []byte("y")), make([]byte, 99)...), uint16(headSize+40),
		uint64(9), []byte("content"), uint64(2))
	f.Add(appendGroup(make([]byte, headSize), salt, 3, make([]byte, 200)), uint16(headSize+80), uint64(4), []byte("in"), uint64(0))
	path := filepath.Join(f.TempDir(), "j")
	f.Fuzz(func(t *testing.T, data []byte, at uint16, number uint64, content []byte, after uint64) {
		good := appendGroup(nil, salt, number, content)
		copy(data[min(int(at), len(data)):], good)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		groups, _, err := Read(path, identity, salt, after)
		if err != nil && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrCut) {
			t.Fatal(err)
		}
		for _, g := range groups {
			if g.Number <= after {
				t.Errorf("group %d after %d", g.Number, after)
			}
			after = g.Number
			whole := appendGroup(nil, salt, g.Number, g.Content)[:groupHead+len(g.Content)]
			if !bytes.Contains(data, whole) {
				t.Errorf("group %d is not in the file", g.Number)
			}
		}
	})
}

// TestCut: a file that has lost its end says so, and what is left of it is read all the same.
func TestCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := mustCreate(t, path, 4096)
	j.Begin(salt)
	mustAppend(t, j, 1, "first")
	mustAppend(t, j, 2, "second")
	if _, _, err := Read(path, identity, salt, 0); err != nil {
		t.Fatalf("the whole file: %v", err)
	}
	for name, damage := range map[string]func(data []byte) []byte{
		"shorter by a byte": func(data []byte) []byte { return data[:len(data)-1] },
		"a flipped head":    func(data []byte) []byte { data[9] ^= 4; return data },
	} {
		if err := os.WriteFile(path, damage(image(t, path)), 0o600); err != nil {
			t.Fatal(err)
		}
		if g, lost, err := Read(path, identity, salt, 0); !errors.Is(err, ErrCut) || len(g) != 2 || lost != 0 {
			t.Errorf("%s: %d groups, %d lost, %v", name, len(g), lost, err)
		}
	}
}

package wire

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// frameText is a frame as a test sees it.
type frameText struct{ key, block, body string }

func readAll(count, body string) (got []frameText, err *Error) {
	frames := ReadFrames(count, []byte(body))
	for frames.Next() {
		got = append(got, frameText{string(frames.Key), string(frames.Block), string(frames.Body)})
	}
	return got, frames.Err()
}

func TestReadFrames(t *testing.T) {
	for _, c := range []struct {
		count, body string
		want        []frameText
	}{
		{"1", "0 0 0\n\n", []frameText{{"0", "", ""}}},
		{"2", "a 0 2\nhi\nb 6 1\nA: b\r\nx\n", []frameText{{"a", "", "hi"}, {"b", "A: b\r\n", "x"}}},
		{"002", "a 0 1\n\n\nb 0 3\n1 2\n", []frameText{{"a", "", "\n"}, {"b", "", "1 2"}}},
		{"1", repeat("k", MaxBatchKey) + " 0 0\n\n", []frameText{{repeat("k", MaxBatchKey), "", ""}}},
	} {
		if got, err := readAll(c.count, c.body); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s %q: got %q, %v", c.count, c.body, got, err)
		}
	}
}

func TestReadFramesRefuses(t *testing.T) {
	for _, c := range []struct {
		count, body string
		good        int
		part        string
	}{
		{"", "", 0, `Stint-Batch is "": give a whole number from 1 to 1000`},
		{"0", "", 0, "from 1 to 1000"},
		{"1001", "", 0, "from 1 to 1000"},
		{"-1", "", 0, "from 1 to 1000"},
		{"1.0", "", 0, "from 1 to 1000"},
		{"1", "", 0, "frame 1 of 1: the body ends before it"},
		{"2", "a 0 0\n\n", 1, "frame 2 of 2: the body ends before it"},
		{"1", "a 0 0\n\nx", 1, "1 bytes follow the last of 1 frames"},
		{"1", "a 0 0\n", 0, "longer than what is left"},
		{"1", "a 0 1\n\n", 0, "longer than what is left"},
		{"1", "a 0 1\nxy\n", 0, "its end is not where its lengths say"},
		{"1", "a 999999999 999999999\nxy\n", 0, "longer than what is left"},
		{"1", "a 0 1000000000\nxy\n", 0, "lengths cannot be read"},
		{"1", "a 0 01\nx\n", 0, "lengths cannot be read"},
		{"1", "a 0 +1\nx\n", 0, "lengths cannot be read"},
		{"1", "a  0 1\nx\n", 0, "lengths cannot be read"},
		{"1", "a 0 1 \nx\n", 0, "lengths cannot be read"},
		{"1", "a 0 1\r\nx\n", 0, "lengths cannot be read"},
		{"1", "a 0\n\n", 0, "lengths cannot be read"},
		{"1", "a\n\n", 0, "lengths cannot be read"},
		{"1", " 0 0\n\n", 0, "its key is not a word"},
		{"1", "ä 0 0\n\n", 0, "its key is not a word"},
		{"1", "a\tb 0 0\n\n", 0, "its key is not a word"},
		{"1", repeat("k", MaxBatchKey+1) + " 0 0\n\n", 0, "its key is not a word"},
		{"1", repeat("k", 1000) + " 0 0\n\n", 0, "does not begin with a line"},
		{"1", "a 0 0", 0, "does not begin with a line"},
	} {
		got, err := readAll(c.count, c.body)
		if err == nil || err.Code != CodeBadRequest || !strings.Contains(err.Message, c.part) || len(got) != c.good {
			t.Errorf("%s %.40q: read %d frames, %v; want %d and %q", c.count, c.body, len(got), err, c.good, c.part)
		}
	}
}

// A frame's slices must not reach into the next frame, where an append would write.
func TestFramesDoNotOverlap(t *testing.T) {
	body := []byte("a 6 1\nA: b\r\nx\nb 0 1\ny\n")
	frames := ReadFrames("2", body)
	frames.Next()
	first := frames.Frame
	_ = append(first.Block, "spoilt"...)
	_ = append(first.Body, "spoilt"...)
	if !frames.Next() || string(frames.Body) != "y" || string(first.Body) != "x" {
		t.Errorf("the second frame is %q, the first %q", frames.Body, first.Body)
	}
}

func TestFrameHeader(t *testing.T) {
	for _, c := range []struct {
		block string
		want  Header
	}{
		{"", nil},
		{"A: b\r\n", head("A", "b")},
		{"A: b\r\na:c\r\nA:\t d \r\nE:\r\n", Header{"A": {"b", "d "}, "a": {"c"}, "E": {""}}},
		{"Ä b: c\r\n", head("Ä b", "c")},
		{"X: a: b\r\n", head("X", "a: b")},
	} {
		f := Frame{Block: []byte(c.block)}
		got, err := f.Header()
		if err != nil || !maps.EqualFunc(got, c.want, slices.Equal) || (got == nil) != (c.want == nil) {
			t.Errorf("%q: %v, %v, want %v", c.block, got, err, c.want)
		}
	}
	for _, block := range []string{"\r\n", "A: b", "A: b\n", "A: b\rc\r\n", "A: b\nc: d\r\n", ": b\r\n", "A b\r\n", "A\r: b\r\n", "A: b\r\n\r\n"} {
		f := Frame{Key: []byte("k"), Block: []byte(block)}
		if got, err := f.Header(); err == nil || err.Code != CodeBadHeader || got != nil || !strings.Contains(err.Message, "frame k") {
			t.Errorf("%q: %v, %v", block, got, err)
		}
	}
}

// A line break that reached a header block would start a header of somebody else's.
func TestAppendFrameKeepsLinesWhole(t *testing.T) {
	b := AppendFrame(nil, "k", head("A\r\nB", "c\nD: e"), []byte("body"))
	frames := ReadFrames("1", b)
	if !frames.Next() || frames.Err() != nil {
		t.Fatalf("%q: %v", b, frames.Err())
	}
	if string(frames.Block) != "A  B: c D: e\r\n" || string(frames.Body) != "body" {
		t.Errorf("got %q, %q", frames.Block, frames.Body)
	}
}

func TestFrameAllocations(t *testing.T) {
	h, body := head("A", "b", "C", "d"), []byte(repeat("x", 128))
	buf := make([]byte, 0, 64<<10)
	noAllocs(t, func() {
		buf = buf[:0]
		for range 64 {
			buf = AppendFrame(buf, "key", h, body)
			buf = AppendFrame(buf, body[:5], nil, body)
		}
		frames := ReadFrames("128", buf)
		for frames.Next() {
			if len(frames.Body) != 128 {
				t.Fatal("wrong body")
			}
		}
		if frames.Err() != nil {
			t.Fatal(frames.Err())
		}
	})
}

func TestWorkKey(t *testing.T) {
	key := AppendWorkKey(nil, 36, 7)
	item, attempt, ok := ParseWorkKey(key)
	if string(key) != "10.7" || item != 36 || attempt != 7 || !ok {
		t.Errorf("%q is read as %d, %d, %v", key, item, attempt, ok)
	}
	noAllocs(t, func() { ParseWorkKey(key) })
	for _, bad := range []string{"", "10", "10.", ".7", "10.0", "10.07", "10.4294967296", "A.1", "10.7.1", "01.7", repeat("1", 40)} {
		if item, attempt, ok := ParseWorkKey([]byte(bad)); ok {
			t.Errorf("%q is read as %d, %d", bad, item, attempt)
		}
	}
}

func TestMergedHeaders(t *testing.T) {
	message := OfItem(head("Stint-Batch", "2", "stint-accepted-reply", "a", "Stint-Batch-Replies", "gathered", "Trace", "t", "Stint-Timeout", "5"))
	if want := head("Trace", "t", "Stint-Timeout", "5"); !maps.EqualFunc(message, want, slices.Equal) {
		t.Fatalf("shared are %v", message)
	}
	got := Merged(message, head("stint-timeout", "9", "X", "y"))
	if want := head("Trace", "t", "stint-timeout", "9", "X", "y"); !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("merged are %v", got)
	}
	if OfItem(head("Stint-Batch", "2")) != nil || Merged(nil, nil) != nil {
		t.Error("no headers gave some")
	}
	if got := Merged(message, nil); len(got) != 2 {
		t.Errorf("merged with none are %v", got)
	}
	if got := Merged(nil, message); len(got) != 2 {
		t.Errorf("none merged with are %v", got)
	}
}

func TestParseSendOfABatch(t *testing.T) {
	send, err := ParseSend(head(HeaderBatch, "3", HeaderBatchReplies, "gathered", HeaderTimeout, "5"), []byte(`{"accepted_reply":"a"}`))
	if err != nil || send.Batch != "3" || !send.Gathered || send.AcceptedReply != "" || send.Timeout == 0 {
		t.Errorf("%+v, %v", send, err)
	}
	for _, c := range []struct {
		h    Header
		part string
	}{
		{head(HeaderBatchReplies, "gathered"), "Stint-Batch-Replies is for a batch"},
		{head(HeaderBatch, "3", HeaderBatchReplies, "yes"), `give gathered`},
		{head(HeaderBatch, ""), "Stint-Batch is"},
		{head(HeaderBatch, "3", HeaderMsgID, "m"), "give each item its own"},
		{head(HeaderBatch, "3", HeaderBatchKey, "m"), "Stint-Batch-Key\" is not known"},
	} {
		if _, err := ParseSend(c.h, nil); err == nil || err.Code != CodeBadHeader || !strings.Contains(err.Message, c.part) {
			t.Errorf("%v: %v, want %q", c.h, err, c.part)
		}
	}
}

func TestParseFrameSend(t *testing.T) {
	if send, err := ParseFrameSend(head(HeaderMsgID, "m", HeaderTimeout, "5")); err != nil || send.MsgID != "m" {
		t.Errorf("%+v, %v", send, err)
	}
	for _, name := range []string{"stint-accepted-reply", HeaderBatch, HeaderBatchReplies, HeaderBatchKey} {
		if _, err := ParseFrameSend(head(name, "1")); err == nil || err.Code != CodeBadHeader || !strings.Contains(err.Message, "set it on the message") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBatchAccepted(t *testing.T) {
	b := BatchAccepted{First: 36, Count: 5}
	if got := string(b.Body()); got != `{"status":"accepted","id":"10","count":5}` {
		t.Errorf("got %s", got)
	}
	b.Duplicate("1", 35)
	b.Refuse(`a"b`, Errorf(CodeTooLarge, "%s", repeat("x", 300)))
	b.Refuse("3", Errorf(CodeTooLarge, "another"))
	b.Refuse("4", Errorf(CodeBadHeader, "<no>"))
	want := `{"status":"accepted","id":"10","count":5,"duplicates":[{"key":"1","id":"z"}],"refused":[{"code":"too_large","message":"` +
		repeat("x", 256) + `","keys":["a\"b","3"]},{"code":"bad_header","message":"<no>","keys":["4"]}]}`
	if got := string(b.Body()); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	back, ok := ParseBatchAccepted(b.Body())
	if !ok || string(back.Body()) != want {
		t.Errorf("it came back as %+v, %v", back, ok)
	}
	if st, ok := ParseStatus(b.Body()); !ok || st.Status != "accepted" || st.ID != "10" {
		t.Errorf("a client that knows no batches reads %+v, %v", st, ok)
	}
	for _, bad := range []string{
		``, `{}`, string(Accepted(1, false)), string(OK()), `{"status":"accepted","id":"10","count":0}`,
		`{"status":"accepted","id":"10","count":1001}`, `{"status":"accepted","id":"X","count":1}`, `{"status":"error","id":"1","count":1}`,
	} {
		if _, ok := ParseBatchAccepted([]byte(bad)); ok {
			t.Errorf("%s was taken", bad)
		}
	}
}

// The largest notice fits in what is read, and nothing in it can break out of the JSON.
func TestLargestBatchAccepted(t *testing.T) {
	b := BatchAccepted{First: 1<<64 - 1, Count: MaxBatch}
	for i := range MaxBatch {
		key := strings.Repeat(`"`, MaxBatchKey-4) + fmt.Sprintf("%04d", i)
		b.Duplicate(key, 1<<64-1)
	}
	if _, ok := ParseBatchAccepted(b.Body()); !ok {
		t.Errorf("a notice of %d bytes is not read", len(b.Body()))
	}
}

func FuzzFrames(f *testing.F) {
	f.Add("2", []byte("a 0 2\nhi\nb 6 1\nA: b\r\nx\n"))
	f.Add("1", []byte("a 0 0\n\n"))
	f.Add("3", []byte("a 0 0\n\n"))
	f.Add("1", []byte("a 999999999 999999999\n\n"))
	f.Fuzz(func(t *testing.T, count string, body []byte) {
		frames := ReadFrames(count, body)
		var again []byte
		n := 0
		for frames.Next() {
			n++
			h, err := frames.Header()
			if err != nil {
				checkError(t, err)
				return
			}
			if len(h) > 1 {
				return // their order is not kept
			}
			again = AppendFrame(again, frames.Key, h, frames.Body)
			if len(again) > n*1000+2*len(body) {
				t.Fatalf("%d bytes became %d", len(body), len(again))
			}
		}
		if err := frames.Err(); err != nil {
			checkError(t, err)
			return
		}
		if n != frames.Count() || n < 1 || n > MaxBatch {
			t.Fatalf("%d frames of %d were read", n, frames.Count())
		}
		second := ReadFrames(strconv.Itoa(n), again)
		for second.Next() {
			n--
		}
		if n != 0 || second.Err() != nil {
			t.Fatalf("%q was read, and %q is not: %v", body, again, second.Err())
		}
	})
}

func FuzzFrameRoundTrip(f *testing.F) {
	f.Add("key", "Name", "value", []byte("body"))
	f.Add("1", "a", " b\r\nc ", []byte("\n1 0 0\n\n"))
	f.Fuzz(func(t *testing.T, key, name, value string, body []byte) {
		if !isWord([]byte(key)) || len(key) > MaxBatchKey || !isWord([]byte(name)) || strings.Contains(name, ":") {
			return
		}
		h := head(name, value)
		b := AppendFrame([]byte("before"), key, h, body)
		if len(b)-len("before") > FrameSize(len(key), h, body) {
			t.Errorf("a frame has %d bytes, FrameSize says %d", len(b)-6, FrameSize(len(key), h, body))
		}
		frames := ReadFrames("1", b[6:])
		if !frames.Next() || frames.Err() != nil {
			t.Fatalf("%q is not read: %v", b, frames.Err())
		}
		got, err := frames.Header()
		clean := strings.TrimLeft(strings.NewReplacer("\r", " ", "\n", " ").Replace(value), " \t")
		if err != nil || len(got) != 1 || len(got[name]) != 1 || got[name][0] != clean {
			t.Errorf("%q came back as %q, %v", h, got, err)
		}
		if string(frames.Key) != key || !bytes.Equal(frames.Body, body) {
			t.Errorf("%q %q came back as %q %q", key, body, frames.Key, frames.Body)
		}
	})
}

func FuzzBatchAccepted(f *testing.F) {
	f.Add([]byte(`{"status":"accepted","id":"10","count":2,"duplicates":[{"key":"1","id":"z"}],"refused":[{"code":"dead","keys":["3"]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, ok := ParseBatchAccepted(body)
		if !ok {
			return
		}
		if back, ok := ParseBatchAccepted(b.Body()); !ok || back.First != b.First || back.Count != b.Count {
			t.Errorf("%q came back as %+v, %v", body, back, ok)
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	var body []byte
	for i := range 64 {
		body = AppendFrame(body, strconv.Itoa(i), nil, make([]byte, 128))
	}
	b.Run("read64", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			frames := ReadFrames("64", body)
			for frames.Next() {
			}
			if frames.Err() != nil {
				b.Fatal(frames.Err())
			}
		}
	})
	b.Run("append64", func(b *testing.B) {
		item := make([]byte, 128)
		b.ReportAllocs()
		for b.Loop() {
			body = body[:0]
			for range 64 {
				body = AppendFrame(body, "12", nil, item)
			}
		}
	})
}

func ExampleReadFrames() {
	frames := ReadFrames("2", []byte("a 0 5\nfirst\nb 18 6\nStint-Timeout: 5\r\nsecond\n"))
	for frames.Next() {
		h, err := frames.Header()
		fmt.Printf("%s %v %s %v\n", frames.Key, h, frames.Body, err)
	}
	fmt.Println(frames.Err())
	// Output:
	// a map[] first <nil>
	// b map[Stint-Timeout:[5]] second <nil>
	// <nil>
}

package pool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func (w *world) execPool(o Options) *running {
	o.Mode = Exec
	return w.pool("exec", o)
}

func TestExecRepliesWithStandardOutput(t *testing.T) {
	w := newWorld(t, quick)
	w.execPool(Options{Children: 2, Name: "p"})
	for _, body := range []string{"", "hello", "\xff\x00raw", strings.Repeat("long ", 100_000)} {
		w.want("echo "+body, body)
	}
	w.want("", "")
	w.want("env STINT_QUEUE", testQueue)
	w.want("env STINT_ATTEMPT", "1")
	if got := w.ask("env STINT_ID"); len(got) < 6 {
		t.Errorf("id %q", got)
	}
	if got := w.ask("env STINT_DEADLINE", "Stint-Timeout", "60000"); len(got) != 13 {
		t.Errorf("deadline %q", got)
	}
}

func TestExecFailures(t *testing.T) {
	q := quick
	q.MaxAttempts = 1
	w := newWorld(t, q)
	r := w.execPool(Options{Children: 2, Timeout: 500 * time.Millisecond, ExitTimeout: 50 * time.Millisecond, MaxOutput: 1 << 20, MaxMemory: 200 << 20})
	for body, want := range map[string]string{
		"crash hurts": ": it hurts",
		"hang":        "no answer from the child after 500ms",
		"deaf":        "no answer from the child after 500ms",
		"flood":       "the child wrote more than 1048576 bytes",
	} {
		if got := w.ask(body); !strings.HasPrefix(got, "dead: ") || !strings.Contains(got, want) {
			t.Errorf("%s: got %.300q, want %q", body, got, want)
		}
	}
	if s := r.stats(); s.Failed != 4 || len(s.Children) != 0 {
		t.Errorf("%+v", s)
	}
	if got := w.ask("eathang", "Stint-Timeout", "15000"); !strings.Contains(got, "bytes of memory: max_memory is 209715200") {
		t.Errorf("got %.300q", got)
	}
}

func TestExecGrandchildrenEndWithTheProcess(t *testing.T) {
	w := newWorld(t, quick)
	w.execPool(Options{Children: 1})
	began := time.Now()
	pid := number(t, w.ask("grandchild"))
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %v", took)
	}
	until(t, "it is gone", func() bool { return gone(pid) })
}

func TestExecStopGivesBack(t *testing.T) {
	q := quick
	q.MaxAttempts = 1
	w := newWorld(t, q)
	r := w.execPool(Options{Children: 1, StopTimeout: 100 * time.Millisecond})
	reply := w.send("hang")
	until(t, "it is at work", func() bool { return len(r.stats().Children) == 1 })
	r.end()
	w.execPool(Options{Children: 1, Timeout: 100 * time.Millisecond, ExitTimeout: 10 * time.Millisecond})
	if got := text(w.wait(reply)); !strings.Contains(got, "no answer from the child after 100ms") {
		t.Errorf("got %q", got)
	}
}

func TestExecManyAtOnce(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("x", Options{Children: 8, Mode: Exec, Command: []string{"/bin/cat"}})
	var replies []<-chan *nats.Msg
	for range 300 {
		replies = append(replies, w.send("meow"))
	}
	for _, c := range replies {
		if got := text(w.wait(c)); got != "meow" {
			t.Fatalf("got %q", got)
		}
	}
	if s := r.stats(); s.Started != 300 || s.Done != 300 {
		t.Errorf("%+v", s)
	}
}

// Items handed ahead wait for a process to end: there are never more at once than Children.
func TestExecAhead(t *testing.T) {
	w := newWorld(t, quick)
	dir := t.TempDir()
	script := `mkdir "$0/$$"; set -- "$0"/*; sleep 0.01; rmdir "$0/$$"; echo $#`
	r := w.pool("x", Options{Children: 2, Ahead: 8, Mode: Exec, Command: []string{"/bin/sh", "-c", script, dir}})
	var replies []<-chan *nats.Msg
	for range 60 {
		replies = append(replies, w.send(""))
	}
	most := 0
	for _, c := range replies {
		most = max(most, number(t, strings.TrimSpace(text(w.wait(c)))))
	}
	if most != 2 {
		t.Errorf("there were %d at once, want 2", most)
	}
	if s := r.stats(); s.Started != 60 || s.Done != 60 {
		t.Errorf("%+v", s)
	}
}

// What waits for its process when the pool is stopped goes back, and is not started.
func TestExecStopGivesBackWhatWaits(t *testing.T) {
	q := quick
	q.MaxAttempts = 1
	w := newWorld(t, q)
	file := filepath.Join(t.TempDir(), "begun")
	script := `read -r word; echo "$word" >>"$0"; if [ "$word" = hang ]; then exec sleep 100; fi; echo "$word"`
	o := Options{Children: 1, Ahead: 4, Mode: Exec, StopTimeout: 100 * time.Millisecond, Command: []string{"/bin/sh", "-c", script, file}}
	r := w.pool("x", o)
	replies := []<-chan *nats.Msg{w.send("hang\n")}
	until(t, "it is at work", func() bool { return len(r.stats().Children) == 1 })
	for _, body := range []string{"a\n", "b\n", "c\n"} {
		replies = append(replies, w.send(body))
	}
	until(t, "the others wait", func() bool { s := r.stats(); return len(s.Children) == 1 && s.Waiting == 3 })
	r.end()
	if begun, err := os.ReadFile(file); string(begun) != "hang\n" {
		t.Errorf("begun: %q, %v", begun, err)
	}
	o.Timeout, o.ExitTimeout = 200*time.Millisecond, 10*time.Millisecond
	w.pool("x", o)
	for i, want := range []string{"no answer from the child after 200ms", "a", "b", "c"} {
		if got := text(w.wait(replies[i])); !strings.Contains(got, want) {
			t.Errorf("item %d: got %q, want %q", i, got, want)
		}
	}
}

// A body that no pipe holds, for a program that reads it, and for one that does not care.
func TestExecLargeBody(t *testing.T) {
	w := newWorld(t, quick)
	body := strings.Repeat("x", 900_000)
	r := w.execPool(Options{Children: 1})
	w.want("echo "+body, body)
	r.end()
	w.pool("x", Options{Children: 1, Mode: Exec, Command: []string{"/bin/true"}})
	w.want(body, "")
}

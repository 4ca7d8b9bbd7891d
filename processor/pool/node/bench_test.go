package node

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// BenchmarkHost is a trivial item to a child over its pipes and back, with nothing of a broker in between, and in the same
// run the benchmark that ewd-qoper8 brings, with two workers. Run it with a number of items, since both need some to start:
//
//	go test -run '^$' -bench Host -benchtime 200000x ./processor/pool/node
func BenchmarkHost(b *testing.B) {
	needNode(b)
	modules := tree(b, map[string]string{
		"ewd.js":     `module.exports = function() { this.on('message', (m, send, finished) => finished(m)); };`,
		"qoper8.js":  `require('qoper8').childProcess.handler((action) => action);`,
		"qworker.js": `module.exports = (payload, callback) => callback(null, payload);`,
	})
	for _, m := range []string{"ewd", "qoper8", "qworker"} {
		for _, children := range []int{1, 2} {
			for _, ahead := range []int{1, 16, 64} {
				b.Run(fmt.Sprintf("%s/children=%d/ahead=%d", m, children, ahead), func(b *testing.B) {
					pump(b, filepath.Join(modules, m+".js"), children, ahead)
				})
			}
		}
	}
	b.Run("original/workers=2", benchOriginal)
}

// pump sends b.N items through children, of which each has at most ahead in its pipe and its hand.
func pump(b *testing.B, module string, children, ahead int) {
	argv, env, err := Command(Options{Module: module})
	if err != nil {
		b.Fatal(err)
	}
	pipes := make([]*benchChild, children)
	for i := range pipes {
		pipes[i] = startBench(b, argv, env)
	}
	b.ResetTimer()
	ends := make(chan error, children)
	for i, c := range pipes {
		n := b.N / children
		if i == 0 {
			n = b.N - n*(children-1)
		}
		go func() { ends <- c.exchange(n, ahead) }()
	}
	for range pipes {
		if err := <-ends; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
}

type benchChild struct {
	in  *os.File
	out *bufio.Reader
}

// startBench starts a child and waits until it is ready. It ends with the benchmark.
func startBench(b *testing.B, argv, env []string) *benchChild {
	theirIn, in, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(append(os.Environ(), env...), "STINT_IN=3", "STINT_OUT=4")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirIn, theirOut}, os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
		out.Close()
	})
	c := &benchChild{in: in, out: bufio.NewReaderSize(out, 64<<10)}
	if _, err := in.WriteString(`{"type":"start","queue":"q","child":1,"first":true}` + "\n"); err != nil {
		b.Fatal(err)
	}
	if s, err := c.out.ReadString('\n'); err != nil || s != `{"type":"ready"}`+"\n" {
		b.Fatalf("%q %v", s, err)
	}
	return c
}

// exchange sends n items and reads their answers.
func (c *benchChild) exchange(n, ahead int) error {
	var lines []byte
	for sent, done := 0, 0; done < n; {
		lines = lines[:0]
		for ; sent < n && sent-done < ahead; sent++ {
			lines = append(lines, `{"type":"work","id":"`...)
			lines = strconv.AppendInt(lines, int64(sent), 36)
			lines = append(lines, `","attempt":1,"queue":"q","deadline":1795000000000,"body":"{\"type\":\"testMessage\",\"contents\":{\"hello\":\"world\",\"a\":12345}}"}`+"\n"...)
		}
		if len(lines) > 0 {
			if _, err := c.in.Write(lines); err != nil {
				return err
			}
		}
		for first := true; first || c.out.Buffered() > 0; first = false {
			if _, err := c.out.ReadSlice('\n'); err != nil {
				return fmt.Errorf("answer %d: %w", done, err)
			}
			done++
		}
	}
	return nil
}

var rate = regexp.MustCompile(`Processing rate: ([\d.]+)`)

// benchOriginal runs the benchmark of ewd-qoper8 with two workers, at several paces since it neither gathers nor waits for
// its queue, and reports the best.
func benchOriginal(b *testing.B) {
	dir := install(b, "ewd-qoper8@3.18.1")
	best := 0.0
	for _, pace := range []struct{ block, wait string }{{"500", "20"}, {"1000", "40"}, {"2000", "60"}, {"2000", "100"}} {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		cmd := exec.CommandContext(ctx, "node", "node_modules/ewd-qoper8/examples/benchmark.js", "2", strconv.Itoa(max(b.N, 2000)), pace.block, pace.wait)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		cancel()
		m := rate.FindSubmatch(out)
		if m == nil {
			b.Fatalf("the original's benchmark: %v\n%.2000s", err, out)
		}
		if v, err := strconv.ParseFloat(string(m[1]), 64); err == nil {
			best = max(best, v)
		}
	}
	b.ReportMetric(best, "items/s")
}

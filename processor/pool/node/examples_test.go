package node

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// examples is the directory of the examples, which are run as they are.
func examples(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../../examples/pools/node")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestExampleEwd(t *testing.T) {
	c := run(t, examples(t), Options{Module: "./ewd.js"})
	c.want("ready")
	c.send(work("1", `{"type":"count","text":"one two\nthree"}`), work("2", `{"type":"else"}`))
	c.want(`progress 1 {"type":"count","finished":false,"message":{"line":1,"words":2}}`)
	c.want(`done 1 {"type":"count","finished":true,"message":{"lines":2,"words":3}}`)
	c.want(`done 2 {"type":"else","finished":true,"message":{"error":"No handler found for else message"}}`)
	c.stop()
}

func TestExampleQOper8(t *testing.T) {
	c := run(t, examples(t), Options{Module: "./qoper8.js"})
	c.want("ready")
	c.send(work("8k", `{"text":"Käse"}`))
	c.want(`done 8k {"actionNo":"8k","reversed":"esäK"}`)
	c.stop()
}

func TestExampleScripts(t *testing.T) {
	c := run(t, examples(t), Options{ScriptDir: "./scripts"})
	c.want("ready")
	c.send(work("1", `{"script":"checksum","payload":{"text":""}}`), work("2", `{"script":"checksum"}`))
	c.want(`done 1 {"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`)
	c.want(`failed 2 the payload has no text`)
	c.stop()
}

func TestExampleLines(t *testing.T) {
	needNode(t)
	c := prepare(t, examples(t), Options{})
	path, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Path, c.cmd.Args = path, []string{path, "lines.js"}
	c.begin()
	text := "AP8="
	c.send(line{Type: "start"}, work("1", "grün"), work("2", ""), line{Type: "work", ID: "3", Body64: &text})
	c.want("ready")
	c.want("done 1 GRÜN")
	c.want("done 2 ")
	c.want("failed 3 the body is no text (rejected)")
	c.stop()
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// printer shows what comes back to a send.
type printer struct {
	stdout, stderr io.Writer
	json           bool
}

// event is one line of send --json.
type event struct {
	Event     string      `json:"event"`          // accepted, progress, reply or error
	Line      int         `json:"line,omitempty"` // with --lines
	ID        string      `json:"id,omitempty"`
	Duplicate bool        `json:"duplicate,omitempty"`
	Code      string      `json:"code,omitempty"`
	Message   string      `json:"message,omitempty"`
	Header    nats.Header `json:"header,omitempty"`
	Body      *string     `json:"body,omitempty"`
	Base64    []byte      `json:"body_base64,omitempty"`
}

func (p *printer) line(e event) error {
	enc := json.NewEncoder(p.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(e)
}

// withBody makes an event of a message. JSON has only text, so other bytes go in base 64.
func withBody(name string, m *nats.Msg) event {
	e := event{Event: name, Header: m.Header}
	if body := string(m.Data); utf8.ValidString(body) {
		e.Body = &body
	} else {
		e.Base64 = m.Data
	}
	return e
}

// accepted prints the notice if it is what is waited for; a person at a terminal hears of it in any case.
func (p *printer) accepted(m *nats.Msg, s wire.Status, wanted bool) error {
	switch {
	case p.json:
		return p.line(event{Event: "accepted", ID: s.ID, Duplicate: s.Duplicate})
	case wanted:
		_, err := fmt.Fprintf(p.stdout, "%s\n", m.Data)
		return err
	case isTerminal(p.stderr):
		_, err := fmt.Fprintf(p.stderr, "accepted as %s, waiting for the reply\n", s.ID)
		return err
	}
	return nil
}

func (p *printer) progress(m *nats.Msg) error {
	if p.json {
		return p.line(withBody("progress", m))
	}
	_, err := fmt.Fprintf(p.stderr, "%s\n", m.Data)
	return err
}

// reply prints the body as it came; only a terminal gets a line end after it.
func (p *printer) reply(m *nats.Msg) error {
	if p.json {
		return p.line(withBody("reply", m))
	}
	_, err := p.stdout.Write(m.Data)
	if n := len(m.Data); err == nil && n > 0 && m.Data[n-1] != '\n' && isTerminal(p.stdout) {
		_, err = fmt.Fprintln(p.stdout)
	}
	return err
}

// failed prints an error as an event; without --json it is left to standard error.
func (p *printer) failed(m *nats.Msg, s wire.Status) error {
	if !p.json {
		return nil
	}
	return p.line(event{Event: "error", ID: s.ID, Code: s.Code, Message: s.Message, Header: m.Header})
}

// lineReply prints the reply to a line, as a line.
func (p *printer) lineReply(line int, m *nats.Msg) error {
	if p.json {
		e := withBody("reply", m)
		e.Line = line
		return p.line(e)
	}
	_, err := p.stdout.Write(append(m.Data[:len(m.Data):len(m.Data)], '\n'))
	return err
}

// lineAccepted prints the notice of a line.
func (p *printer) lineAccepted(line int, m *nats.Msg, s wire.Status) error {
	if p.json {
		return p.line(event{Event: "accepted", Line: line, ID: s.ID, Duplicate: s.Duplicate})
	}
	_, err := fmt.Fprintf(p.stdout, "%s\n", m.Data)
	return err
}

// lineFailed prints what went wrong with a line.
func (p *printer) lineFailed(line int, m *nats.Msg, s *wire.Status) error {
	if p.json {
		e := event{Event: "error", Line: line, Code: s.Code, Message: s.Message}
		if m != nil {
			e.Header = m.Header
		}
		return p.line(e)
	}
	text := s.Message
	if s.Code != "" {
		text = s.Code + ": " + text
	}
	_, err := fmt.Fprintf(p.stderr, "line %d: %s\n", line, text)
	return err
}

// isTerminal says whether a person reads this.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

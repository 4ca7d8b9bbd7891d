package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// levelTrace is for the NATS server's trace of its protocol, which only a server file can turn on.
const levelTrace = slog.LevelDebug - 4

// natsLog carries the NATS server's log into ours. A fatal error does not end the process, as the server expects, but
// comes out at fatal.
type natsLog struct {
	log    *slog.Logger
	notice slog.Level
	fatal  chan error
}

// newNATSLog shows notices where an operator has a server file and knows what they mean; otherwise they are details.
func newNATSLog(log *slog.Logger, notices bool) *natsLog {
	level := slog.LevelDebug
	if notices {
		level = slog.LevelInfo
	}
	return &natsLog{log: log.With("part", "nats-server"), notice: level, fatal: make(chan error, 1)}
}

func (l *natsLog) put(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}

// The methods of the server's logger.

func (l *natsLog) Noticef(format string, args ...any) { l.put(l.notice, format, args) }
func (l *natsLog) Warnf(format string, args ...any)   { l.put(slog.LevelWarn, format, args) }
func (l *natsLog) Errorf(format string, args ...any)  { l.put(slog.LevelError, format, args) }
func (l *natsLog) Debugf(format string, args ...any)  { l.put(slog.LevelDebug, format, args) }
func (l *natsLog) Tracef(format string, args ...any)  { l.put(levelTrace, format, args) }

func (l *natsLog) Fatalf(format string, args ...any) {
	l.put(slog.LevelError, format, args)
	select {
	case l.fatal <- errors.New("the NATS server has given up: " + fmt.Sprintf(format, args...)):
	default: // the first one is the cause
	}
}

// newLogger logs to w in a format and from a level that the configuration has checked.
func newLogger(w io.Writer, c logConfig) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

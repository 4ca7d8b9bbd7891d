package pool

import (
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"
)

// suspects remembers how many children in a row each item has ended. It forgets the eldest.
type suspects struct {
	kills map[string]int
	order []string // may name items that are clear again
}

// add counts one more.
func (s *suspects) add(item string) int {
	if _, known := s.kills[item]; !known {
		if len(s.order) >= maxSuspects {
			delete(s.kills, s.order[0])
			s.order = s.order[1:]
		}
		s.order = append(s.order, item)
	}
	s.kills[item]++
	return s.kills[item]
}

// clear is for an item that a child has survived, or that is done with.
func (s *suspects) clear(item string) {
	if len(s.kills) == 0 {
		return
	}
	delete(s.kills, item)
	if len(s.kills) == 0 {
		s.order = nil
	}
}

// deathLog says that children die, once and not a thousand times.
type deathLog struct {
	last   time.Time
	silent int // deaths since that were not logged
}

// note logs a death unless one was logged just before; in a row of them, unless a minute has passed.
func (d *deathLog) note(log *slog.Logger, now time.Time, c *child, streak int) {
	every := deathLogEvery
	if streak > 1 {
		every = loopLogEvery
	}
	if !d.last.IsZero() && now.Sub(d.last) < every {
		d.silent++
		return
	}
	log.Warn("a child has ended", "child", c.n, "pid", c.pid, "how", c.verdict, "after", now.Sub(c.born).Round(time.Millisecond),
		"in_a_row", streak, "not_logged", d.silent)
	d.last, d.silent = now, 0
}

// over ends a row.
func (d *deathLog) over(log *slog.Logger, streak int) {
	if streak > 1 {
		log.Info("the children answer again", "ended_in_a_row", streak)
	}
}

// maxLogged is how much of a child's own words goes into one line of the log, in bytes.
const maxLogged = 2000

func level(name string) slog.Level {
	switch strings.ToLower(name) {
	case "debug":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// clip cuts text to so many bytes, at the edge of a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

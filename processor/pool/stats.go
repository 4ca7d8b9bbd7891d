package pool

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// StatsSubject is where all pools answer to a request with their [Stats], as JSON.
const StatsSubject = "stint.pool.stats"

// SubjectOf is where the pool of this name answers alone.
func SubjectOf(name string) string { return "stint.pool." + name + ".stats" }

// Stats is what a pool says of itself. Times are milliseconds, sizes bytes.
type Stats struct {
	Pool     string  `json:"pool"`
	Queue    string  `json:"queue"`
	Host     string  `json:"host"`
	PID      int     `json:"pid"`
	Mode     Mode    `json:"mode"`
	Uptime   int64   `json:"uptime"`
	Max      int     `json:"max_children"`
	Waiting  int     `json:"waiting"`  // items that no child has
	Done     int64   `json:"done"`     // since the start, as all that follow
	Failed   int64   `json:"failed"`   // an attempt each
	Rejected int64   `json:"rejected"` // for having ended several children
	Returned int64   `json:"returned"` // without counting an attempt
	Started  int64   `json:"started"`  // children
	Died     int64   `json:"died"`     // children that ended unasked, or were killed for a reason
	Children []Child `json:"children"`
}

// Child is one process.
type Child struct {
	Child    int             `json:"child"` // its number, from 1
	PID      int             `json:"pid"`   // 0: it is being started
	State    string          `json:"state"`
	Uptime   int64           `json:"uptime"`
	Handled  int64           `json:"handled"`
	Memory   int64           `json:"memory"` // resident, of it and all below it
	Item     string          `json:"item,omitempty"`
	ItemFor  int64           `json:"item_for,omitempty"`
	Ahead    int             `json:"ahead,omitempty"`    // items that it has been handed beside that
	Reported json.RawMessage `json:"reported,omitempty"` // the last stats that it has sent itself
}

// statsPatience is how long the owner may take to answer.
const statsPatience = 5 * time.Second

// Stats asks the pool. Errors: ErrOver.
func (p *Pool) Stats() (Stats, error) {
	reply := make(chan Stats, 1)
	if !p.post(func(own *owner, now time.Time) { reply <- own.stats(now) }) {
		return Stats{}, ErrOver
	}
	late := time.NewTimer(statsPatience)
	defer late.Stop()
	select {
	case s := <-reply:
		for i := range s.Children {
			if s.Children[i].PID > 0 {
				s.Children[i].Memory = memoryOf(s.Children[i].PID)
			}
		}
		return s, nil
	case <-p.over:
		return Stats{}, ErrOver
	case <-late.C:
		return Stats{}, errors.New("pool: it does not run yet, or is overloaded")
	}
}

func (own *owner) stats(now time.Time) Stats {
	o := &own.pool.o
	host, _ := os.Hostname()
	s := Stats{
		Pool: o.Name, Queue: o.Address, Host: host, PID: os.Getpid(), Mode: o.Mode, Uptime: now.Sub(own.begun).Milliseconds(),
		Max: o.Children, Children: []Child{},
	}
	c := own.pool.tally.counts()
	if own.roster != nil {
		c, s.Waiting = own.roster.counts, len(own.roster.waiting)
	}
	s.Done, s.Failed, s.Rejected, s.Returned, s.Started, s.Died = c.done, c.failed, c.rejected, c.returned, c.started, c.died
	for _, p := range own.procs {
		if p.run != nil && p.pid == 0 { // it waits for its start, or was started just now
			s.Waiting++
			continue
		}
		s.Children = append(s.Children, p.stats(now))
	}
	slices.SortFunc(s.Children, func(a, b Child) int { return cmp.Compare(a.Child, b.Child) })
	return s
}

func (p *proc) stats(now time.Time) Child {
	if p.run != nil {
		age := now.Sub(p.run.began).Milliseconds()
		return Child{Child: p.n, PID: p.pid, State: busyState, Uptime: age, Item: p.run.work.Item, ItemFor: age}
	}
	c := p.child
	s := Child{
		Child: c.n, PID: c.pid, State: stateNames[c.state], Uptime: now.Sub(c.born).Milliseconds(), Handled: c.handled,
		Reported: c.reported,
	}
	it := c.head()
	if it != nil {
		s.Item, s.ItemFor, s.Ahead = it.work.Item, now.Sub(it.began).Milliseconds(), len(c.held)-1
	}
	if c.state == working {
		s.State = idleState
		if it != nil {
			s.State = busyState
		}
	}
	return s
}

const (
	idleState = "idle"
	busyState = "busy"
)

// monitor logs the statistics every so often, if anything has happened.
func (p *Pool) monitor() {
	if p.o.MonitorInterval == 0 {
		return
	}
	tick := time.NewTicker(p.o.MonitorInterval)
	defer tick.Stop()
	var before int64
	for {
		select {
		case <-p.over:
			return
		case <-tick.C:
		}
		s, err := p.Stats()
		if now := s.Done + s.Failed + s.Rejected + s.Returned + s.Started; err == nil && now != before {
			before = now
			p.logStats(&s)
		}
	}
}

func (p *Pool) logStats(s *Stats) {
	busy, memory := 0, int64(0)
	for _, c := range s.Children {
		memory += c.Memory
		if c.State == busyState {
			busy++
		}
	}
	p.o.Logger.Info("pool", "children", len(s.Children), "busy", busy, "waiting", s.Waiting, "done", s.Done, "failed", s.Failed,
		"rejected", s.Rejected, "returned", s.Returned, "started", s.Started, "died", s.Died, "memory", memory)
}

// desk answers requests for statistics.
type desk struct{ subs []*nats.Subscription }

// openDesk never fails: a user who may not subscribe there has a pool without statistics.
func (p *Pool) openDesk(nc *nats.Conn) *desk {
	d := &desk{}
	for _, subject := range []string{StatsSubject, SubjectOf(p.o.Name)} {
		sub, err := nc.Subscribe(subject, p.answerStats)
		if err != nil {
			p.o.Logger.Warn("there will be no statistics", "subject", subject, "error", err)
			continue
		}
		d.subs = append(d.subs, sub)
	}
	return d
}

func (d *desk) close() {
	for _, sub := range d.subs {
		sub.Unsubscribe() //nolint:errcheck // the connection may be closed
	}
}

func (p *Pool) answerStats(m *nats.Msg) {
	p.post(func(own *owner, now time.Time) { own.askStats(now) })
	s, err := p.Stats()
	if err != nil {
		return
	}
	body, err := json.Marshal(s)
	if err != nil {
		p.o.Logger.Error("the statistics cannot be written", "error", err)
		return
	}
	if err := m.Respond(body); err != nil {
		p.o.Logger.Debug("the statistics could not be sent", "error", err)
	}
}

// askEvery bounds how often the children are asked.
const askEvery = time.Second

// askStats asks the children; what they answer is part of the next statistics.
func (own *owner) askStats(now time.Time) {
	if own.roster != nil && now.Sub(own.asked) >= askEvery {
		own.asked = now
		own.roster.askStats()
	}
}

package integration

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"stint/integration/harness"
)

var (
	campaignTime = flag.Duration("campaign", 0, "go on killing the broker for this long (default: 50 kills)")
	campaignSeed = flag.Uint64("seed", 0, "seed of the campaigns (default: a random one)")
)

const kills = 50

func seed() uint64 {
	if *campaignSeed != 0 {
		return *campaignSeed
	}
	return rand.Uint64()
}

// mixedSenders are senders of every kind.
func (c *campaign) mixedSenders() {
	base := harness.SenderOptions{
		Accept: harness.AcceptBody, MsgIDs: 0.3, Every: 10 * time.Millisecond, Burst: 5, Window: 400,
		Compose: mixed, Drain: 60 * time.Second,
	}
	for _, change := range []func(o *harness.SenderOptions){
		func(o *harness.SenderOptions) {},
		func(o *harness.SenderOptions) { o.Accept = harness.AcceptDashed },
		func(o *harness.SenderOptions) { o.Accept, o.MsgIDs = harness.AcceptHeader, 0 },
		func(o *harness.SenderOptions) { o.Raw, o.Burst = true, 2 },
		func(o *harness.SenderOptions) { o.Accept, o.MsgIDs = harness.AcceptNone, 0.5 },
		func(o *harness.SenderOptions) {
			o.Every, o.Burst, o.Window = 400*time.Millisecond, 200, 1000
		},
	} {
		o := base
		change(&o)
		c.sender(o)
	}
}

// TestKill9 kills the broker at random moments, half of them the very moment at which a sender has heard that an item is
// accepted. In the end every accepted item has its one final reply, and nothing else has happened.
func TestKill9(t *testing.T) {
	c := newCampaign(t, harness.Binary(t), seed())
	procs := 1 + c.rand.IntN(4) // the fewer, the more depends on each
	c.processors(procs, 24/procs)
	c.mixedSenders()
	n, end := 0, time.Now().Add(*campaignTime)
	for ; n < kills || time.Now().Before(end); n++ {
		c.moment(1500 * time.Millisecond)
		if n%2 == 0 {
			c.atAccept()
		}
		if n%10 == 5 {
			c.replace()
		}
		c.kill(c.broker)
		c.pause(100 * time.Millisecond)
		c.restart()
	}
	t.Logf("%d kills, %d processors", n, procs)
	mustBeGood(t, c.end(), 100*kills)
}

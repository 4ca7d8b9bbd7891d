package integration

import (
	"testing"
	"time"

	"stint/integration/harness"
)

// TestOutsideServerKilled kills an outside NATS server at random moments, under a broker, its senders and its processors, and now
// and then the broker, too. NATS keeps nothing, so what was on its way is lost; what was accepted is not.
func TestOutsideServerKilled(t *testing.T) {
	server := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Queue{"address": "unused"}))
	server.Start()
	c := newCampaignAt(t, server, seed())
	c.processors(4, 6)
	c.mixedSenders()
	for range kills / 2 {
		c.moment(1500 * time.Millisecond)
		if c.rand.IntN(2) == 0 {
			c.atAccept()
		}
		which := c.rand.IntN(4)
		itself, under := which > 1, which < 3 // the broker, the server under it
		if under {
			c.kill(server)
			c.pause(100 * time.Millisecond)
		}
		if itself {
			c.kill(c.broker)
		}
		if under {
			server.Start()
		}
		if itself {
			c.restart()
		}
	}
	mustBeGood(t, c.end(), 50*kills)
}

// Command upper is a processor of the queue work on a broker at nats://127.0.0.1:4222: it answers each item with its body
// in capitals, until Ctrl-C.
package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"os/signal"

	"github.com/nats-io/nats.go"

	"stint/processor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	nc, err := nats.Connect(nats.DefaultURL)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	err = processor.Run(ctx, nc, processor.Options{Address: "work"}, func(_ context.Context, w *processor.Work) ([]byte, error) {
		return bytes.ToUpper(w.Body), nil
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Child is a child of a pool in Go:
//
//	go build -o child ./examples/pools/child
//	stint work orders -- ./child
package main

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"strconv"
)

type line struct {
	Type    string `json:"type"`
	ID      string `json:"id,omitempty"`
	Body    string `json:"body,omitempty"`
	Message string `json:"message,omitempty"`
}

func main() {
	from, to := json.NewDecoder(file("STINT_IN")), json.NewEncoder(file("STINT_OUT"))
	for {
		var work line
		if err := from.Decode(&work); errors.Is(err, io.EOF) || work.Type == "stop" {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		if work.Type != "work" {
			continue
		}
		if err := to.Encode(line{Type: "done", ID: work.ID, Body: "Hello, " + work.Body}); err != nil {
			log.Fatal(err)
		}
	}
}

// file is the descriptor whose number a variable holds.
func file(variable string) *os.File {
	fd, err := strconv.Atoi(os.Getenv(variable))
	if err != nil {
		log.Fatal(variable, ": ", err)
	}
	return os.NewFile(uintptr(fd), variable)
}

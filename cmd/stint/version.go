package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
)

// versions is what version prints.
type versions struct {
	Stint      string `json:"stint"`
	Commit     string `json:"commit,omitempty"`
	Modified   bool   `json:"modified,omitempty"` // since that commit
	Go         string `json:"go"`
	Platform   string `json:"platform"`
	NATSServer string `json:"nats_server"`
	NATSClient string `json:"nats_client"`
	Bbolt      string `json:"bbolt"`
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of stint and of what is built in",
		Example: `  stint version
  stint version --json`,
		Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			info, _ := debug.ReadBuildInfo()
			return printVersions(cmd.OutOrStdout(), versionsOf(info), asJSON)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// versionsOf reads what the Go tool has noted; info may be nil.
func versionsOf(info *debug.BuildInfo) versions {
	v := versions{
		Stint:      "(devel)",
		Go:         runtime.Version(),
		Platform:   runtime.GOOS + "/" + runtime.GOARCH,
		NATSServer: server.VERSION,
		NATSClient: nats.Version,
		Bbolt:      "unknown",
	}
	if info == nil {
		return v
	}
	if info.Main.Version != "" {
		v.Stint = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	for _, d := range info.Deps {
		if d.Path == "go.etcd.io/bbolt" {
			v.Bbolt = d.Version
		}
	}
	return v
}

func printVersions(w io.Writer, v versions, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(v)
	}
	_, err := fmt.Fprintf(w, "stint %s%s\n%s %s\nnats-server %s\nnats.go %s\nbbolt %s\n",
		v.Stint, v.commit(), v.Go, v.Platform, v.NATSServer, v.NATSClient, v.Bbolt)
	return err
}

func (v versions) commit() string {
	switch {
	case v.Commit == "":
		return ""
	case v.Modified:
		return " (" + v.Commit + ", modified)"
	}
	return " (" + v.Commit + ")"
}

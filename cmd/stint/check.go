package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/spf13/cobra"
)

func newCheck() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Validate a configuration and print what it comes to",
		Long: `Check reads a configuration as serve does, and the NATS server file that it names. If they are valid it prints the
effective configuration as JSON on standard output: every key with the value that holds, passwords and tokens masked.
Otherwise it lists everything that is wrong on standard error.

Nothing is started, opened or written. Relative paths in a configuration are relative to the working directory.

` + exitCodes,
		Example: `  stint check --config stint.json
  stint check --config stint.json >/dev/null && systemctl restart stint`,
		Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			return check(file, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	cmd.Flags().StringVar(&file, "config", "", "the configuration `FILE`; without it, the defaults")
	return cmd
}

func check(file string, stdout, stderr io.Writer) error {
	c, err := loadConfig(file)
	if err != nil {
		return configError(err)
	}
	if err := errors.Join(checkPaths(c, nameOf(file)), c.checkPoolPrograms(nameOf(file)), checkServer(c, stderr)); err != nil {
		return configError(err)
	}
	_, err = stdout.Write(c.redacted().encode())
	return err
}

func nameOf(file string) string {
	if file == "" {
		return "the default configuration"
	}
	return file
}

// configError begins a list of problems on a line of its own.
func configError(err error) error { return fmt.Errorf("the configuration is not valid:\n%w", err) }

// checkPaths looks whether the files that are named can be read.
func checkPaths(c *config, file string) error {
	p := &problems{file: file}
	n := &c.NATS
	for _, f := range []struct{ key, name string }{
		{"nats.creds", n.Creds},
		{"nats.nkey", n.NKey},
		{"nats.tls.ca", n.TLS.CA},
		{"nats.tls.cert", n.TLS.Cert},
		{"nats.tls.key", n.TLS.Key},
	} {
		if f.name == "" {
			continue
		}
		if _, err := readFile(f.name); err != nil {
			p.add(0, f.key, "cannot be used: %v", err)
		}
	}
	if info, err := os.Stat(c.DataDir); err == nil && !info.IsDir() {
		p.add(0, "data_dir", "%s is not a directory", c.DataDir)
	}
	return p.err()
}

// checkServer sets up the NATS server inside the process without starting it.
func checkServer(c *config, stderr io.Writer) error {
	if c.NATS.URL != "" {
		return nil
	}
	o, _, err := serverOptions(c, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return err
	}
	if _, err := server.NewServer(o); err != nil {
		return fmt.Errorf("the NATS server file of nats.config is not valid: %w", err)
	}
	return c.checkPayload(int64(o.MaxPayload))
}

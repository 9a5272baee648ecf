package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/probe"
)

// version is set by the linker (make).
var version = "dev"

const longHelp = `fbuild turns a Dockerfile into an OCI image, without a daemon and without root.

Exit codes:
  0    done
  1    the build failed
  2    wrong usage
  3    this host cannot build (see fbuild doctor)
  130  interrupted`

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// app is what every command shares.
type app struct {
	stdout, stderr io.Writer
	root           string // --root
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	a := &app{stdout: stdout, stderr: stderr}
	cmd := &cobra.Command{
		Use: "fbuild", Short: "Build container images without a daemon and without root", Long: longHelp,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q: see fbuild --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetFlagErrorFunc(flagError)
	cmd.PersistentFlags().StringVar(&a.root, "root", "", "directory of the store (default $FBUILD_ROOT, else $XDG_DATA_HOME/fbuild)")
	cmd.AddCommand(a.buildCommand(), a.cacheCommand(), a.doctorCommand(), a.executorCommand(), a.versionCommand(), a.explainCommand(), a.whyCommand(), a.affectedCommand())
	cmd.AddCommand(a.imagesCommand("images"), a.removeImageCommand("rmi"), a.tagCommand(), a.inspectCommand(), a.historyCommand(), a.diffCommand(),
		a.pullCommand(), a.pushCommand(), a.saveCommand(), a.loadCommand(), a.loginCommand(), a.logoutCommand())
	cmd.AddCommand(a.dockerCommands()...)
	return cmd
}

// flagError is a mistake in the flags.
func flagError(cmd *cobra.Command, err error) error {
	return &hintError{&usageError{err}, "see " + cmd.CommandPath() + " --help"}
}

// storeDir is where the store is.
func (a *app) storeDir() (string, error) {
	dir := a.root
	if dir == "" {
		dir = os.Getenv("FBUILD_ROOT")
	}
	if dir == "" {
		data := os.Getenv("XDG_DATA_HOME")
		if data == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", usagef("find the store: %w: set --root", err)
			}
			data = filepath.Join(home, ".local", "share")
		}
		dir = filepath.Join(data, "fbuild")
	}
	return filepath.Abs(dir)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			text := version
			if info, ok := debug.ReadBuildInfo(); ok && version == "dev" {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						text = "dev " + s.Value[:min(12, len(s.Value))]
					}
				}
			}
			_, err := fmt.Fprintf(a.stdout, "fbuild %s %s %s/%s\n", text, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// errDoctor ends doctor where RUN cannot work; the report has said why.
var errDoctor = errors.New("this host cannot run the commands of a Dockerfile")

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what this host can do, and why not more", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := a.storeDir()
			if err != nil {
				return err
			}
			r := probe.Host(cmd.Context(), dir)
			for _, c := range r.Checks {
				mark := "ok "
				if !c.OK {
					mark = "no "
				}
				fmt.Fprintf(a.stdout, "%s %-24s %s\n", mark, c.Name, c.Detail)
			}
			if r.Recorder == "" {
				return errDoctor
			}
			_, err = fmt.Fprintf(a.stdout, "RUN works here, with --recorder=%s\n", r.Recorder)
			return err
		},
	}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments", cmd.CommandPath())
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
)

// innerCommand runs the benchmarks that lie beside the packages, and writes what
// benchstat reads.
func innerCommand(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("bench inner", flag.ContinueOnError)
	count := fs.Int("count", 6, "runs of each benchmark: benchstat wants six or more")
	pattern := fs.String("bench", ".", "which, as a regular expression")
	benchtime := fs.String("benchtime", "1s", "how long each takes")
	out := fs.String("out", filepath.Join("bench", "out", "inner.txt"), "the file to write")
	repo := fs.String("repo", ".", "the repository")
	if err := fs.Parse(args); err != nil {
		return err
	}
	packages := fs.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	if err := openDirs(filepath.Dir(*out)); err != nil {
		return err
	}
	f, err := os.Create(*out)
	if err != nil {
		return fmt.Errorf("write benchmarks: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	argv := append([]string{
		"test", "-run", "^$", "-bench", *pattern, "-benchmem", "-count", strconv.Itoa(*count), "-benchtime", *benchtime, "-p", "1",
	}, packages...)
	cmd := osexec.CommandContext(ctx, "go", argv...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = *repo, io.MultiWriter(f, os.Stdout), os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go test -bench: %w", err)
	}
	return nil
}

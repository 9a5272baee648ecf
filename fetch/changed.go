package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Changed lists the files of the work tree that dir is in which are not as in a
// revision: changed, added, removed, or known to nobody and not ignored; as absolute
// paths, sorted. REV... is where the current branch left REV. Git only reads; neither
// hooks, monitors nor external programs for differences are started, but the content
// filters of the caller's own configuration are, as by git status.
func Changed(ctx context.Context, dir, rev string) ([]string, error) {
	program, err := findGit()
	if err != nil {
		return nil, &Error{Source: dir, Err: err, Hint: "install git, or give the changed files with --files"}
	}
	g := &reader{program: program, dir: dir}
	top, err := g.text(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, &Error{Source: dir, Err: err, Hint: "--since needs a git repository; --files takes a list from anywhere"}
	}
	from, sinceBranch := strings.CutSuffix(rev, "...")
	commit, err := g.text(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", from+"^{commit}")
	if err == nil && sinceBranch {
		commit, err = g.text(ctx, "merge-base", commit, "HEAD")
	}
	if err != nil {
		return nil, &Error{Source: dir, Err: fmt.Errorf("revision %q: %w", rev, err), Hint: "a shallow clone has few revisions: git fetch --unshallow, or fetch-depth: 0 in GitHub's checkout"}
	}
	g.dir = top
	diff, err := g.run(ctx, "diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", commit, "--")
	if err != nil {
		return nil, &Error{Source: dir, Err: err}
	}
	others, err := g.run(ctx, "ls-files", "-z", "--others", "--exclude-standard")
	if err != nil {
		return nil, &Error{Source: dir, Err: err}
	}
	var out []string
	for name := range bytes.SplitSeq(slices.Concat(diff, others), []byte{0}) {
		if len(name) > 0 {
			out = append(out, filepath.Join(top, string(name)))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// reader runs git on a repository of the caller, whose configuration counts: whom it
// trusts (safe.directory) and what it ignores.
type reader struct{ program, dir string }

func (g *reader) text(ctx context.Context, args ...string) (string, error) {
	out, err := g.run(ctx, args...)
	return strings.TrimSuffix(string(out), "\n"), err
}

func (g *reader) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := osexec.CommandContext(ctx, g.program, append([]string{
		"-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=false", "-c", "diff.external=", "--no-pager",
	}, args...)...)
	cmd.Dir = g.dir
	cmd.Env = []string{"LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_ADVICE=0"}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if name == "PATH" || name == "HOME" || name == "XDG_CONFIG_HOME" || strings.HasPrefix(name, "GIT_CONFIG") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &limited{w: &said, left: maxSaid}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = killWait
	err := cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	var exit *osexec.ExitError
	if errors.As(err, &exit) && said.Len() == 0 {
		return nil, &gitError{args[0], "no such thing", err}
	}
	if err != nil {
		return nil, &gitError{args[0], said.String(), err}
	}
	return out.Bytes(), nil
}

// Package reexec runs parts of fbuild as child processes: the same binary again, told by argv[0] what to be.
//
// Owns: the naming of children ("fbuild:NAME"), and how a child gets into a new user namespace (ids mapped by newuidmap and newgidmap, by root itself, or one id).
//
// Invariants: a process is a child only by its argv[0], so no flag and no variable of a caller can make one. A child in a new user namespace waits, without
// privileges, until its ids are mapped, and executes itself once more: only an execve as the mapped root gains the capabilities of the namespace.
//
// Fails when: the host forbids user namespaces; the error is a *HostError that wraps ErrForbidden and names cause and cure.
package reexec

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
)

const (
	prefix = "fbuild:"
	self   = "/proc/self/exe"
)

// Main runs the child named by argv[0] ("fbuild:NAME") and exits with its status, or returns when this process is no child. main() and TestMain call it first.
func Main(children map[string]func() int) {
	name, ok := strings.CutPrefix(os.Args[0], prefix)
	if !ok {
		return
	}
	os.Exit(runChild(name, children)) //nolint:forbidigo // this is the main of a child
}

func runChild(name string, children map[string]func() int) int {
	if name == enterName {
		enter()
		return exitUnknown
	}
	child, ok := children[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "fbuild: error: unknown child process", name)
		return exitUnknown
	}
	return child()
}

// exitUnknown is the status of a child whose name nobody registered, and of one that did not get that far.
const exitUnknown = 125

// Command prepares a re-execution of this binary as child NAME (/proc/self/exe) with nothing of the caller's environment.
func Command(ctx context.Context, name string, args ...string) *osexec.Cmd {
	cmd := osexec.CommandContext(ctx, self, args...)
	cmd.Args[0] = prefix + name
	cmd.Env = []string{}
	return cmd
}

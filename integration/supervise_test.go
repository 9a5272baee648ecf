//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The variables that tell the supervisor what to do; fbuild sees none of them.
const (
	varPrefix   = "FBUILD_TEST_"
	varBin      = varPrefix + "BIN"
	varUID      = varPrefix + "UID"
	varGID      = varPrefix + "GID"
	varRecorder = varPrefix + "RECORDER"
	varBases    = varPrefix + "BASES"
	varPIDFile  = varPrefix + "PIDFILE"
)

// exitLeftover is the supervisor's own status: fbuild ended and left a process.
const exitLeftover = 97

// leftoverTime is how long the processes of an fbuild may outlive it.
const leftoverTime = 30 * time.Second

// supervise is the program "fbuild" of the tests: it runs the real one as the
// actor, adds the recorder and the base images to a build, and is the subreaper
// of whatever that leaves behind, which is an error.
func supervise() {
	code, err := superviseMain()
	if err != nil {
		fmt.Fprintln(os.Stderr, "supervise:", err)
		code = 98
	}
	os.Exit(code)
}

func superviseMain() (int, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	cmd := osexec.CommandContext(context.Background(), os.Getenv(varBin), fbuildArgs(os.Args[1:])...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, varPrefix) {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if uid, err := strconv.Atoi(os.Getenv(varUID)); err == nil && os.Getuid() == 0 && uid != 0 {
		gid, err := strconv.Atoi(os.Getenv(varGID))
		if err != nil {
			return 0, err
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	if name := os.Getenv(varPIDFile); name != "" {
		if err := writeAtomic(name, strconv.Itoa(cmd.Process.Pid)); err != nil {
			return 0, err
		}
	}
	err := cmd.Wait()
	var exit *osexec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if left := waitOrphans(leftoverTime); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "supervise: processes left behind: %q\n", left)
		return exitLeftover, nil
	}
	if st := cmd.ProcessState.Sys().(syscall.WaitStatus); st.Signaled() {
		return 128 + int(st.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// fbuildArgs adds to a build what the leg asks for, unless the test said
// otherwise.
func fbuildArgs(args []string) []string {
	if len(args) == 0 || args[0] != "build" {
		return args
	}
	add := []string{"build", "--check-layers"}
	has := func(prefix string) bool {
		for _, a := range args {
			if strings.HasPrefix(a, prefix) {
				return true
			}
		}
		return false
	}
	if r := os.Getenv(varRecorder); r != "" && !has("--recorder") {
		add = append(add, "--recorder="+r)
	}
	bases, err := filepath.Glob(filepath.Join(os.Getenv(varBases), "*", "index.json"))
	if err != nil {
		bases = nil
	}
	for _, b := range bases {
		dir := filepath.Dir(b)
		add = append(add, "--build-context="+filepath.Base(dir)+"=oci-layout://"+dir)
	}
	return append(add, args[1:]...)
}

// waitOrphans reaps what fbuild left and returns the command lines of those that
// still live after a while, which it kills.
func waitOrphans(limit time.Duration) []string {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return nil
			}
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if time.Now().After(end) {
			var lines []string
			for _, pid := range childrenOf(os.Getpid()) {
				line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			return lines
		}
	}
}

// childrenOf lists the children of a process.
func childrenOf(parent int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var out []int
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		f := strings.Fields(rest)
		if len(f) < 2 || f[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

func writeAtomic(name, text string) error {
	if err := os.WriteFile(name+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

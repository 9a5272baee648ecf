package recordertest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
)

// Children are the re-exec entries that a TestMain must register.
func Children() map[string]func() int {
	return map[string]func() int{"recordertest": guarded(commandMain), "recordertest-daemon": guarded(daemonMain)}
}

// command runs a process in root that does what args say, as the first of a new
// pid namespace: when it ends, so does all that it left behind (LAWS 12).
func command(ctx context.Context, root string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, testenv.Patience)
	defer cancel()
	cmd := reexec.Command(ctx, "recordertest", append([]string{root}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir = "/"
	cmd.Env = []string{"GORACE=atexit_sleep_ms=0"} // a second for each process otherwise
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	err := cmd.Run()
	return out.String(), err
}

// guarded turns the panic of a helper into the status of the process.
func guarded(fn func() error) func() int {
	return func() (code int) {
		defer func() {
			if e := recover(); e != nil {
				_, _ = fmt.Fprintln(os.Stderr, e)
				code = 1
			}
		}()
		unix.Umask(0o022)
		if err := fn(); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
}

func commandMain() error {
	root, what := os.Args[1], os.Args[2]
	switch what {
	case "look":
		return look(root, os.Args[3], os.Args[4])
	case "law":
		l, err := findLaw(os.Args[3])
		if err != nil {
			return err
		}
		if l.daemon != nil {
			if err := startDaemon(root, l.name); err != nil {
				return err
			}
		}
		if err := enter(root); err != nil {
			return err
		}
		if l.do != nil {
			l.do()
		}
		return nil
	case "write":
		if err := enter(root); err != nil {
			return err
		}
		return os.WriteFile(os.Args[3], []byte("x"), 0o644)
	case "random":
		seed, err := strconv.ParseInt(os.Args[3], 10, 64)
		if err != nil {
			return err
		}
		var but []Exception
		for _, arg := range os.Args[4:] {
			e, err := strconv.Atoi(arg)
			if err != nil {
				return err
			}
			but = append(but, Exception(e))
		}
		if err := enter(root); err != nil {
			return err
		}
		return randomOps(seed, but)
	}
	return fmt.Errorf("unknown command %q", what)
}

func findLaw(name string) (*law, error) {
	all := laws()
	for i := range all {
		if all[i].name == name {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("unknown law %q", name)
}

// procFD is /proc/self/fd as it was outside the root.
var procFD int

// enter makes root this process's root and directory.
func enter(root string) (err error) {
	if procFD, err = unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /proc/self/fd: %w", err)
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return os.Chdir("/")
}

// startDaemon returns when the daemon is ready. Nobody waits for it: it dies
// with the pid namespace.
func startDaemon(root, name string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := reexec.Command(context.Background(), "recordertest-daemon", root, name)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	if err := w.Close(); err != nil {
		return err
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		return fmt.Errorf("wait for daemon: %w", err)
	}
	return r.Close()
}

func daemonMain() error {
	l, err := findLaw(os.Args[2])
	if err != nil {
		return err
	}
	if err := enter(os.Args[1]); err != nil {
		return err
	}
	l.daemon(func() {
		_, err := os.NewFile(3, "ready").Write([]byte{1})
		must(err)
	})
	return nil
}

package exec

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Where there is no pid namespace, what a command leaves behind is found by its ancestors: a child subreaper (K, and each C) is the parent of every process below it
// that has lost its own, so that nothing can leave the tree (LAWS 12).

// becomeSubreaper makes this process the parent of every orphan below it.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	return nil
}

// descendants lists the processes below ANCESTOR, ended ones that nobody has waited for included. What SKIP holds, and what is below it, is left out.
func descendants(ancestor int, skip map[int]uint64) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, ok := parentOf(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	var all []int
	for next := children[ancestor]; len(next) > 0; {
		pid := next[0]
		next = next[1:]
		if _, ok := skip[pid]; ok {
			continue
		}
		all = append(all, pid)
		next = append(next, children[pid]...)
	}
	return all, nil
}

// parentOf reads the parent of a process, false if there is no such process (any more).
func parentOf(pid int) (int, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// "PID (COMMAND) STATE PARENT ...", where the command may hold anything.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return parent, err == nil
}

// pause is how long a look at the process list waits for what was killed to be gone.
const pause = time.Millisecond

// endDescendants kills everything below this process, and reaps, until nothing is left. A process that forks faster than it can be killed loses in the end: each
// round kills all that the list shows, parents first.
func endDescendants() error {
	for {
		left, err := descendants(os.Getpid(), nil)
		if err != nil || len(left) == 0 {
			return err
		}
		if err := killAll(left); err != nil {
			return err
		}
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err != nil && err != unix.EINTR || err == nil && pid == 0 {
				break
			}
		}
		time.Sleep(pause)
	}
}

func killAll(pids []int) error {
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}

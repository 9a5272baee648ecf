package exec

import (
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// infinity is RLIM_INFINITY.
const infinity = ^uint64(0)

// limits are the same for every command (LAWS 8): docker's, but for core files, which would end up in a layer. A hard limit of the host below these cannot be raised
// by an ordinary user and stands.
var limits = []struct {
	resource   int
	soft, hard uint64
}{
	{unix.RLIMIT_AS, infinity, infinity},
	{unix.RLIMIT_CORE, 0, 0},
	{unix.RLIMIT_CPU, infinity, infinity},
	{unix.RLIMIT_DATA, infinity, infinity},
	{unix.RLIMIT_FSIZE, infinity, infinity},
	{unix.RLIMIT_LOCKS, infinity, infinity},
	{unix.RLIMIT_MEMLOCK, 8 << 20, 8 << 20},
	{unix.RLIMIT_MSGQUEUE, 819200, 819200},
	{unix.RLIMIT_NICE, 0, 0},
	{unix.RLIMIT_NOFILE, 1024, 524288},
	{unix.RLIMIT_NPROC, infinity, infinity},
	{unix.RLIMIT_RSS, infinity, infinity},
	{unix.RLIMIT_RTPRIO, 0, 0},
	{unix.RLIMIT_RTTIME, infinity, infinity},
	{unix.RLIMIT_SIGPENDING, infinity, infinity},
	{unix.RLIMIT_STACK, 8 << 20, infinity},
}

// Limit is a resource limit that a command gets instead of the usual one.
type Limit struct {
	Resource   int // unix.RLIMIT_NOFILE and the like
	Soft, Hard uint64
}

// setLimits sets this process' limits: the usual ones, then those of the command, which are not adjusted. syscall.Setrlimit, since it makes Go keep the limit of open
// files for the children.
func setLimits(own []Limit) error {
	for _, l := range limits {
		if slices.ContainsFunc(own, func(o Limit) bool { return o.Resource == l.resource }) {
			continue
		}
		var now syscall.Rlimit
		if err := syscall.Getrlimit(l.resource, &now); err != nil {
			return fmt.Errorf("get resource limit %d: %w", l.resource, err)
		}
		want := syscall.Rlimit{Cur: min(l.soft, now.Max), Max: min(l.hard, now.Max)}
		if err := syscall.Setrlimit(l.resource, &want); err != nil {
			return fmt.Errorf("set resource limit %d: %w", l.resource, err)
		}
	}
	for _, l := range own {
		if err := syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return fmt.Errorf("set resource limit %d to %d:%d: %w", l.Resource, l.Soft, l.Hard, err)
		}
	}
	return nil
}

package exec

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capabilities are docker's default fourteen, inside the user namespace.
var capabilities = []uint{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_MKNOD, unix.CAP_NET_RAW, unix.CAP_SETGID,
	unix.CAP_SETUID, unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
}

// confine leaves the calling thread, and what is forked from it, with docker's capabilities and seccomp filter, and out of reach of the abstract sockets of others. no_new_privs stays off (LAWS 35), so the filter
// goes in while CAP_SYS_ADMIN is held.
func confine() error {
	keep := capabilitySet(capabilities)
	if err := boundCapabilities(keep); err != nil {
		return err
	}
	if err := scopeSockets(); err != nil {
		return err
	}
	if err := installSeccomp(seccompProgram(refusals{})); err != nil {
		return err
	}
	return setCapabilities(keep)
}

func capabilitySet(list []uint) uint64 {
	var set uint64
	for _, c := range list {
		set |= 1 << c
	}
	return set
}

// boundCapabilities takes away for good what is not in KEEP, which is effective at the next execve. Which of them this thread has is setCapabilities' part.
func boundCapabilities(keep uint64) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for c := range uint(64) {
		if keep&(1<<c) != 0 {
			continue
		}
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err == unix.EINVAL {
			break // above the last one that this kernel knows
		}
		if err == nil && in != 0 { // what is gone already needs no CAP_SETPCAP
			err = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

// setCapabilities leaves the calling thread with KEEP.
func setCapabilities(keep uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

func installSeccomp(prog program) error {
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); errno != 0 { //nolint:gosec // G103: as package unsafe has it for a system call
		return fmt.Errorf("install seccomp filter: %w", errno)
	}
	return nil
}

// dropForGood takes a capability from this thread and from all that it starts.
func dropForGood(c int) error {
	have, err := permitted()
	if err != nil || have&(1<<c) == 0 {
		return err
	}
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
		return fmt.Errorf("drop capability %d: %w", c, err)
	}
	return setCapabilities(have &^ (1 << c))
}

package exec

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Versions of Landlock that brought something that matters here.
const (
	referABI  = 2 // renames between directories (Linux 5.19); before it every one is refused
	scopedABI = 6 // scopes (Linux 6.12)
)

// landlockRights are the rights on files by the version that brought them. What is not handled is not restricted.
var landlockRights = []struct {
	abi   int
	mask  uint64
	lists string
}{
	{1, 0x1fff, "execute to make_sym"},
	{referABI, unix.LANDLOCK_ACCESS_FS_REFER, "refer"},
	{3, unix.LANDLOCK_ACCESS_FS_TRUNCATE, "truncate"},
	{5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV, "ioctl_dev"},
}

// landlockABI is the version of Landlock that this kernel has, 0 for none (or one that a container's seccomp profile forbids).
func landlockABI() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

// scopeSockets cuts off the abstract unix sockets outside, which the host's network namespace would show, where the kernel can (LAWS 36).
func scopeSockets() error {
	if landlockABI() < scopedABI {
		return nil // no Landlock, or an older one: the package comment says what remains reachable
	}
	return restrictSelf(unix.LandlockRulesetAttr{Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET}, -1)
}

// landlockRoot leaves the calling thread, and what comes of it, with the files below the directory ROOT and no others, whatever descriptors or tricks it finds, and,
// from Linux 6.12 on, without signals and abstract sockets to processes outside. It reports whether the kernel can do that at all.
func landlockRoot(root int) (bool, error) {
	abi := landlockABI()
	if abi < referABI {
		return false, nil
	}
	var attr unix.LandlockRulesetAttr
	for _, r := range landlockRights {
		if r.abi <= abi {
			attr.Access_fs |= r.mask
		}
	}
	if abi >= scopedABI {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return true, restrictSelf(attr, root)
}

// restrictSelf applies a ruleset, with everything that it handles allowed below the directory ROOT if that is not negative.
func restrictSelf(attr unix.LandlockRulesetAttr, root int) error {
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0) //nolint:gosec // G103: as package unsafe has it for a system call
	if errno != 0 {
		return fmt.Errorf("create landlock ruleset: %w", errno)
	}
	defer func() { _ = unix.Close(int(fd)) }() // of no use any more
	if root >= 0 {
		rule := unix.LandlockPathBeneathAttr{Allowed_access: attr.Access_fs, Parent_fd: int32(root)}
		_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0) //nolint:gosec // G103: as above
		if errno != 0 {
			return fmt.Errorf("add landlock rule: %w", errno)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("apply landlock ruleset: %w", errno)
	}
	return nil
}

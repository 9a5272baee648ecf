package exec

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// evaluate runs classic BPF as the kernel does for seccomp.
func evaluate(t *testing.T, prog []unix.SockFilter, data map[uint32]uint32) uint32 {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		yes := false
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = data[in.K]
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
			continue
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JEQ:
			yes = a == in.K
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JGT:
			yes = a > in.K
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JGE:
			yes = a >= in.K
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JSET:
			yes = a&in.K != 0
		default:
			t.Fatalf("instruction %d: unknown code %#x", pc, in.Code)
		}
		if yes {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	t.Fatal("program ran past its end")
	return 0
}

func TestSeccompProgram(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("numbers of amd64")
	}
	const (
		x64, i386 = unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386
		allow     = uint32(unix.SECCOMP_RET_ALLOW)
		eperm     = seccompErrno | uint32(unix.EPERM)
		enosys    = seccompErrno | uint32(unix.ENOSYS)
	)
	prog := seccompProgram(refusals{})
	if len(prog) > 4096 {
		t.Fatalf("program: got %d instructions, want at most 4096", len(prog))
	}
	for _, tt := range []struct {
		name       string
		arch       uint32
		number, a0 uint32
		want       uint32
	}{
		{"read", x64, unix.SYS_READ, 0, allow},
		{"execve", x64, unix.SYS_EXECVE, 0, allow},
		{"chroot", x64, unix.SYS_CHROOT, 0, allow},
		{"ptrace", x64, unix.SYS_PTRACE, 0, allow},
		{"mknod", x64, unix.SYS_MKNODAT, 0, allow},
		{"removexattrat", x64, 466, 0, allow},
		{"mount", x64, unix.SYS_MOUNT, 0, eperm},
		{"umount2", x64, unix.SYS_UMOUNT2, 0, eperm},
		{"fsopen", x64, unix.SYS_FSOPEN, 0, eperm},
		{"move_mount", x64, unix.SYS_MOVE_MOUNT, 0, eperm},
		{"mount_setattr", x64, unix.SYS_MOUNT_SETATTR, 0, eperm},
		{"pivot_root", x64, unix.SYS_PIVOT_ROOT, 0, eperm},
		{"setns", x64, unix.SYS_SETNS, 0, eperm},
		{"unshare", x64, unix.SYS_UNSHARE, 0, eperm},
		{"keyctl", x64, unix.SYS_KEYCTL, 0, eperm},
		{"add_key", x64, unix.SYS_ADD_KEY, 0, eperm},
		{"bpf", x64, unix.SYS_BPF, 0, eperm},
		{"io_uring_setup", x64, unix.SYS_IO_URING_SETUP, 0, eperm},
		{"userfaultfd", x64, unix.SYS_USERFAULTFD, 0, eperm},
		{"open_by_handle_at", x64, unix.SYS_OPEN_BY_HANDLE_AT, 0, eperm},
		{"kexec_load", x64, unix.SYS_KEXEC_LOAD, 0, eperm},
		{"perf_event_open", x64, unix.SYS_PERF_EVENT_OPEN, 0, eperm},
		{"clone of a process", x64, unix.SYS_CLONE, uint32(unix.SIGCHLD), allow},
		{"clone of a thread", x64, unix.SYS_CLONE, 0x3d0f00, allow},
		{"clone with user namespace", x64, unix.SYS_CLONE, unix.CLONE_NEWUSER | uint32(unix.SIGCHLD), eperm},
		{"clone with mount namespace", x64, unix.SYS_CLONE, unix.CLONE_NEWNS, eperm},
		{"clone3", x64, unix.SYS_CLONE3, 0, enosys},
		{"open_tree_attr, newer than the profile", x64, 467, 0, enosys},
		{"unknown", x64, 9999, 0, enosys},
		{"x32 read", x64, 0x40000000, 0, enosys},
		{"x32 mount", x64, 0x40000000 + unix.SYS_MOUNT, 0, enosys},
		{"personality linux32", x64, unix.SYS_PERSONALITY, 8, allow},
		{"personality query", x64, unix.SYS_PERSONALITY, 0xffffffff, allow},
		{"personality without randomization", x64, unix.SYS_PERSONALITY, 0x40000, eperm},
		{"socket inet", x64, unix.SYS_SOCKET, unix.AF_INET, allow},
		{"socket vsock", x64, unix.SYS_SOCKET, unix.AF_VSOCK, eperm},
		{"socket alg", x64, unix.SYS_SOCKET, unix.AF_ALG, eperm},
		{"i386 read", i386, 3, 0, allow},
		{"i386 mount", i386, 21, 0, eperm},
		{"i386 umount", i386, 22, 0, eperm},
		{"i386 writev", i386, 146, 0, allow},
		{"i386 unshare", i386, 310, 0, eperm},
		{"i386 clone of a process", i386, 120, uint32(unix.SIGCHLD), allow},
		{"i386 clone with user namespace", i386, 120, unix.CLONE_NEWUSER, eperm},
		{"i386 open", i386, 5, 0, allow},
		{"i386 chown", i386, 182, 0, allow},
		{"i386 socket vsock", i386, 359, unix.AF_VSOCK, eperm},
		{"another machine", unix.AUDIT_ARCH_S390X, 3, 0, unix.SECCOMP_RET_KILL_PROCESS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := evaluate(t, prog, map[uint32]uint32{dataArch: tt.arch, dataNumber: tt.number, dataArg0: tt.a0})
			if got != tt.want {
				t.Errorf("got %#x, want %#x", got, tt.want)
			}
		})
	}
}

package exec

import "golang.org/x/sys/unix"

// abis of this machine: x86-64 and i386.
var abis = []abi{
	{audit: unix.AUDIT_ARCH_X86_64, numbers: 0, clone: 56, clone3: 435, personality: 135, socket: 41},
	{audit: unix.AUDIT_ARCH_I386, numbers: 1, clone: 120, clone3: 435, personality: 136, socket: 359},
}

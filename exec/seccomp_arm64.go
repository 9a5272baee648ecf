package exec

import "golang.org/x/sys/unix"

// abis of this machine: arm64 and arm.
var abis = []abi{
	{audit: unix.AUDIT_ARCH_AARCH64, numbers: 2, clone: 220, clone3: 435, personality: 92, socket: 198},
	{audit: unix.AUDIT_ARCH_ARM, numbers: 3, clone: 120, clone3: 435, personality: 136, socket: 281, privateFrom: 0xf0001, privateTo: 0xf0005},
}

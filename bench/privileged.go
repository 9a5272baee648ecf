package main

import (
	"strconv"
	"strings"
)

// capabilities by number, as docker names them.
var capabilities = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
	NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE
	SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ`)

// privileged are the flags of a privileged container. Where root itself lacks a
// capability, as on some virtual machines, docker refuses --privileged: there it is
// taken apart, and what is there is given. The missing are named.
func privileged(bounding uint64) (flags, missing []string) {
	for i, name := range capabilities {
		if bounding>>i&1 == 0 {
			missing = append(missing, name)
		} else {
			flags = append(flags, "--cap-add="+name)
		}
	}
	if len(missing) == 0 {
		return []string{"--privileged"}, nil
	}
	return append(flags, "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined", "--security-opt=systempaths=unconfined",
		"--device-cgroup-rule=a *:* rwm", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"), missing
}

// boundingSet is what this process may have at most.
func boundingSet() uint64 {
	set, err := strconv.ParseUint(field("/proc/self/status", "CapBnd", ":"), 16, 64)
	if err != nil {
		return 0
	}
	return set
}

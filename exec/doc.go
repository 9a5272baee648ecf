// Package exec runs one command in a given root directory, rootless: namespaces, mounts, capabilities, seccomp, signals, exit code.
//
// Owns: the keeper (K), a re-executed child that holds a user, mount and pid namespace for one build and starts every other child in it, and the init (C) of
// each command, which sets the root up, starts the command and reaps.
//
// Invariants: nothing of the caller's environment and no descriptor of ours reaches a command. When Run returns, no process of the command is left: C is pid 1 of
// its pid namespace, and the kernel lets it end only when that is empty. When the caller dies, however it dies, K's socket closes, K ends, and being pid 1 of its
// own pid namespace it takes everything with it. C creates nothing in the root: mount points exist when Run is called. no_new_privs is not set where there are namespaces: sudo, setuid programs
// and file capabilities work in a command as they do in docker. Device nodes of the root cannot be opened (nodev).
//
// Without namespaces (IsolationChroot, for root in a container that allows none) K and each C are child subreapers, so that what a command starts stays below them, and C ends
// all of it; D, a child of C, enters the root by chroot, gives up what the command must not have (Landlock, seccomp, capabilities, no_new_privs) and becomes the command.
// What would be mounted is put into the root before, and taken out after, by A (place.go); where A is killed, K wipes the files and moves the directories back
// (abandoned.go). There are no devices of the image, since they would be the real ones.
//
// Constant for every command: umask 0022, resource limits (as far as the host's hard limits go), stdin /dev/null, signal dispositions and mask, a session of its own
// without a terminal, docker's fourteen capabilities, docker's seccomp rules.
//
// What the host's network leaves reachable: with Network "host" a command shares the caller's network namespace, so it reaches services on localhost and a
// cloud's metadata address, as the caller itself does; abstract unix sockets of others too on kernels before 6.12 (from then on Landlock's scope keeps it from them). Network "none" has a loopback device and nothing else.
// With a single id the supplementary groups of the caller stay in effect, since the kernel refuses setgroups there.
//
// Whether a command asked for a socket of a network is told by a seccomp filter whose listener is C (netwatch.go, listener.go). While it listens no program of the command
// can have a listener of its own (EBUSY); in a chroot there always is one, for links.
//
// Lock order: Sandbox.mu alone; keeper.mu alone; netWatch.mu alone.
//
// Concurrency: a Sandbox may be used by many goroutines at once. Every goroutine of a Sandbox ends in Close.
//
// Fails when: the host forbids namespaces or the mounts in them: an error that wraps ErrUnavailable and names cause and cure.
package exec

package main

import (
	"context"
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
)

// buildahPeer is buildah as the ordinary user with one of its storage drivers.
func (e *env) buildahPeer(label, name, driver, program string) *builder {
	if e.host.Versions["buildah"] == "" {
		return missing("buildah is not installed: run bench/setup")
	}
	dir := filepath.Join(e.work, label+"-"+name)
	if err := fresh(dir); err != nil {
		return missing("%v", err)
	}
	acc, err := e.lookupAccount(dir)
	if err != nil {
		return missing("%v", err)
	}
	root, runroot := filepath.Join(dir, "root"), filepath.Join(dir, "runroot")
	head := []string{"buildah", "--root", root, "--runroot", runroot, "--storage-driver", driver}
	settings := "buildah build --layers --network=host, storage driver " + driver
	if program != "" {
		path, err := osexec.LookPath(program)
		if err != nil {
			return missing("%s is not installed: run bench/setup", program)
		}
		head = append(head, "--storage-opt", "overlay.mount_program="+path)
		settings += " with " + program
	}
	build := append(head, "build", "--layers", "--tls-verify=false", "--network=host") //nolint:gocritic // a new list on purpose
	if e.host.Versions["runc"] != "" {                                                 // the default, crun, refuses hosts with both versions of control groups
		build = append(build, "--runtime", "runc")
		settings += ", runtime runc"
	}
	argv := func(j job, more ...string) []string {
		out := append(append([]string{}, build...), "-t", j.ref, "-f", j.dockerfile)
		return append(append(append(out, buildArgs(j)...), more...), j.context)
	}
	share := func(j job) []string { return argv(j, "--cache-to", j.cache, "--cache-from", j.cache) }
	return &builder{
		version: e.host.Versions["buildah"], settings: settings + ", as an ordinary user",
		account: acc, vars: []string{"TMPDIR=" + dir}, ownMounts: true,
		reset: func(context.Context) error { return errors.Join(os.RemoveAll(root), os.RemoveAll(runroot)) },
		build: always(func(j job) []string { return argv(j) }),
		push: always(func(j job) []string {
			return append(append([]string{}, head...), "push", "--tls-verify=false", j.ref, "docker://"+j.ref)
		}),
		share: always(share), fetch: always(share),
		close: func() error { return os.RemoveAll(dir) },
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
)

// kanikoVar names kaniko's executor; bench/kaniko makes one.
const kanikoVar = "BENCH_KANIKO"

// kaniko runs the executor in a container of runc, with the capabilities that
// docker and Kubernetes give by default. Each run gets a root of its own with
// nothing in it, as a pod of kaniko's image has: there is no daemon and no storage.
type kaniko struct {
	env            *env
	dir            string
	executor, runc string
	runs           int
}

var kanikoCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func (e *env) kanikoPeer(label string) *builder {
	executor := os.Getenv(kanikoVar)
	if executor == "" {
		return missing("no executor of kaniko: name one in %s (bench/kaniko makes it)", kanikoVar)
	}
	runc, err := osexec.LookPath("runc")
	if err != nil {
		return missing("kaniko needs a container, and there is no runc: run bench/setup")
	}
	if _, err := os.Stat(executor); err != nil {
		return missing("%s: %v", kanikoVar, err)
	}
	k := &kaniko{env: e, dir: filepath.Join(e.work, label+"-kaniko"), executor: executor, runc: runc}
	if err := fresh(k.dir); err != nil {
		return missing("%v", err)
	}
	return &builder{
		version:  kanikoVersion(executor),
		settings: "container of runc, default capabilities; --cache=true --cache-repo=... --snapshot-mode=redo --destination: its build pushes, image and cache",
		build:    k.argv, share: k.argv, fetch: k.argv,
		reset: func(context.Context) error { return fresh(k.dir) },
		close: func() error { return os.RemoveAll(k.dir) },
	}
}

// kanikoVersion asks the executor itself, and tells two of one version apart.
func kanikoVersion(executor string) string {
	v := "unknown version"
	if out, err := osexec.Command(executor, "version").Output(); err == nil { //nolint:noctx,gosec // it only prints, and the caller named it
		v = strings.Join(strings.Fields(string(out)), " ")
	}
	return v
}

type (
	ociMount struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options,omitempty"`
	}
	ociKind struct {
		Type string `json:"type"`
	}
	ociProcess struct {
		Args         []string            `json:"args"`
		Env          []string            `json:"env"`
		Cwd          string              `json:"cwd"`
		Capabilities map[string][]string `json:"capabilities"`
		User         map[string]int      `json:"user"`
	}
	ociConfig struct {
		Version  string            `json:"ociVersion"`
		Process  ociProcess        `json:"process"`
		Root     map[string]string `json:"root"`
		Hostname string            `json:"hostname"`
		Mounts   []ociMount        `json:"mounts"`
		Linux    struct {
			Namespaces []ociKind `json:"namespaces"`
		} `json:"linux"`
	}
)

// argv makes the container of one build. The cache lies in a repository beside
// the image, so that a job has one of its own.
func (k *kaniko) argv(j job) ([]string, error) {
	k.runs++
	bundle := filepath.Join(k.dir, fmt.Sprintf("run%d", k.runs))
	for _, d := range []string{"kaniko", "workspace", "dockerfile", "etc"} {
		if err := openDirs(filepath.Join(bundle, "rootfs", d)); err != nil {
			return nil, err
		}
	}
	args := []string{
		"/kaniko/executor", "--dockerfile", "/dockerfile/" + filepath.Base(j.dockerfile), "--context", "dir:///workspace",
		"--destination", j.ref, "--cache=true", "--cache-repo", j.cache, "--snapshot-mode=redo",
		"--insecure", "--insecure-pull", "--log-format=text", "--log-timestamp=false",
	}
	c := ociConfig{
		Version: "1.0.2", Root: map[string]string{"path": "rootfs"}, Hostname: "kaniko",
		Process: ociProcess{
			Args: append(args, buildArgs(j)...), Env: []string{"PATH=/kaniko:/usr/local/bin:/usr/bin:/bin", "HOME=/root", "container=kube"}, Cwd: "/workspace",
			Capabilities: map[string][]string{"bounding": kanikoCaps, "effective": kanikoCaps, "permitted": kanikoCaps},
			User:         map[string]int{"uid": 0, "gid": 0},
		},
		Mounts: []ociMount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "noexec", "mode=1777"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/kaniko/executor", Type: "bind", Source: k.executor, Options: []string{"bind", "ro"}},
			{Destination: "/workspace", Type: "bind", Source: j.context, Options: []string{"bind", "ro"}},
			{Destination: "/dockerfile", Type: "bind", Source: filepath.Dir(j.dockerfile), Options: []string{"bind", "ro"}},
			{Destination: "/etc/resolv.conf", Type: "bind", Source: "/etc/resolv.conf", Options: []string{"bind", "ro"}},
			{Destination: "/etc/hosts", Type: "bind", Source: "/etc/hosts", Options: []string{"bind", "ro"}},
		},
	}
	for _, ns := range []string{"pid", "mount", "ipc", "uts"} {
		c.Linux.Namespaces = append(c.Linux.Namespaces, ociKind{ns})
	}
	data, err := json.Marshal(c)
	err = errors.Join(err, os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600))
	if err != nil {
		return nil, fmt.Errorf("write container: %w", err)
	}
	id := fmt.Sprintf("fbuild-bench-%d-%d", os.Getpid(), k.runs)
	return []string{k.runc, "--root", filepath.Join(k.env.run, "runc"), "run", "--bundle", bundle, id}, nil
}

//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// sbin finds a program that is not on an ordinary user's PATH.
func sbin(name string) string {
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if p := filepath.Join(dir, name); executable(p) {
			return p
		}
	}
	return ""
}

func executable(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// tool runs a program of others as the home's actor and returns what it printed.
func (h *home) tool(name string, args ...string) (string, error) {
	cmd := osexec.CommandContext(context.Background(), name, args...)
	cmd.Dir = h.dir
	path := os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin"
	cmd.Env = []string{
		"HOME=" + h.dir, "TMPDIR=" + h.tmp, "PATH=" + path, "XDG_RUNTIME_DIR=" + filepath.Join(h.dir, ".run"),
		"XDG_DATA_HOME=" + filepath.Join(h.dir, ".others"),
	}
	if cmd.Err != nil {
		cmd = &osexec.Cmd{Path: sbin(name), Args: cmd.Args, Dir: cmd.Dir, Env: cmd.Env}
	}
	if os.Getuid() == 0 && h.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.gid)}}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %q: %w\n%s%s", name, args, err, out.String(), errs.String())
	}
	return out.String(), nil
}

// readByOthers has the image read, unpacked and run by other programs: as root by
// podman and runc, as an ordinary user by buildah and rootless runc.
func (h *home) readByOthers(t *testing.T, in input, layout string, img v1.Image) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(h.dir, ".run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(filepath.Join(h.dir, ".run"), h.uid, h.gid); err != nil {
		t.Fatal(err)
	}
	readers := map[string]func() (string, error){
		"skopeo": func() (string, error) { return in.want, h.readSkopeo(layout, img) },
		"runc":   func() (string, error) { return h.runBundle(in, layout, imageUser(t, img)) },
	}
	if h.uid == 0 {
		readers["podman"] = func() (string, error) { return h.runPodman(in, layout) }
	} else {
		readers["buildah"] = func() (string, error) { return h.runBuildah(in, layout) }
	}
	for name, read := range readers {
		if got, err := read(); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !strings.Contains(got, in.want) {
			t.Errorf("%s: got %q, want %q", name, got, in.want)
		}
	}
}

// readSkopeo inspects the image and copies it, which checks every digest.
func (h *home) readSkopeo(layout string, img v1.Image) error {
	out, err := h.tool("skopeo", "inspect", "oci:"+layout+":1")
	if err != nil {
		return err
	}
	var got struct {
		Digest string
		Layers []string
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return err
	}
	want, err := img.Digest()
	if err != nil {
		return err
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	if got.Digest != want.String() || len(got.Layers) != len(m.Layers) {
		return fmt.Errorf("inspect: got %s with %d layers, want %s with %d", got.Digest, len(got.Layers), want, len(m.Layers))
	}
	copied := filepath.Join(h.dir, "copied")
	if _, err := h.tool("skopeo", "--insecure-policy", "copy", "-q", "oci:"+layout+":1", "dir:"+copied); err != nil {
		return err
	}
	return os.RemoveAll(copied)
}

// runBundle unpacks the image with umoci and, where the caller has the ids that it
// needs, runs it with runc.
func (h *home) runBundle(in input, layout, user string) (_ string, err error) {
	bundle := filepath.Join(h.dir, "bundle")
	unpack := []string{"unpack", "--image", layout + ":1", bundle}
	if h.uid != 0 {
		unpack = []string{"unpack", "--rootless", "--image", layout + ":1", bundle}
	}
	if _, err := h.tool("umoci", unpack...); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, h.removeUnpacked(bundle)) }()
	if h.uid != 0 && user != "" {
		return in.want, nil // a rootless bundle has one id, which is not the image's
	}
	name := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	var cfg map[string]any
	if err := json.Unmarshal(data, &cfg); err != nil {
		return "", err
	}
	process := cfg["process"].(map[string]any)
	process["terminal"], process["args"] = false, in.show
	delete(process, "rlimits")
	if data, err = json.Marshal(cfg); err != nil {
		return "", err
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return "", err
	}
	return h.tool("runc", "--root", filepath.Join(h.dir, ".runc"), "run", "--bundle", bundle, filepath.Base(h.dir)+"-"+in.name)
}

// removeUnpacked removes a tree with directories that its owner may not write to.
func (h *home) removeUnpacked(dir string) error {
	if os.Getuid() != 0 {
		if _, err := h.tool("chmod", "-R", "u+rwX", dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// storage returns the flags that keep the images of podman and buildah in the home.
// Their directory of sockets has a short name: podman refuses more than 50 bytes.
func (h *home) storage() ([]string, error) {
	run, err := os.MkdirTemp(suite.dir, "r")
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() {
		if err := os.RemoveAll(run); err != nil {
			h.t.Error(err)
		}
	})
	driver := "overlay"
	var st unix.Statfs_t
	if err := unix.Statfs(run, &st); err != nil {
		return nil, err
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC { // it does not stack
		driver = "vfs"
	}
	return []string{"--root", filepath.Join(h.dir, ".storage"), "--runroot", run, "--storage-driver", driver}, h.give(run)
}

// runPodman runs the image as root. Its default runtime, crun, does not know
// hybrid cgroups, and its default limits exceed those of some hosts.
func (h *home) runPodman(in input, layout string) (_ string, err error) {
	args, err := h.storage()
	if err != nil {
		return "", err
	}
	args = append(args, "--cgroup-manager", "cgroupfs", "--runtime", "runc")
	defer func() {
		_, rerr := h.tool("podman", append(args, "rmi", "--all", "--force")...)
		storage := filepath.Join(h.dir, ".storage")
		for _, m := range mountsUnder(storage) { // podman's own directory stays a mount
			rerr = errors.Join(rerr, unix.Unmount(m, unix.MNT_DETACH))
		}
		err = errors.Join(err, rerr, os.RemoveAll(storage))
	}()
	run := append(slices.Clip(args), "run", "--rm", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--entrypoint", in.show[0], "oci:"+layout+":1")
	return h.tool("podman", append(run, in.show[1:]...)...)
}

// runBuildah runs the image in a chroot: what works for an ordinary user on every
// kind of cgroup.
func (h *home) runBuildah(in input, layout string) (_ string, err error) {
	args, err := h.storage()
	if err != nil {
		return "", err
	}
	defer func() {
		// The files belong to subordinate ids.
		_, rerr := h.tool("buildah", append(args, "unshare", "rm", "-rf", filepath.Join(h.dir, ".storage"))...)
		err = errors.Join(err, rerr)
	}()
	name, err := h.tool("buildah", append(args, "from", "--quiet", "oci:"+layout+":1")...)
	if err != nil {
		return "", err
	}
	run := append(slices.Clip(args), "run", "--isolation", "chroot", strings.TrimSpace(name), "--")
	return h.tool("buildah", append(run, in.show...)...)
}

// runByDaemons loads an archive into docker and into containerd, and runs the image.
func (in input) runByDaemons(t *testing.T, archive, name string) {
	t.Helper()
	d := in.daemon
	d.docker("load", "-q", "-i", archive)
	got := d.docker(append([]string{"run", "--rm", "--network", "none", "--entrypoint", in.show[0], name}, in.show[1:]...)...)
	if !strings.Contains(got, in.want) {
		t.Errorf("docker run: got %q, want %q", got, in.want)
	}
	d.docker("rmi", name)
	snapshotter := "overlayfs"
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC { // it does not stack
		snapshotter = "native"
	}
	d.containerd("image", "import", "--snapshotter", snapshotter, archive)
	defer d.containerd("image", "rm", name)
	if got := d.containerd(append([]string{"run", "--rm", "--snapshotter", snapshotter, name, "fbuild-" + in.name}, in.show...)...); !strings.Contains(got, in.want) {
		t.Errorf("ctr run: got %q, want %q", got, in.want)
	}
}

package exec

import (
	"debug/elf"
	"errors"
	"fmt"
	osexec "os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// qemuNames are QEMU's names of architectures where they are not Go's.
var qemuNames = map[string]string{
	"386": "i386", "amd64": "x86_64", "arm64": "aarch64", "mipsle": "mipsel", "mips64le": "mips64el",
}

// FindEmulator returns the path of a QEMU that runs programs of an architecture in any
// root, so one that is statically linked; "" for none.
func FindEmulator(arch string) string {
	if _, ok := machines[arch]; !ok {
		return ""
	}
	name := EmulatorName(arch)
	for _, n := range []string{name + "-static", name} {
		path, err := osexec.LookPath(n)
		if err != nil {
			continue
		}
		if path, err = filepath.Abs(path); err == nil && static(path) {
			return path
		}
	}
	return ""
}

// EmulatorName is what QEMU calls its program for an architecture.
func EmulatorName(arch string) string {
	if name := qemuNames[arch]; name != "" {
		return "qemu-" + name
	}
	return "qemu-" + arch
}

// static says whether a program needs no loader.
func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// emulator is a handler to register.
type emulator struct{ Arch, Path string }

// Emulate lets an emulator run the programs of an architecture in this sandbox, and
// nowhere else: since Linux 6.7 each user namespace can have a binfmt_misc of its own. It
// takes the place of the host's, whose handlers do not count in the sandbox any more.
func (s *Sandbox) Emulate(arch, path string) error {
	if s.chroot {
		return errors.New("register emulator: there is no namespace for it")
	}
	p, err := s.expect()
	if err == nil {
		if err = s.link.send(request{Op: "emulate", ID: p.id, Emulator: &emulator{arch, path}}, nil); err != nil {
			s.unexpect(p)
		}
	}
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		return fmt.Errorf("register emulator %s: %w", path, err)
	}
	return nil
}

// emulate registers a handler in a binfmt_misc of this user namespace, which is mounted
// nowhere and lives as long as this process.
func (k *keeper) emulate(e emulator) error {
	line, err := e.registration()
	if err != nil {
		return err
	}
	if k.handlers == 0 {
		if k.handlers, err = ownBinfmt(); err != nil {
			k.handlers = 0
			return err
		}
	}
	fd, err := unix.Openat(k.handlers, "register", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open binfmt_misc: %w", err)
	}
	_, err = unix.Write(fd, []byte(line))
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("write to binfmt_misc: %w", err)
	}
	return nil
}

func ownBinfmt() (dir int, err error) {
	fs, err := unix.Fsopen("binfmt_misc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("binfmt_misc of a user namespace, which Linux has since 6.7: %w", err)
	}
	if err = unix.FsconfigCreate(fs); err == nil {
		dir, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	}
	if err := errors.Join(err, unix.Close(fs)); err != nil {
		return 0, fmt.Errorf("binfmt_misc of a user namespace, which Linux has since 6.7: %w", err)
	}
	return dir, nil
}

// registration is the line that binfmt_misc reads. Its flags: F opens the emulator now,
// P keeps argv[0], and C takes a setuid program's ids, which end with the namespace's.
func (e emulator) registration() (string, error) {
	m, ok := machines[e.Arch]
	if !ok || !filepath.IsAbs(e.Path) || strings.ContainsAny(e.Path, ":\n\\") {
		return "", fmt.Errorf("no emulator for %s at %q", e.Arch, e.Path)
	}
	magic, mask := m.header(), make([]byte, len(m.header()))
	for i := range mask {
		switch {
		case i == 7: // the ABI
		case i == 16 && m.order == 1, i == 17 && m.order == 2:
			mask[i] = 0xfe // executables and position-independent ones
		default:
			mask[i] = 0xff
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, ":fbuild-%s:M:0:", e.Arch)
	for _, c := range magic {
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	b.WriteByte(':')
	for _, c := range mask {
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	fmt.Fprintf(&b, ":%s:PCF", e.Path)
	return b.String(), nil
}

// emulateFor answers A's request.
func (k *keeper) emulateFor(req request) {
	rep := reply{Kind: "exited", ID: req.ID}
	if err := k.emulate(*req.Emulator); err != nil {
		rep = reply{Kind: "failed", ID: req.ID, Error: err.Error()}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tell(rep)
}

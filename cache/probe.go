package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrUnsuitable is returned by Open for a file system that cannot hold a store
// (LAWS 31). The message says what is missing and what to do.
var ErrUnsuitable = errors.New("unsuitable file system")

func unsuitable(what string) error {
	return fmt.Errorf("%w: %s; choose a directory on a local disk (ext4, xfs, btrfs, tmpfs) with --root", ErrUnsuitable, what)
}

// refused are the file systems on which the probes pass but mean nothing: a
// lock there does not hold against a process of another machine, or is lost
// with the connection.
var refused = map[uint32]string{
	unix.NFS_SUPER_MAGIC:   "NFS",
	unix.SMB_SUPER_MAGIC:   "SMB",
	unix.SMB2_SUPER_MAGIC:  "SMB",
	unix.CIFS_SUPER_MAGIC:  "CIFS",
	unix.MSDOS_SUPER_MAGIC: "FAT",
	unix.EXFAT_SUPER_MAGIC: "exFAT",
	unix.AFS_SUPER_MAGIC:   "AFS",
	unix.CODA_SUPER_MAGIC:  "Coda",
}

// checkFileSystem refuses what is known to be unsuitable. It is one system call,
// done at every Open.
func checkFileSystem(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("stat file system: %w", err)
	}
	if name, ok := refused[uint32(st.Type)]; ok {
		return unsuitable(name + " keeps no locks and no holes that a store can rely on")
	}
	return nil
}

// probe tries in dir what a store needs: renaming over a file, and holes that
// take no space. Locks are tried by every new lease.
func probe(dir string) error {
	tmp, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // swept later if that fails
	a, b := filepath.Join(tmp, "a"), filepath.Join(tmp, "b")
	for _, name := range []string{a, b} {
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			return err
		}
	}
	if err := os.Rename(a, b); err != nil {
		return unsuitable(fmt.Sprintf("a file cannot replace another (%v)", err))
	}
	return probeHoles(b)
}

func probeHoles(name string) error {
	const size, step = 1 << 20, 64 << 10
	f, err := os.OpenFile(name, os.O_RDWR|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing of it is kept
	if _, err := f.WriteAt(make([]byte, 2*step), size); err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, size, step); err != nil {
		return unsuitable(fmt.Sprintf("no holes can be punched into files (%v)", err))
	}
	var st unix.Stat_t
	if err := f.Sync(); err != nil {
		return err
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Blocks*512 > size {
		return unsuitable("files with holes take their full size")
	}
	return nil
}

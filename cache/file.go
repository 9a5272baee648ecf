package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// keyName turns a key into a file name.
func keyName(key string) string {
	if hexName := strings.TrimPrefix(key, "sha256:"); isHex(hexName) {
		return hexName
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func isHex(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}

// checkDigest refuses digests that cannot name a file of the store.
func checkDigest(d tree.Digest) error {
	if hexName, ok := strings.CutPrefix(string(d), "sha256:"); !ok || !isHex(hexName) {
		return fmt.Errorf("digest %q: not sha256 in hexadecimal", string(d))
	}
	return nil
}

// writeFile puts data at name by way of a temporary file in tmp; durable means
// that it survives a power loss from then on.
func writeFile(tmp, name string, data []byte, durable bool) (err error) {
	f, err := os.CreateTemp(tmp, "write-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error before counts
		}
	}()
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return publish(f.Name(), name, durable)
}

// publish renames a finished file to its name, making the directory if needed.
func publish(tmp, name string, durable bool) error {
	err := os.Rename(tmp, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		err = os.Rename(tmp, name)
	}
	if err != nil || !durable {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only read
	return d.Sync()
}

// use looks a regular file up and marks it as used by this Store. The caller
// holds the gate.
func (s *Store) use(name string) error {
	fi, err := os.Lstat(name)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", name)
	}
	if fi.ModTime().Before(s.lease.start) {
		now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, now, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("mark %s as used: %w", name, err)
		}
	}
	return nil
}

// fileInfo is what a look at an object of the store tells.
type fileInfo struct {
	size  int64 // on the disk, in bytes
	mtime time.Time
	ino   uint64
	ctime unix.Timespec
	dir   bool
}

func lstat(name string) (fileInfo, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return fileInfo{}, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return fileInfo{
		size:  st.Blocks * 512,
		mtime: time.Unix(st.Mtim.Unix()),
		ino:   st.Ino,
		ctime: st.Ctim,
		dir:   st.Mode&unix.S_IFMT == unix.S_IFDIR,
	}, nil
}

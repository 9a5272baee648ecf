package fusefs

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// pin keeps the thread that uses it on the processor of another.
type pin struct {
	cpu  int    // the only one that it may use; below 0 for any
	pid  uint32 // whose stat is open
	stat statFile
}

var unpinned = pin{cpu: -1}

// find reads the 39th field of the stat of the thread pid: the processor that it ran on
// last.
func (p *pin) find(proc int, pid uint32) (int, error) {
	if pid != p.pid {
		p.stat.close()
		p.pid = pid
	}
	var buf [1024]byte
	b, err := p.stat.read(proc, pid, buf[:])
	if err != nil {
		p.pid = 0 // a thread of another process may get its number
		return 0, err
	}
	for range 37 {
		_, b, _ = bytes.Cut(b, []byte(" "))
	}
	cpu, ok := leadingNumber(b)
	if !ok {
		return 0, unix.EINVAL
	}
	return cpu, nil
}

// to lets the calling thread run on one processor only.
func (p *pin) to(cpu int) error {
	if cpu == p.cpu {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	err := unix.SchedSetaffinity(0, &set)
	if err == nil {
		p.cpu = cpu
	}
	return err
}

// statFile is a thread's stat, open if it was read.
type statFile struct{ fd int }

// read returns what follows the 2nd field, a name that may hold anything.
func (f *statFile) read(proc int, thread uint32, buf []byte) (_ []byte, err error) {
	if f.fd <= 0 {
		if f.fd, err = unix.Openat(proc, strconv.Itoa(int(thread))+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, err
		}
	}
	n, err := unix.Pread(f.fd, buf, 0)
	return buf[bytes.LastIndexByte(buf[:max(0, n)], ')')+1 : max(0, n)], err
}

func (f *statFile) close() {
	if f.fd > 0 {
		_ = unix.Close(f.fd) // only read
	}
	f.fd = 0
}

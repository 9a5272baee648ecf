package recordertest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// writeLaws are about bytes that are written in pieces, and names that are read
// while they change.
func writeLaws() []law {
	turn := func(k int) string { return strings.Repeat(string(rune('a'+k%26)), 1+k*53%3000) }
	var one, two strings.Builder
	for k := range 150 {
		one.WriteString(turn(2 * k))
		two.WriteString(turn(2*k + 1))
	}
	return []law{
		{
			name: "two files written in turns", do: func() { inTurns(turn) },
			want:     fmt.Sprintf("-0644 0:0 now %d one\n-0644 0:0 now %d two\n", one.Len(), two.Len()),
			contents: map[string]string{"one": one.String(), "two": two.String()},
		},
		{
			name: "write over old and new bytes", do: func() {
				writeAt("data/big", "new", 100000)
				writeAt("data/big", "newer", 200000)
				writeAt("data/big", strings.Repeat("x", 150000), 90000)
				writeAt("data/big", strings.Repeat("y", 3), 99999)
			},
			want:     "d0755 0:0 T data\n-0644 0:0 now 320000 data/big\n",
			contents: map[string]string{"data/big": big[:90000] + strings.Repeat("x", 9999) + "yyy" + strings.Repeat("x", 139998) + big[240000:]},
		},
		{
			name: "zero a range", do: func() { zero("data/big", 1000, 5000) },
			want:     "d0755 0:0 T data\n-0644 0:0 now 320000 data/big\n",
			contents: map[string]string{"data/big": big[:1000] + strings.Repeat("\x00", 5000) + big[6000:]},
		},
		{
			name: "list while names come and go", do: listWhileChanging,
		},
		{
			name: "locks", do: locks,
		},
	}
}

func inTurns(turn func(int) string) {
	var files []*os.File
	for _, name := range []string{"one", "two"} {
		f, err := os.Create(name)
		must(err)
		files = append(files, f)
	}
	for k := range 300 {
		_, err := files[k%2].WriteString(turn(k))
		must(err)
	}
	for _, f := range files {
		must(f.Close())
	}
}

// zero makes a range read as zeros. Where the file system can't, it is written.
func zero(p string, off, n int64) {
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(err)
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.WriteAt(make([]byte, n), off)
	}
	must(err)
	must(f.Close())
}

// listWhileChanging reads a directory in pieces: what is there all the time is seen once.
func listWhileChanging() {
	mkdir("many")
	var stay []string
	for k := range 500 {
		stay = append(stay, fmt.Sprint("stay", k))
		write("many/"+stay[k], "")
		write(fmt.Sprint("many/goes", k), "")
	}
	d, err := os.Open("many")
	must(err)
	var seen []string
	for k := 0; ; k++ {
		if k > 10000 {
			panic("the list has no end")
		}
		names, err := d.Readdirnames(20)
		if len(names) == 0 {
			break
		}
		must(err)
		for _, name := range names {
			if strings.HasPrefix(name, "stay") {
				seen = append(seen, name)
			}
		}
		write(fmt.Sprint("many/comes", k), "")
		_ = os.Remove(fmt.Sprint("many/goes", k)) // it may be gone
	}
	must(d.Close())
	slices.Sort(seen)
	slices.Sort(stay)
	expect("names that stayed", strings.Join(seen, " "), strings.Join(stay, " "))
	removeAll("many")
}

// locks takes both kinds of locks through several open files.
func locks() {
	open := func() *os.File {
		f, err := os.OpenFile("etc/motd", os.O_RDWR, 0)
		must(err)
		return f
	}
	a, b := open(), open()
	must(unix.Flock(int(a.Fd()), unix.LOCK_EX))
	expectErr(unix.Flock(int(b.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	must(unix.Flock(int(a.Fd()), unix.LOCK_UN))
	must(unix.Flock(int(b.Fd()), unix.LOCK_SH|unix.LOCK_NB))
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	must(unix.FcntlFlock(a.Fd(), unix.F_OFD_SETLK, &whole))
	part := unix.Flock_t{Type: unix.F_RDLCK, Start: 1, Len: 2}
	expectErr(unix.FcntlFlock(b.Fd(), unix.F_OFD_SETLK, &part), unix.EAGAIN)
	must(a.Close())
	must(unix.FcntlFlock(b.Fd(), unix.F_OFD_SETLK, &part))
	must(b.Close())
}

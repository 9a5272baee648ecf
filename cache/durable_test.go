package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// LAWS 33: what a name leads to is on the disk before the name is, and the name
// before the call returns: packs before the layer index that needs them.
func TestOrderOfSyncs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	_, out := child(t, "syncs", dir)
	var got []string
	for out.Scan() {
		got = append(got, out.Text())
	}
	want := []string{
		"index", "sync packs/ID, index is not there", "sync packs, index is not there",
		"sync tmp/ID, index is not there", "sync records/layer/ID, index is there",
		"blob", "sync tmp/ID, blob is not there", "sync blobs/sha256, blob is there",
		"end",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("syncs (-want +got):\n%s", diff)
	}
}

// syncsChild stores a layer and a blob and prints every fsync that it does.
func syncsChild() int {
	if err := printSyncs(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "syncs:", err)
		return 1
	}
	return 0
}

func printSyncs(dir string) error {
	s, err := Open(context.Background(), dir)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	what, name := "", ""
	next := func(w, file string) {
		fmt.Println(w)
		mu.Lock()
		defer mu.Unlock()
		what, name = w, file
	}
	err = watchSyncs(func(file string) {
		mu.Lock()
		defer mu.Unlock()
		rel := strings.TrimPrefix(file, dir+"/")
		top, _, _ := strings.Cut(rel, "/")
		switch {
		case strings.HasPrefix(rel, "records/layer/"):
			rel = "records/layer/ID"
		case (top == "tmp" || top == "packs") && rel != top:
			rel = top + "/ID"
		}
		is := "is there"
		if _, err := os.Stat(name); err != nil {
			is = "is not there"
		}
		fmt.Printf("sync %s, %s %s\n", rel, what, is)
	})
	if err != nil {
		return err
	}
	diffID := digestBytes([]byte("layer"))
	next("index", s.recordPath(kindLayer, string(diffID)))
	w, err := s.CreatePack()
	if err != nil {
		return err
	}
	n, err := storePack(w, []byte("contents"))
	if err != nil {
		return err
	}
	if err := s.PutLayer(diffID, tree.Changes{{Path: "f", Node: n}}); err != nil {
		return err
	}
	next("blob", s.blobPath(digestBytes([]byte("b"))))
	if _, err := storeBlob(s, []byte("b")); err != nil {
		return err
	}
	fmt.Println("end")
	return s.Close()
}

// watchSyncs calls fn before every fsync and fdatasync of this process, for good,
// by a seccomp filter that asks us first.
func watchSyncs(fn func(file string)) error {
	const userNotify, tsync, newListener, tsyncESRCH = 0x7fc00000, 1, 8, 16
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FDATASYNC, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: userNotify},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, tsync|newListener|tsyncESRCH, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("install filter: %w", errno)
	}
	go func() {
		for {
			if err := answerSync(fd, fn); err != nil {
				fmt.Println("watch:", err)
				return
			}
		}
	}()
	return nil
}

// answerSync takes one question of the kernel and lets the call go on.
func answerSync(listener uintptr, fn func(file string)) error {
	const receive, send, goOn = 0xc0502100, 0xc0182101, 1
	var ask struct { // struct seccomp_notif
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, listener, receive, uintptr(unsafe.Pointer(&ask))); errno != 0 {
		return errors.Join(errors.New("receive"), errno)
	}
	file, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", ask.args[0]))
	if err != nil {
		return err
	}
	fn(file)
	answer := struct { // struct seccomp_notif_resp
		id           uint64
		value        int64
		error, flags int32
	}{id: ask.id, flags: goOn}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, listener, send, uintptr(unsafe.Pointer(&answer))); errno != 0 {
		return errors.Join(errors.New("send"), errno)
	}
	return nil
}

package cache

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The process that has the index answers the others on the store at the socket
// tmp/locks/index.sock, to which only its own user comes (the store is 0700, and
// both ends ask the kernel who the other is). A conversation:
//
//	'g' KEY                     ->  1 VALUE, or 0
//	'p' COUNT (KEY VALUE)...    ->  1
//
// COUNT is a uvarint; KEY and VALUE are a uvarint, length + 1, and bytes; 0 instead
// of a length is a key to be deleted. Whatever else comes ends the conversation.
const indexSocket = "index.sock"

const (
	maxKey   = 128
	maxBatch = dropAt
)

// socketAt calls fn with a path of the socket that is short enough: the address of
// a socket has 108 bytes, and a store may lie deeper.
func socketAt(dir string, fn func(name string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only named
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), indexSocket))
}

// indexServer answers for the index of this process. A nil one does nothing.
type indexServer struct {
	x    *contentIndex
	l    *net.UnixListener
	name string
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // nil when it is over
}

// serveIndex starts to answer. Where the file system has no sockets the others go
// without.
func serveIndex(dir string, x *contentIndex) *indexServer {
	s := &indexServer{x: x, name: filepath.Join(dir, indexSocket), conns: map[net.Conn]bool{}}
	if err := ignoreNotExist(os.Remove(s.name)); err != nil { // of one that was killed
		return nil
	}
	err := socketAt(dir, func(name string) (err error) {
		s.l, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		return err
	})
	if err != nil {
		return nil
	}
	s.l.SetUnlinkOnClose(false) // its path leads nowhere any more
	s.wg.Go(s.accept)
	return s
}

func (s *indexServer) accept() {
	for {
		c, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // of descriptors there are too few just now
			if !s.x.sleep(indexWait) {
				return
			}
			continue
		}
		s.mu.Lock()
		ours := s.conns != nil && sameUser(c)
		if ours {
			s.conns[c] = true
			s.wg.Go(func() { s.answer(c) })
		}
		s.mu.Unlock()
		if !ours {
			_ = c.Close()
		}
	}
}

// sameUser asks the kernel whether the other end is of this process's user.
func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		same = err == nil && int(cred.Uid) == os.Geteuid()
	})
	return err == nil && same
}

// answer serves one conversation.
func (s *indexServer) answer(c net.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		_ = c.Close()
	}()
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	for {
		if err := s.one(r, w); err != nil {
			return
		}
		if err := w.Flush(); err != nil {
			return
		}
	}
}

func (s *indexServer) one(r *bufio.Reader, w *bufio.Writer) error {
	op, err := r.ReadByte()
	if err != nil {
		return err
	}
	switch op {
	case 'g':
		key, err := readField(r, maxKey)
		if err != nil {
			return err
		}
		value, ok := s.x.find(string(key))
		if !ok {
			return w.WriteByte(0)
		}
		return errors.Join(w.WriteByte(1), writeField(w, value))
	case 'p':
		n, err := binary.ReadUvarint(r)
		if err != nil || n > maxBatch {
			return errCorrupt
		}
		for range n {
			key, err := readField(r, maxKey)
			if err != nil {
				return err
			}
			value, err := readField(r, maxEntry)
			if err != nil {
				return err
			}
			s.x.set(string(key), value)
		}
		return w.WriteByte(1)
	}
	return errCorrupt
}

// readField reads a length and as many bytes; nil for no value.
func readField(r *bufio.Reader, limit uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	if n-1 > limit {
		return nil, errCorrupt
	}
	b := make([]byte, n-1)
	_, err = io.ReadFull(r, b)
	return b, err
}

func writeField(w *bufio.Writer, b []byte) error {
	var head [binary.MaxVarintLen64]byte
	n := uint64(0)
	if b != nil {
		n = uint64(len(b)) + 1
	}
	_, err := w.Write(head[:binary.PutUvarint(head[:], n)])
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// close ends every conversation and takes the socket away.
func (s *indexServer) close() {
	if s == nil {
		return
	}
	_ = os.Remove(s.name) // before the lock is released: the next owner makes its own
	_ = s.l.Close()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// servedTable is the index where another process has it.
type servedTable struct {
	wait time.Duration // for an answer

	mu sync.Mutex
	c  *net.UnixConn
	r  *bufio.Reader
	w  *bufio.Writer
}

// dialIndex returns the table of the process that answers at the socket, or nil.
func dialIndex(dir string, wait time.Duration) table {
	var c *net.UnixConn
	err := socketAt(dir, func(name string) (err error) {
		c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: name, Net: "unix"})
		return err
	})
	if err != nil {
		return nil
	}
	if !sameUser(c) {
		_ = c.Close()
		return nil
	}
	return &servedTable{wait: wait, c: c, r: bufio.NewReader(c), w: bufio.NewWriter(c)}
}

// talk sends a request and reads what is said to it, within t.wait. After an
// error other than errNoEntry the table is not to be used again.
func (t *servedTable) talk(send, receive func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.c.SetDeadline(time.Now().Add(t.wait))
	if err == nil {
		err = send()
	}
	if err == nil {
		err = t.w.Flush()
	}
	if err == nil {
		err = receive()
	}
	switch {
	case err == nil, errors.Is(err, errNoEntry):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded): // it lives: asking again would wait again
		return context.DeadlineExceeded
	}
	return fmt.Errorf("%w: %w", errTableGone, err)
}

func (t *servedTable) get(key string) (value []byte, err error) {
	err = t.talk(func() error {
		return errors.Join(t.w.WriteByte('g'), writeField(t.w, []byte(key)))
	}, func() error {
		known, err := t.r.ReadByte()
		if err != nil {
			return err
		}
		if known == 0 {
			return errNoEntry
		}
		value, err = readField(t.r, maxEntry)
		return err
	})
	return value, err
}

func (t *servedTable) put(entries map[string][]byte) error {
	return t.talk(func() error {
		head := binary.AppendUvarint([]byte{'p'}, uint64(len(entries)))
		_, err := t.w.Write(head)
		for key, data := range entries {
			err = errors.Join(err, writeField(t.w, []byte(key)), writeField(t.w, data))
		}
		return err
	}, func() error {
		_, err := t.r.ReadByte()
		return err
	})
}

func (t *servedTable) close(bool) { _ = t.c.Close() }

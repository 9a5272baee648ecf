package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Limits of one message between A and K.
const (
	maxMessage = 16 << 10
	maxFiles   = 32
)

// request is what A asks of K. The files of a start come with it: stdout, stderr, then those that become descriptor 3 and on.
type request struct {
	Op       string // start, kill; placed, taken; emulate
	ID       uint64
	Name     string
	Flags    uintptr    // namespaces of the child (CLONE_NEW*)
	Placed   *abandoned `json:",omitempty"`
	Emulator *emulator  `json:",omitempty"`
}

// reply is what K tells A.
type reply struct {
	Kind   string // ready, started, failed, exited
	ID     uint64
	Error  string
	Code   int
	Signal int
}

// link is one end of the socket between A and K: one message a packet.
type link struct{ conn *net.UnixConn }

// socketPair makes the two ends of a link.
func socketPair(name string) (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create %s: %w", name, err)
	}
	return os.NewFile(uintptr(pair[0]), name), os.NewFile(uintptr(pair[1]), name), nil
}

// newLink takes over F.
func newLink(f *os.File) (*link, error) {
	defer func() { _ = f.Close() }() // FileConn has a duplicate
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open keeper socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("keeper socket is no unix socket"), c.Close())
	}
	return &link{u}, nil
}

func (l *link) Close() error { return l.conn.Close() }

func (l *link) send(v any, files []*os.File) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(data) > maxMessage || len(files) > maxFiles {
		return fmt.Errorf("message of %d bytes and %d files is too large", len(data), len(files))
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := l.conn.WriteMsgUnix(data, oob, nil); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// receive decodes the next message into V and returns its files, close-on-exec. io.EOF means that the other end is gone.
func (l *link) receive(v any) ([]*os.File, error) {
	buf := make([]byte, maxMessage+1)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := l.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	files, err := parseRights(oob[:oobn])
	if err != nil {
		return nil, err
	}
	switch {
	case n == 0 && oobn == 0:
		return nil, io.EOF
	case n > maxMessage || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("message too large")
	default:
		err = json.Unmarshal(buf[:n], v)
	}
	if err != nil {
		closeFiles(files)
		return nil, fmt.Errorf("decode message: %w", err)
	}
	return files, nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			closeFiles(files)
			return nil, fmt.Errorf("parse control message: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

// closeFiles closes ends that were handed on or are of no use any more; nothing was written through them here, so no error can matter.
func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

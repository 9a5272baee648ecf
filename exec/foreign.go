package exec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// binfmtDir is where the kernel shows the handlers of binfmt_misc.
const binfmtDir = "/proc/sys/fs/binfmt_misc"

// Foreign is what this machine does with programs of an architecture.
type Foreign int

// The values of Foreign.
const (
	Native    Foreign = iota // its processor runs them
	Emulated                 // a handler of binfmt_misc runs them, in another root as well
	Unfixed                  // a handler is there, but without the flag F: not in another root
	Unhandled                // nothing runs them
	Unknown                  // binfmt_misc is not to be seen here
)

// machine is how the programs of an architecture begin: class and byte order of the ELF
// header, and e_machine.
type machine struct{ class, order, number byte }

// machines are the architectures of Linux images.
var machines = map[string]machine{
	"386": {1, 1, 3}, "amd64": {2, 1, 62}, "arm": {1, 1, 40}, "arm64": {2, 1, 183}, "ppc64": {2, 2, 21}, "ppc64le": {2, 1, 21},
	"riscv64": {2, 1, 243}, "s390x": {2, 2, 22}, "mips": {1, 2, 8}, "mipsle": {1, 1, 8}, "mips64": {2, 2, 8}, "mips64le": {2, 1, 8},
}

// ForeignTo says what this machine does with programs of an architecture, by Go's name.
func ForeignTo(arch string) Foreign { return foreignTo(arch, runtime.GOARCH, binfmtDir) }

func foreignTo(arch, host, dir string) Foreign {
	if arch == host || arch == "386" && host == "amd64" || arch == "arm" && host == "arm64" {
		return Native // the latter where the kernel is built for it, as most are
	}
	m, ok := machines[arch]
	if !ok {
		return Unknown
	}
	if status, err := os.ReadFile(filepath.Join(dir, "status")); err != nil || strings.TrimSpace(string(status)) == "disabled" {
		if err == nil {
			return Unhandled
		}
		return Unknown
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return Unknown
	}
	found := Unhandled
	for _, e := range list {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		h, err := parseHandler(string(text))
		if err != nil || !h.takes(m.header()) {
			continue
		}
		if h.fixed {
			return Emulated
		}
		found = Unfixed
	}
	return found
}

// header is the beginning of a program, as far as handlers look at it.
func (m machine) header() []byte {
	b := make([]byte, 20)
	copy(b, "\x7fELF")
	b[4], b[5], b[6] = m.class, m.order, 1
	kind, number := 16, 18 // executable
	if m.order == 2 {
		kind, number = 17, 19
	}
	b[kind], b[number] = 2, m.number
	return b
}

// handler is one of binfmt_misc.
type handler struct {
	enabled     bool
	fixed       bool // flag F: the interpreter was opened when it was registered
	offset      int
	magic, mask []byte
}

var errNoHandler = errors.New("no handler of binfmt_misc")

// parseHandler reads a handler as the kernel shows it.
func parseHandler(text string) (*handler, error) {
	h := &handler{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch key {
		case "enabled":
			h.enabled = true
		case "flags:":
			h.fixed = strings.Contains(value, "F")
		case "offset":
			h.offset, err = strconv.Atoi(value)
		case "magic":
			h.magic, err = hex.DecodeString(value)
		case "mask":
			h.mask, err = hex.DecodeString(value)
		}
		if err != nil {
			return nil, errNoHandler
		}
	}
	if len(h.magic) == 0 || h.mask != nil && len(h.mask) != len(h.magic) || h.offset < 0 {
		return nil, errNoHandler
	}
	return h, nil
}

// takes says whether programs that begin so are the handler's.
func (h *handler) takes(head []byte) bool {
	if !h.enabled || h.offset+len(h.magic) > len(head) {
		return false
	}
	at := slices.Clone(head[h.offset : h.offset+len(h.magic)])
	for i := range at {
		if h.mask != nil {
			at[i] &= h.mask[i]
		}
	}
	want := slices.Clone(h.magic)
	for i := range want {
		if h.mask != nil {
			want[i] &= h.mask[i]
		}
	}
	return bytes.Equal(at, want)
}

package reexec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Class says which ids exist in a user namespace.
type Class string

// The classes of id mappings.
const (
	// ClassRoot is the identity: every id that exists outside exists inside.
	ClassRoot Class = "root"
	// ClassRanges is the caller as 0 and its subordinate ranges from 1 on.
	ClassRanges Class = "ranges"
	// ClassSingle is the caller as 0 and nothing else.
	ClassSingle Class = "single"
)

// Range maps SIZE ids from INSIDE on to those from OUTSIDE on.
type Range struct{ Inside, Outside, Size uint32 }

// Map is the id mapping of a user namespace.
type Map struct {
	Class Class
	UIDs  []Range
	GIDs  []Range
	// Why says why the class is not a better one, "" if it is the best for this caller.
	Why string
}

// HostMap is the best mapping that the caller may ask for: the identity as root, subordinate ranges where there are any, else (or if SINGLE) one id.
func HostMap(single bool) (Map, error) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	one := Map{Class: ClassSingle, UIDs: []Range{{0, uid, 1}}, GIDs: []Range{{0, gid, 1}}}
	if single {
		one.Why = "a single id was asked for"
		return one, nil
	}
	if uid == 0 {
		return rootMap()
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := osexec.LookPath(tool); err != nil {
			one.Why = tool + " is not installed (package uidmap)"
			return one, nil //nolint:nilerr // one id is an answer, and Why says why
		}
	}
	names := []string{strconv.Itoa(int(uid))}
	if u, err := user.LookupId(names[0]); err == nil {
		names = append(names, u.Username)
	}
	m := Map{Class: ClassRanges}
	for _, side := range []struct {
		file string
		id   uint32
		to   *[]Range
	}{{"/etc/subuid", uid, &m.UIDs}, {"/etc/subgid", gid, &m.GIDs}} {
		sub, err := subRanges(side.file, names)
		if err != nil {
			return Map{}, err
		}
		if len(sub) == 0 {
			one.Why = fmt.Sprintf("%s has no line for %s (as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s)", side.file, names[len(names)-1], names[len(names)-1])
			return one, nil
		}
		*side.to = append([]Range{{0, side.id, 1}}, sub...)
	}
	return m, nil
}

// rootMap is the identity on the ids that exist here: root may itself live in a user namespace.
func rootMap() (Map, error) {
	m := Map{Class: ClassRoot}
	for _, side := range []struct {
		file string
		to   *[]Range
	}{{"/proc/self/uid_map", &m.UIDs}, {"/proc/self/gid_map", &m.GIDs}} {
		data, err := os.ReadFile(side.file)
		if err != nil {
			return Map{}, fmt.Errorf("read id mapping: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			var r Range
			if _, err := fmt.Sscan(line, &r.Inside, &r.Outside, &r.Size); err != nil {
				return Map{}, fmt.Errorf("parse %s line %q: %w", side.file, line, err)
			}
			*side.to = append(*side.to, Range{r.Inside, r.Inside, r.Size})
		}
	}
	if isOne(m.UIDs) || isOne(m.GIDs) {
		m.Class, m.Why = ClassSingle, "the user namespace around this process has one id"
	}
	return m, nil
}

func isOne(ranges []Range) bool { return len(ranges) == 1 && ranges[0].Size == 1 }

// subRanges reads the ranges of any of NAMES from FILE and places them one after the other from id 1 on. A missing file has none.
func subRanges(file string, names []string) ([]Range, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open subordinate ids: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	return parseSubRanges(bufio.NewScanner(f), file, names)
}

// maxRanges is how many lines a mapping may have (the kernel's limit is 340; newuidmap takes them as arguments).
const maxRanges = 340

func parseSubRanges(lines *bufio.Scanner, file string, names []string) ([]Range, error) {
	var ranges []Range
	next := uint64(1)
	for lines.Scan() {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 || !slices.Contains(names, fields[0]) {
			continue
		}
		start, err1 := strconv.ParseUint(fields[1], 10, 32)
		size, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("parse %s line %q: %w", file, lines.Text(), err)
		}
		// 4294967295 is no id ("unchanged" to chown), so no range may reach it.
		size = min(size, 4294967295-next)
		if size == 0 || len(ranges) == maxRanges-1 {
			continue
		}
		ranges = append(ranges, Range{uint32(next), uint32(start), uint32(size)})
		next += size
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return ranges, nil
}

// write gives the process PID its ids.
func (m Map) write(ctx context.Context, pid int) error {
	if m.Class == ClassRanges {
		if err := runMapTool(ctx, "newuidmap", pid, m.UIDs); err != nil {
			return err
		}
		return runMapTool(ctx, "newgidmap", pid, m.GIDs)
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	if m.Class == ClassSingle {
		if err := writeProc(dir+"setgroups", "deny"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("deny setgroups: %w", err)
		}
	}
	if err := writeProc(dir+"uid_map", lines(m.UIDs)); err != nil {
		return fmt.Errorf("map user ids: %w", err)
	}
	if err := writeProc(dir+"gid_map", lines(m.GIDs)); err != nil {
		return fmt.Errorf("map group ids: %w", err)
	}
	return nil
}

func lines(ranges []Range) string {
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d %d %d\n", r.Inside, r.Outside, r.Size)
	}
	return b.String()
}

// writeProc writes in one write call, as id maps demand.
func writeProc(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // the write itself took effect
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func runMapTool(ctx context.Context, tool string, pid int, ranges []Range) error {
	args := []string{strconv.Itoa(pid)}
	for _, r := range ranges {
		args = append(args, strconv.FormatUint(uint64(r.Inside), 10), strconv.FormatUint(uint64(r.Outside), 10), strconv.FormatUint(uint64(r.Size), 10))
	}
	out, err := osexec.CommandContext(ctx, tool, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", tool, err, strings.TrimSpace(string(out)))
	}
	return nil
}

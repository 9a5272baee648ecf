package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// host is the machine, for the head of the report.
type host struct {
	Kernel     string            `json:"kernel"`
	CPU        string            `json:"cpu"`
	Processors int               `json:"processors"`
	MemoryMiB  int64             `json:"memory_mib"`
	System     string            `json:"system"`
	Disk       string            `json:"disk"` // what -out lies on
	Versions   map[string]string `json:"versions"`
}

const hostFile = "host.json"

func readHost(dir string) (host, error) {
	var h host
	data, err := os.ReadFile(filepath.Join(dir, hostFile))
	if err == nil {
		err = json.Unmarshal(data, &h)
	}
	if err != nil {
		return h, fmt.Errorf("read host: %w", err)
	}
	return h, nil
}

func (h host) write(dir string) error {
	data, err := json.MarshalIndent(h, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, hostFile), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write host: %w", err)
	}
	return nil
}

// lookAround describes the machine.
func lookAround(ctx context.Context, o options, dir string) (host, error) {
	h := host{Processors: runtime.NumCPU(), Versions: map[string]string{}}
	var u unix.Utsname
	var si unix.Sysinfo_t
	if err := unix.Uname(&u); err != nil {
		return h, fmt.Errorf("uname: %w", err)
	}
	if err := unix.Sysinfo(&si); err != nil {
		return h, fmt.Errorf("sysinfo: %w", err)
	}
	h.Kernel = unix.ByteSliceToString(u.Release[:])
	h.MemoryMiB = int64(si.Totalram) * int64(si.Unit) >> 20
	h.CPU = field("/proc/cpuinfo", "model name", ":")
	h.System = strings.Trim(field("/etc/os-release", "PRETTY_NAME", "="), `"`)
	h.Disk = diskOf(dir)
	fbuild, err := subjectVersion(ctx, o.fbuild)
	if err != nil {
		return h, err
	}
	h.Versions["fbuild"], h.Versions["go"] = fbuild, runtime.Version()
	if o.against != "" {
		if h.Versions[oldSide], err = subjectVersion(ctx, o.against); err != nil {
			return h, err
		}
	}
	for name, cmd := range map[string][]string{
		"dockerd": {"dockerd", "--version"}, "docker": {dockerCLI(), "--version"}, "buildah": {"buildah", "--version"},
		"runc": {"runc", "--version"}, "crun": {"crun", "--version"}, "node": {"node", "--version"}, "npm": {"npm", "--version"},
	} {
		if out, err := osexec.CommandContext(ctx, cmd[0], cmd[1:]...).Output(); err == nil {
			first, _, _ := strings.Cut(string(out), "\n")
			h.Versions[name] = strings.TrimSpace(first)
		}
	}
	return h, nil
}

// subjectVersion is what fbuild says, and what it is: a version alone does not
// tell two builds of a working tree apart.
func subjectVersion(ctx context.Context, path string) (string, error) {
	out, err := osexec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return "", fmt.Errorf("%s version: %w", path, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read program: %w", err)
	}
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%s, sha256 %x", strings.TrimSpace(string(out)), sum[:6]), nil
}

// field is the value of the first line "KEY SEP VALUE" of a file.
func field(file, key, sep string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(line, sep); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// diskOf names the file system and the device that a directory lies on.
func diskOf(dir string) string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "unknown"
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "unknown"
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 2 || l[2] != dev {
			continue
		}
		disk := filepath.Base(r[1])
		rot, err := os.ReadFile("/sys/block/" + disk + "/queue/rotational")
		if err == nil {
			disk += map[bool]string{true: ", reported as rotating", false: ", reported as not rotating"}[bytes.HasPrefix(rot, []byte("1"))]
		}
		return fmt.Sprintf("%s on %s, %s", r[0], disk, l[5])
	}
	return "unknown"
}

// cpuTimes are the busy and all ticks of all processors.
func cpuTimes() (busy, total float64, err error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("read load: %w", err)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(first)
	if len(f) < 9 {
		return 0, 0, fmt.Errorf("read load: %q", first)
	}
	for i, s := range f[1:9] { // guest times, beyond, are in user already
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read load: %w", err)
		}
		total += n
		if i != 3 && i != 4 { // idle, iowait
			busy += n
		}
	}
	return busy, total, nil
}

// quietShare is how much of all processors others may use before a run.
const quietShare = 0.10

// quiet writes dirty pages out and waits, at most so long, until the machine is
// idle; it returns the share of the processors in use at last. It waits for
// nothing, the disk neither, where it may not wait.
func quiet(ctx context.Context, wait time.Duration) (busy float64, noisy bool, err error) {
	if wait > 0 {
		unix.Sync()
	}
	for end := time.Now().Add(wait); ; {
		b0, t0, err := cpuTimes()
		if err != nil {
			return 0, false, err
		}
		select {
		case <-ctx.Done():
			return 0, false, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		b1, t1, err := cpuTimes()
		if err != nil {
			return 0, false, err
		}
		busy = (b1 - b0) / max(1, t1-t0)
		if busy <= quietShare {
			return busy, false, nil
		}
		if time.Now().After(end) {
			return busy, true, nil
		}
	}
}

// loadAverage is that of the last minute.
func loadAverage() float64 {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(data), " ")
	f, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return f
}

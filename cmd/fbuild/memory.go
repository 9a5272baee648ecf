package main

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// heapShare is how much of a container's memory the heap may take before it is
// collected harder: the rest is for stacks, the page tables and the recorder.
const heapShare = 0.75

// limitMemory makes the collector mind the memory limit of the container. Without
// it a heap of twice what is needed ends the build where half would have done.
// GOMEMLIMIT counts more.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if n := cgroupMemory(os.DirFS("/")); n < math.MaxInt64 {
		debug.SetMemoryLimit(int64(float64(n) * heapShare))
	}
}

// cgroupMemory returns the smallest limit of the cgroups that this process is in,
// in bytes; math.MaxInt64 for none. What cannot be read limits nothing.
func cgroupMemory(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	data, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		base, file := "", ""
		switch {
		case fields[0] == "0" && fields[1] == "":
			base, file = "sys/fs/cgroup", "memory.max"
		case fields[1] == "memory":
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// In a container the path may be the host's, and the limit stands at the top.
		for dir := path.Clean("/" + fields[2]); ; dir = path.Dir(dir) {
			text, err := fs.ReadFile(root, path.Join(base, dir, file))
			if n, perr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil && n > 0 {
				least = min(least, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sector is the unit of /proc/diskstats, whatever the disk has.
const sector = 512

// deviceOf is the number of the device that a directory lies on, "MAJOR MINOR".
func deviceOf(dir string) string {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%d %d", unix.Major(st.Dev), unix.Minor(st.Dev))
}

// writtenTo is how many bytes a device was given to write since the machine
// started, or -1 where nobody counts them.
func writtenTo(device string) int64 {
	data, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return -1
	}
	n, err := parseDiskstats(data, device)
	if err != nil {
		return -1
	}
	return n
}

func parseDiskstats(data []byte, device string) (int64, error) {
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if len(f) < 10 || f[0]+" "+f[1] != device {
			continue
		}
		n, err := strconv.ParseInt(f[9], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read diskstats: %w", err)
		}
		return n * sector, nil
	}
	return 0, fmt.Errorf("read diskstats: no device %q", device)
}

// dropPageCache makes the next reads come from the disk.
func dropPageCache(context.Context) error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o600); err != nil {
		return fmt.Errorf("drop page cache: %w", err)
	}
	return nil
}

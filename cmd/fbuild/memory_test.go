package main

import (
	"math"
	"testing"
	"testing/fstest"
)

func TestCgroupMemory(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for _, c := range []struct {
		name string
		fs   fstest.MapFS
		want int64
	}{
		{"nothing to read", fstest.MapFS{}, math.MaxInt64},
		{"version 2, limit of a parent", fstest.MapFS{
			"proc/self/cgroup":             file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("max\n"),
			"sys/fs/cgroup/a/memory.max":   file("1000\n"),
		}, 1000},
		{"version 2 in a container", fstest.MapFS{
			"proc/self/cgroup":         file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("2000\n"),
		}, 2000},
		{"version 1, path of the host", fstest.MapFS{
			"proc/self/cgroup":                           file("4:memory:/docker/abc\n3:cpu:/docker/abc\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("3000\n"),
		}, 3000},
		{"the smaller one", fstest.MapFS{
			"proc/self/cgroup":                             file("4:memory:/x\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   file("9223372036854771712\n"),
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": file("500\n"),
		}, 500},
		{"no number", fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("max\n")}, math.MaxInt64},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := cgroupMemory(c.fs); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

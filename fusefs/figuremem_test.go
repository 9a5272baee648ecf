package fusefs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

// TestFigureMemory prints how much memory the server takes, as the kernel counts it.
func TestFigureMemory(t *testing.T) {
	if *figureRounds == 0 {
		return // a measurement, no test
	}
	w := newWorld(t)
	fmt.Println("| | resident | highest, end of the step included |\n|---|--:|--:|")
	row := func(name, layer, do string) {
		server, client := serverProcess(t, "recorder-fuse")
		id := strings.Fields(do)[0]
		root := w.served(client, id, layer)
		one(t, root, "go", do, "")
		now := resident(t, server.Process.Pid, "VmRSS")
		if _, err := client.Finish(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("| %s | %d | %d |\n", name, now, resident(t, server.Process.Pid, "VmHWM"))
	}
	small := tree.Changes{{Path: "base", Node: dirNode()}, {Path: "base/0", Node: dirNode()}, {Path: "base/0/1", Node: w.file(0o644, "x")}} // see runFigure
	row("100,000 changed files", w.layer(small), "create new 100000")
	row("a base of 300,000 files, of which 1,000 are looked at", w.layer(largeBase(w)), "stat base 1000")
}

// largeBase has 300,000 files whose digests are known.
func largeBase(w *world) tree.Changes {
	cs := tree.Changes{{Path: "base", Node: dirNode()}}
	x := w.contents("hello")
	for d := range 15000 {
		cs = append(cs, tree.Change{Path: fmt.Sprint("base/", d), Node: dirNode()})
		for f := range 20 {
			n := &tree.Node{Kind: tree.File, Mode: 0o644, Mtime: tree.Time{Sec: 1e9}, Size: 5, Extents: x, Digest: tree.Digest("sha256:" + strings.Repeat("0123456789abcdef", 4))}
			cs = append(cs, tree.Change{Path: fmt.Sprintf("base/%d/%d", d, d*20+f), Node: n})
		}
	}
	return cs
}

// resident is a line of /proc/PID/status in MiB.
func resident(t *testing.T, pid int, what string) (mib int) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, what+":"); ok {
			_, _ = fmt.Sscan(rest, &mib)
		}
	}
	return (mib + 1023) / 1024
}

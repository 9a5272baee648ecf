package fusefs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/tree"
)

var (
	figureRounds = flag.Int("figures", 0, "measure so many rounds against overlayfs")
	figureNames  = flag.String("figure", ".", "those that match")
	figureNot    = flag.String("figure-not", "^$", "but not those that match")
	figureBusy   = flag.Int("figure-busy", 0, "so many processes compute meanwhile")
	figureBoth   = flag.Bool("figure-both", false, "beside a recorder that does not serve on its caller's processor as well")
	figureOther  = flag.String("figure-other", "test-normal", "or beside one that gives no entries in lists: test-plain")
	figureServer = flag.String("figure-server", "recorder-fuse", "the recorder: as it is, test-normal or test-guest (samecore.go)")
	figureWarm   = flag.Int("figure-warm", 0, "touch so many MiB before each, so that no page is new to a virtual machine that gives free memory back")
	figureSync   = flag.Bool("figure-sync", true, "write out what is dirty before each")
)

// figures are what is measured, in this order on one root. An entry is a shell command, or one of figureIn's.
var figures = []figure{
	{"first stat of 20,000 parent files", "go", "stat base 20000"},
	{"second stat", "go", "stat base 20000"},
	{"first read of 20,000 parent files", "go", "read base 20000"},
	{"second read", "go", "read base 20000"},
	{"first walk over 20,000 parent files (find -size)", "sh", "find pw -size +99"},
	{"cp -a of 20,000 parent files", "sh", "cp -a pc copied"},
	{"chmod -R of 60,000 parent files", "sh", "chmod -R o-r pa"},
	{"chown -R of 60,000 parent files", "sh", "chown -R 1:1 pb"},
	{"mv of a parent tree of 60,000", "sh", "mv pm moved60"},
	{"rm -rf of 60,000 parent files", "sh", "rm -rf pr"},
	{"create 30,000 files of 1-8 KiB", "go", "create new 30000"},
	{"two at once, 10,000 each", "go", "two n 10000"},
	{"tar x of 30,000 files", "sh", "tar xf $TAR"},
	{"cp -a of 30,000 files", "sh", "cp -a new copy"},
	{"chmod -R of 60,000 new files", "sh", "chmod -R o-r new copy"},
	{"chown -R of 60,000 new files", "sh", "chown -R 1:1 new copy"},
	{"rm -rf of 50,000 new files", "sh", "rm -rf copy n1 n2"},
	{"write 1 GiB in 128 KiB", "go", "write big 1073741824 131072"},
	{"read it back", "go", "readall big 1073741824 131072"},
	{"write 256 MiB in 4 KiB", "go", "write small 268435456 4096"},
	{"make -j2 of 60 C files", "sh", "mkdir cc; cd cc; for i in $(seq 60); do echo '#include <stdio.h>' > $i.c; done; echo all: $(seq -f %g.o 60) > Makefile; TMPDIR=$PWD make -sj2"},
}

type figure struct{ name, how, args string }

// parentTrees are in the base, if a figure that is wanted names them.
var parentTrees = []struct{ name, files string }{
	{"base", "20000"}, {"pw", "20000"}, {"pc", "20000"}, {"pa", "60000"}, {"pb", "60000"}, {"pm", "60000"}, {"pr", "60000"},
}

// figureIn does one of the measured operations in the current directory.
func figureIn(args []string) error {
	num := func(k int) int { n, _ := strconv.Atoi(args[k]); return n }
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	file := func(i int) string { return fmt.Sprintf("%s/%d/%d", args[1], i/20, i) }
	switch args[0] {
	case "two":
		errs := make(chan error)
		for _, k := range []string{"1", "2"} {
			go func() {
				runtime.LockOSThread()
				errs <- figureIn([]string{"create", args[1] + k, args[2]})
			}()
		}
		return errors.Join(<-errs, <-errs)
	case "create":
		for i := range num(2) {
			if i%20 == 0 {
				if err := os.MkdirAll(filepath.Dir(file(i)), 0o755); err != nil {
					return err
				}
			}
			fd, err := unix.Open(file(i), unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644)
			if err != nil {
				return err
			}
			if _, err := unix.Write(fd, buf[:1024+i*977%7168]); err != nil {
				return err
			}
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
	case "stat":
		for i := range num(2) {
			var st unix.Stat_t
			if err := unix.Lstat(file(i), &st); err != nil {
				return err
			}
		}
	case "read":
		for i := range num(2) {
			fd, err := unix.Open(file(i), unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			if _, err := unix.Read(fd, buf); err != nil {
				return err
			}
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
	case "write", "readall":
		flags := unix.O_RDONLY
		if args[0] == "write" {
			flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL
		}
		fd, err := unix.Open(args[1], flags, 0o644)
		if err != nil {
			return err
		}
		for range num(2) / num(3) {
			if args[0] == "write" {
				_, err = unix.Write(fd, buf[:num(3)])
			} else {
				_, err = unix.Read(fd, buf[:num(3)])
			}
			if err != nil {
				return err
			}
		}
		return unix.Close(fd)
	}
	return nil
}

// TestFigures compares with overlayfs, whose upper directory is on the file system that the spool is on ($TMPDIR), and prints a table: of each side the median, of
// the two runs of each round the ratio's median and range. The server is a process of its own, as in a build. testdata/figures has the whole of docs/figures.md.
func TestFigures(t *testing.T) {
	if *figureRounds == 0 {
		return // a measurement, no test
	}
	fuse, ovl, normal := make([][]cost, len(figures)), make([][]cost, len(figures)), make([][]cost, len(figures))
	var ends []time.Duration
	if !figureWanted(endOfRun) && !slices.ContainsFunc(figures, func(f figure) bool { return figureWanted(f.name) }) {
		return
	}
	base, tar := figureInputs(t)
	busy(t)
	w := newWorld(t)
	server, client := serverProcess(t, *figureServer)
	serverID = server.Process.Pid
	layer := w.fromDir(base)
	for round := range *figureRounds {
		if *figureBoth {
			other, c := serverProcess(t, *figureOther)
			serverID = other.Process.Pid
			measure(t, w.served(c, fmt.Sprint("n", round), layer), tar, normal)
			if _, err := c.Finish(t.Context(), fmt.Sprint("n", round)); err != nil {
				t.Fatal(err)
			}
			serverID = server.Process.Pid
		}
		root := w.served(client, fmt.Sprint("a", round), layer)
		measure(t, root, tar, fuse)
		if _, err := client.Finish(t.Context(), fmt.Sprint("a", round)); err != nil {
			t.Fatal(err)
		}
		if figureWanted(endOfRun) {
			root = w.served(client, fmt.Sprint("b", round), layer)
			one(t, root, "go", "create new 30000", tar)
			ends = append(ends, end(t, client, fmt.Sprint("b", round), layer))
		}
		onOverlay(t, base, func(root string) { measure(t, root, tar, ovl) })
	}
	fmt.Printf("| | fuse ms | overlayfs ms | ratio [lowest, highest] | ratio of processor time |%s\n|---|--:|--:|--:|--:|\n", map[bool]string{true: " the other: ms, this/other |"}[*figureBoth])
	for k, f := range figures {
		if fuse[k] == nil {
			continue
		}
		var wall, work []float64
		for i, x := range fuse[k] {
			wall, work = append(wall, float64(x.wall)/float64(ovl[k][i].wall)), append(work, float64(x.cpu)/float64(ovl[k][i].cpu))
		}
		slices.Sort(wall)
		fmt.Printf("| %s | %.1f | %.1f | **%.2f** [%.2f, %.2f] | %.2f |", f.name, median(wallMs(fuse[k])), median(wallMs(ovl[k])), median(wall), wall[0], wall[len(wall)-1], median(work))
		if *figureBoth {
			var against []float64
			for i, x := range fuse[k] {
				against = append(against, float64(x.wall)/float64(normal[k][i].wall))
			}
			fmt.Printf(" %.1f, **%.2f** |", median(wallMs(normal[k])), median(against))
		}
		fmt.Println()
	}
	if len(ends) > 0 {
		slices.Sort(ends)
		fmt.Printf("| %s | %.1f [%.1f, %.1f] | | | |\n", endOfRun, ms(ends[len(ends)/2]), ms(ends[0]), ms(ends[len(ends)-1]))
	}
}

const endOfRun = "end of a RUN that made 30,000 files to the complete tree"

// end is the time from the end of a command to the tree after in the process of the build.
func end(t *testing.T, c *recorder.Client, id, layer string) time.Duration {
	t.Helper()
	parent, _, err := recorder.AddLayer(tree.Empty(), layer)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	start := time.Now()
	end, err := c.FinishOn(t.Context(), id, parent)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	if len(end.After.Lookup("new").Names()) != 1500 {
		t.Fatal("files are missing")
	}
	if _, doubt, err := end.Questions(t.Context()); err != nil || doubt != "" {
		t.Fatal(doubt, err)
	}
	return took
}

// served mounts a step in the server.
func (w *world) served(c *recorder.Client, id string, layers ...string) string {
	w.t.Helper()
	work := filepath.Join(w.dir, "work", id)
	if err := os.Mkdir(work, 0o755); err != nil {
		w.t.Fatal(err)
	}
	root, err := c.Mount(w.t.Context(), recorder.Spec{ID: id, Layers: layers, PackDir: w.packs.Dir(), WorkDir: work, Trace: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return root
}

// figureInputs makes a parent of 20,000 files and a tar of 30,000.
func figureInputs(t *testing.T) (base, tar string) {
	t.Helper()
	base = t.TempDir()
	t.Chdir(base)
	for _, p := range parentTrees {
		if slices.ContainsFunc(figures, func(f figure) bool {
			return figureWanted(f.name) && slices.Contains(strings.Fields(f.args), p.name)
		}) || p.name == "base" {
			if err := figureIn([]string{"create", p.name, p.files}); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Chdir(t.TempDir())
	if err := figureIn([]string{"create", "tarred", "30000"}); err != nil {
		t.Fatal(err)
	}
	tar = filepath.Join(t.TempDir(), "t.tar")
	if out, err := osexec.CommandContext(t.Context(), "tar", "cf", tar, "tarred").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	t.Chdir("/")
	return base, tar
}

// busy keeps processors at work until the test ends.
func busy(t *testing.T) {
	t.Helper()
	for range *figureBusy {
		cmd := osexec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}

func onOverlay(t *testing.T, base string, do func(root string)) {
	t.Helper()
	o := t.TempDir()
	for _, d := range []string{"u", "w", "m"} {
		if err := os.Mkdir(filepath.Join(o, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := filepath.Join(o, "m")
	if err := unix.Mount("overlay", m, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/u,workdir=%s/w,userxattr", base, o, o)); err != nil {
		t.Fatal(err)
	}
	do(m)
	if err := unix.Unmount(m, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(o, "u")); err != nil {
		t.Fatal(err)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func wallMs(list []cost) (out []float64) {
	for _, c := range list {
		out = append(out, ms(c.wall))
	}
	return out
}

// cost is the time that something took, and that processors worked for it in the server and the program.
type cost struct{ wall, cpu time.Duration }

// serverID is the process whose work counts.
var serverID int

func cpu() (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", serverID))
	for _, task := range tasks {
		var ns int64
		if data, err := os.ReadFile(task); err == nil {
			_, _ = fmt.Sscan(string(data), &ns)
		}
		sum += time.Duration(ns)
	}
	return sum
}

func figureWanted(name string) bool {
	return regexp.MustCompile(*figureNames).MatchString(name) && !regexp.MustCompile(*figureNot).MatchString(name)
}

func measure(t *testing.T, root, tar string, into [][]cost) {
	for k, f := range figures {
		if figureWanted(f.name) {
			into[k] = append(into[k], one(t, root, f.how, f.args, tar))
		}
	}
}

// one returns how long a process in root was busy with args.
func one(t *testing.T, root, how, args, tar string) cost {
	if *figureSync {
		unix.Sync()
	}
	if *figureWarm > 0 {
		if out, err := reexec.Command(t.Context(), "test-warm", strconv.Itoa(*figureWarm)).CombinedOutput(); err != nil {
			t.Fatalf("touch memory: %v %s", err, out)
		}
	}
	before := cpu()
	cmd := reexec.Command(t.Context(), "test-figure", root, how, args, tar)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v %s", args, err, out)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return cost{time.Duration(ns), cpu() - before}
}

// runWarm touches memory.
func runWarm() int {
	n, _ := strconv.Atoi(os.Args[1])
	b, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	b[0] = 1
	return 0
}

// runFigure is the process of one.
func runFigure() int {
	root, how, args, tar := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	err := os.Chdir(root)
	if err == nil {
		_, err = os.ReadFile("base/0/1") // whatever a RUN starts is opened: the kernel knows then that OPEN and RELEASE are not needed
	}
	runtime.LockOSThread() // as most programs do their work: Go's runtime would move it to and fro
	start := time.Now()
	if err == nil && how == "go" {
		err = figureIn(strings.Fields(args))
	} else if err == nil {
		cmd := osexec.CommandContext(context.Background(), "/bin/sh", "-ec", args)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "TAR=" + tar}
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return 0
}

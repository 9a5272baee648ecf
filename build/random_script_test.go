package build

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// wild makes random trees, edits of them, and scripts that look at them and change them. The universe of names is small, so that they meet.
type wild struct{ *rand.Rand }

func newWild(seed uint64) wild { return wild{rand.New(rand.NewPCG(seed, 1))} }

func (w wild) pick(list ...string) string { return list[w.IntN(len(list))] }

func (w wild) dir() string { return w.pick("a", "b", "c", "a/d", "a/e", "b/f", "a/d/g", ".") }

func (w wild) name() string { return w.pick("x", "y", "z", "s", "h") }

func (w wild) path() string {
	switch w.IntN(8) {
	case 0:
		return w.dir()
	case 1:
		return w.pick("x", "y", "z", "s")
	default:
		return w.dir() + "/" + w.name()
	}
}

func (w wild) text() string { return w.pick("0", "1", "2", "3", "long text of some bytes", "") }

// edit changes a build context by one random deed; what cannot be done is not.
func (w wild) edit(root string) {
	at := func(p string) string { return filepath.Join(root, p) }
	p, q := w.path(), w.path()
	dir := p == "." || strings.HasSuffix(p, "/.")
	switch w.IntN(12) {
	case 0, 1, 2, 3:
		_ = os.MkdirAll(filepath.Dir(at(p)), 0o755)
		_ = os.WriteFile(at(p), []byte(w.text()), 0o644)
	case 4:
		if !dir {
			_ = os.Remove(at(p))
		}
	case 5:
		if !dir {
			_ = os.RemoveAll(at(p))
		}
	case 6:
		_ = os.Rename(at(p), at(q))
	case 7:
		_ = os.Chmod(at(p), os.FileMode(w.IntN(2)*0o20+0o700+w.IntN(2)*0o4))
	case 8:
		_ = os.Symlink(w.pick("x", "../x", "a", "a/d", "/w/b", "../b/f", "y", "nowhere"), at(p))
	case 9:
		_ = os.MkdirAll(at(p), 0o755)
	case 10: // a file for a directory, or the other way round
		if !dir {
			_ = os.RemoveAll(at(p))
			if w.IntN(2) == 0 {
				_ = os.WriteFile(at(p), []byte(w.text()), 0o600)
			} else {
				_ = os.MkdirAll(at(p)+"/n", 0o755)
			}
		}
	case 11: // what an earlier step of the build finds as a command
		_ = os.WriteFile(at("prep"), []byte(w.script(2, w.change)), 0o644)
	}
}

// script is COUNT commands.
func (w wild) script(count int, one func() string) string {
	var b strings.Builder
	for range count {
		b.WriteString(one() + "\n")
	}
	return b.String()
}

// command looks or changes.
func (w wild) command() string {
	if w.IntN(3) == 0 {
		return w.change()
	}
	return w.look()
}

func (w wild) look() string {
	p, q, d := w.path(), w.path(), w.dir()
	switch w.IntN(26) {
	case 0, 1, 2:
		return "cat " + p
	case 3:
		return fmt.Sprintf("[ -e %s ] && echo there", p)
	case 4:
		return fmt.Sprintf("[ -f %s ] && echo file; [ -x %s ] && echo may", p, p)
	case 5:
		return "ls " + d
	case 6:
		return "look names " + p
	case 7:
		return "readlink " + p
	case 8:
		return fmt.Sprintf("stat -c '%%n %%a %%u:%%g %%h %%F' %s", p) // directories have a size of their own
	case 9:
		return "wc -c < " + p
	case 10:
		return "find " + d
	case 11:
		return "grep -r 1 " + d
	case 12:
		return fmt.Sprintf("[ %s -ef %s ] && echo same", p, q)
	case 13:
		return fmt.Sprintf("echo %s/*", d)
	case 14:
		return "look statx " + p
	case 15:
		return "look mmap " + p
	case 16:
		return "look access " + p
	case 17:
		return "look opendir " + p
	case 18:
		return fmt.Sprintf("look getxattr %s user.%s", p, w.pick("k", "l"))
	case 19:
		return "look listxattr " + p
	case 20:
		return "look end " + p
	case 21:
		return fmt.Sprintf("look both %s %s", p, q)
	case 22:
		return fmt.Sprintf("cmp %s %s", p, q)
	case 23:
		return "look blocks " + w.dir() + "/x"
	case 24:
		return fmt.Sprintf("(cd %s && cat x)", p)
	default:
		return fmt.Sprintf("test -s %s && echo some", p)
	}
}

func (w wild) change() string {
	p, q, d := w.path(), w.path(), w.dir()
	switch w.IntN(34) {
	case 0, 1:
		return fmt.Sprintf("echo %s > %s", w.text(), p)
	case 2:
		return fmt.Sprintf("echo %s >> %s", w.text(), p)
	case 3:
		return "true > " + p // ":" would end the shell where it cannot
	case 4:
		return "mkdir " + p
	case 5:
		return "mkdir -p " + p
	case 6, 7:
		return "rm " + p
	case 8:
		return "rm -rf " + d + "/" + w.name()
	case 9:
		return "rmdir " + p
	case 10, 11, 12:
		return fmt.Sprintf("mv %s %s", p, q)
	case 13, 14:
		return fmt.Sprintf("ln %s %s", p, q)
	case 15:
		return fmt.Sprintf("ln -s %s %s", w.pick("x", "../y", "/w/a", "a/d"), p)
	case 16, 17:
		return fmt.Sprintf("chmod %s %s", w.pick("600", "644", "755", "4755", "1777"), p)
	case 18:
		return fmt.Sprintf("chown -R %d:%d %s", w.IntN(3), w.IntN(3), p)
	case 19:
		return fmt.Sprintf("cp %s %s", p, q)
	case 20:
		return fmt.Sprintf("cp -r %s /made%d", p, w.IntN(3)) // outside: busybox follows a copy into itself
	case 21:
		return "touch " + p
	case 22:
		return fmt.Sprintf("look size %s %d", p, w.IntN(5000))
	case 23:
		return fmt.Sprintf("look exchange %s %s", p, q)
	case 24:
		return fmt.Sprintf("look setxattr %s user.%s %s", p, w.pick("k", "l"), w.pick("1", "2"))
	case 25:
		return fmt.Sprintf("look newxattr %s user.k %s", p, w.pick("1", "2"))
	case 26:
		return fmt.Sprintf("look removexattr %s user.k", p)
	case 27:
		return "look create " + p
	case 28:
		return fmt.Sprintf("look at %s %d %s", p, w.IntN(6), w.text())
	case 29:
		return fmt.Sprintf("look fallocate %s %d", p, w.IntN(9000))
	case 30:
		return fmt.Sprintf("look mwrite %s %s", p, w.pick("m", "n"))
	case 31:
		return fmt.Sprintf("look copy %s %s", p, q)
	case 32:
		return fmt.Sprintf("look trunc %s %s", p, w.text())
	default:
		return fmt.Sprintf("chmod -R g+w %s", d)
	}
}

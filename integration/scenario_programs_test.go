//go:build integration

package integration

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var libraryRE = regexp.MustCompile(`(/\S+) \(0x`)

// tarPrograms packs programs of this host, what they are linked with, and of python3 its
// modules.
func tarPrograms(names []string) ([]byte, error) {
	files := map[string]file{}
	add := func(p string) error {
		found, err := filepath.EvalSymlinks(p)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(found)
		if err != nil {
			return err
		}
		st, err := os.Stat(found)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(p, "/")
		files[name] = file{name: name, data: string(data), mode: int64(st.Mode().Perm())}
		return nil
	}
	for _, name := range names {
		p := "/usr/bin/" + name // the distribution's, before another's
		if _, err := os.Stat(p); err != nil {
			if p, err = osexec.LookPath(name); err != nil {
				return nil, fmt.Errorf("program of a scenario: %w", err)
			}
		}
		if err := add(p); err != nil {
			return nil, err
		}
		out, err := osexec.CommandContext(context.Background(), "ldd", p).Output()
		if err != nil {
			continue // a script, or static
		}
		for _, m := range libraryRE.FindAllStringSubmatch(string(out), -1) {
			if err := add(m[1]); err != nil {
				return nil, err
			}
		}
		if name != "python3" {
			continue
		}
		lib, err := osexec.CommandContext(context.Background(), p, "-Sc", "import os; print(os.path.dirname(os.__file__))").Output()
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(strings.TrimSpace(string(lib)), func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && slices.Contains([]string{"__pycache__", "test", "idlelib", "tkinter", "lib2to3"}, d.Name()) || strings.HasPrefix(d.Name(), "config-"):
				return fs.SkipDir
			case d.Type().IsRegular() && strings.HasSuffix(p, ".py"), d.Type().IsRegular() && strings.HasSuffix(p, ".so"):
				return add(p)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var list []file
	made := map[string]bool{}
	for _, name := range sortedKeys(files) {
		for i, c := range name {
			if d := name[:i] + "/"; c == '/' && !made[d] {
				made[d] = true
				list = append(list, file{name: d, mode: 0o755})
			}
		}
		list = append(list, files[name])
	}
	return tarOf(list...)
}

func sortedKeys(m map[string]file) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

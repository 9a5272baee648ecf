package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// writeContext writes small files of a context.
func writeContext(dir string, files map[string]string) error {
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := openDirs(filepath.Dir(file)); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // the ordinary user reads it
			return fmt.Errorf("write context: %w", err)
		}
	}
	return nil
}

// edit changes a file so that programs still read it: one line, of a kind that
// the last edit is replaced and not added to.
func edit(file, mark string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("edit: %w", err)
	}
	text, err := edited(filepath.Base(file), string(data), mark)
	if err != nil {
		return fmt.Errorf("edit %s: %w", filepath.Base(file), err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // the ordinary user reads it
		return fmt.Errorf("edit: %w", err)
	}
	return nil
}

func edited(name, text, mark string) (string, error) {
	if name == "package.json" {
		var v map[string]any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return "", err
		}
		v["description"] = mark
		out, err := json.MarshalIndent(v, "", "  ")
		return string(out) + "\n", err
	}
	lines := slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(l string) bool { return strings.Contains(l, "bench edit") })
	comment := map[string]string{".ts": "//", ".go": "//", ".mod": "//"}[filepath.Ext(name)]
	if comment == "" {
		comment = "#"
	}
	rest := strings.Join(lines, "")
	if rest != "" && !strings.HasSuffix(rest, "\n") {
		rest += "\n"
	}
	return rest + comment + " bench edit " + mark + "\n", nil
}

func (e *env) stepsContext(ctx context.Context, dir string) error {
	if err := e.must(ctx, []string{e.gen, "files", filepath.Join(dir, "lib"), "20", "1024", "8192"}); err != nil {
		return err
	}
	return writeContext(dir, map[string]string{"manifest": "one\ntwo\n", "source": "text\n", "README.md": "# Steps\n"})
}

func (e *env) copyContext(ctx context.Context, dir string) error {
	return e.must(ctx, []string{e.gen, "files", dir, fmt.Sprint(e.scaled(20000)), "8192", "23256"})
}

func (e *env) nodeContext(_ context.Context, dir string) error {
	if err := copyInput(e.input("node"), dir); err != nil {
		return err
	}
	return writeContext(dir, map[string]string{"README.md": "# A Node program\n"})
}

func (e *env) goContext(_ context.Context, dir string) error {
	if err := copyInput(e.input("go"), dir); err != nil {
		return err
	}
	return writeContext(dir, map[string]string{"README.md": "# A Go program\n"})
}

// copyInput copies a real input of the tests without its ways to leave files out:
// what changes must be in the context.
func copyInput(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	for _, name := range []string{".dockerignore", "Dockerfile"} {
		if err := os.RemoveAll(filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) monorepoContext(ctx context.Context, dir string) error {
	if err := e.must(ctx, []string{e.gen, "files", filepath.Join(dir, "shared"), "200", "1024", "8192"}); err != nil {
		return err
	}
	for i := range 20 {
		sub := filepath.Join(dir, "services", fmt.Sprintf("s%d", i))
		if err := e.must(ctx, []string{e.gen, "files", sub, "50", "1024", "8192"}); err != nil {
			return err
		}
		if err := writeContext(sub, map[string]string{"source": fmt.Sprintf("service %d\n", i)}); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// phases are the three builds of a round: from an empty store, again, and again
// after one file of the context changed.
var phases = []string{"cold", "unchanged", "one-file"}

// The two Dockerfiles, below their FROM.
const (
	smallRest = `RUN mkdir -p /srv && echo one >/srv/one
RUN echo two >/srv/two
COPY . /app
RUN find /app -type f | wc -l >/srv/count
`
	heavyRest = `RUN mkdir -p /srv && echo one >/srv/one
COPY . /app
RUN find /app -type f | wc -l >/srv/count
`
)

// openSmall is a Dockerfile with 20 files to copy.
func openSmall(ctx context.Context, e *env, g group) (*bench, error) {
	return openBuild(ctx, e, g, smallRest, 20, 4<<10, true)
}

// openHeavy is one with 5,000 files, 60 MiB.
func openHeavy(ctx context.Context, e *env, g group) (*bench, error) {
	return openBuild(ctx, e, g, heavyRest, e.scaled(5000), 12<<10, false)
}

// openBuild prepares fbuild, docker with both its builders, and buildah, all on
// the same context and base. The rootless sides come with the small one.
func openBuild(ctx context.Context, e *env, g group, rest string, files, size int, rootless bool) (*bench, error) {
	dir := filepath.Join(e.work, g.name+"-context")
	if err := contextFiles(dir, files, size); err != nil {
		return nil, err
	}
	ref, err := e.busybox(ctx)
	if err != nil {
		return nil, err
	}
	f, err := newFbuild(e, g, dir)
	if err != nil {
		return nil, err
	}
	if err := f.write(ref, rest); err != nil {
		return nil, err
	}
	classic := startDocker(ctx, e, g, "docker", false)
	kit := startDocker(ctx, e, g, "docker-buildkit", true)
	ah := newBuildah(e, g, "")
	b := &bench{sides: []side{f.side(), classic.side(f.dockerfile(), dir), kit.side(f.dockerfile(), dir), ah.side(f.dockerfile(), dir)}}
	closers := []func() error{f.close, classic.close, kit.close, ah.close}
	if rootless {
		rf, ra := f.forUser(), newBuildah(e, g, "-rootless")
		if rf.skip == "" {
			if err := rf.write(ref, rest); err != nil {
				return nil, err
			}
		}
		b.sides = append(b.sides, rf.side(), ra.side(f.dockerfile(), dir))
		closers = append(closers, rf.close, ra.close)
	}
	b.begin = func(phase string, round int) error {
		if phase != phases[2] {
			return nil
		}
		text := fmt.Sprintf("changed in round %d\n", round)
		if err := os.WriteFile(filepath.Join(dir, "d000", "file07.txt"), []byte(text), 0o644); err != nil { //nolint:gosec // the ordinary user reads it
			return fmt.Errorf("change file: %w", err)
		}
		return nil
	}
	b.close = func() error {
		errs := []error{os.RemoveAll(dir)}
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	return b, nil
}

package main

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/oci"
)

func TestExplain(t *testing.T) {
	loc := dockerfile.Location{Start: 3, End: 4}
	tests := []struct {
		name       string
		err        error
		text, hint string
		code       int
	}{
		{"usage", usagef("--x: no"), "--x: no", "", exitUsage},
		{"a host that cannot", fmt.Errorf("open: %w", exec.ErrUnavailable), "open: sandbox not available on this host", "fbuild doctor says what this host can do", exitHost},
		{
			"a failing RUN", &build.StepError{Location: loc, Command: "/bin/sh -c x", Err: &exec.ExitError{Code: 7}},
			`failed to build: line 3: process "/bin/sh -c x" did not complete successfully: exit code: 7`, "", exitFailed,
		},
		{
			"a missing file", &build.StepError{Location: loc, Instruction: "COPY  a  b", Err: fmt.Errorf("%q: %w", "/a", build.ErrNoSource)},
			`failed to build: line 3: COPY a b: "/a": not found`, "the path is relative to the build context; is it excluded by .dockerignore?", exitFailed,
		},
		{
			"refused credentials", fmt.Errorf("pull: %w", oci.ErrUnauthorized), "pull: " + oci.ErrUnauthorized.Error(),
			"fbuild login, or docker login: credentials are read from ~/.docker/config.json, or from the directory in $DOCKER_CONFIG", exitFailed,
		},
		{
			"a full disk", fmt.Errorf("write: %w", unix.ENOSPC), "write: no space left on device",
			"make room, or free what the store no longer needs with: fbuild cache prune", exitFailed,
		},
		{"a hint of its own", &hintError{errors.New("bad"), "do so"}, "bad", "do so", exitFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text, hint, code := explain(tt.err)
			if text != tt.text || hint != tt.hint || code != tt.code {
				t.Errorf("got  %q, %q, %d\nwant %q, %q, %d", text, hint, code, tt.text, tt.hint, tt.code)
			}
		})
	}
}

func TestPrintable(t *testing.T) {
	if got, want := printable("a\x1b]0;pwn\a\x1b[31mX\u009b\xff\n\tä"), "a]0;pwn[31mX?\n\tä"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

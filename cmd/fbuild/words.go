package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/buildctx"
	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/fetch"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/progress"
)

// hintError is an error that knows what to do about it.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// withSource prints the lines of the Dockerfile that a failure is about, as
// docker does, before the error itself.
func (a *app) withSource(err error, f *dockerfile.File) error {
	var step *build.StepError
	var parse *dockerfile.ParseError
	var box string
	switch {
	case errors.As(err, &step) && f != nil:
		box = progress.SourceBox(f.Name, f.Lines, step.Location.Start, step.Location.End)
	case errors.As(err, &parse) && f != nil && parse.Line > 0:
		box = progress.SourceBox(f.Name, f.Lines, parse.Line, parse.EndLine)
	}
	if box != "" {
		fmt.Fprint(a.stderr, box)
	}
	return err
}

// sayDocker prints a failure as docker buildx does, which is what the readers of
// plain logs look for; our own words follow.
func (a *app) sayDocker(err error) {
	if step, ok := errors.AsType[*build.StepError](err); ok {
		fmt.Fprintln(a.stderr, "ERROR: failed to build: failed to solve:", printable(step.Error()))
	}
}

// explain turns an error into the words and the exit code of the program.
func explain(err error) (text, hint string, code int) {
	var usage *usageError
	if status, ok := errors.AsType[*statusError](err); ok {
		text, hint, _ = explain(status.err)
		return text, hint, status.code
	}
	switch {
	case errors.As(err, &usage):
		return err.Error(), hintOf(err), exitUsage
	case errors.Is(err, exec.ErrUnavailable), errors.Is(err, errDoctor):
		return err.Error(), "fbuild doctor says what this host can do", exitHost
	case errors.Is(err, cache.ErrUnsuitable):
		return err.Error(), "choose another directory with --root", exitHost
	}
	text = err.Error()
	var step *build.StepError
	var parse *dockerfile.ParseError
	if errors.As(err, &step) && !errors.As(err, &parse) {
		text = fmt.Sprintf("failed to build: line %d: %v", step.Location.Start, err)
		if step.Command == "" {
			text = fmt.Sprintf("failed to build: line %d: %s: %v", step.Location.Start, oneLine(step.Instruction), err)
		}
	}
	return text, hintOf(err), exitFailed
}

// printable takes out what could move a terminal's cursor: names in Dockerfiles,
// contexts and answers of registries are not to be trusted.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, "?"))
}

// foreignHint says how commands of another architecture can be run, or done without.
func foreignHint(e *build.ForeignError) string {
	return fmt.Sprintf("cross-compile: FROM --platform=$BUILDPLATFORM for the stages that run commands, which find $TARGETARCH after an ARG; or install QEMU (the package qemu-user-static): since Linux 6.7 a static %s in PATH is enough, before it root has to register it in binfmt_misc with the flag F",
		exec.EmulatorName(e.Platform.Architecture))
}

// oneLine shortens an instruction for a message.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 100 {
		s = strings.ToValidUTF8(s[:97], "") + "..."
	}
	return s
}

// hintOf says what to do about an error, where that is known.
func hintOf(err error) string {
	var (
		known  *hintError
		parse  *dockerfile.ParseError
		target *dockerfile.TargetError
		unsup  *dockerfile.Unsupported
		file   *buildctx.PathError
		exit   *exec.ExitError
		remote *oci.RemoteError
		mount  *build.MountError

		fetched *fetch.Error
		source  *build.ContextError
		again   *build.IrreproducibleError
		foreign *build.ForeignError
		lazy    *build.LazyError
	)
	switch {
	case errors.As(err, &known):
		return known.hint
	case errors.As(err, &mount) && mount.Hint != "":
		return mount.Hint
	case errors.As(err, &unsup) && unsup.Hint != "":
		return unsup.Hint
	case errors.As(err, &foreign):
		return foreignHint(foreign)
	case errors.As(err, &parse) && parse.Hint != "":
		return parse.Hint
	case errors.As(err, &target) && target.Hint != "":
		return target.Hint
	case errors.As(err, &file) && file.Hint != "":
		return file.Hint
	case errors.As(err, &fetched) && fetched.Hint != "":
		return fetched.Hint
	case errors.As(err, &source) && source.Hint != "":
		return source.Hint
	case errors.As(err, &again) && again.OnlyTimes():
		return "only times of files differ: set SOURCE_DATE_EPOCH and write the image with -o type=...,rewrite-timestamp=true"
	case errors.As(err, &again):
		return "look for times, random numbers and what comes from the network in what these commands write; nothing was exported"
	case errors.Is(err, oci.ErrUnauthorized) && errors.As(err, &remote) && remote.Op == "log in to":
		return "check the name and the password; some registries want a token instead"
	case errors.As(err, &lazy) && lazy.False():
		return "the registry gave other bytes than the image's manifest promises; nothing of them was used: pull the image anew, or fetch its layers as wholes with --lazy=off"
	case errors.As(err, &lazy) && !errors.Is(err, oci.ErrUnauthorized) && !errors.Is(err, unix.ENOSPC):
		return "the command needed the registry while it ran: build again when the network is there, which goes on with what was fetched; --lazy=off fetches the base before the first step"
	case errors.Is(err, oci.ErrUnauthorized):
		return "fbuild login, or docker login: credentials are read from ~/.docker/config.json, or from the directory in $DOCKER_CONFIG"
	case errors.Is(err, oci.ErrUnreachable):
		return "is the registry's name right and the network there? A registry without TLS needs --insecure HOST"
	case errors.Is(err, oci.ErrTLS):
		return "a certificate that nobody known has signed: add its authority to the system's, or allow the registry with --insecure HOST"
	case errors.Is(err, oci.ErrDigest):
		return "the bytes are not what they are said to be: a damaged copy or a tampered registry; nothing of it was used"
	case errors.Is(err, oci.ErrNotFound) && errors.Is(err, fs.ErrNotExist):
		return "check the path"
	case errors.Is(err, oci.ErrNotFound):
		return "check the name and the tag"
	case errors.Is(err, oci.ErrRateLimited):
		return "wait and try again; many registries allow more to those who are logged in"
	case errors.As(err, &remote) && remote.Op == "push":
		return "the registry said no: ask whoever runs it; the image is in the store, and trying again sends only what is missing"
	case errors.As(err, &remote):
		return "the registry has trouble: try again later, or name the image in another registry or with --build-context"
	case errors.Is(err, build.ErrNoSource):
		return "the path is relative to the build context; is it excluded by .dockerignore?"
	case errors.Is(err, cache.ErrDamaged):
		return "fbuild cache verify --remove takes the damaged list away; the images have to be named again"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "make room, or free what the store no longer needs with: fbuild cache prune"
	case errors.Is(err, build.ErrRecorder):
		return "the command may be innocent: build again; with --recorder=auto such a step is run again with the next recorder"
	case errors.As(err, &exit) && exit.Signal == int(unix.SIGKILL):
		return "the command was killed from outside; is there enough memory?"
	case errors.As(err, &exit) && exit.Code == 127:
		return "is the program installed in the image, and is PATH right?"
	case errors.Is(err, fs.ErrPermission):
		return "the caller may not do this; look at the owner and mode of the file"
	}
	return ""
}

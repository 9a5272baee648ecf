//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdImg is `img VIEW IMAGE [ARG...]`: a view of an image on stdout.
func cmdImg(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: img config|history|layers|times|cat|id|digest|manifest|raw|validate IMAGE")
	}
	ref := args[1]
	if !strings.Contains(ref, ":") {
		ref = ts.MkAbs(ref)
	}
	img, err := openImage(ref, scriptHome(ts).store, suite.dir)
	if err == nil {
		err = describe(ts.Stdout(), img, args[0], args[2:])
	}
	if neg != (err != nil) {
		ts.Fatalf("img %q: %v", args, err)
	}
}

// cmdCode is `code N COMMAND ARG...`: the command must end with that exit code.
// An fbuild that fails must say one clear thing and have nothing on stdout.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *osexec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code: got %d, want %d", got, want)
	}
	if args[1] != "fbuild" || want == 0 {
		return
	}
	if n := len(taggedLines(ts.ReadFile("stderr"), "fbuild: error: ")); n != 1 {
		ts.Fatalf("got %d lines of fbuild: error, want 1", n)
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout of a failure: got %q, want nothing", out)
	}
}

var (
	stepRE  = regexp.MustCompile(`(?m)^#(\d+) (\[[^\]]*\d+/\d+\] (?:ONBUILD )?([A-Z]+).*)$`)
	writeRE = regexp.MustCompile(`(?m)^#\d+ writing image (sha256:[0-9a-f]{64})`)
)

// ranSteps lists the steps of a plain log that were neither CACHED nor a FROM.
func ranSteps(log string) []string {
	var out []string
	for _, m := range stepRE.FindAllStringSubmatch(log, -1) {
		if m[3] != "FROM" && !regexp.MustCompile(`(?m)^#`+m[1]+` CACHED$`).MatchString(log) && !slices.Contains(out, m[2]) {
			out = append(out, m[2])
		}
	}
	return out
}

// cmdCached is `cached fbuild build ...`: no step runs, and the image is the one
// of the command before, if that made one. Negated, some step must run.
func cmdCached(ts *testscript.TestScript, neg bool, args []string) {
	before := writeRE.FindStringSubmatch(ts.ReadFile("stderr"))
	if err := ts.Exec(args[0], args[1:]...); err != nil {
		ts.Fatalf("%q: %v", args, err)
	}
	log := ts.ReadFile("stderr")
	ran := ranSteps(log)
	if neg != (len(ran) > 0) {
		ts.Fatalf("steps that ran: %q", ran)
	}
	if len(stepRE.FindAllString(log, -1)) == 0 {
		ts.Fatalf("the log shows no steps")
	}
	after := writeRE.FindStringSubmatch(log)
	if !neg && len(before) > 0 && (len(after) == 0 || before[1] != after[1]) {
		ts.Fatalf("image: got %q, want the one before, %s", after, before[1])
	}
}

// cmdExpand is `expand FILE...`: $REGISTRY and the like inside files.
func cmdExpand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		p := ts.MkAbs(name)
		data, err := os.ReadFile(p)
		ts.Check(err)
		text := strings.NewReplacer("$REGISTRY", ts.Getenv("REGISTRY"), "$WEB", ts.Getenv("WEB"), "$WORK", ts.Getenv("WORK"), "$BASES", ts.Getenv("BASES")).Replace(string(data))
		ts.Check(os.WriteFile(p, []byte(text), 0o644))
	}
}

// cmdNeed is `need PROGRAM...`: the script is skipped without them, and fails
// with CI=true.
func cmdNeed(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		if haveProgram(name) {
			continue
		}
		if os.Getenv("CI") == "true" {
			ts.Fatalf("skip refused, CI=true: needs %s", name)
		}
		scriptHome(ts).t.Skip("needs " + name)
	}
}

// cmdDamaged says that the script breaks the store: it need not be sound after.
func cmdDamaged(ts *testscript.TestScript, neg bool, _ []string) { scriptHome(ts).damaged = !neg }

// cmdTarls is `tarls FILE`: the entries of a tar ("stdout" is the last output).
func cmdTarls(ts *testscript.TestScript, _ bool, args []string) {
	r := tar.NewReader(bytes.NewReader([]byte(ts.ReadFile(args[0]))))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		ts.Check(err)
		fmt.Fprintln(ts.Stdout(), entryLine(h, false))
	}
}

// cmdSame is `same IMAGE IMAGE`: the same manifest, bit for bit.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	var got []string
	for _, ref := range args {
		if !strings.Contains(ref, ":") {
			ref = ts.MkAbs(ref)
		}
		img, err := openImage(ref, scriptHome(ts).store, suite.dir)
		ts.Check(err)
		d, err := img.Digest()
		ts.Check(err)
		got = append(got, d.String())
	}
	if neg != (got[0] != got[1]) {
		ts.Fatalf("%q: got digests %q", args, got)
	}
}

// agreed are the digests of cmdAgree.
var agreed sync.Map

// cmdAgree is `agree NAME FILE`: in every leg of the test the file has the same bytes.
func cmdAgree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: agree NAME FILE")
	}
	got := fmt.Sprintf("%x", sha256.Sum256([]byte(ts.ReadFile(args[1]))))
	if want, there := agreed.LoadOrStore(args[0], got); there && want != got {
		ts.Fatalf("%s: sha256 is %s, and %s for another user or recorder", args[1], got, want)
	}
}

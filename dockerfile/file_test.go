package dockerfile

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseErrors(t *testing.T) {
	long := "RUN " + strings.Repeat("x", 70_000)
	for _, tt := range []struct {
		name, src  string
		line, end  int
		want, hint string
	}{
		{"empty", "", 0, 0, "the Dockerfile cannot be empty", ""},
		{"white space", " \n\t\n", 0, 0, "the Dockerfile cannot be empty", ""},
		{"only comments", "# hello\n# there\n", 2, 2, "file with no instructions", ""},
		{"no FROM", "ARG A=1\n", 0, 0, "dockerfile contains no stages to build", "a Dockerfile starts with FROM"},
		{"RUN before FROM", "\nRUN true\nFROM a\n", 2, 2, "no build stage in current context", "a Dockerfile starts with FROM; only ARG may stand before it"},
		{"unknown instruction", "FROM a\nFORM b\n", 2, 2, "unknown instruction: FORM", "did you mean FROM?"},
		{"unknown instruction far off", "FROM a\nSOMETHING b\n", 2, 2, "unknown instruction: SOMETHING", ""},
		{"unknown flag", "FROM a\nCOPY --form=b c d\n", 2, 2, "unknown flag: --form", "did you mean from?"},
		{"flag twice", "FROM a\nCOPY --chown=1 --chown=2 c d\n", 2, 2, "duplicate flag specified: --chown", ""},
		{"flag without value", "FROM a\nCOPY --from c d\n", 2, 2, "missing a value on flag: --from", ""},
		{"continued over lines", "FROM a\nCOPY --form=b \\\n  c \\\n  d\nRUN x\n", 2, 4, "unknown flag: --form", "did you mean from?"},
		{"COPY one argument", "FROM a\nCOPY c\n", 2, 2, "COPY requires at least two arguments, but only one was provided. Destination could not be determined", ""},
		{"COPY heredoc as destination", "FROM a\nCOPY a <<EOF\nEOF\n", 2, 3, "COPY cannot accept a heredoc as a destination", ""},
		{"COPY heredoc with a path", "FROM a\nCOPY <<a/b /x\na/b\n", 2, 3, `a heredoc of COPY needs a plain file name, not "a/b"`, "name the document like the file and put the directory into the destination"},
		{"unterminated heredoc", "FROM a\nRUN <<EOF\necho\n", 2, 3, "unterminated heredoc", ""},
		{"FROM undefined ARG", "ARG VERSION=1\nFROM ${VERSIO}\n", 2, 2, "base name (${VERSIO}) should not be blank", "did you mean VERSION?"},
		{"FROM undefined ARG far off", "FROM ${BASE}\n", 1, 1, "base name (${BASE}) should not be blank", "declare ARG BASE before the first FROM, or pass --build-arg BASE=... to a declared one"},
		{"FROM stage ARG", "FROM a\nARG B=b\nFROM $B\n", 3, 3, "base name ($B) should not be blank", "declare ARG B before the first FROM, or pass --build-arg B=... to a declared one"},
		{"FROM bad substitution", "FROM ${A\n", 1, 1, `process "${A": syntax error: missing '}'`, ""},
		{"FROM required ARG", "ARG A\nFROM ${A:?which}\n", 2, 2, `process "${A:?which}": A: which`, ""},
		{"FROM two words", "FROM a b\n", 1, 1, "FROM requires either one or three arguments", ""},
		{"stage name of a number", "FROM a AS 1x\n", 1, 1, `invalid name for build stage: "1x", name can't start with a number or contain symbols`, ""},
		{"platform of nonsense", "FROM --platform=a/b/c/d a\n", 1, 1, `parse platform a/b/c/d: "a/b/c/d": cannot parse platform specifier`, ""},
		{"platform empty", "FROM --platform=$TARGETPLATFOR a\n", 1, 1, "empty platform value from expression $TARGETPLATFOR", "did you mean TARGETPLATFORM?"},
		{"copy from itself", "FROM a AS x\nCOPY --from=x b c\n", 2, 2, "circular dependency detected on stage: x", ""},
		{"copy from a wrong number", "FROM a\nCOPY --from=7 b c\n", 2, 2, "invalid stage index 7", "stages count from 0 to 0"},
		{"copy from a variable", "ARG X=1\nFROM a\nCOPY --from=$X b c\n", 3, 3, "variable expansion is not supported for --from", "define a new stage with FROM using ARG from global scope as a workaround"},
		{"COPY of a URL", "FROM a\nCOPY https://example.com/x /x\n", 2, 2, "source can't be a URL for COPY", "COPY takes files of the build context, of a stage or of an image; ADD fetches"},
		{"COPY of git", "FROM a\nCOPY git@example.com:a/b.git /x\n", 2, 2, "source can't be a git ref for COPY", "COPY takes files of the build context, of a stage or of an image; ADD fetches"},
		{"RUN nothing", "FROM a\nRUN []\n", 2, 2, "RUN requires a command", ""},
		{"RUN network", "FROM a\nRUN --network=bridge x\n", 2, 2, `invalid network mode "bridge"`, ""},
		{"ENV without value", "FROM a\nENV A\n", 2, 2, "ENV must have two arguments", ""},
		{"ARG without name", "FROM a\nARG =1\n", 2, 2, "ARG names can not be blank", ""},
		{"SHELL not JSON", "FROM a\nSHELL sh -c\n", 2, 2, "SHELL requires the arguments to be in JSON form", ""},
		{"HEALTHCHECK type", "FROM a\nHEALTHCHECK FOO\n", 2, 2, `Unknown type "FOO" in HEALTHCHECK (try CMD)`, ""},
		{"HEALTHCHECK interval", "FROM a\nHEALTHCHECK --interval=1us CMD x\n", 2, 2, `Interval "interval" cannot be less than 1ms`, ""},
		{"VOLUME empty", "FROM a\nVOLUME [\"\"]\n", 2, 2, "VOLUME specified can not be an empty string", ""},
		{"ONBUILD ONBUILD", "FROM a\nONBUILD ONBUILD RUN x\n", 2, 2, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", ""},
		{"ONBUILD FROM", "FROM a\nONBUILD FROM x\n", 2, 2, "FROM isn't allowed as an ONBUILD trigger", ""},
		{"ONBUILD unknown", "FROM a\nONBUILD RUNN x\n", 2, 2, "unknown instruction: RUNN", "did you mean RUN?"},
		{"escape directive", "# escape=x\nFROM a\n", 1, 1, "invalid escape token 'x' does not match ` or \\", ""},
		{"directive twice", "# escape=\\\n# escape=`\nFROM a\n", 2, 2, "only one escape parser directive can be used", ""},
		{"check directive", "# check=foo=bar\nFROM a\n", 1, 1, `invalid check option "foo"`, ""},
		{"line too long", "FROM a\n" + long + "\n", 2, 2, "dockerfile line greater than max allowed size of 65535", "move the text to a file and COPY it"},
		{"UTF-16", "\xff\xfeF\x00R\x00", 1, 1, "the Dockerfile is UTF-16", "save the file as UTF-8"},
		{"latin 1", "FROM a\nENV A=\xe9t\xe9\n", 2, 2, "the line is not UTF-8", "save the file as UTF-8"},
		{"NUL", "FROM a\nRUN a\x00b\n", 2, 2, "the line has a NUL byte", "is this the right file?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("Dockerfile", []byte(tt.src), Options{})
			if err == nil {
				t.Fatal("got no error")
			}
			pe := asParseError(t, err)
			got := []any{pe.Name, pe.Line, pe.EndLine, pe.Err.Error(), pe.Hint}
			if diff := cmp.Diff([]any{"Dockerfile", tt.line, tt.end, tt.want, tt.hint}, got); diff != "" {
				t.Errorf("error differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefusesHugeFile(t *testing.T) {
	src := []byte("FROM a\n" + strings.Repeat("#x\n", MaxSize/3))
	_, err := Parse("Dockerfile", src, Options{})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if _, err := Parse("Dockerfile", src[:MaxSize], Options{}); err != nil {
		t.Errorf("a file of MaxSize: got %v, want no error", err)
	}
}

func TestParseAccepts(t *testing.T) {
	for _, tt := range []struct{ name, src string }{
		{"byte order mark", "\uFEFFFROM a\n"},
		{"carriage returns", "FROM a\r\nRUN x \\\r\n  y\r\n"},
		{"no newline at the end", "FROM a"},
		{"latin 1 in a comment", "# caf\xe9\nFROM a\n"},
		{"syntax of docker", "# syntax=docker/dockerfile:1\nFROM a\n"},
		{"syntax of docker with host and digest", "# syntax=docker.io/docker/dockerfile:1.7-labs@sha256:00\nFROM a\n"},
		{"syntax upstream", "#syntax = docker/dockerfile-upstream:master\nFROM a\n"},
		{"platform in FROM", "FROM --platform=$BUILDPLATFORM a\n"},
		{"link", "FROM a\nCOPY --link b c\nADD --link b c\n"},
		{"link with numbers", "FROM a\nCOPY --link --chown=1:2 b c\n"},
		{"parents off", "FROM a\nCOPY --parents=false b c\n"},
		{"lower case", "from a as b\nrun x\n"},
		{"file that looks like a host", "FROM a\nCOPY github.com/x/y ./git:x /z/\n"},
		{"parents", "FROM a\nCOPY --parents b/./c/**/d /e\n"},
		{"exclude", "FROM a\nCOPY --exclude=*.md --exclude=!b c d\nADD --exclude=**/x c d\n"},
		{"add of URLs and paths", "FROM a\nADD https://example.com/x b git@example.com:a/b.git /y/\n"},
		{"unpack", "FROM a\nADD --unpack=false b.tar /\nADD --unpack https://example.com/x.tgz /\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("Dockerfile", []byte(tt.src), Options{})
			if err != nil {
				t.Fatalf("got %v, want no error", err)
			}
			st, err := f.Target("")
			if err != nil {
				t.Fatalf("Target: got %v, want no error", err)
			}
			if _, _, err := evaluate(f, st, ScopeOptions{}); err != nil {
				t.Errorf("evaluate: got %v, want no error", err)
			}
		})
	}
}

// Nothing is silently ignored: what is missing stops the build with its line.
func TestUnsupported(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"security", "RUN --security=insecure true", "RUN --security is not supported yet"},
		{"device", "RUN --device=vendor.com/d=x true", "RUN --device is not supported yet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := mustParse(t, Options{}, "FROM a AS odd", "WORKDIR /x", tt.line, "FROM b AS plain")
			_, err := f.Target("odd")
			var un *Unsupported
			if !errors.As(err, &un) {
				t.Fatalf("got %v, want *Unsupported", err)
			}
			if un.Error() != tt.want || un.Line != 3 || un.Hint == "" {
				t.Errorf("got %q line %d hint %q, want %q line 3 and a hint", un, un.Line, un.Hint, tt.want)
			}
			if pe := asParseError(t, err); pe.Line != 3 || pe.Hint != un.Hint {
				t.Errorf("got line %d hint %q, want 3 and the same hint", pe.Line, pe.Hint)
			}
			if _, err := f.Target("plain"); err != nil {
				t.Errorf("a stage that does not need it: got %v, want no error", err)
			}
		})
	}
	t.Run("copy after expansion", func(t *testing.T) {
		f := mustParse(t, Options{}, "FROM a", "ARG U=https://example.com", "COPY ${U}/x /x")
		_, _, err := evaluate(f, f.Stages[0], ScopeOptions{})
		if err == nil || asParseError(t, err).Line != 3 {
			t.Errorf("got %v, want an error on line 3", err)
		}
	})
	t.Run("foreign syntax", func(t *testing.T) {
		for _, o := range []Options{{}, {BuildArgs: map[string]string{"BUILDKIT_SYNTAX": "example.com/x"}}} {
			src := "# syntax=example.com/front:1\nFROM a\n"
			if o.BuildArgs != nil {
				src = "FROM a\n"
			}
			_, err := Parse("Dockerfile", []byte(src), o)
			if _, ok := errors.AsType[*Unsupported](err); !ok {
				t.Errorf("%q: got %v, want *Unsupported", src, err)
			}
		}
	})
}

func TestEscapeDirective(t *testing.T) {
	f := mustParse(t, Options{}, "# escape=`", "FROM a", "RUN a `", "  b", `ENV P=C:\dir Q=a`+"`"+`$b`)
	_, list, err := evaluate(f, f.Stages[0], ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := list[0].(*Run).Args[2], "a   b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	want := []KeyValue{{"P", `C:\dir`}, {"Q", "a$b"}}
	if diff := cmp.Diff(want, list[1].(*Env).Pairs); diff != "" {
		t.Errorf("ENV differs (-want +got):\n%s", diff)
	}
}

func TestUnusedBuildArgs(t *testing.T) {
	args := map[string]string{
		"USED": "1", "GLOBAL": "2", "TYPO": "3", "ALSO": "4", "HTTP_PROXY": "p", "no_proxy": "q",
		"TARGETARCH": "arm", "SOURCE_DATE_EPOCH": "0", "BUILDKIT_INLINE_CACHE": "1", "LATER": "5", "TRIGGER": "6",
	}
	f := mustParse(t, Options{BuildArgs: args}, "ARG GLOBAL", "FROM a AS x", "ARG A USED", "ONBUILD ARG LATER", "FROM x")
	if diff := cmp.Diff([]string{"ALSO", "TRIGGER", "TYPO"}, f.UnusedBuildArgs()); diff != "" {
		t.Errorf("unused differ (-want +got):\n%s", diff)
	}
	list, err := f.ParseOnBuild(f.Stages[0], []string{"ARG TRIGGER"})
	if err != nil {
		t.Fatal(err)
	}
	s := NewScope(f, ScopeOptions{})
	if _, err := s.Expand(list[0]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ALSO", "TYPO"}, f.UnusedBuildArgs(s)); diff != "" {
		t.Errorf("unused with a scope differ (-want +got):\n%s", diff)
	}
}

func TestEpoch(t *testing.T) {
	for _, tt := range []struct {
		name string
		args map[string]string
		line string
		want time.Time
		ok   bool
		err  string
	}{
		{name: "none", line: "ARG A"},
		{name: "build argument", args: map[string]string{"SOURCE_DATE_EPOCH": "86400"}, line: "ARG A", want: time.Unix(86400, 0).UTC(), ok: true},
		{name: "global default", line: "ARG SOURCE_DATE_EPOCH=1", want: time.Unix(1, 0).UTC(), ok: true},
		{name: "build argument empties the default", args: map[string]string{"SOURCE_DATE_EPOCH": ""}, line: "ARG SOURCE_DATE_EPOCH=1"},
		{name: "no number", args: map[string]string{"SOURCE_DATE_EPOCH": "context"}, line: "ARG A", err: `invalid SOURCE_DATE_EPOCH "context": not a number of seconds`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := mustParse(t, Options{BuildArgs: tt.args}, tt.line, "FROM a")
			got, ok, err := f.Epoch()
			if tt.err != "" {
				if err == nil || asParseError(t, err).Err.Error() != tt.err {
					t.Errorf("got error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || ok != tt.ok || !got.Equal(tt.want) {
				t.Errorf("got %v %v %v, want %v %v", got, ok, err, tt.want, tt.ok)
			}
		})
	}
}

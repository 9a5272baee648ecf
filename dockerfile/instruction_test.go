package dockerfile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var ignoreMeta = cmpopts.IgnoreTypes(meta{})

// TestExpandAndHistory holds every instruction to what Expand returns for it and to the text of the image history.
func TestExpandAndHistory(t *testing.T) {
	const arg = "ARG V=v"
	for _, tt := range []struct {
		name, line string
		want       Instruction
		history    string
	}{
		{"RUN shell", "RUN echo $V  'x y'", &Run{Shell: true, Args: []string{"/bin/sh", "-c", "echo $V  'x y'"}, Network: "default"}, "RUN |1 V=v /bin/sh -c echo $V  'x y' # buildkit"},
		{"RUN exec", `RUN ["echo", "$V"]`, &Run{Args: []string{"echo", "$V"}, Network: "default"}, "RUN |1 V=v echo $V # buildkit"},
		{"RUN continued", "RUN a && \\\n  # why\n  b", &Run{Shell: true, Args: []string{"/bin/sh", "-c", "a &&   b"}, Network: "default"}, "RUN |1 V=v /bin/sh -c a &&   b # buildkit"},
		{"RUN bad JSON is shell", `RUN ["a", 'b']`, &Run{Shell: true, Args: []string{"/bin/sh", "-c", `["a", 'b']`}, Network: "default"}, `RUN |1 V=v /bin/sh -c ["a", 'b'] # buildkit`},
		{"RUN network none", "RUN --network=none x", &Run{Shell: true, Args: []string{"/bin/sh", "-c", "x"}, Network: "none"}, "RUN |1 V=v /bin/sh -c x # buildkit"},
		{"RUN network host", "RUN --network=host x", &Run{Shell: true, Args: []string{"/bin/sh", "-c", "x"}, Network: "host"}, "RUN |1 V=v /bin/sh -c x # buildkit"},
		{
			"RUN heredoc", "RUN <<EOF\necho $V\n  b\nEOF",
			&Run{Shell: true, Args: []string{"/bin/sh", "-c", "echo $V\n  b\n"}, Heredocs: []Heredoc{{Name: "EOF", Data: "echo $V\n  b\n"}}, Network: "default"},
			"RUN |1 V=v /bin/sh -c echo $V\n  b\n # buildkit",
		},
		{
			"RUN heredoc chomped", "RUN <<-EOF\n\techo\n\tEOF",
			&Run{Shell: true, Args: []string{"/bin/sh", "-c", "echo\n"}, Heredocs: []Heredoc{{Name: "EOF", Data: "\techo\n", Chomp: true}}, Network: "default"},
			"RUN |1 V=v /bin/sh -c echo\n # buildkit",
		},
		{
			"RUN heredoc with a shebang", "RUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF",
			&Run{
				Shell: true, Args: []string{"/bin/sh", "-c", "/dev/pipes/EOF"}, Network: "default",
				Heredocs: []Heredoc{{Name: "EOF", Data: "#!/usr/bin/env python3\nprint(1)\n"}},
				Script:   &Script{Path: "/dev/pipes/EOF", Data: "#!/usr/bin/env python3\nprint(1)\n", Mode: 0o755},
			},
			"RUN |1 V=v /bin/sh -c /dev/pipes/EOF # buildkit",
		},
		{
			"RUN heredocs for a command", "RUN cat <<A - <<'B' >x\na\nA\nb\nB",
			&Run{
				Shell: true, Args: []string{"/bin/sh", "-c", "cat <<A - <<'B' >x\na\nA\nb\nB"}, Network: "default",
				Heredocs: []Heredoc{{Name: "A", Data: "a\n"}, {Name: "B", Data: "b\n"}},
			},
			"RUN |1 V=v /bin/sh -c cat <<A - <<'B' >x\na\nA\nb\nB # buildkit",
		},
		{"COPY", "COPY a$V *.go b/", &Copy{Transfer: Transfer{Sources: []string{"av", "*.go"}, Dest: "b/", Target: "/b/"}}, "COPY av *.go b/ # buildkit"},
		{"COPY exec form", `COPY ["a b", "c d"]`, &Copy{Transfer: Transfer{Sources: []string{"a b"}, Dest: "c d", Target: "/c d"}}, "COPY a b c d # buildkit"},
		{"COPY flags", "COPY --link --chown=1:$V2 --chmod=0755 --from=busybox:1 a /b", &Copy{Transfer: Transfer{Sources: []string{"a"}, Dest: "/b", Target: "/b", Chown: "1:", Chmod: "0755", Link: true}, From: "busybox:1"}, "COPY --chown=1: --chmod=0755 a /b # buildkit"},
		{"COPY here", "COPY . .", &Copy{Transfer: Transfer{Sources: []string{"."}, Dest: ".", Target: "/"}}, "COPY . . # buildkit"},
		{
			"COPY heredoc", "COPY <<one <<\"two\" a /d/\n$V \"${V}\"\none\n$V\ntwo",
			&Copy{Transfer: Transfer{Sources: []string{"a"}, Dest: "/d/", Target: "/d/", Heredocs: []Heredoc{{Name: "one", Data: "v \"v\"\n", Expand: true}, {Name: "two", Data: "$V\n"}}}},
			"COPY a <<one <<two /d/ # buildkit",
		},
		{
			"COPY heredoc chomped", "COPY <<-one /d/\n\t$V\n\tone",
			&Copy{Transfer: Transfer{Dest: "/d/", Target: "/d/", Heredocs: []Heredoc{{Name: "one", Data: "v\n", Expand: true}}}},
			"COPY <<one /d/ # buildkit",
		},
		{"ADD", "ADD --chown=u --chmod=u+x a.tar.gz /", &Add{Transfer: Transfer{Sources: []string{"a.tar.gz"}, Dest: "/", Target: "/", Chown: "u", Chmod: "u+x"}}, "ADD --chown=u --chmod=u+x a.tar.gz / # buildkit"},
		{"ENV", `ENV A=1 B="x $V" C=a\ b`, &Env{Pairs: []KeyValue{{"A", "1"}, {"B", "x v"}, {"C", "a b"}}}, "ENV A=1 B=x v C=a b"},
		{"ENV legacy", "ENV A one two", &Env{Pairs: []KeyValue{{"A", "one two"}}, legacy: true}, "ENV A=one two"},
		{"ARG", "ARG A=$V B", &Arg{Args: []ArgValue{{"A", "v", true}, {Key: "B"}}}, "ARG A=v B"},
		{"LABEL", `LABEL a.b="x y" $V=$V`, &Label{Pairs: []KeyValue{{"a.b", "x y"}, {"v", "v"}}}, "LABEL a.b=x y v=v"},
		{"WORKDIR", "WORKDIR /a/$V", &Workdir{Path: "/a/v"}, "WORKDIR /a/v"},
		{"WORKDIR relative", "WORKDIR a/../b", &Workdir{Path: "/b"}, "WORKDIR /b"},
		{"USER", "USER $V:0", &User{User: "v:0"}, "USER v:0"},
		{"EXPOSE", "EXPOSE 80 53/UDP", &Expose{Ports: []string{"53/udp", "80/tcp"}}, "EXPOSE [53/udp 80/tcp]"},
		{"EXPOSE range", "EXPOSE 8000-8002/tcp", &Expose{Ports: []string{"8000/tcp", "8001/tcp", "8002/tcp"}}, "EXPOSE [8000/tcp 8001/tcp 8002/tcp]"},
		{"VOLUME", `VOLUME ["/a b", "/$V"]`, &Volume{Paths: []string{"/a b", "/v"}}, "VOLUME [/a b /v]"},
		{"VOLUME plain", "VOLUME /a /b", &Volume{Paths: []string{"/a", "/b"}}, "VOLUME [/a /b]"},
		{"CMD exec", `CMD ["a", "$V"]`, &Cmd{Args: []string{"a", "$V"}}, `CMD ["a" "$V"]`},
		{"CMD shell", "CMD a $V", &Cmd{Shell: true, Args: []string{"/bin/sh", "-c", "a $V"}}, `CMD ["/bin/sh" "-c" "a $V"]`},
		{"CMD empty", "CMD []", &Cmd{Args: []string{}}, `CMD []`},
		{"ENTRYPOINT exec", `ENTRYPOINT ["a"]`, &Entrypoint{Args: []string{"a"}, ResetsCmd: true}, `ENTRYPOINT ["a"]`},
		{"ENTRYPOINT shell", "ENTRYPOINT a b", &Entrypoint{Shell: true, Args: []string{"/bin/sh", "-c", "a b"}, ResetsCmd: true}, `ENTRYPOINT ["/bin/sh" "-c" "a b"]`},
		{"ENTRYPOINT empty", "ENTRYPOINT []", &Entrypoint{ResetsCmd: true}, `ENTRYPOINT []`},
		{"SHELL", `SHELL ["bash", "-ec"]`, &Shell{Args: []string{"bash", "-ec"}}, "SHELL [bash -ec]"},
		{"STOPSIGNAL", "STOPSIGNAL SIG${X:-TERM}", &StopSignal{Signal: "SIGTERM"}, "STOPSIGNAL SIGTERM"},
		{"HEALTHCHECK NONE", "HEALTHCHECK NONE", &Healthcheck{Health: Health{Test: []string{"NONE"}}}, "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}"},
		{
			"HEALTHCHECK all", "HEALTHCHECK --interval=1m --timeout=3s --start-period=5s --start-interval=100ms --retries=4 CMD curl -f $V",
			&Healthcheck{Health: Health{Test: []string{"CMD-SHELL", "curl -f $V"}, Interval: time.Minute, Timeout: 3 * time.Second, StartPeriod: 5 * time.Second, StartInterval: 100 * time.Millisecond, Retries: 4}},
			"HEALTHCHECK {Test:[CMD-SHELL curl -f $V] Interval:1m0s Timeout:3s StartPeriod:5s StartInterval:100ms Retries:4}",
		},
		{"HEALTHCHECK exec", `HEALTHCHECK CMD ["a", "b"]`, &Healthcheck{Health: Health{Test: []string{"CMD", "a", "b"}}}, "HEALTHCHECK {Test:[CMD a b] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}"},
		{"ONBUILD", "ONBUILD  RUN  echo $V", &OnBuild{Expression: "RUN  echo $V"}, ""},
		{"ONBUILD unsupported for us", "ONBUILD RUN --mount=type=tmpfs,target=/x y", &OnBuild{Expression: "RUN --mount=type=tmpfs,target=/x y"}, ""},
		{"MAINTAINER", "MAINTAINER A <a@b.c>", &Maintainer{Author: "A <a@b.c>"}, "MAINTAINER A <a@b.c>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := mustParse(t, Options{}, "FROM scratch", arg, tt.line)
			s, list, err := evaluate(f, f.Stages[0], ScopeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			in := list[1]
			opts := cmp.Options{ignoreMeta, cmp.AllowUnexported(Env{}, Label{}), cmpopts.EquateEmpty()}
			if diff := cmp.Diff(tt.want, in, opts); diff != "" {
				t.Errorf("instruction differs (-want +got):\n%s", diff)
			}
			if in.Location().Start != 3 || !strings.HasPrefix(tt.line, in.Keyword()) {
				t.Errorf("got line %d keyword %q, want 3 and the first word of %q", in.Location().Start, in.Keyword(), tt.line)
			}
			if got := s.CreatedBy(in); got != tt.history {
				t.Errorf("history: got %q, want %q", got, tt.history)
			}
		})
	}
}

// Expand must leave the parsed file as it is: the same stage is evaluated again for another key or another target.
func TestExpandCopies(t *testing.T) {
	f := mustParse(t, Options{}, "FROM a", "ARG V=1", "ENV A=$V", "LABEL l=$V", "COPY --chown=$V <<x a$V b$V", "$V", "x", "VOLUME /$V", "EXPOSE $V", "RUN x", "ARG W=$V", "CMD x")
	before := dump(f)
	if after := dump(f); after != before {
		t.Errorf("a second evaluation differs:\n%s", cmp.Diff(before, after))
	}
}

func TestExpandErrors(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"chmod", "COPY --chmod=8 a b", "invalid chmod parameter: '8'. it should be octal string and between 0 and 07777"},
		{"chmod too large", "COPY --chmod=10000 a b", "invalid chmod parameter: '10000'. it should be octal string and between 0 and 07777"},
		{"chmod symbolic", "ADD --chmod=u+q a b", "invalid chmod parameter: 'u+q': not a mode as chmod(1) has it"},
		{"link with a name", "COPY --link --chown=app a b", "--chown=app: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead"},
		{"signal", "STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"},
		{"signal number", "STOPSIGNAL 0", "invalid signal: 0"},
		{"port", "EXPOSE 65536", `invalid containerPort: 65536: "65536" is no port from 0 to 65535`},
		{"port range", "EXPOSE 9-8", "invalid containerPort: 9-8: the range ends before it starts"},
		{"port protocol", "EXPOSE 80/http", `invalid port: "80/http": invalid proto: http`},
		{"port missing", "EXPOSE /tcp", `invalid port: "/tcp": no port specified`},
		{"port address", "EXPOSE x:1:2", "invalid IP address: x"},
		{"volume empty", "VOLUME $NOTHING", "VOLUME specified can not be an empty string"},
		{"env blank", "ENV $NOTHING=1", "ENV names can not be blank"},
		{"script name", "RUN <<../x\n#!/bin/sh\n../x", `a heredoc script needs a plain name, not "../x"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := mustParse(t, Options{}, "FROM a", tt.line)
			_, _, err := evaluate(f, f.Stages[0], ScopeOptions{})
			if err == nil {
				t.Fatal("got no error")
			}
			if pe := asParseError(t, err); pe.Err.Error() != tt.want || pe.Line != 2 {
				t.Errorf("got line %d %q, want line 2 %q", pe.Line, pe.Err, tt.want)
			}
		})
	}
	t.Run("ports without end", func(t *testing.T) {
		f := mustParse(t, Options{}, "FROM a", "EXPOSE"+strings.Repeat(" 0-65535", 5000))
		if _, _, err := evaluate(f, f.Stages[0], ScopeOptions{}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
	})
}

func TestWorkdirAndShell(t *testing.T) {
	f := mustParse(t, Options{}, "FROM a AS one", "WORKDIR b", "WORKDIR ../c", "COPY x .", "COPY x y/", "COPY x y/.", `SHELL ["bash", "-c"]`, "RUN a", "CMD b", "FROM one", "WORKDIR d", "RUN e", "ENTRYPOINT f")
	s, list, err := evaluate(f, f.Stages[1], ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Workdir(), "/c/d"; got != want {
		t.Errorf("working directory: got %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{"bash", "-c", "e"}, list[1].(*Run).Args); diff != "" {
		t.Errorf("argv with an inherited SHELL differs (-want +got):\n%s", diff)
	}
	if !list[2].(*Entrypoint).ResetsCmd {
		t.Error("ENTRYPOINT of a stage without CMD: got ResetsCmd false, want true")
	}
	_, list, err = evaluate(f, f.Stages[0], ScopeOptions{BaseWorkdir: "/base", BaseShell: []string{"ash"}})
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, in := range list {
		if c, ok := in.(*Copy); ok {
			targets = append(targets, c.Target)
		}
	}
	if diff := cmp.Diff([]string{"/base/c/", "/base/c/y/", "/base/c/y/."}, targets); diff != "" {
		t.Errorf("targets differ (-want +got):\n%s", diff)
	}
	s = NewScope(f, ScopeOptions{BaseShell: []string{"ash", "-c"}})
	run, err := s.Expand(f.Stages[0].Instructions[6])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ash", "-c", "a"}, run.(*Run).Args); diff != "" {
		t.Errorf("argv with the SHELL of the base image differs (-want +got):\n%s", diff)
	}
}

func TestTitle(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"run echo $V ${U:-x} \"q\"", `RUN echo v ${U:-x} "q"`},
		{"COPY \"a b\" $V", "COPY a b v"},
		{"RUN <<EOF\na\nb\nEOF", "RUN <<EOF (a...)"},
		{"RUN a \\\n  b", "RUN a   b"},
	} {
		f := mustParse(t, Options{}, "FROM a", "ENV V=v", tt.line)
		s := NewScope(f, ScopeOptions{})
		if _, err := s.Expand(f.Stages[0].Instructions[0]); err != nil {
			t.Fatal(err)
		}
		if got := s.Title(f.Stages[0].Instructions[1]); got != tt.want {
			t.Errorf("title: got %q, want %q", got, tt.want)
		}
	}
}

func TestSignals(t *testing.T) {
	for s, want := range map[string]bool{
		"9": true, "SIGKILL": true, "kill": true, "RTMIN+3": true, "SIGRTMAX-15": true, "37": true, "SIGPOLL": true, "STKFLT": true,
		"": false, "SIG": false, "65": false, "-1": false, "RTMIN+16": false, "SIGNONE": false, "RTMIN+": false,
	} {
		if got := isSignal(s); got != want {
			t.Errorf("isSignal(%q): got %v, want %v", s, got, want)
		}
	}
}

func ExampleParse() {
	f, err := Parse("Dockerfile", []byte("ARG V=3\nFROM alpine:$V AS base\nRUN apk add curl\n"), Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	st, err := f.Target("")
	if err != nil {
		fmt.Println(err)
		return
	}
	s := NewScope(f, ScopeOptions{})
	for _, in := range st.Instructions {
		in, err := s.Expand(in)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(st.BaseName, s.CreatedBy(in))
	}
	// Output: alpine:3 RUN /bin/sh -c apk add curl # buildkit
}

package dockerfile

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSubstitution(t *testing.T) {
	for _, tt := range []struct{ name, word, want, err string }{
		{name: "plain", word: "$X", want: "a/b.tar.gz"},
		{name: "braces", word: "${X}y", want: "a/b.tar.gzy"},
		{name: "escaped", word: `\$X`, want: "$X"},
		{name: "single quotes keep", word: `'$X'`, want: "$X"},
		{name: "double quotes expand", word: `"$X"`, want: "a/b.tar.gz"},
		{name: "unset is empty", word: "<$U>", want: "<>"},
		{name: "default of unset", word: "${U:-w}", want: "w"},
		{name: "default of empty", word: "${E:-w}", want: "w"},
		{name: "default of set", word: "${X:-w}", want: "a/b.tar.gz"},
		{name: "default without colon of unset", word: "${U-w}", want: "w"},
		{name: "default without colon of empty", word: "<${E-w}>", want: "<>"},
		{name: "nested default", word: "${U:-${X}}", want: "a/b.tar.gz"},
		{name: "alternative of set", word: "${X:+w}", want: "w"},
		{name: "alternative of empty", word: "<${E:+w}>", want: "<>"},
		{name: "alternative of unset", word: "<${U:+w}>", want: "<>"},
		{name: "alternative without colon of empty", word: "${E+w}", want: "w"},
		{name: "alternative without colon of unset", word: "<${U+w}>", want: "<>"},
		{name: "required set", word: "${X:?no}", want: "a/b.tar.gz"},
		{name: "required unset", word: "${U:?no}", err: `process "${U:?no}": U: no`},
		{name: "required empty", word: "${E:?no}", err: `process "${E:?no}": E: no`},
		{name: "required without colon empty", word: "<${E?no}>", want: "<>"},
		{name: "required without colon unset", word: "${U?no}", err: `process "${U?no}": U: no`},
		{name: "required without word", word: "${U:?}", err: `process "${U:?}": U: is not allowed to be unset`},
		{name: "shortest prefix", word: "${D#*.}", want: "b.c.d"},
		{name: "longest prefix", word: "${D##*.}", want: "d"},
		{name: "shortest suffix", word: "${D%.*}", want: "a.b.c"},
		{name: "longest suffix", word: "${D%%.*}", want: "a"},
		{name: "suffix with one character", word: "${D%?}", want: "a.b.c."},
		{name: "no match", word: "${D#z}", want: "a.b.c.d"},
		{name: "prefix with a variable", word: "${D#$A}", want: ".b.c.d"},
		{name: "replace first", word: "${D/./-}", want: "a-b.c.d"},
		{name: "replace all", word: "${D//./-}", want: "a-b-c-d"},
		{name: "replace pattern", word: "${D/b*/x}", want: "a.x"},
		{name: "replace a slash", word: `${X/\//_}`, want: "a_b.tar.gz"},
		{name: "replace with nothing", word: "${D//./}", want: "abcd"},
		{name: "two", word: "$A-$D", want: "a-a.b.c.d"},
		{name: "open brace", word: "${X", err: `process "${X": syntax error: missing '}'`},
		{name: "bad name", word: "${:x}", err: `process "${:x}": syntax error: bad substitution`},
		{name: "bad modifier", word: "${X!y}", err: `process "${X!y}": unsupported modifier (!) in substitution`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := mustParse(t, Options{}, "FROM scratch", "ENV X=a/b.tar.gz E= D=a.b.c.d A=a", "LABEL l="+tt.word)
			_, list, err := evaluate(f, f.Stages[0], ScopeOptions{})
			if tt.err != "" {
				if err == nil {
					t.Fatalf("got no error, want %s", tt.err)
				}
				if pe := asParseError(t, err); pe.Err.Error() != tt.err || pe.Line != 3 {
					t.Errorf("got line %d %q, want line 3 %q", pe.Line, pe.Err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := list[1].(*Label).Pairs[0].Value; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The rules of scope, each as BuildKit's reference has it.
func TestScopeRules(t *testing.T) {
	const path = "PATH=" + DefaultPath
	for _, tt := range []struct {
		name   string
		args   map[string]string
		lines  []string
		base   []string // the environment of the base image
		env    []string // of the image
		run    []string // of a RUN at the end
		prefix string   // of its history
	}{
		{
			name:  "a global ARG is not seen in a stage",
			lines: []string{"ARG A=1", "FROM b", "ENV X=<$A>"},
			env:   []string{path, "X=<>"}, run: []string{path, "X=<>"},
		},
		{
			name:  "a global ARG declared again brings its value",
			lines: []string{"ARG A=1", "FROM b", "ARG A", "ENV X=<$A>"},
			env:   []string{path, "X=<1>"}, run: []string{path, "A=1", "X=<1>"}, prefix: "|1 A=1 ",
		},
		{
			name:  "a default in the stage beats the global one",
			lines: []string{"ARG A=1", "FROM b", "ARG A=2"},
			env:   []string{path}, run: []string{path, "A=2"}, prefix: "|1 A=2 ",
		},
		{
			name:  "a build argument beats every default",
			args:  map[string]string{"A": "3"},
			lines: []string{"ARG A=1", "FROM b", "ARG A=2"},
			env:   []string{path}, run: []string{path, "A=3"}, prefix: "|1 A=3 ",
		},
		{
			name:  "an empty build argument is a value",
			args:  map[string]string{"A": ""},
			lines: []string{"FROM b", "ARG A=2"},
			env:   []string{path}, run: []string{path, "A="}, prefix: "|1 A= ",
		},
		{
			name:  "a build argument without ARG is not seen",
			args:  map[string]string{"A": "3"},
			lines: []string{"FROM b", "ENV X=<$A>"},
			env:   []string{path, "X=<>"}, run: []string{path, "X=<>"},
		},
		{
			name:  "an ARG without any value is in history only",
			lines: []string{"FROM b", "ARG A"},
			env:   []string{path}, run: []string{path}, prefix: "|1 A= ",
		},
		{
			name:  "an ARG counts from its line on",
			lines: []string{"FROM b", "ENV X=<$A>", "ARG A=1", "ENV Y=<$A>"},
			env:   []string{path, "X=<>", "Y=<1>"}, run: []string{path, "X=<>", "A=1", "Y=<1>"}, prefix: "|1 A=1 ",
		},
		{
			name:  "ENV after ARG wins",
			args:  map[string]string{"A": "arg"},
			lines: []string{"FROM b", "ARG A", "ENV A=env"},
			env:   []string{path, "A=env"}, run: []string{path, "A=env"}, prefix: "|1 A=env ",
		},
		{
			name:  "ENV with a default from the ARG of its name",
			args:  map[string]string{"A": "arg"},
			lines: []string{"FROM b", "ARG A", "ENV A=${A:-v1}"},
			env:   []string{path, "A=arg"}, run: []string{path, "A=arg"}, prefix: "|1 A=arg ",
		},
		{
			name:  "ARG after ENV wins for RUN, the image keeps ENV",
			args:  map[string]string{"A": "arg"},
			lines: []string{"FROM b", "ENV A=env", "ARG A", "ENV X=$A"},
			env:   []string{path, "A=env", "X=arg"}, run: []string{path, "A=arg", "X=arg"}, prefix: "|1 A=arg ",
		},
		{
			name:  "one line of ENV sees the values before it",
			lines: []string{"FROM b", "ENV abc=hello", "ENV abc=bye def=$abc", "ENV ghi=$abc"},
			env:   []string{path, "abc=bye", "def=hello", "ghi=bye"}, run: []string{path, "abc=bye", "def=hello", "ghi=bye"},
		},
		{
			name:  "one line of ARG sees its own names",
			lines: []string{"FROM b", "ARG A=1 B=$A C"},
			env:   []string{path}, run: []string{path, "A=1", "B=1"}, prefix: "|3 A=1 B=1 C= ",
		},
		{
			name:  "an ARG declared twice keeps its place",
			lines: []string{"FROM b", "ARG A=1", "ARG B=2", "ARG A=3"},
			env:   []string{path}, run: []string{path, "B=2", "A=3"}, prefix: "|2 A=3 B=2 ",
		},
		{
			name:  "ARGs reach stages built FROM this one",
			lines: []string{"FROM b AS one", "ARG A=1", "FROM one", "ENV X=$A"},
			env:   []string{path, "X=1"}, run: []string{"A=1", path, "X=1"}, prefix: "|1 A=1 ",
		},
		{
			name:  "ARGs do not reach other stages",
			lines: []string{"FROM b AS one", "ARG A=1", "FROM b", "ENV X=<$A>"},
			env:   []string{path, "X=<>"}, run: []string{path, "X=<>"},
		},
		{
			name:  "in a stage built FROM another the image's ENV goes before its ARG",
			lines: []string{"FROM b AS one", "ENV A=env", "ARG A=arg", "FROM one"},
			env:   []string{path, "A=env"}, run: []string{path, "A=env"}, prefix: "|1 A=env ",
		},
		{
			name:  "the environment of the base image",
			base:  []string{"PATH=/bin", "LANG=C"},
			lines: []string{"FROM b", "ENV PATH=/x:$PATH L=$LANG"},
			env:   []string{"PATH=/x:/bin", "LANG=C", "L=C"}, run: []string{"LANG=C", "PATH=/x:/bin", "L=C"},
		},
		{
			name:  "proxies are seen by RUN alone",
			args:  map[string]string{"http_proxy": "p", "NO_PROXY": "n", "FTP_PROXY": ""},
			lines: []string{"FROM b", "ENV X=<$HTTP_PROXY$http_proxy>"},
			env:   []string{path, "X=<>"}, run: []string{path, "X=<>", "HTTP_PROXY=p", "http_proxy=p", "NO_PROXY=n", "no_proxy=n"},
		},
		{
			name:  "a declared proxy is an ARG like others",
			args:  map[string]string{"HTTP_PROXY": "p"},
			lines: []string{"FROM b", "ARG HTTP_PROXY"},
			env:   []string{path}, run: []string{path, "HTTP_PROXY=p", "http_proxy=p"}, prefix: "|1 HTTP_PROXY=p ",
		},
		{
			name:  "platform arguments need a declaration",
			lines: []string{"FROM b", "ARG TARGETARCH", "ENV X=$TARGETARCH-$TARGETOS"},
			env:   []string{path, "X=arm-"}, run: []string{path, "TARGETARCH=arm", "X=arm-"}, prefix: "|1 TARGETARCH=arm ",
		},
		{
			name:  "all platform arguments",
			lines: []string{"FROM b", "ARG BUILDPLATFORM BUILDOS BUILDARCH BUILDVARIANT TARGETPLATFORM TARGETOS TARGETVARIANT", "ENV X=$BUILDPLATFORM,$BUILDOS,$BUILDARCH,$BUILDVARIANT,$TARGETPLATFORM,$TARGETOS,$TARGETVARIANT"},
			env:   []string{path, "X=linux/amd64,linux,amd64,,linux/arm/v7,linux,v7"},
			run: []string{
				path, "BUILDPLATFORM=linux/amd64", "BUILDOS=linux", "BUILDARCH=amd64", "BUILDVARIANT=", "TARGETPLATFORM=linux/arm/v7", "TARGETOS=linux", "TARGETVARIANT=v7",
				"X=linux/amd64,linux,amd64,,linux/arm/v7,linux,v7",
			},
			prefix: "|7 BUILDPLATFORM=linux/amd64 BUILDOS=linux BUILDARCH=amd64 BUILDVARIANT= TARGETPLATFORM=linux/arm/v7 TARGETOS=linux TARGETVARIANT=v7 ",
		},
		{
			name:  "SOURCE_DATE_EPOCH is an ARG like others",
			args:  map[string]string{"SOURCE_DATE_EPOCH": "0"},
			lines: []string{"FROM b", "ENV X=<$SOURCE_DATE_EPOCH>", "ARG SOURCE_DATE_EPOCH"},
			env:   []string{path, "X=<>"}, run: []string{path, "X=<>", "SOURCE_DATE_EPOCH=0"}, prefix: "|1 SOURCE_DATE_EPOCH=0 ",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{BuildArgs: tt.args, BuildPlatform: "linux/amd64", TargetPlatform: "linux/arm/v7"}
			f := mustParse(t, o, append(tt.lines, "RUN x")...)
			s, list, err := evaluate(f, f.Stages[len(f.Stages)-1], ScopeOptions{BaseEnv: tt.base})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.env, s.Env()); diff != "" {
				t.Errorf("image environment differs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.run, s.RunEnv()); diff != "" {
				t.Errorf("environment of RUN differs (-want +got):\n%s", diff)
			}
			got, want := s.CreatedBy(list[len(list)-1]), "RUN "+tt.prefix+"/bin/sh -c x # buildkit"
			if got != want {
				t.Errorf("history: got %q, want %q", got, want)
			}
			again, _, err := evaluate(f, f.Stages[len(f.Stages)-1], ScopeOptions{BaseEnv: tt.base})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.RunEnv(), again.RunEnv()); diff != "" {
				t.Errorf("a second evaluation differs (-first +second):\n%s", diff)
			}
		})
	}
}

// A proxy is in neither the key nor the history of a RUN.
func TestProxiesAreNoKey(t *testing.T) {
	key := func(args map[string]string) []string {
		f := mustParse(t, Options{BuildArgs: args}, "FROM b", "ARG A=1")
		s, _, err := evaluate(f, f.Stages[0], ScopeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s.KeyEnv()
	}
	if diff := cmp.Diff(key(nil), key(map[string]string{"HTTPS_PROXY": "p", "all_proxy": "q"})); diff != "" {
		t.Errorf("key differs with a proxy (-without +with):\n%s", diff)
	}
}

func TestGlobalScope(t *testing.T) {
	for _, tt := range []struct {
		name           string
		o              Options
		lines          []string
		base, platform string
	}{
		{"default", Options{}, []string{"ARG V=1", "FROM a:${V}"}, "a:1", ""},
		{"build argument", Options{BuildArgs: map[string]string{"V": "2"}}, []string{"ARG V=1", "FROM a:${V}"}, "a:2", ""},
		{"undeclared build argument", Options{BuildArgs: map[string]string{"V": "2"}}, []string{"FROM a:x${V}"}, "a:x", ""},
		{"one from another", Options{}, []string{"ARG V=1", "ARG W=${V}-slim", "FROM a:$W"}, "a:1-slim", ""},
		{"one line", Options{}, []string{"ARG V=1 W=$V", "FROM a:$W"}, "a:1", ""},
		{"digest", Options{}, []string{"FROM a@sha256:0123"}, "a@sha256:0123", ""},
		{"quotes", Options{}, []string{`ARG V="1"`, "FROM a:$V"}, "a:1", ""},
		{"scratch", Options{}, []string{"FROM scratch"}, Scratch, ""},
		{"build platform", Options{BuildPlatform: "linux/arm64"}, []string{"FROM --platform=$BUILDPLATFORM a"}, "a", "linux/arm64"},
		{"target architecture in the name", Options{TargetPlatform: "linux/arm64"}, []string{"FROM a:$TARGETARCH"}, "a:arm64", ""},
		{"platform normalised", Options{}, []string{"FROM --platform=linux/aarch64 a"}, "a", "linux/arm64"},
		{"platform short", Options{}, []string{"FROM --platform=arm64 a"}, "a", "linux/arm64"},
		{"platform default overridden", Options{BuildArgs: map[string]string{"TARGETARCH": "s390x"}}, []string{"FROM a:$TARGETARCH"}, "a:s390x", ""},
		{"target stage", Options{Target: "Dev"}, []string{"FROM a:$TARGETSTAGE"}, "a:Dev", ""},
		{"target stage by default", Options{}, []string{"FROM a:$TARGETSTAGE AS one"}, "a:one", ""},
		{"target stage without a name", Options{}, []string{"FROM a:$TARGETSTAGE"}, "a:default", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := mustParse(t, tt.o, tt.lines...).Stages[0]
			if st.BaseName != tt.base || st.Platform != tt.platform {
				t.Errorf("got base %q platform %q, want %q %q", st.BaseName, st.Platform, tt.base, tt.platform)
			}
		})
	}
}

// A value that doubles with each line must stop before it fills the memory.
func TestExpansionIsBounded(t *testing.T) {
	doubling := []string{"FROM b", "ENV A=0123456789"}
	for range 60 {
		doubling = append(doubling, "ENV A=$A$A")
	}
	wide := []string{"FROM b", "ENV A=" + strings.Repeat("a", 60_000), "ENV B=" + strings.Repeat("$A", 30_000)}
	replace := []string{"FROM b", "ENV A=" + strings.Repeat("a", 60_000), "ENV B=${A//a/$A}"}
	nested := []string{"FROM b", "ENV A=" + strings.Repeat("a", 2000), "ENV B=${A//a/${A//a/${A//a/$A}}}"}
	for name, lines := range map[string][]string{"doubling": doubling, "wide": wide, "replace": replace, "nested": nested} {
		t.Run(name, func(t *testing.T) {
			f := mustParse(t, Options{}, lines...)
			_, _, err := evaluate(f, f.Stages[0], ScopeOptions{})
			if !errors.Is(err, ErrTooLarge) {
				t.Fatalf("got %v, want ErrTooLarge", err)
			}
			if pe := asParseError(t, err); pe.Line < 3 {
				t.Errorf("got line %d, want one of the ENV lines", pe.Line)
			}
		})
	}
	t.Run("honest", func(t *testing.T) {
		f := mustParse(t, Options{}, "FROM b", "ENV P="+strings.Repeat("/opt/tool/bin:", 200), `ENV Q="${P//:/ }" R=${P//opt/usr}`)
		if _, _, err := evaluate(f, f.Stages[0], ScopeOptions{}); err != nil {
			t.Errorf("got %v, want no error", err)
		}
	})
}

// A file of four MiB must not ask for hours of work.
func TestWorkIsBounded(t *testing.T) {
	names := func(keyword string) string {
		var b strings.Builder
		b.WriteString(keyword)
		for i := range 20_000 {
			b.WriteString(" n" + strconv.Itoa(i) + "=1")
			if i%1000 == 999 {
				b.WriteString("\\\n")
			}
		}
		return b.String() + " z=1"
	}
	for name, src := range map[string]string{
		"stages":                     strings.Repeat("FROM a\n", 30_000),
		"triggers":                   "FROM a AS b\n" + strings.Repeat("ONBUILD RUN x\n", 5000) + strings.Repeat("FROM b\n", 5000),
		"variables":                  "FROM a\n" + names("ENV") + "\n",
		"arguments":                  "FROM a\n" + names("ARG") + "\n",
		"same":                       "FROM a\nARG" + strings.Repeat(" a", 25_000) + "\n",
		"global ARGs":                names("ARG") + "\nFROM a\n",
		"nesting":                    "FROM a\nENV A=" + strings.Repeat("${a:-", 10_000) + "\n",
		"nesting in continued lines": "FROM a\nRUN <<x " + strings.Repeat(strings.Repeat("${a:-", 900)+"\\\n", 20) + "\n",
		"nesting in a document":      "FROM a\nCOPY <<x /y\n" + strings.Repeat(strings.Repeat("${a:-", 900)+"\n", 20) + "x\n",
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Parse("Dockerfile", []byte(src), Options{})
			if err == nil {
				_, _, err = evaluate(f, f.Stages[0], ScopeOptions{})
			}
			if !errors.Is(err, ErrTooLarge) {
				t.Errorf("got %v, want ErrTooLarge", err)
			}
		})
	}
}

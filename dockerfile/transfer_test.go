package dockerfile

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What ADD fetches and what it takes for a path is BuildKit's decision, not a guess.
func TestSourceKind(t *testing.T) {
	for src, want := range map[string]string{
		"a/b":                                "",
		"./https://example.com/x":            "",
		"github.com/a/b":                     "",
		"git":                                "",
		"ftp://example.com/x":                "",
		"oci-layout://x":                     "",
		"http://example.com/x":               SourceHTTP,
		"https://example.com/x.git/info":     SourceHTTP,
		"https://example.com/x?y=z.git":      SourceHTTP,
		"https://example.com/#x.git":         SourceHTTP,
		"https://example.com/a/b.git":        SourceGit,
		"https://example.com/a/b.git#v1:sub": SourceGit,
		"http://example.com/b.git?ref=main":  SourceGit,
		"git://example.com/a":                SourceGit,
		"ssh://git@example.com/a":            SourceGit,
		"git@example.com:a/b":                SourceGit,
		"other_user@example.com:a/b.git#x":   SourceGit,
		"user@example.com":                   "",
		"a b@example.com:x":                  "",
	} {
		if got := SourceKind(src); got != want {
			t.Errorf("SourceKind(%q): got %q, want %q", src, got, want)
		}
	}
}

func TestTransferFlags(t *testing.T) {
	f := mustParse(t, Options{BuildArgs: map[string]string{"SUM": "sha256:" + strings.Repeat("a", 64)}},
		"FROM a", "ARG SUM", "ENV U=1000 M=u=rwX,go= X=b", "WORKDIR /w",
		"COPY --parents --link=false --exclude=*.$X --exclude=!c --chmod=$M --chown=$U:2 a/./$X d/",
		"ADD --checksum=$SUM --keep-git-dir=false --unpack https://example.com/$X .",
		"ADD --link=true x /",
	)
	s, list, err := evaluate(f, f.Stages[0], ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := list[3].(*Copy)
	want := Transfer{
		Sources: []string{"a/./b"}, Dest: "d/", Target: "/w/d/", Chown: "1000:2", Chmod: "u=rwX,go=", Parents: true,
		Exclude: []string{"*.$X", "!c"}, // BuildKit does not expand them
	}
	if d := cmp.Diff(want, c.Transfer); d != "" {
		t.Errorf("COPY (-want +got):\n%s", d)
	}
	if got, want := s.CreatedBy(c), "COPY --parents --chown=1000:2 --chmod=u=rwX,go= a/./b d/ # buildkit"; got != want {
		t.Errorf("history: got %q, want %q", got, want)
	}
	a, _ := list[4].(*Add)
	if want := "sha256:" + strings.Repeat("a", 64); a.Checksum != want || a.Target != "/w/" || a.Sources[0] != "https://example.com/b" {
		t.Errorf("ADD: got checksum %q, target %q, sources %q", a.Checksum, a.Target, a.Sources)
	}
	if a.KeepGitDir == nil || *a.KeepGitDir || a.Unpack == nil || !*a.Unpack {
		t.Errorf("ADD: got keep-git-dir %v, unpack %v, want false and true", a.KeepGitDir, a.Unpack)
	}
	if b, _ := list[5].(*Add); !b.Link || b.KeepGitDir != nil || b.Unpack != nil || b.Checksum != "" {
		t.Errorf("plain ADD: got %+v", b)
	}
}

func TestTransferErrors(t *testing.T) {
	sum := "sha256:" + strings.Repeat("0", 64)
	for _, tt := range []struct{ name, line, want string }{
		{"checksum of a path", "ADD --checksum=" + sum + " a /x", "checksum requires HTTP(S) or Git sources"},
		{"checksum of two", "ADD --checksum=" + sum + " https://e.com/a https://e.com/b /x/", "checksum can't be specified for multiple sources"},
		{"checksum without algorithm", "ADD --checksum=" + sum[7:] + " https://e.com/a /x", "the checksum of a URL is sha256:"},
		{"checksum of another algorithm", "ADD --checksum=md5:7e55db001d319a94b0b713529a756623 https://e.com/a /x", "the checksum of a URL is sha256:"},
		{"commit that is none", "ADD --checksum=main https://e.com/a.git /x", "the checksum of a repository is a commit"},
		{"checksum of COPY", "COPY --checksum=" + sum + " a /x", "unknown flag: --checksum"},
		{"parents of ADD", "ADD --parents a /x", "unknown flag: --parents"},
		{"bad exclude", "COPY --exclude=a[ b c", "--exclude=a[: syntax error in pattern"},
		{"bad octal", "COPY --chmod=64a b c", "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777"},
		{"large octal", "ADD --chmod=10000 b c", "invalid chmod parameter: '10000'. it should be octal string and between 0 and 07777"},
		{"bad symbols", "ADD --chmod=u=k b c", "invalid chmod parameter"},
		{"names with link", "ADD --link --chown=app b c", "use numeric uid[:gid] instead"},
		{"a group's name with link", "COPY --link --chown=1:app b c", "use numeric uid[:gid] instead"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("Dockerfile", []byte("FROM a\n"+tt.line+"\n"), Options{})
			if err == nil {
				_, _, err = evaluate(f, f.Stages[0], ScopeOptions{})
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if pe := asParseError(t, err); pe.Line != 2 {
				t.Errorf("got line %d, want 2", pe.Line)
			}
		})
	}
}

// Documents in COPY take the flags as files do.
func TestTransferHeredoc(t *testing.T) {
	f := mustParse(t, Options{}, "FROM a", "ENV X=y", "COPY --link --chmod=0755 --chown=1:2 <<run.sh <<\"raw\" /bin/", "$X", "run.sh", "$X", "raw")
	s, list, err := evaluate(f, f.Stages[0], ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := list[1].(*Copy)
	var data []string
	for _, h := range c.Heredocs {
		data = append(data, h.Name+"="+h.Data)
	}
	if want := []string{"run.sh=y\n", "raw=$X\n"}; !slices.Equal(data, want) || !c.Link || c.Chmod != "0755" || c.Chown != "1:2" {
		t.Errorf("got %q %+v, want %q", data, c.Transfer, want)
	}
	if got, want := s.CreatedBy(c), "COPY --chown=1:2 --chmod=0755 <<run.sh <<raw /bin/ # buildkit"; got != want {
		t.Errorf("history: got %q, want %q", got, want)
	}
}

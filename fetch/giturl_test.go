package fetch

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseGit(t *testing.T) {
	yes, no := true, false
	sha := strings.Repeat("a", 40)
	for text, want := range map[string]GitURL{
		"https://h/x.git":                                      {Remote: "https://h/x.git", Scheme: "https", Host: "h"},
		"http://h:81/x.git#main":                               {Remote: "http://h:81/x.git", Scheme: "http", Host: "h:81", Ref: "main"},
		"https://h/x.git#main:a/b":                             {Remote: "https://h/x.git", Scheme: "https", Host: "h", Ref: "main", Subdir: "a/b"},
		"https://h/x.git#:../../a/./b/":                        {Remote: "https://h/x.git", Scheme: "https", Host: "h", Subdir: "a/b"},
		"https://h/x.git?ref=v1&subdir=a":                      {Remote: "https://h/x.git", Scheme: "https", Host: "h", Ref: "v1", Subdir: "a"},
		"https://h/x.git?branch=b":                             {Remote: "https://h/x.git", Scheme: "https", Host: "h", Ref: "refs/heads/b"},
		"https://h/x.git?tag=t&checksum=AB12&keep-git-dir":     {Remote: "https://h/x.git", Scheme: "https", Host: "h", Ref: "refs/tags/t", Commit: "ab12", KeepGitDir: &yes},
		"https://h/x.git?submodules=false&mtime=checkout":      {Remote: "https://h/x.git", Scheme: "https", Host: "h", Submodules: &no, CheckoutTime: true},
		"https://h/x.git?commit=" + sha + "&fetch-by-commit=1": {Remote: "https://h/x.git", Scheme: "https", Host: "h", Commit: sha, Pinned: true},
		"https://u:p@h/x.git":                                  {Remote: "https://h/x.git", Scheme: "https", Host: "h"},
		"git://h/x":                                            {Remote: "git://h/x", Scheme: "git", Host: "h"},
		"git://h/x#refs/heads/main#abcd":                       {Remote: "git://h/x", Scheme: "git", Host: "h", Ref: "refs/heads/main", Commit: "abcd", Pinned: true},
		"ssh://me:pw@h:22/x":                                   {Remote: "ssh://me@h:22/x", Scheme: "ssh", Host: "h:22"},
		"git@h:a/x.git#v1:d":                                   {Remote: "git@h:a/x.git", Scheme: "ssh", Host: "h", Ref: "v1", Subdir: "d"},
		"git@h:x?ref=v1":                                       {Remote: "git@h:x", Scheme: "ssh", Host: "h", Ref: "v1"},
		"github.com/a/b#c":                                     {Remote: "https://github.com/a/b", Scheme: "https", Host: "github.com", Ref: "c"},
	} {
		t.Run(text, func(t *testing.T) {
			got, err := ParseGit(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, *got, cmpopts.IgnoreUnexported(GitURL{})); diff != "" {
				t.Errorf("address (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseGitRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"https://h/x.tar.gz":             "not a git address",
		"https://h/x":                    "not a git address",
		"./git@h:x":                      "not a git address",
		"dir/x.git":                      "not a git address",
		"/abs/x.git":                     "not a git address",
		"file:///x.git":                  "not a git address",
		"ext::sh -c id":                  "not a git address",
		"https://h/x.git#-upload-pack=x": "invalid ref",
		"https://h/x.git#a b":            "invalid ref",
		"https://h/x.git#a..b":           "invalid ref",
		"https://h/x.git#" + strings.Repeat("a", 2000): "invalid ref",
		"https://h/x.git?ref=a&ref=b":                  "several values",
		"https://h/x.git?ref=a&nope=b":                 `unexpected query "nope"`,
		"https://h/x.git?ref=a#b":                      "ref conflicts",
		"https://h/x.git?tag=":                         "without a value",
		"https://h/x.git?subdir=a#:b":                  "subdir conflicts",
		"https://h/x.git?checksum=xyz":                 "no hexadecimal number",
		"https://h/x.git?keep-git-dir=maybe":           "invalid keep-git-dir",
		"https://h/x.git?mtime=never":                  "invalid mtime",
		"https://h/x.git?fetch-by-commit":              "needs a commit",
		"git://h/x#main#nothex":                        "no hexadecimal number",
		"ssh://-oProxyCommand=id/x":                    "no host",
		"git@-oProxyCommand:x":                         "no host or path",
		"https:///x.git":                               "no host",
		"https://user:hunter2@/x.git":                  "no host",
	} {
		t.Run(text, func(t *testing.T) {
			_, err := ParseGit(text)
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("got %v, want %q and no password", err, want)
			}
			if (want == "not a git address") != errors.Is(err, ErrNotGit) {
				t.Errorf("got %v; is it ErrNotGit?", err)
			}
		})
	}
}

func TestParseKanikoGit(t *testing.T) {
	got, err := ParseKanikoGit("git://tok@h/a/x.git#refs/heads/main#abcdef0", "")
	if err != nil {
		t.Fatal(err)
	}
	want := GitURL{Remote: "https://h/a/x.git", Scheme: "https", Host: "h", Ref: "refs/heads/main", Commit: "abcdef0", Pinned: true}
	if diff := cmp.Diff(want, *got, cmpopts.IgnoreUnexported(GitURL{})); diff != "" {
		t.Errorf("address (-want +got):\n%s", diff)
	}
	if got, err = ParseKanikoGit("git://h/x", "http"); err != nil || got.Remote != "http://h/x" {
		t.Errorf("method http: got %v, %v", got, err)
	}
	if _, err := ParseKanikoGit("git://h/x", "ext"); err == nil {
		t.Error("method ext: no error")
	}
}

func FuzzParseGit(f *testing.F) {
	for _, s := range []string{"https://h/x.git#a:b", "git@h:x", "git://h/x#a#b", "https://h/x.git?ref=a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGit(s)
		if err != nil {
			return
		}
		if !gitSchemes[g.Scheme] || strings.HasPrefix(g.Ref, "-") || strings.HasPrefix(g.Remote, "-") || strings.HasPrefix(g.Subdir, "..") {
			t.Errorf("%q became %+v", s, g)
		}
	})
}

//go:build integration

package integration

import (
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// bashCompletion stands in for the package bash-completion, of which cobra's
// script needs one function: the words of the line, not split at = and :.
const bashCompletion = `
_get_comp_words_by_ref() {
	words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD
	cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}
}
source <(fbuild completion bash) || exit
COMP_TYPE=9
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
complete -p fbuild >/dev/null || exit
compopt() { :; }
__start_fbuild
printf '%s\n' "${COMPREPLY[@]}"
`

// TestCompletion: a real bash completes commands, flags and their values.
func TestCompletion(t *testing.T) {
	need(t, haveProgram("bash"), "bash")
	h := newHome(t, coveringLegs(t.Name())[0])
	h.dockerfile("FROM busybox AS compile", "FROM scratch AS test", "FROM scratch")
	h.write(map[string]string{"other/Dockerfile": "FROM scratch AS elsewhere\n"})
	// What stands before a = is a word of its own to bash, and not offered again.
	tests := []struct {
		name string
		line []string
		want []string // what is offered, at least
		not  string   // and what is not
	}{
		{"a command", []string{"fbuild", "bu"}, []string{"build"}, "buildx"},
		{"a flag", []string{"fbuild", "build", "--is"}, []string{"--isolation"}, "--squash"},
		{"progress", []string{"fbuild", "build", "--progress", ""}, []string{"auto", "plain", "tty", "quiet", "none"}, ""},
		{"progress begun", []string{"fbuild", "build", "--progress", "pl"}, []string{"plain"}, "tty"},
		{"recorder", []string{"fbuild", "build", "--recorder", ""}, []string{"auto", "fuse", "overlay", "walk"}, ""},
		{"isolation", []string{"fbuild", "build", "--isolation", ""}, []string{"auto", "namespaces", "chroot"}, "hyperv"},
		{"network", []string{"fbuild", "build", "--network", "n"}, []string{"none"}, "host"},
		{"output", []string{"fbuild", "build", "-o", "type=o"}, []string{"oci"}, "docker"},
		{"output, second key", []string{"fbuild", "build", "-o", "type=oci,d"}, []string{"oci,dest="}, ""},
		{"target", []string{"fbuild", "build", "--target", ""}, []string{"compile", "test"}, "elsewhere"},
		{"target of another context", []string{"fbuild", "build", "other", "--target", ""}, []string{"elsewhere"}, "compile"},
		{"target of another file", []string{"fbuild", "build", "-f", "other/Dockerfile", "--target", ""}, []string{"elsewhere"}, "compile"},
		{"exit code", []string{"fbuild", "build", "--exit-code", ""}, []string{"build", "run"}, ""},
		{"secret", []string{"fbuild", "build", "--secret", "id=x,"}, []string{"x,src=", "x,env="}, ""},
		{"by another name", []string{"fbuild", "buildx", "build", "--progress", "t"}, []string{"tty"}, "plain"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := program("bash", append([]string{"--norc", "-c", bashCompletion, "bash"}, tt.line...)...)
			cmd.Dir, cmd.Env = h.ctx, append(slices.Clip(h.env), "LC_ALL=C")
			var got []string
			for line := range strings.SplitSeq(output(t, cmd), "\n") {
				word, _, _ := strings.Cut(line, " ") // several have a description
				got = append(got, strings.ReplaceAll(word, `\`, ""))
			}
			have := map[string]bool{}
			for _, g := range got {
				have[g] = true
			}
			for _, want := range tt.want {
				if !have[want] {
					t.Errorf("got %q, want %q among them", got, want)
				}
			}
			if have[tt.not] && tt.not != "" {
				t.Errorf("got %q, want no %q", got, tt.not)
			}
		})
	}
	// The other shells' scripts are cobra's too: they come, and they are theirs.
	for shell, want := range map[string]string{"zsh": "#compdef fbuild", "fish": "complete -c fbuild", "powershell": "Register-ArgumentCompleter"} {
		if r := h.ok("completion", shell); !strings.Contains(r.stdout, want) {
			t.Errorf("%s: lacks %q", shell, want)
		}
		if path, err := osexec.LookPath(shell); err == nil && shell != "powershell" {
			h.write(map[string]string{"script." + shell: h.ok("completion", shell).stdout})
			output(t, program(path, "-n", filepath.Join(h.ctx, "script."+shell)))
		}
	}
}

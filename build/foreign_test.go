package build

import (
	"strings"
	"testing"

	"github.com/fbuild/fbuild/exec"
)

// A handler of our own hides the host's: what a command relies on, and may start at any
// moment, is never hidden, whatever stage comes first.
func TestEmulationHidesNothingThatIsNeeded(t *testing.T) {
	inPath := func(list ...string) func(string) string {
		return func(arch string) string {
			if strings.Contains(" "+strings.Join(list, " ")+" ", " "+arch+" ") {
				return "/bin/qemu-" + arch
			}
			return ""
		}
	}
	type stage struct {
		arch string
		how  exec.Foreign
		want string // what is registered; "" for nothing
		err  string
	}
	for _, tt := range []struct {
		name   string
		find   func(string) string
		stages []stage
	}{
		{"the host's", inPath("arm64"), []stage{{"arm64", exec.Emulated, "", ""}, {"arm64", exec.Emulated, "", ""}}},
		{"ours, once", inPath("arm64"), []stage{{"arm64", exec.Unhandled, "/bin/qemu-arm64", ""}, {"arm64", exec.Unhandled, "", ""}}},
		{"none", inPath(), []stage{{"arm64", exec.Unhandled, "", "no emulator"}}},
		{"nobody knows", inPath(), []stage{{"arm64", exec.Unknown, "", ""}, {"riscv64", exec.Unknown, "", ""}}},
		{"ours behind the host's", inPath("arm64", "riscv64"), []stage{{"arm64", exec.Emulated, "", ""}, {"riscv64", exec.Unhandled, "", "would hide the handler of this host that commands of linux/arm64 need"}}},
		{"ours behind what nobody knows", inPath("riscv64"), []stage{{"arm64", exec.Unknown, "", ""}, {"riscv64", exec.Unknown, "", "would hide"}}},
		{"the host's behind ours", inPath("riscv64"), []stage{{"riscv64", exec.Unhandled, "/bin/qemu-riscv64", ""}, {"arm64", exec.Emulated, "", "hides the handlers of this host"}}},
		{"two of ours", inPath("arm64", "riscv64"), []stage{{"riscv64", exec.Unhandled, "/bin/qemu-riscv64", ""}, {"arm64", exec.Emulated, "/bin/qemu-arm64", ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &emulation{}
			for i, s := range tt.stages {
				got, err := e.choose(s.arch, s.how, tt.find)
				if got != s.want || (err == nil) != (s.err == "") || err != nil && !strings.Contains(err.Error(), s.err) {
					t.Fatalf("stage %d: got %q, %v, want %q, %q", i+1, got, err, s.want, s.err)
				}
				if got != "" {
					if e.own == nil {
						e.own = map[string]bool{}
					}
					e.own[s.arch] = true
				}
			}
		})
	}
}

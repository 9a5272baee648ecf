package reexec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main(map[string]func() int{"whoami": whoami})
	os.Exit(m.Run())
}

func whoami() int {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	caps := ""
	for line := range strings.Lines(string(data)) {
		if after, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps = strings.TrimLeft(strings.TrimSpace(after), "0")
		}
	}
	fmt.Printf("args %q env %d uid %d gid %d caps %v", os.Args, len(os.Environ()), os.Getuid(), os.Getgid(), caps != "")
	return 3
}

func TestCommand(t *testing.T) {
	t.Setenv("FBUILD_TEST", "leak")
	cmd := Command(context.Background(), "whoami", "a", "b")
	out, err := cmd.Output()
	var exit *osexec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("status: got %v, want 3", err)
	}
	if got, want := string(out), fmt.Sprintf(`args ["fbuild:whoami" "a" "b"] env 0 uid %d gid %d`, os.Getuid(), os.Getgid()); !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnknownChild(t *testing.T) {
	out, err := Command(context.Background(), "nonesuch").CombinedOutput()
	var exit *osexec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitUnknown || !strings.Contains(string(out), "nonesuch") {
		t.Errorf("got %v, %q, want status %d and the name", err, out, exitUnknown)
	}
}

func TestStartMapped(t *testing.T) {
	for _, single := range []bool{false, true} {
		t.Run(fmt.Sprintf("single %v", single), func(t *testing.T) {
			var out strings.Builder
			cmd := Command(context.Background(), "whoami", "x")
			cmd.Stdout = &out
			m, err := StartMapped(context.Background(), cmd, unix.CLONE_NEWNS, single)
			if errors.Is(err, ErrForbidden) && os.Getenv("CI") != "true" {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			var exit *osexec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
				t.Errorf("status: got %v, want 3", err)
			}
			if got, want := out.String(), `args ["fbuild:whoami" "x"] env 0 uid 0 gid 0 caps true`; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if single != (m.Class == ClassSingle) && (m.Class != ClassSingle || m.Why == "") {
				t.Errorf("class: got %q without a reason", m.Class)
			}
		})
	}
}

func TestParseSubRanges(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		want       []Range
		fails      bool
	}{
		{"by name", "other:1:5\nbuilder:100000:65536\n", []Range{{1, 100000, 65536}}, false},
		{"by number", "1001:200000:10\n", []Range{{1, 200000, 10}}, false},
		{"several, one after the other", "builder:100000:10\n1001:300000:5\n", []Range{{1, 100000, 10}, {11, 300000, 5}}, false},
		{"nobody", "other:1:5\n# builder\n\n", nil, false},
		{"empty range", "builder:100000:0\n", nil, false},
		{"never the id that is none", "builder:0:4294967295\n", []Range{{1, 0, 4294967294}}, false},
		{"garbage", "builder:x:5\n", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseSubRanges(bufio.NewScanner(strings.NewReader(tt.file)), "/etc/subuid", []string{"1001", "builder"})
			if (err != nil) != tt.fails {
				t.Fatalf("error: got %v, want one: %v", err, tt.fails)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ranges (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDiagnose(t *testing.T) {
	for _, tt := range []struct {
		name    string
		err     error
		euid    int
		sysctls map[string]string
		seccomp string
		want    string
	}{
		{"switched off", unix.ENOSPC, 1000, map[string]string{"user/max_user_namespaces": "0"}, "0", "sysctl -w user.max_user_namespaces"},
		{"old debian", unix.EPERM, 1000, map[string]string{"kernel/unprivileged_userns_clone": "0"}, "0", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"root does not care", unix.EPERM, 0, map[string]string{"kernel/unprivileged_userns_clone": "0"}, "0", "chroot"},
		{"ubuntu", errors.New("make mounts private: permission denied"), 1000, map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1"}, "0", "AppArmor profile"},
		{"container", unix.EPERM, 0, nil, "2", "seccomp=unconfined"},
		{"masked proc", errors.New("mount proc on /proc: operation not permitted"), 1000, nil, "2", "systempaths=unconfined"},
		{"tools", errors.New("run newuidmap: exit status 1: not allowed"), 1000, nil, "0", "/etc/subuid"},
		{"too deep", unix.EUSERS, 1000, nil, "0", "nested too deeply"},
		{"kernel", unix.EINVAL, 1000, nil, "0", "CONFIG_USER_NS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := diagnose(tt.err, host{euid: tt.euid, seccomp: tt.seccomp, sysctl: func(n string) string { return tt.sysctls[n] }})
			if !errors.Is(got, ErrForbidden) || !errors.Is(got, tt.err) {
				t.Errorf("got %v, want it to wrap ErrForbidden and the cause", got)
			}
			if !strings.Contains(got.Error(), tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}

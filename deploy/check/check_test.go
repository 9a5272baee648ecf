// Package check holds the files of deploy/ to what their readers publish: the Kubernetes API's own types, GitHub's workflow syntax, GitLab's schema of
// .gitlab-ci.yml. It is a module of its own, so that none of this is a dependency of fbuild.
package check

import (
	"bytes"
	"context"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rhysd/actionlint"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// gitlabCILocal brings the schema of GitLab's pipeline editor with it.
const gitlabCILocal = "gitlab-ci-local@4.55.0"

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Every field of the manifests exists in the API, and is what it is there.
func TestKubernetes(t *testing.T) {
	var pod corev1.Pod
	var job batchv1.Job
	for name, to := range map[string]any{"pod.yaml": &pod, "job.yaml": &job} {
		data := read(t, name)
		if err := yaml.UnmarshalStrict(data, to); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wrong := bytes.Replace(data, []byte("readOnlyRootFilesystem"), []byte("readonlyRootFS"), 1)
		if err := yaml.UnmarshalStrict(wrong, new(corev1.Pod)); err == nil {
			t.Errorf("%s: a field that does not exist is not noticed", name)
		}
	}
	if pod.APIVersion != "v1" || pod.Kind != "Pod" || job.APIVersion != "batch/v1" || job.Kind != "Job" {
		t.Errorf("kinds: got %s %s, %s %s", pod.APIVersion, pod.Kind, job.APIVersion, job.Kind)
	}
	for _, spec := range []corev1.PodSpec{pod.Spec, job.Spec.Template.Spec} {
		unprivileged(t, spec)
	}
}

// unprivileged holds a pod to what deploy/ promises: nothing of the node, and no more than a container's default capabilities.
func unprivileged(t *testing.T, spec corev1.PodSpec) {
	t.Helper()
	const usual = " AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT "
	if spec.HostNetwork || spec.HostPID || spec.HostIPC {
		t.Error("the pod uses a namespace of the node")
	}
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
		if v.HostPath != nil {
			t.Errorf("volume %s is a directory of the node", v.Name)
		}
	}
	for _, c := range spec.Containers {
		sc := c.SecurityContext
		if sc == nil || sc.Privileged == nil || *sc.Privileged || sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem {
			t.Errorf("container %s: is privileged, or may write to its image", c.Name)
			continue
		}
		if sc.SeccompProfile == nil || sc.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("container %s: has not the runtime's seccomp profile", c.Name)
		}
		for _, have := range sc.Capabilities.Add {
			if !strings.Contains(usual, " "+string(have)+" ") {
				t.Errorf("container %s: capability %s is not among a container's usual ones", c.Name, have)
			}
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("container %s: volume %s does not exist", c.Name, m.Name)
			}
		}
	}
}

func TestGitHub(t *testing.T) {
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{Shellcheck: "", Pyflakes: ""})
	if err != nil {
		t.Fatal(err)
	}
	data := read(t, "github-workflow.yml")
	problems, err := linter.Lint("github-workflow.yml", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
	if problems, err = linter.Lint("wrong.yml", bytes.Replace(data, []byte("runs-on"), []byte("runson"), 1), nil); err != nil || len(problems) == 0 {
		t.Errorf("a workflow with a wrong key: got %v, %v, want a problem", problems, err)
	}
}

func TestGitLab(t *testing.T) {
	if _, err := osexec.LookPath("npm"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("skip refused, CI=true: needs npm")
		}
		t.Skip("needs npm")
	}
	data := read(t, "gitlab-ci.yml")
	if out, err := gitlab(t, data); err != nil {
		t.Errorf("gitlab-ci.yml: %v\n%s", err, out)
	}
	if out, err := gitlab(t, bytes.Replace(data, []byte("  script:"), []byte("  skript:"), 1)); err == nil {
		t.Errorf("a job without a script: got no error\n%s", out)
	}
}

// gitlab validates a .gitlab-ci.yml.
func gitlab(t *testing.T, data []byte) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".gitlab-ci.yml"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := osexec.Command("git", "init", "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := osexec.CommandContext(ctx, "npm", "exec", "--yes", "--package="+gitlabCILocal, "--", "gitlab-ci-local", "--list")
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	return cmd.CombinedOutput()
}

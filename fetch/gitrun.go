package fetch

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errNoGit says that the program is missing.
var errNoGit = errors.New("git is not installed")

const (
	maxSaid   = 64 << 10 // of what git says
	maxOutput = 64 << 20 // of a list of refs
	// killWait is how long the pipes of a killed git may stay open.
	killWait = 5 * time.Second
)

func findGit() (string, error) {
	name, err := osexec.LookPath("git")
	if err != nil {
		return "", errNoGit
	}
	return filepath.Abs(name)
}

// gitConfig is all the configuration that git sees: nothing of the host's or of the
// caller's counts, so no filter, credential helper or alias exists.
const gitConfig = `[core]
	hooksPath = /dev/null
	fsmonitor = false
	logAllRefUpdates = false
	autocrlf = false
	attributesFile = /dev/null
	excludesFile = /dev/null
[init]
	defaultBranch = main
[advice]
	detachedHead = false
[gc]
	auto = 0
[maintenance]
	auto = false
[fetch]
	recurseSubmodules = false
[submodule]
	recurse = false
[credential]
	helper =
[http]
	userAgent = git/fbuild
	lowSpeedLimit = 1
	lowSpeedTime = 60
`

// passed are the variables that git and ssh get as they are.
var passed = []string{
	"PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
}

// prepare makes the home of this repository's git, with its configuration, and the
// environment.
func (r *Repo) prepare() error {
	home := filepath.Join(r.dir, "home")
	empty := filepath.Join(home, "templates")
	if err := os.MkdirAll(empty, 0o700); err != nil {
		return fmt.Errorf("prepare git: %w", err)
	}
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(gitConfig), 0o600); err != nil {
		return fmt.Errorf("prepare git: %w", err)
	}
	r.env = []string{
		"HOME=" + home, "XDG_CONFIG_HOME=" + home, "TMPDIR=" + home,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1", "GIT_TEMPLATE_DIR=" + empty,
		"GIT_ALLOW_PROTOCOL=http:https:ssh:git", "GIT_PROTOCOL_FROM_USER=0",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=", "SSH_ASKPASS_REQUIRE=never",
		"GIT_ADVICE=0", "GIT_OPTIONAL_LOCKS=0", "GIT_LFS_SKIP_SMUDGE=1", "LC_ALL=C",
		// Without an own ceiling git would look for a repository above ours.
		"GIT_CEILING_DIRECTORIES=" + r.dir,
	}
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			r.env = append(r.env, name+"="+v)
		}
	}
	return nil
}

// git runs a command on the repository that talks to nobody and whose words nobody
// needs, unless it fails.
func (r *Repo) git(ctx context.Context, args ...string) ([]byte, error) {
	return r.run(ctx, nil, io.Discard, args)
}

// remote runs one that talks to servers.
func (r *Repo) remote(ctx context.Context, args ...string) ([]byte, error) {
	header, err := r.authorization()
	if err != nil {
		return nil, err
	}
	command, err := r.sshCommand()
	if err != nil {
		return nil, err
	}
	env := []string{"GIT_SSH_COMMAND=" + command, "GIT_SSH_VARIANT=ssh"}
	r.authorized = header != ""
	if header != "" {
		env = append(env, r.credential(header)...)
	}
	log := r.o.Log
	if log == nil {
		log = io.Discard
	}
	return r.run(ctx, env, log, args)
}

// helper tells git a name and a password, when a server asks for them.
const helper = `!f() { test "$1" != get || printf 'username=%s\npassword=%s\n' "$FBUILD_GIT_USERNAME" "$FBUILD_GIT_PASSWORD"; }; f`

// credential is the environment that has git authorize itself to the repository's
// host, and to no other that it is led to: arguments are for everybody to see, and a
// header of its own git sends wherever a redirect leads. One that is more than a name
// and a password goes no way but straight.
func (r *Repo) credential(header string) []string {
	host := r.url.Scheme + "://" + r.url.Host
	asked := &http.Request{Header: http.Header{"Authorization": {header}}}
	if name, password, ok := asked.BasicAuth(); ok && !strings.ContainsAny(name+password, "\n\x00") {
		return []string{
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=credential." + host + ".helper", "GIT_CONFIG_VALUE_0=" + helper,
			"FBUILD_GIT_USERNAME=" + name, "FBUILD_GIT_PASSWORD=" + password,
		}
	}
	return []string{
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=http." + host + "/.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: " + header,
		"GIT_CONFIG_KEY_1=http.followRedirects", "GIT_CONFIG_VALUE_1=false",
	}
}

// authorization returns what the repository's host is shown.
func (r *Repo) authorization() (string, error) {
	if r.url.Scheme != "http" && r.url.Scheme != "https" {
		return "", nil
	}
	if r.o.Authorization != nil {
		v, err := r.o.Authorization(r.url.Host)
		if err != nil || v != "" {
			return v, err
		}
	}
	name, password := r.o.Username, r.o.Password
	if u := r.url.user; u != nil {
		name = u.Username()
		password, _ = u.Password()
	}
	if name == "" && password == "" {
		return "", nil
	}
	return BasicAuth(name, password), nil
}

// BasicAuth returns the value of an Authorization header.
func BasicAuth(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

// gitError is a git that failed, with what it said.
type gitError struct {
	command string
	said    string
	err     error
}

func (e *gitError) Error() string {
	said := strings.TrimSpace(e.said)
	if said == "" {
		return fmt.Sprintf("git %s: %v", e.command, e.err)
	}
	return fmt.Sprintf("git %s: %s", e.command, said)
}

func (e *gitError) Unwrap() error { return e.err }

// run runs git in the tree. It dies with this process: the thread that starts it is
// kept until it ends, since the signal comes at the thread's end.
func (r *Repo) run(ctx context.Context, env []string, log io.Writer, args []string) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := osexec.CommandContext(ctx, r.program, args...)
	cmd.Dir, cmd.Env = r.dir, slices.Concat(env, r.env)
	if args[0] != "init" && args[0] != "ls-remote" {
		cmd.Dir = r.tree()
	}
	var out, said bytes.Buffer
	cmd.Stdout = &limited{w: &out, left: maxOutput}
	cmd.Stderr = io.MultiWriter(&limited{w: &said, left: maxSaid}, log)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL} // without a terminal nobody can ask
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = killWait
	err := cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, &gitError{args[0], said.String(), err}
	}
	return out.Bytes(), nil
}

// limited drops what is more than left bytes.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	keep := p[:min(len(p), l.left)]
	l.left -= len(keep)
	if _, err := l.w.Write(keep); err != nil {
		return 0, err
	}
	return len(p), nil
}

// sshCommand is the ssh that git starts: it asks nothing, reads no configuration,
// and trusts the hosts that the caller knows.
func (r *Repo) sshCommand() (string, error) {
	words := []string{
		"ssh", "-F", "/dev/null", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ForwardAgent=no",
		"-o", "PermitLocalCommand=no", "-o", "ConnectTimeout=" + strconv.Itoa(int(defaultIdle/time.Second)),
		"-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
	}
	known := r.o.KnownHosts
	if len(known) == 0 {
		if home, err := os.UserHomeDir(); err == nil {
			known = []string{filepath.Join(home, ".ssh", "known_hosts")}
		}
	}
	if len(known) > 0 {
		quoted := make([]string, len(known))
		for i, k := range known {
			quoted[i] = `"` + k + `"`
		}
		words = append(words, "-o", "UserKnownHostsFile="+strings.Join(quoted, " "))
	}
	agent, keys := "none", []string{}
	for _, p := range r.o.SSH {
		st, err := os.Stat(p)
		if err != nil {
			return "", fmt.Errorf("ssh key or agent: %w", err)
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			return "", fmt.Errorf("ssh key or agent: %w", err)
		}
		if st.Mode().Type() == os.ModeSocket {
			agent = abs
		} else {
			keys = append(keys, abs)
		}
	}
	words = append(words, "-o", "IdentityAgent="+agent)
	for _, k := range keys {
		words = append(words, "-i", k)
	}
	if len(keys) == 0 { // no ~/.ssh/id_*: only what the caller gave
		words = append(words, "-o", "IdentityFile=none")
	}
	for i, w := range words {
		words[i] = shellQuote(w)
	}
	return strings.Join(words, " "), nil
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

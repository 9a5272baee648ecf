package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/build"
)

// maxSecret is docker's limit for one secret, in bytes.
const maxSecret = 500 << 10

// parseSecrets reads --secret id=ID[,src=FILE][,env=VAR][,type=file|env] as
// docker does: without a source the secret is the variable called ID where there
// is one, else the file called ID. Files must be there and readable now, so that
// a long build does not end with one that is missing.
func (a *app) parseSecrets(list []string) (map[string]build.Secret, error) {
	m := map[string]build.Secret{}
	for _, text := range list {
		id, s, err := parseSecret(text)
		if err != nil {
			return nil, err
		}
		if s.Env != "" {
			if _, ok := os.LookupEnv(s.Env); !ok {
				fmt.Fprintf(a.stderr, "fbuild: warning: --secret id=%s: the variable %s is not set, so the secret is empty\n", printable(id), printable(s.Env))
			}
		} else if err := checkSecretFile(id, s.File); err != nil {
			return nil, err
		}
		m[id] = s
	}
	return m, nil
}

func parseSecret(text string) (id string, s build.Secret, err error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return "", s, secretUsage("--secret %q: %w", text, err)
	}
	kind := ""
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return "", s, secretUsage("--secret %q: want key=value in %q", text, f)
		}
		switch strings.ToLower(k) {
		case "id":
			id = v
		case "src", "source":
			s.File = v
		case "env":
			s.Env = v
		case "type":
			if kind = v; !slices.Contains([]string{"file", "env"}, kind) {
				return "", s, secretUsage("--secret %q: unknown type %q: there are file and env", text, kind)
			}
		default:
			return "", s, secretUsage("--secret %q: unknown key %q: there are id, src, env and type", text, k)
		}
	}
	if id == "" {
		return "", s, secretUsage("--secret %q: it has no id", text)
	}
	if kind == "env" && s.Env == "" {
		s.Env, s.File = s.File, ""
	}
	if kind == "file" && s.Env != "" || s.Env != "" && s.File != "" {
		return "", s, secretUsage("--secret %q: a secret is a file or a variable, not both", text)
	}
	if s.Env == "" && s.File == "" {
		if _, ok := os.LookupEnv(id); ok && kind != "file" || kind == "env" {
			s.Env = id
		} else {
			s.File = id
		}
	}
	return id, s, nil
}

func secretUsage(format string, args ...any) error {
	return &hintError{usagef(format, args...), "for example --secret id=npmrc,src=.npmrc or --secret id=token,env=TOKEN"}
}

func checkSecretFile(id, name string) error {
	st, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &hintError{
			usagef("--secret id=%s: no file %s", id, name),
			fmt.Sprintf("name the file with --secret id=%s,src=FILE, or a variable with --secret id=%s,env=NAME", id, id),
		}
	case err != nil:
		return usagef("--secret id=%s: %w", id, err)
	case st.IsDir():
		return &hintError{usagef("--secret id=%s: %s is a directory", id, name), "a secret is one file"}
	case st.Mode().IsRegular() && st.Size() > maxSecret:
		return &hintError{
			usagef("--secret id=%s: %s has %d bytes, and a secret at most %d", id, name, st.Size(), maxSecret),
			"put what is large into a directory and mount it: --build-context NAME=DIR with RUN --mount=type=bind,from=NAME",
		}
	case !st.Mode().IsRegular():
		return nil // a pipe is read once, by the step that needs it
	}
	f, err := os.Open(name)
	if err != nil {
		return &hintError{usagef("--secret id=%s: %w", id, err), "the caller may not read the file; look at its owner and mode"}
	}
	return f.Close()
}

// parseSSH reads --ssh ID[=SOCKET|KEY[,KEY...]]; "default" is the usual id, and
// without paths it is the agent of $SSH_AUTH_SOCK.
func parseSSH(list []string) (map[string]build.SSH, error) {
	m := map[string]build.SSH{}
	for _, text := range list {
		id, paths, _ := strings.Cut(text, "=")
		if id == "" {
			return nil, &hintError{usagef("--ssh %q: it has no id", text), "--ssh default forwards the agent of $SSH_AUTH_SOCK; --ssh default=FILE a key"}
		}
		if _, ok := m[id]; ok {
			return nil, &hintError{usagef("--ssh %s is given twice", id), "one id has one agent, or several keys with commas between them"}
		}
		s := build.SSH{}
		if paths != "" {
			s.Paths = strings.Split(paths, ",")
		}
		if err := checkSSH(id, s.Paths); err != nil {
			return nil, err
		}
		m[id] = s
	}
	return m, nil
}

// checkSSH finds out now whether there is one agent, or keys that can be read.
func checkSSH(id string, paths []string) error {
	if len(paths) == 0 {
		sock := os.Getenv("SSH_AUTH_SOCK")
		if sock == "" {
			return &hintError{
				usagef("--ssh %s: there is no agent: SSH_AUTH_SOCK is not set", id),
				fmt.Sprintf("start one (eval $(ssh-agent); ssh-add), or give a key: --ssh %s=FILE", id),
			}
		}
		paths = []string{sock}
	}
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			return &hintError{usagef("--ssh %s: %w", id, err), fmt.Sprintf("give the socket of an agent or the file of a private key: --ssh %s=PATH", id)}
		}
		switch {
		case st.Mode()&fs.ModeSocket != 0:
			if len(paths) > 1 {
				return &hintError{usagef("--ssh %s: %s is an agent's socket and not the only path", id, p), "give one agent, or keys only; a second agent needs an id of its own"}
			}
		case !st.Mode().IsRegular():
			return &hintError{usagef("--ssh %s: %s is neither a socket nor a file", id, p), "give the socket of an agent or the file of a private key"}
		default:
			f, err := os.Open(p)
			if err != nil {
				return usagef("--ssh %s: %w", id, err)
			}
			_ = f.Close() // only opened
		}
	}
	return nil
}

// isolations are the values of --isolation and what build.Options calls them;
// "default" is docker's word for what is usual.
var isolations = map[string]string{"": "", "auto": "", "default": "", "namespaces": "namespaces", "chroot": "chroot"}

func parseIsolation(text string) (string, error) {
	v, ok := isolations[text]
	if ok {
		return v, nil
	}
	hint := "there are auto (the first that this host can do), namespaces and chroot"
	if text == "process" || text == "hyperv" {
		hint = "process and hyperv are Windows words; " + hint
	}
	return "", &hintError{usagef("--isolation %q is not supported", text), hint}
}

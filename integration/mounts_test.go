//go:build integration

package integration

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4" //nolint:depguard // the search for secrets looks into what cache keeps
	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"
)

// What a secret is must be nowhere: not in a layer, plain or compressed, not in an
// index, record, log, history or output. The search itself is proved by a file that
// is in the image.
func TestMountSecretsLeaveNoTrace(t *testing.T) {
	const file, variable, line, planted = "file-s3cr3t-0001", "vari-s3cr3t-0002", "line-s3cr3t-0003", "planted-000-0004"
	eachLeg(t, func(t *testing.T, h *home) {
		h.write(map[string]string{"planted": planted, "npmrc": "registry=x\n//r/:_authToken=" + line + "\n", "secret": file})
		h.env = append(h.env, "TOKEN="+variable)
		h.dockerfile("FROM busybox AS build", "COPY planted /planted",
			"RUN --mount=type=secret,id=f --mount=type=secret,id=v,env=TOKEN --mount=type=secret,id=n,target=/root/.npmrc"+
				" cat /run/secrets/f /root/.npmrc && echo $TOKEN && echo $TOKEN >&2 && wc -c /run/secrets/f > /size",
			"RUN --mount=type=secret,id=f,required=true --mount=type=cache,target=/c,id=c --mount=type=tmpfs,target=/t cp /run/secrets/f /t && ls /t > /c/list",
			"FROM busybox", "COPY --from=build /size /planted /",
			"RUN --mount=from=build,target=/b --mount=type=secret,id=v,env=TOKEN cat /b/size && test -n \"$TOKEN\" && touch /done")
		args := []string{"build", "--secret", "id=f,src=secret", "--secret", "id=v,env=TOKEN", "--secret", "id=n,src=npmrc", "-t", "s"}
		var printed strings.Builder
		for _, more := range [][]string{nil, {"--no-cache", "--progress=plain"}, {"--metadata-file=meta.json", "--iidfile=iid", "-o", "type=oci,dest=out.tar"}} {
			r := h.ok(append(append(append([]string{}, args...), more...), ".")...)
			printed.WriteString(r.stdout + r.stderr)
		}
		// A command that fails shows its last lines once more.
		h.write(map[string]string{"fails": "FROM busybox\nRUN --mount=type=secret,id=f cat /run/secrets/f; echo; exit 3\n"})
		r := h.fails(1, "exit code: 3", "", "build", "-f", "fails", "--secret", "id=f,src=secret", ".")
		printed.WriteString(r.stdout + r.stderr)
		if !strings.Contains(printed.String(), "***") {
			t.Error("the output shows no mask: did the commands print their secrets?")
		}
		found := map[string][]string{}
		needles := []string{file, variable, line, planted}
		look := func(where string, data []byte) {
			for _, n := range needles {
				if bytes.Contains(data, []byte(n)) {
					found[n] = append(found[n], where)
				}
			}
		}
		look("output", []byte(printed.String()))
		for _, name := range []string{"meta.json", "iid", "out.tar"} {
			searchFile(t, filepath.Join(h.ctx, name), look)
		}
		searchTree(t, h.store, look)
		searchIndex(t, filepath.Join(h.store, "index"), look)
		look("history", []byte(h.describe("s", "history")+h.describe("s", "config")))
		for _, n := range needles[:3] {
			if len(found[n]) > 0 {
				t.Errorf("secret %s is in %q", n, found[n])
			}
		}
		if n := len(found[planted]); n < 3 {
			t.Errorf("what is no secret was found in %q: the search does not see enough", found[planted])
		}
	})
}

// searchTree looks into every file below dir.
func searchTree(t *testing.T, dir string, look func(string, []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			searchFile(t, p, look)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// searchFile looks into a file, and into every gzip and zstd stream in it, wherever
// it begins.
func searchFile(t *testing.T, name string, look func(string, []byte)) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Error(err)
		return
	}
	look(name, data)
	for _, c := range []struct {
		magic string
		open  func(io.Reader) (io.Reader, error)
	}{
		{"\x1f\x8b\x08", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{"\x28\xb5\x2f\xfd", func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) }},
	} {
		for at := 0; ; at++ {
			i := bytes.Index(data[at:], []byte(c.magic))
			if i < 0 {
				break
			}
			at += i
			r, err := c.open(bytes.NewReader(data[at:]))
			if err != nil {
				continue
			}
			plain, _ := io.ReadAll(r) // what follows the stream, or is none, ends it with an error
			look(name+" (compressed)", plain)
		}
	}
}

// searchIndex looks at what Badger holds, which compresses its tables.
func searchIndex(t *testing.T, dir string, look func(string, []byte)) {
	t.Helper()
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		t.Errorf("open index: %v", err)
		return
	}
	err = db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			look("key of the index", it.Item().KeyCopy(nil))
			v, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			look("value of the index", v)
		}
		return nil
	})
	if err != nil {
		t.Errorf("read index: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("close index: %v", err)
	}
}

// An agent, or keys from files, for whichever user the RUN has; the caller's agent
// cannot be changed; what is missing is said.
func TestMountSSH(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		h.probe()
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		locked, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("pw"))
		if err != nil {
			t.Fatal(err)
		}
		h.write(map[string]string{"deploy_key": string(pem.EncodeToMemory(block)), "locked_key": string(pem.EncodeToMemory(locked))})
		ring := agent.NewKeyring()
		if err := ring.Add(agent.AddedKey{PrivateKey: key, Comment: "of the agent"}); err != nil {
			t.Fatal(err)
		}
		sock := serveKeys(t, h, ring)

		h.dockerfile("FROM busybox", "COPY --chmod=755 probe /probe",
			"RUN --mount=type=ssh /probe agent && echo $SSH_AUTH_SOCK && stat -c '%a %u' $SSH_AUTH_SOCK",
			"USER app",
			"RUN --mount=type=ssh,uid=1000,mode=0600,required=true,target=/tmp/sock SSH_AUTH_SOCK=/tmp/sock /probe agent",
			"RUN --mount=type=ssh,mode=0666 /probe agent",
			"RUN test ! -e /run/buildkit && test ! -e /tmp/sock")
		for _, tt := range []struct{ ssh, want string }{
			{"default=" + sock, "key of the agent"},
			{"default=deploy_key", "key deploy_key"},
		} {
			r := h.ok("build", "--no-cache", "--ssh", tt.ssh, "-t", "x", ".")
			if n := strings.Count(r.stderr, tt.want); n != 3 || !strings.Contains(r.stderr, "/run/buildkit/ssh_agent.0") || !strings.Contains(r.stderr, "600 0") {
				t.Errorf("--ssh %s: %d steps saw %q, want 3\n%s", tt.ssh, n, tt.want, r.stderr)
			}
		}
		if keys, err := ring.List(); err != nil || len(keys) != 1 {
			t.Errorf("the agent afterwards: got %v, %v, want its key", keys, err)
		}
		h.write(map[string]string{"required": "FROM busybox\nRUN --mount=type=ssh,required true\n"})
		h.fails(1, `ssh agent "default" is required, and was not given`, "--ssh default", "build", "-f", "required", ".")
		h.fails(1, "it is protected by a passphrase", "ssh-add", "build", "--no-cache", "--ssh", "default=locked_key", ".")
		h.fails(1, "ssh: no key found", "private key", "build", "--no-cache", "--ssh", "default=probe", ".")
	})
}

// serveKeys is an agent on a socket that the leg's user may use.
func serveKeys(t *testing.T, h *home, ring agent.Agent) string {
	t.Helper()
	sock := filepath.Join(h.dir, "agent.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(sock, 0o666); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, c); _ = c.Close() }()
		}
	}()
	return sock
}

// Two stages that do not need each other run at the same time, and share a cache mount or
// wait for each other, as it says.
func TestMountCacheOfTwoStages(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		g := newGate(t)
		stage := func(name, other string) []string {
			return []string{
				"FROM busybox AS " + name,
				"RUN --mount=type=cache,target=/c,id=s touch /c/" + name + "; while [ ! -e /c/" + other + " ]; do sleep 0.01; done",
				"RUN --mount=type=cache,target=/c,id=lock,sharing=locked mkdir /c/in || exit 1; " + g.wait + "; rmdir /c/in; echo -n alone > /locked",
			}
		}
		h.dockerfile(slices.Concat(stage("one", "two"), stage("two", "one"), []string{"FROM busybox", "COPY --from=one /locked /a", "COPY --from=two /locked /b", "RUN cat /a /b > /locked"})...)
		p := h.start("build", "-t", "p", ".")
		p.until("word of the lock", func() bool {
			return strings.Contains(p.stderr(), "waiting for cache mount lock, in use by another build or step")
		})
		g.open()
		if r := p.wait(); r.code != 0 {
			t.Fatalf("got exit code %d, want 0\n%s", r.code, r.stderr)
		}
		if got := h.cat("p", "locked"); got != "alonealone" {
			t.Errorf("got %q, want what each did alone", got)
		}
	})
}

// LAWS 25: a cache mount survives a RUN that is killed with its build, and the next
// build does not wait for the dead one. Ctrl-C while waiting for a lock ends at once.
func TestMountCacheSurvivesAKill(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		h.dockerfile("FROM busybox", "RUN --mount=type=cache,target=/c,sharing=locked echo half >> /c/f; echo ready; sleep 1000")
		dead := h.start("build", ".")
		dead.waitReady()
		h.write(map[string]string{"other": "FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked true\n"})
		waiting := h.start("build", "-f", "other", ".")
		waiting.until("word of the lock", func() bool {
			return strings.Contains(waiting.stderr(), "waiting for cache mount /c, in use by another build")
		})
		if err := unix.Kill(waiting.pid(), unix.SIGINT); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if r := waiting.wait(); r.code != 130 || time.Since(begin) > soon {
			t.Errorf("interrupted while waiting: got exit code %d after %v, want 130 at once\n%s", r.code, time.Since(begin), r.stderr)
		}
		dead.kill()
		dead.wait()
		// What it left is swept once it is old.
		leases, err := filepath.Glob(filepath.Join(h.store, "tmp", "run-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range leases {
			if err := os.Chtimes(l, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
				t.Error(err)
			}
		}
		h.dockerfile("FROM busybox", "RUN --mount=type=cache,target=/c,sharing=locked cp /c/f /f")
		h.ok("build", "-t", "after", ".")
		if got := h.cat("after", "f"); got != "half\n" {
			t.Errorf("the cache after a kill: got %q, want what the RUN wrote", got)
		}
	})
}

//go:build integration

package integration

import (
	"context"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// webServer serves a script's files and repositories on the loopback interface.
type webServer struct {
	mu       sync.Mutex
	requests []string // "METHOD /path STATUS", as they came
}

// webPassword opens what stands below /private/.
const webPassword = "open-sesame"

// cmdServe is `serve DIR`: the files below DIR at $WEB/, repositories among them
// (bare ones, NAME.git) with `git http-backend`; below /private/ with a password.
// `serve -log` prints the requests since the last time.
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serve DIR, serve -log")
	}
	if args[0] == "-log" {
		w, ok := ts.Value(webKey{}).(*webServer)
		if !ok || w == nil {
			ts.Fatalf("nothing is served")
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		_, err := ts.Stdout().Write([]byte(strings.Join(append(w.requests, ""), "\n")))
		ts.Check(err)
		w.requests = nil
		return
	}
	w, _ := ts.Value(webKey{}).(*webServer)
	h, err := webHandler(ts.MkAbs(args[0]))
	ts.Check(err)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rec := &statusRecorder{ResponseWriter: rw, status: http.StatusOK}
		h.ServeHTTP(rec, r)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.requests = append(w.requests, r.Method+" "+r.URL.Path+" "+http.StatusText(rec.status))
	}))
	ts.Defer(srv.Close)
	ts.Setenv("WEB", srv.URL)
	ts.Setenv("WEBHOST", strings.TrimPrefix(srv.URL, "http://"))
	ts.Setenv("WEBPASSWORD", webPassword)
	for _, v := range []string{"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"} {
		ts.Setenv(v, "fbuild@example.com")
	}
}

// webKey finds a script's web server.
type webKey struct{}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader remembers the status.
func (s *statusRecorder) WriteHeader(code int) {
	s.status = code
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http find what else the writer can do.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func webHandler(dir string) (http.Handler, error) {
	out, err := osexec.CommandContext(context.Background(), "git", "--exec-path").Output()
	if err != nil {
		return nil, err
	}
	files := http.FileServer(http.Dir(dir))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// As at GitHub, a token may be the name.
		if name, pw, _ := r.BasicAuth(); strings.HasPrefix(r.URL.Path, "/private/") && pw != webPassword && name != webPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/cut/"): // half of what is promised
			w.Header().Set("Content-Length", "100000")
			r.URL.Path = strings.TrimPrefix(r.URL.Path, "/cut")
			data, err := http.Dir(dir).Open(r.URL.Path)
			if err != nil {
				return
			}
			defer func() { _ = data.Close() }()
			buf := make([]byte, 300)
			n, _ := data.Read(buf)
			_, _ = w.Write(buf[:n])
		case strings.Contains(r.URL.Path, ".git/"):
			(&cgi.Handler{
				Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), Dir: dir, Stderr: io.Discard,
				Env: []string{
					"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + r.Header.Get("Git-Protocol"),
					"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
				},
			}).ServeHTTP(w, r)
		default:
			files.ServeHTTP(w, r)
		}
	}), nil
}

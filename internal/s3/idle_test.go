package s3

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/testenv"
)

// A server that stops in the middle of an object is not waited for without end.
func TestServerThatStops(t *testing.T) {
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush()
		<-stop
	}))
	defer srv.Close()
	defer close(stop)
	b, err := Open(Options{Bucket: "b", Region: "r", Endpoint: srv.URL, PathStyle: true, Credentials: Credentials{AccessKeyID: "id", SecretAccessKey: "key"}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	b.idle = 300 * time.Millisecond
	r, _, err := b.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(r)
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "in time") {
			t.Errorf("got %v, want a word of the time", err)
		}
	case <-time.After(testenv.Patience):
		t.Error("the reader still waits")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

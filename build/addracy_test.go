package build

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A file that changed in the second in which it was sent has the time, and at some
// servers the ETag, that it had: neither tells that it is the same (LAWS 6, 23).
func TestAddOfAFileThatJustChanged(t *testing.T) {
	changed := time.Date(2020, 5, 6, 7, 8, 9, 0, time.UTC)
	for _, c := range []struct {
		name  string
		after time.Duration // the first answer came so long after the file changed
		fresh bool          // the next build asks for all of it
	}{{"at once", 0, true}, {"a second later", time.Second, true}, {"a minute later", time.Minute, false}} {
		t.Run(c.name, func(t *testing.T) {
			var text atomic.Value
			text.Store("1")
			sent := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", changed.Add(c.after).Format(http.TimeFormat))
				w.Header().Set("ETag", `"5eb26ca9-1"`)
				if r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") == "" {
					sent++
				}
				http.ServeContent(w, r, "f", changed, strings.NewReader(text.Load().(string)))
			}))
			t.Cleanup(srv.Close)
			w := newWorld(t)
			w.must("FROM scratch\nADD " + srv.URL + "/f /f\n")
			if c.fresh {
				text.Store("2")
			}
			img, _ := w.image(w.must("FROM scratch\nADD " + srv.URL + "/f /f\n"))
			if got, want := strings.Join(w.show(img), " "), text.Load().(string); !strings.HasSuffix(got, " f "+want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if got := sent == 2; got != c.fresh {
				t.Errorf("sent %d times, want all of it again: %v", sent, c.fresh)
			}
		})
	}
}

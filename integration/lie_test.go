//go:build integration

package integration

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
)

// lieServer stands before a registry and changes what it says.
type lieServer struct {
	reg *registryServer
	lie func(w http.ResponseWriter, r *http.Request) bool
}

func (l *lieServer) serve(w http.ResponseWriter, r *http.Request) bool {
	if l.lie == nil {
		return false
	}
	rec := httptest.NewRecorder()
	l.reg.handler.ServeHTTP(rec, r)
	return l.lie(&honest{w, rec}, r)
}

// honest carries what the registry would have said.
type honest struct {
	http.ResponseWriter
	rec *httptest.ResponseRecorder
}

// serveChanged answers with the honest bytes changed.
func serveChanged(w http.ResponseWriter, _ *http.Request, change func([]byte) []byte) bool {
	h := w.(*honest)
	if h.rec.Code != http.StatusOK {
		return false
	}
	body := change(append([]byte(nil), h.rec.Body.Bytes()...))
	maps.Copy(w.Header(), h.rec.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // the client may have hung up
	return true
}

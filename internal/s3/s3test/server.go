// Package s3test is a bucket in memory for tests: as much of S3 as package s3 asks
// for. It checks that requests are signed for the time and the body that they have,
// not the signature itself, for which there are published examples.
package s3test

import (
	"crypto/md5" //nolint:gosec // an ETag
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is a bucket. Use New.
type Server struct {
	*httptest.Server
	// Fail may answer a request itself; it returns false to leave it to the server.
	Fail func(w http.ResponseWriter, r *http.Request) bool
	// Cut ends the answer to a GET of a whole object after so many bytes; 0 does not.
	Cut int

	mu       sync.Mutex
	bucket   string
	objects  map[string]object
	uploads  map[string]map[int][]byte
	requests []string
}

type object struct {
	data     []byte
	modified time.Time
}

// New starts a server with one bucket, which paths begin with. The caller closes it.
func New(bucket string) *Server {
	s := &Server{bucket: bucket, objects: map[string]object{}, uploads: map[string]map[int][]byte{}}
	s.Server = httptest.NewServer(s)
	return s
}

// Count returns how many requests had a prefix ("PUT blobs/").
func (s *Server) Count(prefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// Forget empties the list of requests.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// Keys lists the objects.
func (s *Server) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for k := range s.objects {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Uploads counts the uploads in parts that were neither ended nor given up.
func (s *Server) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

// Age makes an object older.
func (s *Server) Age(key string, by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[key]
	o.modified = o.modified.Add(-by)
	s.objects[key] = o
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, ok := strings.CutPrefix(r.URL.Path, "/"+s.bucket+"/")
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+key)
	s.mu.Unlock()
	if s.Fail != nil && s.Fail(w, r) {
		return
	}
	data, err := io.ReadAll(r.Body)
	sum := sha256.Sum256(data)
	hash := r.Header.Get("X-Amz-Content-Sha256")
	at, terr := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "NoSuchBucket")
	case err != nil || terr != nil || time.Since(at).Abs() > 15*time.Minute:
		refuse(w, http.StatusForbidden, "RequestTimeTooSkewed")
	case !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="):
		refuse(w, http.StatusForbidden, "AccessDenied")
	case hash != "UNSIGNED-PAYLOAD" && hash != hex.EncodeToString(sum[:]):
		refuse(w, http.StatusBadRequest, "XAmzContentSHA256Mismatch")
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answer(w, r, key, data)
	}
}

// send answers GET and HEAD, of a range too.
func (s *Server) send(w http.ResponseWriter, r *http.Request, o object) {
	if m := r.Header.Get("If-Match"); m != "" && m != tag(o.data) {
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	w.Header().Set("ETag", tag(o.data))
	w.Header().Set("Last-Modified", o.modified.UTC().Format(http.TimeFormat))
	data, first, last := o.data, 0, 0
	if n, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err == nil && n == 2 && first <= last && last < len(data) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		w.Header().Set("Content-Length", strconv.Itoa(last+1-first))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(data[first : last+1])
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method == http.MethodHead {
		return
	}
	if s.Cut > 0 && len(data) > s.Cut {
		_, _ = w.Write(data[:s.Cut])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(data) // the client may have hung up
}

// Put replaces an object.
func (s *Server) Put(key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key] = object{data, time.Now()}
}

// Get returns an object, nil for none.
func (s *Server) Get(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[key].data
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, key string, data []byte) {
	q := r.URL.Query()
	id := q.Get("uploadId")
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		o, ok := s.objects[key]
		if !ok {
			refuse(w, http.StatusNotFound, "NoSuchKey")
			return
		}
		s.send(w, r, o)
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		o := s.objects[key]
		o.modified = time.Now()
		s.objects[key] = o
		fmt.Fprint(w, "<CopyObjectResult></CopyObjectResult>")
	case r.Method == http.MethodPut && id != "":
		n, err := strconv.Atoi(q.Get("partNumber"))
		if s.uploads[id] == nil || err != nil {
			refuse(w, http.StatusNotFound, "NoSuchUpload")
			return
		}
		s.uploads[id][n] = data
		w.Header().Set("ETag", tag(data))
	case r.Method == http.MethodPut:
		s.objects[key] = object{data, time.Now()}
	case r.Method == http.MethodPost && q.Has("uploads"):
		id := fmt.Sprint("upload-", len(s.requests))
		s.uploads[id] = map[int][]byte{}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case r.Method == http.MethodPost && s.uploads[id] != nil:
		s.complete(w, key, id, data)
	case r.Method == http.MethodDelete && id != "":
		delete(s.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed")
	}
}

// complete joins the parts. Like S3 it says 200 before it knows.
func (s *Server) complete(w http.ResponseWriter, key, id string, data []byte) {
	var list struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	var all []byte
	err := xml.Unmarshal(data, &list)
	for _, p := range list.Part {
		part := s.uploads[id][p.PartNumber]
		if p.ETag != tag(part) {
			err = io.ErrUnexpectedEOF
		}
		all = append(all, part...)
	}
	if err != nil {
		fmt.Fprint(w, "<Error><Code>InvalidPart</Code><Message>no</Message></Error>")
		return
	}
	delete(s.uploads, id)
	s.objects[key] = object{all, time.Now()}
	fmt.Fprint(w, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
}

func tag(data []byte) string {
	return fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum(data))) //nolint:gosec // an ETag
}

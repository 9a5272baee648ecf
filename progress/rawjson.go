package progress

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"
)

// rawPrinter writes each event at once as a line of JSON, in the form of BuildKit's SolveStatus, for other programs.
type rawPrinter struct{ out *stickyWriter }

// solveStatus is one line.
type solveStatus struct {
	Vertexes []rawVertex  `json:"vertexes,omitempty"`
	Statuses []rawStatus  `json:"statuses,omitempty"`
	Logs     []rawLog     `json:"logs,omitempty"`
	Warnings []rawWarning `json:"warnings,omitempty"`
}

type rawVertex struct {
	Digest    string     `json:"digest"`
	Name      string     `json:"name"`
	Started   *time.Time `json:"started,omitempty"`
	Completed *time.Time `json:"completed,omitempty"`
	Cached    bool       `json:"cached,omitempty"`
	Error     string     `json:"error,omitempty"`
}

type rawStatus struct {
	ID        string     `json:"id"`
	Vertex    string     `json:"vertex"`
	Total     int64      `json:"total,omitempty"`
	Current   int64      `json:"current"`
	Timestamp time.Time  `json:"timestamp"`
	Started   *time.Time `json:"started,omitempty"`
	Completed *time.Time `json:"completed,omitempty"`
}

type rawLog struct {
	Vertex    string    `json:"vertex"`
	Stream    int       `json:"stream"`
	Data      []byte    `json:"data"` // as the step wrote it
	Timestamp time.Time `json:"timestamp"`
}

type rawWarning struct {
	Vertex string `json:"vertex"`
	Level  int    `json:"level"`
	Short  []byte `json:"short"`
}

// print writes a line. A nil printer prints nothing. The display's mutex is held.
func (p *rawPrinter) print(s solveStatus) {
	line, err := json.Marshal(s)
	if err != nil {
		return // values of these types can be written
	}
	_, _ = p.out.Write(append(line, '\n')) // the writer keeps the error for Close
}

// rawDigest names a step: the same name may occur twice.
func (s *Step) rawDigest() string {
	sum := sha256.Sum256([]byte(strconv.Itoa(s.number) + " " + s.name))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (p *rawPrinter) vertex(s *Step) {
	v := rawVertex{Digest: s.rawDigest(), Name: s.name, Started: &s.start, Cached: s.state == cached, Error: s.err}
	if s.state > running {
		v.Completed = &s.end
	}
	if s.state == canceled {
		v.Error = "context canceled"
	}
	p.print(solveStatus{Vertexes: []rawVertex{v}})
}

func (p *rawPrinter) status(s *Step, st *status) {
	r := rawStatus{ID: st.id, Vertex: s.rawDigest(), Total: st.total, Current: st.current, Timestamp: st.at, Started: &st.start}
	if !st.end.IsZero() {
		r.Completed = &st.end
	}
	p.print(solveStatus{Statuses: []rawStatus{r}})
}

func (p *rawPrinter) log(s *Step, stream int, data []byte, now time.Time) {
	p.print(solveStatus{Logs: []rawLog{{s.rawDigest(), stream, data, now}}})
}

func (p *rawPrinter) warning(s *Step, text string) {
	p.print(solveStatus{Warnings: []rawWarning{{s.rawDigest(), 1, []byte(text)}}})
}

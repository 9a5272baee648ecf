package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// record is one run, or the reason why there is none.
type record struct {
	Cell  string `json:"cell"`
	Side  string `json:"side"`
	Round int    `json:"round"`
	// Wall is what the cell compares: the process from start to exit, or the one step.
	Wall  float64 `json:"wall_s"`
	Whole float64 `json:"whole_s"` // the process, whatever the cell compares
	CPU   float64 `json:"cpu_s"`   // user and system, all processes, daemons too
	RSS   int64   `json:"rss_bytes"`
	// Busy is the share of all processors in use just before the run, with the load average beside it.
	Busy    float64 `json:"busy_before"`
	Load    float64 `json:"load_before"`
	Noisy   bool    `json:"noisy,omitempty"` // it did not get quiet in time
	Version string  `json:"version"`         // of the side's program
	Subject string  `json:"fbuild"`          // the fbuild of the round
	Kernel  string  `json:"kernel"`
	Tiny    bool    `json:"tiny,omitempty"`
	Time    string  `json:"time"`
	Skip    string  `json:"skip,omitempty"` // nothing was measured, because

	Written  int64   `json:"disk_bytes,omitempty"`  // to the disk, until all of it was there; without the registry's
	Sent     int64   `json:"sent_bytes,omitempty"`  // to the registry
	Layers   int64   `json:"layer_bytes,omitempty"` // of the layers above the base, as pushed
	Setup    float64 `json:"setup_s,omitempty"`     // until a daemon of its own answered; not in wall
	X        float64 `json:"x,omitempty"`           // what a growth cell varies
	Capped   bool    `json:"capped,omitempty"`      // ended at its limit: it takes longer than wall_s
	Settings string  `json:"settings,omitempty"`    // how the side was called
}

const runsFile = "runs.jsonl"

type runKey struct {
	cell, side string
	round      int
}

// journal is runs.jsonl: appended to, a line for each run; of two records of one
// run the later counts.
type journal struct {
	file *os.File
	runs map[runKey]record
}

// readResults reads a directory of runs, and on which machine they ran.
func readResults(dir string) (host, []record, error) {
	runs, err := readRuns(dir)
	if err != nil {
		return host{}, nil, err
	}
	h, err := readHost(dir)
	return h, runs, err
}

// readRuns reads what was measured. A last line without an end is a run that
// was killed while it was written down, and does not count.
func readRuns(dir string) ([]record, error) {
	data, err := os.ReadFile(filepath.Join(dir, runsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read runs: %w", err)
	}
	var out []record
	at := map[runKey]int{}
	sc := bufio.NewScanner(bytes.NewReader(data[:bytes.LastIndexByte(data, '\n')+1]))
	for line := 1; sc.Scan(); line++ {
		var r record
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("read %s, line %d: %w", runsFile, line, err)
		}
		k := runKey{r.Cell, r.Side, r.Round}
		if i, ok := at[k]; ok {
			out[i] = r
			continue
		}
		at[k] = len(out)
		out = append(out, r)
	}
	return out, sc.Err()
}

// openJournal continues the measurements of dir, which must be of the same fbuild
// and size: figures of two programs are not to be mixed.
func openJournal(dir, subject string, tiny bool) (*journal, error) {
	old, err := readRuns(dir)
	if err != nil {
		return nil, err
	}
	j := &journal{runs: map[runKey]record{}}
	for _, r := range old {
		if r.Subject != subject || r.Tiny != tiny {
			return nil, fmt.Errorf("%s holds runs of %s (tiny: %v), not of %s (tiny: %v): use another -out", dir, r.Subject, r.Tiny, subject, tiny)
		}
		j.runs[runKey{r.Cell, r.Side, r.Round}] = r
	}
	j.file, err = os.OpenFile(filepath.Join(dir, runsFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := j.cutTail(); err != nil {
		return nil, errors.Join(err, j.file.Close())
	}
	return j, nil
}

// cutTail removes a line without an end and goes to the end.
func (j *journal) cutTail() error {
	data, err := os.ReadFile(j.file.Name())
	if err == nil {
		end := int64(bytes.LastIndexByte(data, '\n') + 1)
		if err = j.file.Truncate(end); err == nil {
			_, err = j.file.Seek(end, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	return nil
}

func (j *journal) add(r record) error {
	line, err := json.Marshal(r)
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write run: %w", err)
	}
	j.runs[runKey{r.Cell, r.Side, r.Round}] = r
	return nil
}

// roundEnd is the cell of the mark that a round of a side is complete.
const roundEnd = "/end"

// finish marks a round of a side as complete.
func (j *journal) finish(r record) error {
	r.Cell += roundEnd
	return j.add(r)
}

// finished says whether a round of a side is complete.
func (j *journal) finished(group, side string, round int) bool {
	_, ok := j.runs[runKey{group + roundEnd, side, round}]
	return ok
}

// has says whether a run was measured; a skipped one is tried again.
func (j *journal) has(cell, side string, round int) bool {
	r, ok := j.runs[runKey{cell, side, round}]
	return ok && r.Skip == ""
}

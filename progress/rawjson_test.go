package progress

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestRawJSON: other programs get every event as it was, in BuildKit's form.
func TestRawJSON(t *testing.T) {
	s := newScript(t, RawJSON)
	a := s.d.Step("[1/2] FROM x")
	a.Start()
	a.Status("sha256:1", 5, 10, false)
	a.Cached()
	b := s.d.Step("[2/2] RUN y")
	b.Note("runs because z changed")
	b.Log(2, []byte("\x1b[31mred\n"))
	b.Warn("careful")
	s.now = s.now.Add(time.Second)
	b.Done(errors.New("exit code: 1"))
	if err := s.d.Close(errors.New("exit code: 1")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(s.out.String()) {
		var v solveStatus
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		for _, x := range v.Vertexes {
			what := "vertex " + x.Name
			if x.Completed != nil {
				what += " done after " + x.Completed.Sub(*x.Started).String()
			}
			if x.Cached {
				what += " cached"
			}
			got = append(got, strings.TrimSpace(what+" "+x.Error))
		}
		for _, x := range v.Statuses {
			got = append(got, "status "+x.ID)
		}
		for _, x := range v.Logs {
			got = append(got, "log "+string(x.Data))
		}
		for _, x := range v.Warnings {
			got = append(got, "warning "+string(x.Short))
		}
	}
	want := []string{
		"vertex [1/2] FROM x", "status sha256:1", "vertex [1/2] FROM x done after 0s cached", "vertex [2/2] RUN y",
		"status runs because z changed",
		"log \x1b[31mred\n", "warning careful", "vertex [2/2] RUN y done after 1s exit code: 1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("events, -want +got\n%s", d)
	}
}

package build

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/fetch"
	"github.com/fbuild/fbuild/tree"
)

// kindReport is the kind of the records that hold the reports of a Dockerfile: entries,
// the newest first, each the target with the platform and the report as JSON, both after their length as
// a varint. So a build adds its own without reading the others.
const kindReport = "report"

// What is kept of one Dockerfile.
const (
	keepPerTarget = 5
	keepReports   = 20
	keepBytes     = 512 << 10 // of all; a record has room for twice as much
)

func reportKey(dockerfile string) string { return string(newKey("report 2").str(dockerfile).sum()) }

// keptReport is an entry of the record.
type keptReport struct{ target, data []byte }

// slot says of which target and platform a report is.
func (r *Report) slot() string { return r.Target + "\x00" + r.Platform }

func decodeReports(b []byte) []keptReport {
	field := func() ([]byte, bool) {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, false
		}
		out := b[w : w+int(n)]
		b = b[w+int(n):]
		return out, true
	}
	var out []keptReport
	for len(b) > 0 {
		target, ok := field()
		if !ok {
			return out
		}
		data, ok := field()
		if !ok {
			return out
		}
		out = append(out, keptReport{target, data})
	}
	return out
}

// encodeReports writes as many of the entries as are kept.
func encodeReports(list []keptReport) []byte {
	var b []byte
	perTarget := map[string]int{}
	for i, k := range list {
		t := string(k.target)
		if perTarget[t]++; perTarget[t] > keepPerTarget || i >= keepReports {
			continue
		}
		if len(b)+len(k.target)+len(k.data)+2*binary.MaxVarintLen64 > keepBytes {
			break
		}
		b = binary.AppendUvarint(b, uint64(len(k.target)))
		b = append(b, k.target...)
		b = binary.AppendUvarint(b, uint64(len(k.data)))
		b = append(b, k.data...)
	}
	return b
}

// Reports returns the reports that are kept of the builds of a Dockerfile, the newest
// first; none is no error. What cannot be read is left out.
func Reports(s *cache.Store, dockerfile string) ([]Report, error) {
	rec, err := s.Record(kindReport, reportKey(dockerfile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read reports: %w", err)
	}
	var out []Report
	for _, k := range decodeReports(rec.Value) {
		var r Report
		if json.Unmarshal(k.data, &r) == nil && r.Dockerfile == dockerfile {
			out = append(out, r)
		}
	}
	return out, nil
}

// keepReport stores what the build did. It is a help: nothing fails for want of it.
func (b *builder) keepReport(res *Result, failed error) {
	if b.planning() {
		b.opts.plan.report = b.report(nil, nil)
		return
	}
	if b.opts.again != nil || b.opts.Origin.Dockerfile == "" || b.opts.lint || b.sealCtx.Err() != nil { // of an interrupted build there is nothing to say
		return
	}
	r := b.report(res, failed)
	key := reportKey(r.Dockerfile)
	var kept []keptReport
	if old, err := b.store.Record(kindReport, key); err == nil {
		kept = decodeReports(old.Value)
	}
	r.inherit(kept)
	data, err := json.Marshal(r)
	if err == nil && len(data) > keepBytes/2 { // thousands of differences
		for i := range r.Steps {
			r.Steps[i].Differences = r.Steps[i].Differences[:min(3, len(r.Steps[i].Differences))]
		}
		data, err = json.Marshal(r)
	}
	if err == nil {
		list := append([]keptReport{{[]byte(r.slot()), data}}, kept...)
		err = b.store.PutNote(kindReport, key, cache.Record{Value: encodeReports(list)})
	}
	if err != nil {
		b.warn("keep report: %v", err)
	}
}

// inherit gives the RUNs that were reused by their exact key what the build knew that
// ran them: nobody asks for it when a key is known. The newest report mostly has all.
func (r *Report) inherit(kept []keptReport) {
	for _, k := range kept {
		missing := slices.ContainsFunc(r.Steps, func(s StepReport) bool { return s.inherits() })
		if !missing {
			return
		}
		var old Report
		if string(k.target) != r.slot() || json.Unmarshal(k.data, &old) != nil {
			continue
		}
		for i := range r.Steps {
			s := &r.Steps[i]
			if !s.inherits() {
				continue
			}
			for j := range old.Steps {
				if o := &old.Steps[j]; o.Key == s.Key && o.Layer == s.Layer {
					s.Trace, s.Identity, s.Doubt, s.Questions, s.ReadBytes = o.Trace, o.Identity, o.Doubt, o.Questions, o.ReadBytes
				}
			}
		}
	}
}

// inherits says whether a step lacks what only the build that ran it knows.
func (s *StepReport) inherits() bool {
	return s.Keyword() == "RUN" && s.Verdict == VerdictExact && s.Trace == "" && s.Doubt == ""
}

// report is what there is to say of the build.
func (b *builder) report(res *Result, failed error) Report {
	o := b.opts
	r := Report{
		Dockerfile: o.Origin.Dockerfile, Target: o.Target, Version: o.Origin.Version, Began: b.reports.began,
		Took: time.Since(b.reports.began), Platform: o.Platform.String(), Setup: b.setup(), Stages: len(o.File.Stages), Steps: b.reports.finish(),
	}
	r.Config = b.configDigest(b.reports.final)
	if res != nil {
		r.ImageID, r.Names = res.ImageID, res.Names
	}
	if len(r.Names) == 0 {
		r.Names = o.Tags
	}
	b.mu.Lock()
	for key := range b.bases {
		name, _, _ := strings.Cut(key, " ")
		r.Bases = append(r.Bases, name)
	}
	b.mu.Unlock()
	slices.Sort(r.Bases)
	if failed != nil {
		r.Error = failed.Error()
	}
	return r
}

// configDigest names an image without its times; "" where a layer is planned or failed.
func (b *builder) configDigest(s *state) string {
	if s == nil {
		return ""
	}
	cfg := cloneConfig(s.cfg)
	for i := range cfg.History {
		cfg.History[i].Created = v1.Time{}
	}
	cfg.Created = v1.Time{}
	data, err := json.Marshal(cfg)
	if err != nil {
		return ""
	}
	k := newKey("report config").str(string(data))
	for _, l := range s.fs.layers() {
		select {
		case <-l.done:
		default:
			return ""
		}
		if l.err != nil || l.planned {
			return ""
		}
		k.str(string(l.diffID))
	}
	return string(k.sum())
}

// setup is how the build was called.
func (b *builder) setup() ReportSetup {
	o := b.opts
	args := maps.Clone(o.Origin.BuildArgs)
	maps.DeleteFunc(args, func(k, _ string) bool { return strings.HasSuffix(strings.ToLower(k), "_proxy") })
	contexts := maps.Clone(o.Contexts)
	for name, where := range contexts {
		if IsRemoteContext(where) {
			contexts[name] = fetch.Redact(where)
		} else if !isImageContext(where) {
			if abs, err := filepath.Abs(where); err == nil {
				contexts[name] = abs
			}
		}
	}
	return ReportSetup{
		Context: o.Origin.Context, Contexts: contexts, BuildArgs: args, Network: o.Network, AddHosts: o.AddHosts,
		Limits: limitTexts(o.Limits), ShmSize: o.ShmSize, Isolation: o.Isolation, Trace: o.Trace,
		TraceNetTTL: o.TraceNetTTL, CacheTimes: o.CacheTimes,
	}
}

func limitTexts(limits []exec.Limit) []string {
	var out []string
	for _, l := range limits {
		out = append(out, fmt.Sprintf("%d=%d:%d", l.Resource, l.Soft, l.Hard))
	}
	return out
}

// parseLimits reads what limitTexts wrote.
func parseLimits(texts []string) ([]exec.Limit, error) {
	var out []exec.Limit
	for _, t := range texts {
		var l exec.Limit
		resource, rest, _ := strings.Cut(t, "=")
		soft, hard, _ := strings.Cut(rest, ":")
		var errs [3]error
		l.Resource, errs[0] = strconv.Atoi(resource)
		l.Soft, errs[1] = strconv.ParseUint(soft, 10, 64)
		l.Hard, errs[2] = strconv.ParseUint(hard, 10, 64)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("read limit %q: %w", t, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// changesSize counts what a layer holds.
func changesSize(cs tree.Changes) (entries int, bytes int64) {
	seen := map[*tree.Node]bool{}
	for i := range cs {
		n := cs[i].Node
		if n == nil || seen[n] {
			continue
		}
		seen[n] = true
		if n.Kind == tree.File {
			bytes += n.Size
		}
	}
	return len(cs), bytes
}

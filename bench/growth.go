package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// growth is how time and memory follow one size.
type growth struct {
	name, title string
	unit        string // of a point
	points      []float64
	// make writes the Dockerfile and, where it needs one, the context of a point, and
	// returns the base. A store holds that base already when the build is measured.
	make func(e *env, ctx context.Context, g *openedGrowth, x int) (base, error)
	jobs bool // a point is a number of concurrent builds
}

var growths = []growth{
	{name: "growth-base", title: "one RUN on a base of x GiB", unit: "GiB", points: []float64{0.125, 0.5, 1, 2, 4}, make: (*env).growBase},
	{name: "growth-layers", title: "x RUNs of one line", unit: "layers", points: []float64{1, 10, 30, 60, 120}, make: (*env).growLayers},
	{name: "growth-files", title: "one RUN that writes x files of 100 bytes", unit: "files", points: []float64{10, 100, 1000, 10000, 100000, 300000}, make: (*env).growFiles},
	{name: "growth-builds", title: "x builds at once on one store", unit: "builds", points: []float64{1, 2, 4, 8, 16, 32}, make: (*env).growBuilds, jobs: true},
	{name: "growth-context", title: "COPY of x files of 5 KiB", unit: "files", points: []float64{10, 100, 1000, 10000, 30000}, make: (*env).growContext},
	{name: "growth-stages", title: "x stages, and one that copies from all", unit: "stages", points: []float64{1, 4, 8, 16, 32}, make: (*env).growStages},
}

// group makes the points phases.
func (gr growth) group(sides []string) group {
	var phases []string
	for _, p := range gr.points {
		phases = append(phases, strconv.FormatFloat(p, 'g', -1, 64))
	}
	return group{
		name: gr.name, title: gr.title, rounds: 1, phases: phases, sides: sides, limit: 3 * time.Minute,
		open: func(ctx context.Context, e *env, g group) (*bench, error) { return e.openGrowth(ctx, g, gr) },
	}
}

type openedGrowth struct {
	growth
	env     *env
	dir     string // holds Dockerfile, prime and context
	base    base
	context string
}

func (e *env) openGrowth(ctx context.Context, g group, gr growth) (*bench, error) {
	o := &openedGrowth{growth: gr, env: e, dir: filepath.Join(e.work, gr.name)}
	o.context = filepath.Join(o.dir, "context")
	if err := errors.Join(fresh(o.dir), openDirs(o.context)); err != nil {
		return nil, err
	}
	b := &bench{}
	closers := []func() error{func() error { return os.RemoveAll(o.dir) }}
	for _, name := range g.sides {
		p := e.openPeer(ctx, name, gr.name)
		if p.close != nil {
			closers = append(closers, p.close)
		}
		b.sides = append(b.sides, o.side(p))
	}
	b.begin = func(phase string, _ int) error {
		x, err := strconv.ParseFloat(phase, 64)
		if err != nil {
			return err
		}
		if err := fresh(o.context); err != nil {
			return err
		}
		n := int(x)
		if gr.name == "growth-base" {
			n = int(x * 8) // layers of 128 MiB
		}
		o.base, err = gr.make(e, ctx, o, n)
		if err != nil {
			return fmt.Errorf("make point %s: %w", phase, err)
		}
		return writeContext(o.dir, map[string]string{"prime/Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN true\n"})
	}
	b.close = func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	return b, nil
}

func (o *openedGrowth) side(b *builder) side {
	s := side{name: b.name, version: b.version, settings: b.settings, skip: b.skip, daemon: b.daemon}
	if b.skip != "" {
		return s
	}
	s.before = func(ctx context.Context, _ string, _ int) error {
		if err := b.reset(ctx); err != nil {
			return err
		}
		cmd, err := o.env.commandOf(ctx, b, b.build, o.job(filepath.Join(o.dir, "prime", "Dockerfile"), 0))
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("read the base: %w\n%s", err, tail(string(out), 10))
		}
		return nil
	}
	s.run = func(ctx context.Context, m meter, phase string, _ int) (sample, error) {
		x, err := strconv.ParseFloat(phase, 64)
		if err != nil {
			return sample{}, err
		}
		n := 1
		if o.jobs {
			n = int(x)
		}
		var jobs []job
		for i := range n {
			jobs = append(jobs, o.job(filepath.Join(o.dir, "Dockerfile"), i))
		}
		cmd, err := o.env.commandOf(ctx, b, b.build, jobs...)
		if err != nil {
			return sample{}, err
		}
		u, err := m.run(ctx, cmd)
		return sample{usage: u, x: x}, err
	}
	return s
}

func (o *openedGrowth) job(dockerfile string, i int) job {
	repo := fmt.Sprintf("%s/%s%s-%d", o.env.registry.addr, outRepo, o.name, i)
	j := job{dockerfile: dockerfile, context: o.context, args: []string{"BASE=" + o.base.ref}, ref: repo + ":1", cache: repo + "-cache"}
	if o.jobs {
		j.args = append(j.args, "SERVICE="+strconv.Itoa(i))
	}
	return j
}

// write writes the Dockerfile of a point.
func (o *openedGrowth) write(text string) error {
	return writeContext(o.dir, map[string]string{"Dockerfile": "ARG BASE\n" + text})
}

func (e *env) growBase(ctx context.Context, o *openedGrowth, n int) (base, error) {
	trees, err := e.bigTrees(ctx, n, e.scaled(128))
	if err != nil {
		return base{}, err
	}
	b, err := e.layersOf(ctx, fmt.Sprintf("grow%d", n), trees...)
	return b, errors.Join(err, o.write("FROM ${BASE}\nRUN echo one >/etc/one\n"))
}

func (e *env) growFiles(ctx context.Context, o *openedGrowth, n int) (base, error) {
	b, err := e.toolsBase(ctx)
	return b, errors.Join(err, o.write(fmt.Sprintf("FROM ${BASE}\nRUN gen files /data %d 100 100\n", n)))
}

func (e *env) growLayers(ctx context.Context, o *openedGrowth, n int) (base, error) {
	b, err := e.toolsBase(ctx)
	var text strings.Builder
	text.WriteString("FROM ${BASE}\n")
	for i := range n {
		fmt.Fprintf(&text, "RUN echo %d >/etc/line%d\n", i, i)
	}
	return b, errors.Join(err, o.write(text.String()))
}

func (e *env) growStages(ctx context.Context, o *openedGrowth, n int) (base, error) {
	b, err := e.toolsBase(ctx)
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "FROM ${BASE} AS s%d\nRUN gen files /out/%d 100 1024 8192 && gen work 200000 /out/%d/sum\n", i, i, i)
	}
	text.WriteString("FROM ${BASE}\n")
	for i := range n {
		fmt.Fprintf(&text, "COPY --from=s%d /out /out\n", i)
	}
	return b, errors.Join(err, o.write(text.String()))
}

func (e *env) growContext(ctx context.Context, o *openedGrowth, n int) (base, error) {
	b, err := e.toolsBase(ctx)
	err = errors.Join(err, e.must(ctx, []string{e.gen, "files", o.context, strconv.Itoa(n), "4096", "6144"}))
	return b, errors.Join(err, o.write("FROM ${BASE}\nCOPY . /app\n"))
}

func (e *env) growBuilds(ctx context.Context, o *openedGrowth, _ int) (base, error) {
	b, err := e.toolsBase(ctx)
	return b, errors.Join(err, o.write("FROM ${BASE}\nARG SERVICE\nRUN gen files /out/${SERVICE} 200 1024 8192 && gen work 500000 /out/sum\n"))
}

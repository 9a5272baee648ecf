// Package recorder is the conversation between a build and the process that
// records what a RUN writes: which tree to mount, where the root is, and, after
// the command, what changed.
//
// Owns: the protocol and its two ends. The work is a Backend's (fusefs,
// snapshot), which lives in a process of its own inside the build's namespaces
// (LAWS 20).
//
// Concurrency: Client and Backend serve any number of steps at once.
//
// Fails when: the other end dies; every call that waits then returns ErrDied,
// and the step has failed whatever its command said.
package recorder

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// ErrDied is returned by a Client whose recorder process ended.
var ErrDied = errors.New("the recorder process ended")

// Stub is a path that must exist while the command runs because something is
// mounted there. Where the tree lacks it the recorder shows an empty directory
// or file, and leaves no trace of it in the changes (LAWS 25). Missing parents
// of a stub are shown as well, mode 0755, and kept only if the command put
// something else there.
type Stub struct {
	Path string
	Dir  bool
}

// Spec asks for one step's root.
type Spec struct {
	ID      string   // unique in the build, usable as a file name
	Layers  []string // files of tree.Encode, bottom first: the parent tree
	Stubs   []Stub
	PackDir string // where packs are read and the step's own is made
	WorkDir string // an empty directory of this step for mount points and the like
	// TreeDir is where directories made of layers may be kept for later steps, on the
	// file system of WorkDir; "" if these layers are for this step only.
	TreeDir string
	// Trace asks for Result.Questions.
	Trace bool
}

// Result is what a step did.
type Result struct {
	// Changes are in normal form; times are whole seconds; the contents lie in
	// the parent's packs or in Pack.
	Changes tree.Changes
	// Pack is the step's own pack, committed but not synced; "" if it wrote no
	// bytes that the changes hold.
	Pack  tree.PackID
	Notes []string // what was left out, in words for the user (sockets)
	// Questions are what the step asked of the parent tree, sorted, each once, Root 0.
	Questions []trace.Question
	// Doubt says in words why Questions may lack something; "" where they are
	// complete. A recorder that does not trace always has one.
	Doubt string
}

// Backend makes a tree a writable directory and finds out what changed.
type Backend interface {
	// Mount prepares the step and returns the absolute path of its root, valid
	// in the mount namespace of the recorder process.
	Mount(ctx context.Context, spec Spec) (root string, err error)
	// Finish is called once when every process of the step is gone. It unmounts,
	// waits for late writes (LAWS 12), and returns the changes. An error means
	// that the step failed, whatever its command said. The step is over in any case.
	Finish(ctx context.Context, id string) (Result, error)
	// Abort throws the step away. It may be called instead of Finish at any time.
	Abort(id string) error
	// Close aborts every step that is left.
	Close() error
}

// Streamer is a Backend that tells what changed while it finds it out.
type Streamer interface {
	// FinishTo is Finish, but that the sink is told all, the questions excepted: what
	// it returns has those.
	FinishTo(ctx context.Context, id string, to Sink) (Result, error)
}

// Sink is told what a step did. Its functions are called one after the other, and may
// return an error, with which the step ends.
type Sink struct {
	// Piece takes changes, in their order.
	Piece func(tree.Piece) error
	// Again takes all pieces so far back.
	Again func() error
	// Whole is called once, after the last piece, when the step is known to be good,
	// with the rest of the result. A step that ends without it has failed.
	Whole func(Result) error
}

// Filler is a Backend that can serve a tree whose contents are not all here: before the
// first Mount it is given what gets them from the build (pack.Filler).
type Filler interface {
	FillWith(fill pack.Filler)
}

// Settler is a Backend that can say which files a step is done with while its command
// runs.
type Settler interface {
	// Settled returns where the bytes are of at most so many files of at least so many
	// bytes that the step wrote and left alone since, each once. They may change nevertheless.
	// Whoever asks works on them at the lowest priority until the next call.
	Settled(id string, least int64, most int) [][]tree.Extent
}

type request struct {
	Seq   uint64
	Op    string // mount, settled, finish, abort; filled answers a response with Fill
	ID    string
	Spec  Spec
	Least int64 // of settled
	Most  int
	Err   string // of filled
}

// fill asks the build for bytes of a lazy pack.
type fill struct {
	Pack   tree.PackID
	Off, N int64
}

// response is an answer, or one of several to a finish: pieces of changes, then the rest
// but for the questions, then those. More says that another one follows.
type response struct {
	Seq     uint64
	More    bool
	Again   bool // the pieces so far do not count
	Root    string
	Piece   *tree.Piece
	Pack    tree.PackID
	Notes   []string
	Asked   []byte // trace.EncodeQuestions
	Doubt   string
	Err     string
	Settled [][]tree.Extent
	Fill    *fill // no response but a question: Seq is its own
}

// Serve answers the client at the other end of conn until it closes its end,
// then closes the backend.
func Serve(ctx context.Context, conn io.ReadWriteCloser, b Backend) error {
	return serve(ctx, conn, b, func() func() { return func() {} })
}

// serve is Serve. ending is called when the end of a step begins, and what it returns
// when that was answered.
func serve(ctx context.Context, conn io.ReadWriteCloser, b Backend, ending func() (ended func())) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	out := &asking{enc: gob.NewEncoder(conn), waits: map[uint64]chan string{}}
	if f, ok := b.(Filler); ok {
		f.FillWith(out.fill)
	}
	dec := gob.NewDecoder(conn)
	for {
		var req request
		if err := dec.Decode(&req); err != nil {
			cancel()
			out.end()
			wg.Wait()
			err = orderly(err)
			return errors.Join(err, b.Close(), conn.Close())
		}
		if req.Op == "filled" {
			out.answered(req.Seq, req.Err)
			continue
		}
		wg.Go(func() {
			if req.Op == "finish" {
				defer ending()()
			}
			// A client that is gone ends the loop above.
			_ = out.send(answer(ctx, b, &req, func(resp response) error {
				resp.Seq, resp.More = req.Seq, true
				return out.send(&resp)
			}))
		})
	}
}

// asking is a recorder's way to the build: its answers, and its own questions.
type asking struct {
	mu    sync.Mutex
	enc   *gob.Encoder
	seq   uint64
	waits map[uint64]chan string
	over  bool
}

func (a *asking) send(resp *response) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.enc.Encode(resp)
}

// fill is a pack.Filler: the build gets the bytes.
func (a *asking) fill(id tree.PackID, off, n int64) error {
	w := make(chan string, 1)
	a.mu.Lock()
	if a.over {
		a.mu.Unlock()
		return errBuildGone
	}
	a.seq++
	a.waits[a.seq] = w
	err := a.enc.Encode(&response{Seq: a.seq, Fill: &fill{id, off, n}})
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: %w", errBuildGone, err)
	}
	text, ok := <-w
	switch {
	case !ok:
		return errBuildGone
	case text != "":
		return errors.New(text)
	}
	return nil
}

var errBuildGone = errors.New("the build ended")

func (a *asking) answered(seq uint64, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.waits[seq]; w != nil {
		delete(a.waits, seq)
		w <- text
	}
}

// end tells everybody who waits that no answer will come.
func (a *asking) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	for seq, w := range a.waits {
		delete(a.waits, seq)
		close(w)
	}
}

// orderly makes an orderly end no error.
func orderly(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// answer returns the last response, and sends what comes before.
func answer(ctx context.Context, b Backend, req *request, send func(response) error) *response {
	resp := &response{Seq: req.Seq}
	var err error
	switch req.Op {
	case "mount":
		resp.Root, err = b.Mount(ctx, req.Spec)
	case "finish":
		var res Result
		res, err = finish(ctx, b, req.ID, Sink{
			Piece: func(p tree.Piece) error { return send(response{Piece: &p}) },
			Again: func() error { return send(response{Again: true}) },
			Whole: func(res Result) error { return send(response{Pack: res.Pack, Notes: res.Notes}) },
		})
		resp.Asked, resp.Doubt = encodeQuestions(&res)
	case "abort":
		err = b.Abort(req.ID)
	case "settled":
		if s, ok := b.(Settler); ok {
			resp.Settled = s.Settled(req.ID, req.Least, req.Most)
		}
	default:
		err = fmt.Errorf("unknown request %q", req.Op)
	}
	if err != nil {
		resp.Err = err.Error()
	}
	return resp
}

// encodeQuestions has no questions where there are too many: that is a doubt.
func encodeQuestions(res *Result) ([]byte, string) {
	asked, err := trace.EncodeQuestions(res.Questions)
	if err != nil && res.Doubt == "" {
		return nil, fmt.Sprintf("the step asked %d questions: %v", len(res.Questions), err)
	}
	return asked, res.Doubt
}

// ServeFD is the body of a recorder child: it serves b on descriptor 3.
func ServeFD(ctx context.Context, b Backend) error {
	f := os.NewFile(3, "recorder")
	conn, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("open recorder socket: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return serve(ctx, conn, b, func() func() {
		resting.pause()
		return resting.resume
	})
}

// Client is a build's end of the conversation.
type Client struct {
	conn io.ReadWriteCloser
	done chan struct{}
	fill pack.Filler    // nil for none
	most int            // maxChanges, but in tests
	asks sync.WaitGroup // questions of the recorder that are being answered

	mu    sync.Mutex
	enc   *gob.Encoder
	seq   uint64
	waits map[uint64]*waiting
	dead  bool
}

// NewClient talks to the recorder at the other end of conn and owns conn. fill, if not
// nil, gets contents that the recorder lacks, and may be called any number of times at
// once.
func NewClient(conn io.ReadWriteCloser, fill pack.Filler) *Client {
	c := &Client{conn: conn, done: make(chan struct{}), enc: gob.NewEncoder(conn), waits: map[uint64]*waiting{}, fill: fill, most: maxChanges}
	go c.read()
	return c
}

func (c *Client) read() {
	defer c.died()
	dec := gob.NewDecoder(c.conn)
	for {
		resp := new(response)
		if dec.Decode(resp) != nil {
			return
		}
		if resp.Fill != nil {
			c.asks.Go(func() { c.filled(resp) })
			continue
		}
		c.mu.Lock()
		w := c.waits[resp.Seq]
		if !resp.More {
			delete(c.waits, resp.Seq)
		}
		c.mu.Unlock()
		if w != nil {
			w.give(resp)
		}
	}
}

// filled answers a question of the recorder.
func (c *Client) filled(resp *response) {
	req := request{Seq: resp.Seq, Op: "filled"}
	err := pack.ErrPartial
	if c.fill != nil {
		err = c.fill(resp.Fill.Pack, resp.Fill.Off, resp.Fill.N)
	}
	if err != nil {
		req.Err = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.enc.Encode(&req) // a recorder that is gone waits for nothing
}

// died tells everybody who waits that no answer will come.
func (c *Client) died() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	for _, w := range c.waits {
		close(w.responses) // read, which has ended, was the only one to send
	}
	c.waits = nil
	close(c.done)
}

// waiting is who waits for the responses to one request.
type waiting struct {
	responses chan *response
	gone      chan struct{} // closed when nobody does any more
}

func (w *waiting) give(resp *response) {
	select {
	case w.responses <- resp:
	case <-w.gone:
	}
}

// next returns the next response. An error of the recorder's is one.
func (w *waiting) next(ctx context.Context) (*response, error) {
	select {
	case resp, ok := <-w.responses:
		switch {
		case !ok:
			return nil, ErrDied
		case resp.Err != "":
			return nil, errors.New(resp.Err)
		}
		return resp, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// waitingPieces is how many may lie ready for a client that is busy with those before.
const waitingPieces = 16

// ask sends a request. Who stops waiting for its responses closes gone.
func (c *Client) ask(req request) (*waiting, error) {
	w := &waiting{responses: make(chan *response, waitingPieces), gone: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return nil, ErrDied
	}
	c.seq++
	req.Seq = c.seq
	c.waits[req.Seq] = w
	if err := c.enc.Encode(&req); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDied, err)
	}
	return w, nil
}

func (c *Client) call(ctx context.Context, req request) (*response, error) {
	w, err := c.ask(req)
	if err != nil {
		return nil, err
	}
	defer close(w.gone)
	return w.next(ctx)
}

// Mount is Backend.Mount.
func (c *Client) Mount(ctx context.Context, spec Spec) (string, error) {
	resp, err := c.call(ctx, request{Op: "mount", Spec: spec})
	if err != nil {
		return "", err
	}
	return resp.Root, nil
}

// Abort is Backend.Abort.
func (c *Client) Abort(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{Op: "abort", ID: id})
	return err
}

// Settled is Settler.Settled; a recorder that is none has nothing to say.
func (c *Client) Settled(ctx context.Context, id string, least int64, most int) ([][]tree.Extent, error) {
	resp, err := c.call(ctx, request{Op: "settled", ID: id, Least: least, Most: most})
	if err != nil {
		return nil, err
	}
	return resp.Settled, nil
}

// Dead is closed when the recorder process is gone.
func (c *Client) Dead() <-chan struct{} { return c.done }

// Close ends the conversation: the recorder throws away what is left and exits.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	c.asks.Wait()
	return err
}

package layer

import "fmt"

// Defaults of Limits.
const (
	defaultMaxSize    = 1 << 30
	defaultMaxRatio   = 200
	defaultMaxEntries = 10_000_000
)

// What one entry may be. Nobody could unpack more (LAWS 21): Linux has names of
// 255 bytes, paths and link targets of 4,095, xattrs of 64 KiB.
const (
	maxName      = 255
	maxPath      = 4095
	maxXattrName = 255
	maxXattr     = 64 << 10
)

const (
	// maxSpecial bounds a PAX header, a GNU long name and a sparse map, as
	// archive/tar does: what is longer, docker and containerd refuse too.
	maxSpecial = 1 << 20
	// maxIndex bounds the memory that the entries of a layer take, about; ten
	// million ordinary ones fit.
	maxIndex = 4 << 30
	// What a node, a name in a directory and a directory with a first name take.
	nodeCost, placeCost, mapCost = 200, 100, 400
	// maxSteps bounds the names that all paths lead through: a minute's work.
	maxSteps = 1 << 30
	// maxHashedZeros bounds the holes of one archive whose zeros are hashed: half a
	// second's work. The digest of a file beyond it is left to whoever needs it.
	maxHashedZeros = 1 << 30
	// maxNotes bounds what a hostile layer can have us say.
	maxNotes = 20
	// maxSeconds bounds times, either side of 1970: 35,000 years.
	maxSeconds = 1 << 40
)

func (l Limits) withDefaults() Limits {
	if l.MaxSize <= 0 {
		l.MaxSize = defaultMaxSize
	}
	if l.MaxRatio <= 0 {
		l.MaxRatio = defaultMaxRatio
	}
	if l.MaxEntries <= 0 {
		l.MaxEntries = defaultMaxEntries
	}
	return l
}

// notes collects what is said to people, each once and not without end.
type notes struct {
	list []string
	seen map[string]bool
	more int
}

func (n *notes) add(format string, args ...any) {
	if len(n.list) >= maxNotes {
		n.more++
		return
	}
	s := fmt.Sprintf(format, args...)
	if n.seen[s] {
		return
	}
	if n.seen == nil {
		n.seen = map[string]bool{}
	}
	n.seen[s] = true
	n.list = append(n.list, s)
}

func (n *notes) done() []string {
	if n.more > 0 {
		n.list = append(n.list, fmt.Sprintf("and %d more notes", n.more))
		n.more = 0
	}
	return n.list
}

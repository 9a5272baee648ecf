package recordertest

import "slices"

// Exception is a case in which overlayfs does not what POSIX says, and what docker's
// does (LAWS 14). Inode numbers, the third case, no law looks at.
type Exception int

const (
	// BreaksLinks says that a name of a lower file with several names that is changed,
	// linked to or renamed becomes a file of its own.
	BreaksLinks Exception = iota + 1
	// NoDirRename says that a lower directory cannot be renamed: EXDEV.
	NoDirRename
)

// instead is what comes of a law under an exception.
type instead struct {
	of       Exception
	want     string
	fails    string // what do must fail with
	contents map[string]string
}

const exdev = "invalid cross-device link"

// exceptions are all laws that have one, by their names.
var exceptions = map[string]instead{
	"chmod that changes nothing": {
		of: BreaksLinks, want: "d0755 0:0 T bin\n-0755 0:0 T 8 bin/tool\nd0755 0:0 T links\n-0644 0:0 T 7 links/b\nd0755 0:0 T links2\n-0644 0:0 T 7 links2/c\n",
	},
	"rename a name over its twin": {of: BreaksLinks, want: "d0755 0:0 now bin\nx bin/alias\n"},
	"rename one name of a group": {
		of: BreaksLinks, want: "d0755 0:0 now etc\n-0644 0:0 T 7 etc/z\nd0755 0:0 now links\nx links/a\n",
	},
	"unlink one name and write through another": {
		of: BreaksLinks, want: "d0755 0:0 now links\nx links/a\n-0644 0:0 now 1 links/b\n",
	},
	"chmod through one name of a group": {of: BreaksLinks, want: "d0755 0:0 T bin\n-0700 0:0 T 8 bin/alias\n"},
	"write through one name of a group": {
		of: BreaksLinks, want: "d0755 0:0 T links\n-0644 0:0 now 8 links/b\n", contents: map[string]string{"links/b": "linked\nx"},
	},
	"hard link to a parent's group": {
		of: BreaksLinks, want: "d0755 0:0 now bin\n-0755 0:0 T 8 bin/third\n-0755 0:0 T 8 bin/tool = bin/third\n",
	},
	"rename a directory":                          {of: NoDirRename, fails: exdev},
	"rename a directory elsewhere":                {of: NoDirRename, fails: exdev},
	"rename a directory over an empty one":        {of: NoDirRename, fails: exdev, want: "d0755 0:0 now empty\n"},
	"rename a directory over a full one":          {of: NoDirRename, fails: exdev},
	"rename a directory and write in it":          {of: NoDirRename, fails: exdev},
	"rename a directory with one name of a group": {of: NoDirRename, fails: exdev},
	"replace a directory by a symlink to it":      {of: NoDirRename, fails: exdev},
	"exchange a file and a directory":             {of: NoDirRename, fails: exdev},
}

// except makes the law what it is under the exceptions.
func (l *law) except(list []Exception) {
	e, ok := exceptions[l.name]
	if ok && slices.Contains(list, e.of) {
		l.want, l.fails, l.contents = e.want, e.fails, e.contents
	}
}

package build

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// maxUserFile bounds /etc/passwd and /etc/group of an image, in bytes.
const maxUserFile = 8 << 20

// account is what a USER or --chown text means in an image.
type account struct {
	UID, GID uint32
	Groups   []uint32 // supplementary, the primary one among them (CVE-2022-2990)
	Home     string   // "" where the image does not say
}

// errNoAccount says that the image does not know a name.
var errNoAccount = errors.New("no matching entries")

// opener reads the bytes of file nodes.
type opener interface {
	Open(n *tree.Node) (io.ReadCloser, error)
}

// lookupUser resolves "user[:group]", names or numbers, against the image's own
// /etc/passwd and /etc/group, as docker does: "" is root; a number without an
// entry has group 0; groups of /etc/group count only without an explicit group.
func lookupUser(t tree.Tree, files opener, text string) (account, error) {
	if text == "" {
		text = "0"
	}
	user, group, hasGroup := strings.Cut(text, ":")
	acc, name, err := findUser(t, files, user)
	if err != nil {
		return account{}, err
	}
	if hasGroup && group != "" {
		acc.GID, err = findGroup(t, files, group)
		acc.Groups = []uint32{acc.GID}
		return acc, err
	}
	acc.Groups = []uint32{acc.GID}
	if name == "" {
		return acc, nil
	}
	err = eachLine(t, files, "etc/group", func(f []string) bool {
		if len(f) >= 4 && slices.Contains(strings.Split(f[3], ","), name) {
			if gid, err := parseID(f[2]); err == nil && gid != acc.GID {
				acc.Groups = append(acc.Groups, gid)
			}
		}
		return true
	})
	return acc, err
}

// findUser returns the account of a name or number and, where /etc/passwd has
// it, its name.
func findUser(t tree.Tree, files opener, user string) (acc account, name string, err error) {
	id, idErr := parseID(user)
	found := false
	err = eachLine(t, files, "etc/passwd", func(f []string) bool {
		if len(f) < 6 || f[0] != user && (idErr != nil || f[2] != user) {
			return true
		}
		uid, err1 := parseID(f[2])
		gid, err2 := parseID(f[3])
		if err1 != nil || err2 != nil {
			return true
		}
		acc, name, found = account{UID: uid, GID: gid, Home: f[5]}, f[0], true
		return false
	})
	switch {
	case err != nil:
		return account{}, "", err
	case found:
		return acc, name, nil
	case idErr != nil:
		return account{}, "", fmt.Errorf("unable to find user %s: %w in passwd file", user, errNoAccount)
	}
	return account{UID: id}, "", nil
}

func findGroup(t tree.Tree, files opener, group string) (uint32, error) {
	if gid, err := parseID(group); err == nil {
		return gid, nil
	}
	gid, found := uint32(0), false
	err := eachLine(t, files, "etc/group", func(f []string) bool {
		if len(f) < 3 || f[0] != group {
			return true
		}
		id, err := parseID(f[2])
		gid, found = id, err == nil
		return !found
	})
	if err == nil && !found {
		err = fmt.Errorf("unable to find group %s: %w in group file", group, errNoAccount)
	}
	return gid, err
}

// lookupOwner resolves --chown: without a group the group is the user's number,
// as docker has it for numbers, or the user's own group for names.
func lookupOwner(t tree.Tree, files opener, text string) (*owner, error) {
	user, group, hasGroup := strings.Cut(text, ":")
	acc, _, err := findUser(t, files, user)
	if err != nil {
		return nil, err
	}
	o := &owner{acc.UID, acc.GID}
	if id, err := parseID(user); err == nil {
		o.gid = id
	}
	if hasGroup && group != "" {
		o.gid, err = findGroup(t, files, group)
	}
	return o, err
}

// eachLine splits the lines of a colon-separated file until fn returns false. A
// file that is not there has no lines.
func eachLine(t tree.Tree, files opener, p string, fn func(fields []string) bool) error {
	_, n, err := t.Resolve(p)
	if err != nil || n == nil || n.Kind != tree.File {
		return err
	}
	r, err := files.Open(n)
	if err != nil {
		return fmt.Errorf("read /%s of the image: %w", p, err)
	}
	sc := bufio.NewScanner(io.LimitReader(r, maxUserFile))
	for sc.Scan() {
		if line := strings.TrimSpace(sc.Text()); line != "" && line[0] != '#' && !fn(strings.Split(line, ":")) {
			break
		}
	}
	if err := errors.Join(sc.Err(), r.Close()); err != nil {
		return fmt.Errorf("read /%s of the image: %w", p, err)
	}
	return nil
}

func parseID(s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 10, 31)
	return uint32(v), err
}

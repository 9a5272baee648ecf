package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// TreeInfo is what stands in the file "info" of a tree.
type TreeInfo struct {
	Boot    string    `json:"boot"`    // the boot until whose end it counts: it was never synced (LAWS 33)
	Entries int       `json:"entries"` // directories included
	Last    time.Time `json:"last"`    // the last ctime of an entry
}

// tree checks that nothing came into a tree, went, or was changed since it was made, as
// far as this process may look. What was made at another boot nobody uses.
func (v *verification) tree(ctx context.Context, _ objectKey, obj *object) error {
	data, err := os.ReadFile(filepath.Join(obj.path, "info"))
	if err != nil {
		return err
	}
	var info TreeInfo
	if err := json.Unmarshal(data, &info); err != nil {
		return fmt.Errorf("read info: %w", err)
	}
	entries, blind := 0, false
	err = filepath.WalkDir(filepath.Join(obj.path, "layer"), func(p string, _ fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrPermission):
			blind = true
			return fs.SkipDir
		case errors.Is(err, fs.ErrNotExist) && info.Entries == 0:
			return nil
		case err != nil:
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return fmt.Errorf("look at %s: %w", p, err)
		}
		entries++
		if at := time.Unix(st.Ctim.Unix()); at.After(info.Last) {
			return fmt.Errorf("changed at %v: %q", at, p)
		}
		return nil
	})
	if err == nil && (entries > info.Entries || entries < info.Entries && !blind) {
		err = fmt.Errorf("it has %d entries, and had %d", entries, info.Entries)
	}
	return err
}

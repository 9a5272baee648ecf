package layer

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// Keys of PAX records.
const (
	paxPath     = "path"
	paxLinkpath = "linkpath"
	paxSize     = "size"
	paxUID      = "uid"
	paxGID      = "gid"
	paxMtime    = "mtime"

	paxXattr        = "SCHILY.xattr."
	paxLibarchive   = "LIBARCHIVE.xattr."
	paxSparseMajor  = "GNU.sparse.major"
	paxSparseMinor  = "GNU.sparse.minor"
	paxSparseName   = "GNU.sparse.name"
	paxSparseSize   = "GNU.sparse.size"
	paxSparseReal   = "GNU.sparse.realsize"
	paxSparseMap    = "GNU.sparse.map"
	paxSparseBlocks = "GNU.sparse.numblocks"
	paxSparseOffset = "GNU.sparse.offset"
	paxSparseBytes  = "GNU.sparse.numbytes"
)

var errPax = errors.New("PAX record is malformed")

// parsePax reads the records of an extended header. The repeated records of
// sparse format 0.0 become the map of 0.1.
func parsePax(s string) (map[string]string, error) {
	recs := map[string]string{}
	var sparse []string
	for s != "" {
		key, value, rest, err := paxRecord(s)
		if err != nil {
			return nil, err
		}
		s = rest
		switch key {
		case paxSparseOffset, paxSparseBytes:
			if (len(sparse)%2 == 0) != (key == paxSparseOffset) || strings.Contains(value, ",") {
				return nil, errPax
			}
			sparse = append(sparse, value)
		default:
			recs[key] = value
		}
	}
	if len(sparse) > 0 {
		recs[paxSparseMap] = strings.Join(sparse, ",")
	}
	return recs, nil
}

// paxRecord cuts "LEN KEY=VALUE\n" off s.
func paxRecord(s string) (key, value, rest string, err error) {
	digits, _, ok := strings.Cut(s, " ")
	n, aerr := strconv.Atoi(digits)
	if !ok || aerr != nil || n < 5 || n > len(s) || n <= len(digits)+1 || s[n-1] != '\n' {
		return "", "", "", errPax
	}
	key, value, ok = strings.Cut(s[len(digits)+1:n-1], "=")
	if !ok || key == "" || strings.Contains(key, "\x00") {
		return "", "", "", errPax
	}
	if (key == paxPath || key == paxLinkpath) && strings.Contains(value, "\x00") {
		return "", "", "", errPax
	}
	return key, value, s[n:], nil
}

// merge puts the records over the fields of the header. An empty value leaves
// the field as it is.
func (e *entry) merge(recs map[string]string) error {
	var err error
	number := func(v string, to *int64) {
		n, perr := strconv.ParseInt(v, 10, 64)
		if perr != nil && err == nil {
			err = errPax
		}
		*to = n
	}
	for k, v := range recs {
		if v == "" {
			continue
		}
		switch k {
		case paxPath:
			e.name = v
		case paxLinkpath:
			e.link = v
		case paxSize:
			number(v, &e.size)
		case paxUID:
			number(v, &e.uid)
		case paxGID:
			number(v, &e.gid)
		case paxMtime:
			t, terr := paxTime(v)
			if terr != nil && err == nil {
				err = terr
			}
			e.mtime = t
		}
	}
	e.pax = recs
	return err
}

// paxTime parses seconds with a fraction of any length, which is cut to
// nanoseconds; seconds beyond all reason are clamped.
func paxTime(s string) (tree.Time, error) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return clampRange(tree.Time{Sec: sec}), nil
	}
	if err != nil || strings.Trim(frac, "0123456789") != "" {
		return tree.Time{}, fmt.Errorf("time %q: %w", s, errPax)
	}
	if len(frac) > 9 {
		frac = frac[:9]
	}
	var nsec int64
	if frac != "" {
		// Nine digits at most: cannot fail.
		nsec, _ = strconv.ParseInt(frac+strings.Repeat("0", 9-len(frac)), 10, 64)
	}
	if strings.HasPrefix(whole, "-") && nsec > 0 {
		sec, nsec = sec-1, 1e9-nsec
	}
	return clampRange(tree.Time{Sec: sec, Nsec: int32(nsec)}), nil
}

// xattrs returns the extended attributes that the records hold. SCHILY's form
// wins over libarchive's, whose names are URL-encoded and values base64.
func paxXattrs(recs map[string]string) ([]tree.Xattr, error) {
	var out []tree.Xattr
	for k, v := range recs {
		if name, ok := strings.CutPrefix(k, paxXattr); ok {
			out = append(out, tree.Xattr{Name: name, Value: v})
			continue
		}
		coded, ok := strings.CutPrefix(k, paxLibarchive)
		if !ok {
			continue
		}
		name, err := url.PathUnescape(coded)
		if err != nil {
			return nil, fmt.Errorf("xattr %q: %w", coded, errPax)
		}
		if _, both := recs[paxXattr+name]; both {
			continue
		}
		value, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "="))
		if err != nil {
			return nil, fmt.Errorf("xattr %q: %w", name, errPax)
		}
		out = append(out, tree.Xattr{Name: name, Value: string(value)})
	}
	return tree.SortXattrs(out), nil
}

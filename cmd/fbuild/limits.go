package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/exec"
)

const ulimitHint = "for example --ulimit nofile=1024:4096 or --ulimit core=-1"

// ulimits are docker's names of resource limits.
var ulimits = map[string]int{
	"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
	"locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE,
	"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// parseUlimits reads --ulimit NAME=SOFT[:HARD]; of several of one name the last
// counts, and -1 is no limit. Their order does not matter.
func parseUlimits(list []string) ([]exec.Limit, error) {
	var out []exec.Limit
	for _, text := range list {
		l, err := parseUlimit(text)
		if err != nil {
			return nil, err
		}
		out = slices.DeleteFunc(out, func(o exec.Limit) bool { return o.Resource == l.Resource })
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b exec.Limit) int { return cmp.Compare(a.Resource, b.Resource) })
	return out, nil
}

func parseUlimit(text string) (exec.Limit, error) {
	bad := func(format string, args ...any) (exec.Limit, error) {
		return exec.Limit{}, &hintError{usagef("--ulimit %q: %w", text, fmt.Errorf(format, args...)), ulimitHint}
	}
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return bad("want NAME=SOFT[:HARD]")
	}
	resource, ok := ulimits[name]
	if !ok {
		return bad("there is no limit called %q", name)
	}
	soft, hard, both := strings.Cut(value, ":")
	l := exec.Limit{Resource: resource}
	var err error
	if l.Soft, err = limitValue(soft); err != nil {
		return bad("%q is not a number", soft)
	}
	if l.Hard = l.Soft; both {
		if l.Hard, err = limitValue(hard); err != nil {
			return bad("%q is not a number", hard)
		}
	}
	if l.Soft > l.Hard {
		return bad("the soft limit is above the hard one")
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return bad("%w", err)
	}
	if l.Hard > now.Max && os.Geteuid() != 0 {
		return exec.Limit{}, &hintError{
			usagef("--ulimit %q: the hard limit of fbuild itself is %d", text, now.Max),
			"only root may raise it: start fbuild with a higher one, or ask for less",
		}
	}
	return l, nil
}

func limitValue(s string) (uint64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if n == -1 {
		return math.MaxUint64, err
	}
	if err == nil && n < 0 {
		err = strconv.ErrRange
	}
	return uint64(n), err
}

// parseBytes reads a size as docker does, in powers of 1024: 64m, 1g, 1.5gb; ""
// is 0.
func parseBytes(flag, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	number := strings.TrimRight(strings.ToLower(text), "bi")
	factor := 1.0
	if i := strings.IndexAny(number, "kmgtp"); i >= 0 && i == len(number)-1 {
		factor = math.Pow(1024, float64(strings.IndexByte("kmgtp", number[i])+1))
		number = number[:i]
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if n := v * factor; err == nil && n >= 1 && n < math.MaxInt64 {
		return int64(n), nil
	}
	return 0, &hintError{usagef("--%s %q is not a size", flag, text), "for example 64m, 1g or 1073741824"}
}

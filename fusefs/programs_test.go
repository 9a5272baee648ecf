package fusefs

import (
	"os"
	osexec "os/exec"
	"strings"
	"testing"
)

// TestPrograms runs what images are made with.
func TestPrograms(t *testing.T) {
	tests := []struct{ name, needs, script string }{
		{"tar and cp", "tar", `
			mkdir src; for i in 1 2 3 4 5 6 7 8 9; do mkdir src/$i; for k in 1 2 3 4 5 6 7 8 9; do echo $i$k > src/$i/$k; done; ln src/$i/1 src/$i/hard; ln -s 1 src/$i/soft; done
			chmod 4755 src/1/2; touch -d @1234567.5 src/1/3; mkfifo src/p; truncate -s 1M src/sparse
			cp -a src copy; diff -r --no-dereference -x p src copy
			mkdir out; tar c src | tar xp -C out; diff -r --no-dereference -x p src out/src
			(cd src; find . -printf '%P %m %U %G %T@ %y %l %n\n' | sort) > 1; (cd copy; find . -printf '%P %m %U %G %T@ %y %l %n\n' | sort) > 2; (cd out/src; find . -printf '%P %m %U %G %T@ %y %l %n\n' | sort | sed 's/\(T@\)/\1/') > 3
			cmp 1 2; cut -d' ' -f1-4 1 > 1a; cut -d' ' -f1-4 3 > 3a; cmp 1a 3a
			rm -rf src copy; test $(find out | wc -l) -gt 100`},
		{"git", "git", `
			export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
			git init -q repo; cd repo
			for i in 1 2 3 4 5; do for k in $(seq 30); do echo $i $k > f$k; done; git add .; git commit -qm c$i; done
			git gc -q; git fsck --strict; test -z "$(git status --porcelain)"; git log --oneline | grep -c . | grep 5
			git clone -q . ../clone; cd ../clone; git checkout -q HEAD~2; grep 3 f7`},
		{"sqlite", "sqlite3", `
			sqlite3 db 'PRAGMA journal_mode=WAL; CREATE TABLE t(a,b); WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<5000) INSERT INTO t SELECT x, hex(randomblob(100)) FROM c; DELETE FROM t WHERE a%2; VACUUM; PRAGMA integrity_check;' | grep ok
			sqlite3 db 'SELECT count(*) FROM t' | grep 2500`},
		{"python", "python3", `
			mkdir pkg; for i in $(seq 20); do echo "x = $i" > pkg/m$i.py; done
			python3 -m compileall -q pkg; ls pkg/__pycache__ | wc -l | grep 20
			find pkg -name '*.pyc' | xargs touch -d @1000000000; python3 -c 'import pkg.m3; print(pkg.m3.x)' | grep 3
			python3 -c 'import pkg.m3 as m, os, importlib.util as u; print(int(os.stat(u.cache_from_source(m.__file__)).st_mtime))' | grep 1000000000`},
		{"make", "make", `
			printf 'all: b\nb: a\n\tcp a b\n' > Makefile; echo 1 > a; make -s; make -q; sleep 0.01; echo 2 > a; no make -q; make -s; grep 2 b`},
		{"locks", "flock", `
			echo > l; exec 3>l; flock 3; no flock -n l true; exec 3>&-; flock -n l true
			python3 -c 'import fcntl, os
f = open("l", "r+"); fcntl.lockf(f, fcntl.LOCK_EX)
if os.fork() == 0:
  try: fcntl.lockf(open("l", "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(1)
  except BlockingIOError: os._exit(0)
assert os.wait()[1] == 0'`},
		{"permissions of others", "setpriv", `
			mkdir -m 700 secret; echo x > secret/f; echo y > private; chmod 600 private
			no setpriv --reuid 1 --regid 1 --clear-groups cat private; no setpriv --reuid 1 --regid 1 --clear-groups ls secret; no setpriv --reuid 1 --regid 1 --clear-groups touch new
			mkdir -m 1777 tmp; setpriv --reuid 1 --regid 1 --clear-groups sh -c 'echo mine > tmp/f; chmod 6755 tmp/f'; test "$(stat -c '%u %a' tmp/f)" = "1 6755"
			chmod 6777 tmp/f; chown 0:0 tmp/f; chmod 6777 tmp/f; setpriv --reuid 2 --regid 2 --clear-groups sh -c 'echo more >> tmp/f'; test $(stat -c %a tmp/f) = 777
			no setpriv --reuid 2 --regid 2 --clear-groups rm tmp/f`},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			if _, err := osexec.LookPath(tt.needs); err != nil {
				t.Skipf("needs %s", tt.needs)
			}
			w := newWorld(t)
			layer := w.parent()
			r := w.mount(nil, layer)
			seen := r.sh(refuse + "{ " + tt.script + "\n} >&2; cd " + r.root + "; rm -rf secret private; " + checksums)
			if i := strings.LastIndex(seen, "CHECKSUMS\n"); i >= 0 {
				seen = seen[i:]
			}
			res := r.finish()
			again := w.mount(nil, layer, w.layer(res.Changes))
			if got := again.sh(checksums); got != seen {
				t.Errorf("the next step sees\n%s\nwant\n%s", got, seen)
			}
			expect(t, again.finish(), "")
		})
	}
}

// refuse defines no: the command must fail.
const refuse = `no() { if "$@"; then echo "worked: $*"; exit 1; fi; }; `

const checksums = `echo CHECKSUMS; find . -type f -exec sha256sum {} + | sort -k2; find . ! -type s -printf '%p %y %m %U %G %l %n\n' | sort`

// TestSetuidWorks: programs and capabilities of the image gain what they say. LAWS 19.
func TestSetuidWorks(t *testing.T) {
	if data, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(data))) < 4 && strings.Fields(string(data))[2] == "1" {
		t.Skip("needs a second id")
	}
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	r.sh("chmod 755 .; cp $(command -v id) suid-id; chmod 4755 suid-id")
	out, err := r.command("chdir-user", "./suid-id", "-u").CombinedOutput()
	if got := strings.TrimSpace(string(out)); got != "0" {
		t.Errorf("setuid program: got uid %q, %v, want 0", got, err)
	}
	r.finish()
}

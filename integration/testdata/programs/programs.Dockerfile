# Programs that builds run most. None asks the network. What cannot be the same twice is
# put right here, or is in the test's list of what varies.
FROM programs
ENV SOURCE_DATE_EPOCH=1000000000 LC_ALL=C.UTF-8
# apt-get install: packages with scripts, users, alternatives and triggers.
RUN apt-get install -y --no-install-recommends --no-download cron curl less logrotate man-db openssh-server sudo && dpkg --audit && rm /etc/ssh/ssh_host_*
# git: a history, a clone, a pack, a checkout of something else, and nothing to do after it.
RUN set -e; export GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'; cd /; \
    git config --global user.name t; git config --global user.email t@example.com; git config --global pack.threads 1; git config --global gc.auto 0; git config --global init.defaultBranch main; \
    git init -q /git && cd /git; cp -r /usr/share/perl5 .; git add .; git commit -qm one; for i in $(seq 30); do echo $i >> f; git add f; git commit -qm $i; done; \
    git clone -q --no-hardlinks /git /clone; git clone -q --bare /git /bare; cd /clone; git gc -q --prune=now; git fsck --strict; git checkout -q HEAD~15; test -z "$(git status --porcelain)"; git log --oneline | wc -l > /report-git; \
    git -C /bare repack -qad; git -C /bare count-objects -v | grep -v size >> /report-git
# npm ci from a cache, with its hundreds of small packages.
RUN cd /node && npm ci --offline --no-audit --no-fund --cache /npm && find node_modules | wc -l > /report-npm
# A C program of many files with make -j, touched and made again.
RUN set -e; mkdir /c && cd /c; for i in $(seq 60); do printf '#include "all.h"\n#include <stdio.h>\n#include <string.h>\nint f%d(int x) { char b[64]; snprintf(b, sizeof b, "%%d", x + %d); return strlen(b); }\n' $i $i > f$i.c; echo "int f$i(int);" >> all.h; done; \
    (echo '#include "all.h"'; echo 'int main(void) { int s = 0;'; for i in $(seq 60); do echo "s += f$i(s);"; done; echo 'return s != 120; }') > main.c; \
    printf 'O=$(patsubst %%.c,%%.o,$(wildcard *.c))\nprog: libf.a main.o\n\tgcc -o $@ main.o libf.a\nlibf.a: $(filter-out main.o,$O)\n\tar rcsD $@ $^\n%%.o: %%.c all.h\n\tgcc -O1 -c -o $@ $<\n' > Makefile; \
    make -s -j4; ./prog || test $? = 1; make -q; sleep 0.05; touch f7.c; make -n -j4 | wc -l > /report-c; make -s -j4; make -q
# SQLite: write-ahead log, memory mapping, readers beside a writer, a rollback.
RUN printf '%s\n' 'import sqlite3, multiprocessing, os' \
    'def opened():' '    c = sqlite3.connect("/sqlite.db", timeout=60)' '    c.execute("pragma journal_mode=wal"); c.execute("pragma mmap_size=67108864"); c.execute("pragma synchronous=full")' '    return c' \
    'def reader(n):' '    c = opened()' '    for _ in range(100):' '        a, b = c.execute("select count(*), coalesce(sum(v), 0) from t").fetchone()' '        assert b == a * (a - 1) // 2, (a, b)' \
    'c = opened(); c.execute("create table t (v integer, s text)"); c.commit()' \
    'ps = [multiprocessing.Process(target=reader, args=(i,)) for i in range(3)]' '[p.start() for p in ps]' \
    'for i in range(2000):' '    c.execute("insert into t values (?, ?)", (i, str(i) * 50))' '    if i % 10 == 9: c.commit()' \
    'c.execute("delete from t"); c.rollback(); [p.join() for p in ps]; assert all(p.exitcode == 0 for p in ps)' \
    'assert c.execute("pragma integrity_check").fetchone() == ("ok",)' 'c.execute("pragma wal_checkpoint(truncate)")' \
    'open("/report-sqlite", "w").write("\n".join(c.iterdump())); c.close()' > /sqlite.py && python3 /sqlite.py && test ! -s /sqlite.db-wal
# A virtual environment, and every module compiled, by hash and by time: nothing to do again.
RUN set -e; python3 -m venv /venv; /venv/bin/python -c 'import sys; print(sys.prefix)' > /report-python; cp -r /usr/lib/python3.11/email /email; cp -r /email /timed; \
    python3 -m compileall -q --invalidation-mode checked-hash /email; python3 -m compileall -q --invalidation-mode timestamp /timed; python3 -m compileall /timed | grep -c '^Compiling' >> /report-python || true; \
    cd /timed && PYTHONPATH=/ python3 -v -c 'import timed.message' 2>&1 | grep -c "matches /timed" >> /report-python
# rsync with everything, which a second run has nothing to add to.
RUN set -e; mkdir /sync && cd /sync; cp -a /usr/share/perl5 src; cp /bin/true src/hole; truncate -s 1M src/hole; cd src; ln perl5db.pl twin 2>/dev/null || ln hole twin; ln -s twin sym; setfattr -n user.one -v 1 hole; chown -h 7:8 sym; chmod 2755 .; touch -d 1999-12-31T23:59:59.987654321Z hole; cd ..; \
    rsync -aHAX --sparse src/ dst/; rsync -aHAX --itemize-changes --checksum src/ dst/ > /report-rsync; rsync -aHAX --itemize-changes src/ dst/ >> /report-rsync; test ! -s /report-rsync; \
    echo more >> src/hole; rm src/sym; rsync -aHAX --delete --inplace --itemize-changes src/ dst/ | grep -v "^[.]d[.][.]t" | sort >> /report-rsync; rsync -aHAX --link-dest=/sync/dst src/ third/; stat -c '%h' third/hole >> /report-rsync
# go build and test, with a cache of builds that a second build must use.
RUN set -e; mkdir /go-src && cd /go-src && printf 'module example.com/p\ngo 1.21\n' > go.mod; \
    printf 'package main\nimport ("fmt"; "encoding/json")\nfunc main() { b, _ := json.Marshal(200); fmt.Println(string(b)) }\n' > main.go; \
    printf 'package main\nimport "testing"\nfunc TestIt(t *testing.T) { t.Parallel() }\n' > main_test.go; \
    GOFLAGS=-mod=mod CGO_ENABLED=0 go build -p 2 -trimpath -ldflags=-buildid= -o /go-bin . && CGO_ENABLED=0 go test . | sed 's/[0-9.]*s$//' > /report-go; CGO_ENABLED=0 go build -x -trimpath -ldflags=-buildid= -o /go-bin2 . 2>&1 | grep -c compile >> /report-go || true; cmp /go-bin /go-bin2; /go-bin >> /report-go

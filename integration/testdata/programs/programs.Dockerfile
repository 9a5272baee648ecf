# Programs that builds run most, a target for each. None asks the network. What cannot be the same
# twice is put right here, or is in the test's list of what varies. The base of each is a
# target of base.Dockerfile.
FROM base AS env
ENV SOURCE_DATE_EPOCH=1000000000 LC_ALL=C.UTF-8

# apt-get install: packages with scripts, users, alternatives and triggers.
FROM env AS apt
RUN apt-get install -y --no-install-recommends --no-download cron curl less logrotate man-db openssh-server sudo && dpkg --audit && rm /etc/ssh/ssh_host_*

# git: a history, a clone, a pack, a checkout of something else, and nothing to do after it.
FROM env AS git
RUN set -e; export GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'; cd /; \
    git config --global user.name t; git config --global user.email t@example.com; git config --global pack.threads 1; git config --global gc.auto 0; git config --global init.defaultBranch main; \
    git init -q /git && cd /git; cp -r /usr/share/perl5 .; git add .; git commit -qm one; for i in $(seq 30); do echo $i >> f; git add f; git commit -qm $i; done; \
    git clone -q --no-hardlinks /git /clone; git clone -q --bare /git /bare; cd /clone; git gc -q --prune=now; git fsck --strict; git checkout -q HEAD~15; test -z "$(git status --porcelain)"; git log --oneline | wc -l > /report-git; \
    git -C /bare repack -qad; git -C /bare count-objects -v | grep -v size >> /report-git

# npm ci from a cache, with its hundreds of small packages.
FROM env AS npm
RUN cd /node && npm ci --offline --no-audit --no-fund --cache /npm && find node_modules | wc -l > /report-npm

# A C program of many files with make -j, touched and made again.
FROM env AS make
RUN set -e; mkdir /c && cd /c; for i in $(seq 60); do printf '#include "all.h"\n#include <stdio.h>\n#include <string.h>\nint f%d(int x) { char b[64]; snprintf(b, sizeof b, "%%d", x + %d); return strlen(b); }\n' $i $i > f$i.c; echo "int f$i(int);" >> all.h; done; \
    (echo '#include "all.h"'; echo 'int main(void) { int s = 0;'; for i in $(seq 60); do echo "s += f$i(s);"; done; echo 'return s != 120; }') > main.c; \
    printf 'O=$(patsubst %%.c,%%.o,$(wildcard *.c))\nprog: libf.a main.o\n\tgcc -o $@ main.o libf.a\nlibf.a: $(filter-out main.o,$O)\n\tar rcsD $@ $^\n%%.o: %%.c all.h\n\tgcc -O1 -c -o $@ $<\n' > Makefile; \
    make -s -j4; ./prog || test $? = 1; make -q; sleep 0.05; touch f7.c; make -n -j4 | wc -l > /report-c; make -s -j4; make -q

# SQLite: write-ahead log, memory mapping, readers beside a writer, a rollback.
FROM env AS sqlite
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
FROM env AS python
RUN set -e; python3 -m venv /venv; /venv/bin/python -c 'import sys; print(sys.prefix)' > /report-python; cp -r /usr/lib/python3.11/email /email; cp -r /email /timed; \
    python3 -m compileall -q --invalidation-mode checked-hash /email; python3 -m compileall -q --invalidation-mode timestamp /timed; python3 -m compileall /timed | grep -c '^Compiling' >> /report-python || true; \
    cd /timed && PYTHONPATH=/ python3 -v -c 'import timed.message' 2>&1 | grep -c "matches /timed" >> /report-python

# rsync with everything, which a second run has nothing to add to.
FROM env AS rsync
RUN set -e; mkdir /sync && cd /sync; cp -a /usr/share/perl5 src; cp /bin/true src/hole; truncate -s 1M src/hole; cd src; ln perl5db.pl twin 2>/dev/null || ln hole twin; ln -s twin sym; setfattr -n user.one -v 1 hole; chown -h 7:8 sym; chmod 2755 .; touch -d 1999-12-31T23:59:59.987654321Z hole; cd ..; \
    rsync -aHAX --sparse src/ dst/; rsync -aHAX --itemize-changes --checksum src/ dst/ > /report-rsync; rsync -aHAX --itemize-changes src/ dst/ >> /report-rsync; test ! -s /report-rsync; \
    echo more >> src/hole; rm src/sym; rsync -aHAX --delete --inplace --itemize-changes src/ dst/ | grep -v "^[.]d[.][.]t" | sort >> /report-rsync; rsync -aHAX --link-dest=/sync/dst src/ third/; stat -c '%h' third/hole >> /report-rsync

# go build and test, with a cache of builds that a second build must use.
FROM env AS go
RUN set -e; mkdir /go-src && cd /go-src && printf 'module example.com/p\ngo 1.21\n' > go.mod; \
    printf 'package main\nimport ("fmt"; "encoding/json")\nfunc main() { b, _ := json.Marshal(200); fmt.Println(string(b)) }\n' > main.go; \
    printf 'package main\nimport "testing"\nfunc TestIt(t *testing.T) { t.Parallel() }\n' > main_test.go; \
    GOFLAGS=-mod=mod CGO_ENABLED=0 go build -p 2 -trimpath -ldflags=-buildid= -o /go-bin . && CGO_ENABLED=0 go test . | sed 's/[0-9.]*s$//' > /report-go; CGO_ENABLED=0 go build -x -trimpath -ldflags=-buildid= -o /go-bin2 . 2>&1 | grep -c compile >> /report-go || true; cmp /go-bin /go-bin2; /go-bin >> /report-go

# stress-ng: every stressor of its file-system class, with what they verify, but the two that may do nothing in a RUN.
FROM env AS stress
RUN mkdir /s && cd /s && stress-ng --class filesystem -x fanotify,binderfs --sequential 1 --timeout 1s --temp-path /s --verify --metrics-brief > /log 2>&1; test $? -ne 2 || { grep fail: /log; exit 1; }; \
    grep -E ' (fail|warn):|passed|failed|skipped|untrustworthy' /log | sed 's/^stress-ng: *//; s/\[[0-9]*\] *//' | grep -v ' secs$' | tee /report-stress; cd / && rm -rf /s /log

# fio: what every engine wrote, read back and verified, also with O_DIRECT. io_uring is not let into a RUN: fusefs/testdata/suites has it.
FROM env AS fio
RUN set -e; mkdir /f && cd /f; for io in sync psync mmap libaio; do for rw in randwrite write randrw; do \
    fio --name=$io-$rw --ioengine=$io --rw=$rw --size=32m --bsrange=512-64k --blockalign=512 --iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 --directory=. --output-format=terse > out || { cat out; exit 1; }; echo $io $rw >> /report-fio; rm -f $io-*; done; done; \
    fio --name=direct --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --size=32m --iodepth=8 --verify=crc32c --verify_fatal=1 --directory=. > out || { cat out; exit 1; }; cd / && rm -rf /f

# perl: its own tests of files and of what it does with them; the report has a line for each.
FROM env AS perl
RUN cd /perl/t && tests=$(ls io/*.t lib/*.t op/stat*.t op/filetest*.t op/chdir.t op/readline.t op/die_keeperr.t op/exec.t op/fork.t op/glob.t op/inccode.t op/lfs.t op/mkdir.t op/require*.t op/sysio.t op/umask.t op/chown.t op/sselect.t \
    ../lib/File/*.t ../lib/DirHandle.t ../dist/PathTools/t/*.t ../dist/IO/t/*.t ../cpan/File-Path/t/*.t ../cpan/File-Temp/t/*.t ../cpan/Archive-Tar/t/*.t ../cpan/autodie/t/*.t ../ext/File-Find/t/*.t ../ext/File-Glob/t/*.t ../ext/File-DosGlob/t/*.t ../ext/FileCache/t/*.t ../ext/SDBM_File/t/*.t ../ext/Fcntl/t/*.t 2> /dev/null); \
    PERL_CORE=1 ./perl TEST $tests > /log 2>&1; sed -nE 's/ *\.\.+ */ /p' /log | grep -E '^(t|\.\.|lib|dist|cpan|ext)/' | sort > /report-perl; grep -cE ' (ok|skipped)$' /report-perl; grep -vE ' (ok|skipped)$' /report-perl; tail -n 15 /log; rm -rf /perl /log; test $(wc -l < /report-perl) -gt 100

# coreutils: its own tests of everything that has to do with files, a line for each.
FROM env AS coreutils
RUN cd /coreutils && tests=$(cd tests && ls chgrp/*.sh chmod/*.sh chown/*.sh cp/*.sh dd/*.sh df/*.sh du/*.sh du/*.pl install/*.sh ln/*.sh ls/*.sh ls/*.pl mkdir/*.sh mv/*.sh readlink/*.sh rm/*.sh rm/*.pl rmdir/*.sh tail-2/*.sh touch/*.sh truncate/*.sh 2> /dev/null | sed 's,^,tests/,') && \
    { make -k -j4 check VERBOSE=no SUBDIRS=. TESTS="$(echo $tests)" > /log 2>&1 || true; grep -E '^# ' /log; cd tests && find . -name '*.trs' | sort | xargs grep -H '^:test-result:' | sed 's,^\./,,; s/:test-result://' | grep -v '^du/bigtime' | sort > /report-coreutils; }; grep -E 'FAIL|ERROR' /report-coreutils; \
    for t in $(sed -n 's/\.trs: *\(FAIL\|ERROR\).*//p' /report-coreutils); do echo "== $t"; tail -n 15 $t.log; done; cd / && rm -rf /coreutils /log; test $(wc -l < /report-coreutils) -gt 200

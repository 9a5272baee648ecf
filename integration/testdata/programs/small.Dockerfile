# Programs of a minimal Debian. Each leaves what it did and a report.
FROM debian
# tar: owners, modes, links, xattrs, holes, and increments by inode and ctime.
RUN set -e; mkdir -p /tar/src/d/e /tar/out; cd /tar; cp -a /etc src/; rm src/etc/hosts src/etc/resolv.conf; \
    ln src/etc/passwd src/d/hard; ln -s ../etc/passwd src/d/sym; mkfifo src/d/fifo; \
    truncate -s 1M src/d/sparse; printf x | dd of=src/d/sparse bs=1 seek=500000 conv=notrunc status=none; \
    cp /bin/true src/d/suid; chown 1:2 src/d/suid src/d/e; chmod 4711 src/d/suid; chmod 1777 src/d/e; touch -h -d 2001-02-03T04:05:06.123456789Z src/d/*; \
    tar -g snap -cf full.tar src; echo new > src/d/e/new; touch -d 2002-01-01 src/d/e/new; rm src/etc/motd; tar -g snap -cf more.tar src; tar -tf more.tar | sort > report; \
    tar --sparse --xattrs --numeric-owner --format=posix -cf a.tar src; tar --numeric-owner -xpf a.tar -C out; \
    diff -r --no-dereference -x fifo src out/src; tar -C out --compare --numeric-owner -f a.tar >> report; \
    find out ! -type d -printf '%P %y %m %U:%G %n %s %T@ %l\n' | sort >> report; rm *.tar
# perl: what its file tests say of everything.
RUN find /etc /tar/src /tar/out /usr/bin /usr/lib/dpkg /dev/null -maxdepth 3 ! -type p | sort | perl -lne 'my $f = $_; \
    print join " ", $f, (join "", grep { eval "-$_ \$f" } split //, "rwxoRWXOefdlpSbcugkTB"), (map { $_ // "" } (lstat $f)[2, 4, 5]), (-d _ ? "" : (lstat $f)[7])' > /perl && test $(wc -l < /perl) -gt 500
# dpkg: a package of our own is installed, checked, upgraded, removed and purged.
RUN set -e; mkdir -p /pkg/p/DEBIAN /pkg/p/etc/p /pkg/p/usr/lib/p; cd /pkg; \
    echo conf > p/etc/p/conf; echo /etc/p/conf > p/DEBIAN/conffiles; ln -s conf p/etc/p/link; for i in $(seq 200); do echo $i > p/usr/lib/p/$i; done; \
    printf '#!/bin/sh\necho "$0" | sed "s,.*/,," >> /pkg/scripts; echo "$*" >> /pkg/scripts\n' > p/DEBIAN/postinst; chmod 755 p/DEBIAN/postinst; cp p/DEBIAN/postinst p/DEBIAN/prerm; cp p/DEBIAN/postinst p/DEBIAN/postrm; \
    for v in 1 2; do printf 'Package: p\nVersion: %s\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: p\n' $v > p/DEBIAN/control; \
    echo $v > p/usr/lib/p/version; dpkg-deb -b p p$v.deb; rm p/usr/lib/p/1$v; done; \
    dpkg -i p1.deb; dpkg -V p; dpkg -i p2.deb; dpkg -V p; dpkg -L p > report; test ! -e /usr/lib/p/11; echo changed > /etc/p/conf; dpkg -r p; test -e /etc/p/conf; dpkg -P p; test ! -e /etc/p; \
    dpkg -i p2.deb; rm *.deb
# coreutils: copies, moves of directories of the base, links, modes, holes.
RUN set -e; mkdir /core; cd /core; cp -a /var/lib/dpkg/info info; cp -al info linked; mv /usr/share/doc /usr/share/doc-moved; mv /usr/share/common-licenses /core/; \
    cp --sparse=always /tar/src/d/sparse s1; cp --reflink=auto s1 s2; truncate -s +4097 s2; install -D -m 2750 -o 3 -g 4 /bin/ls a/b/ls; chmod -R g-r,o= linked; chown -R 5:6 a; \
    split -n 7 /bin/bash part-; cat part-* | cmp - /bin/bash; \
    dd if=/dev/zero of=direct bs=4k count=64 oflag=dsync status=none; ln -sfn info now; ln -sfn linked now; mkfifo fifo; (echo through > fifo &) ; cat fifo > through; \
    rm -r info; du -a --apparent-size common-licenses | sort | grep -v '^[0-9]*.common-licenses$' > report; \
    find . ! -type d ! -name report -printf '%P %y %m %U:%G %s %n %l\n' | sort >> report; realpath now >> report; df . > /dev/null

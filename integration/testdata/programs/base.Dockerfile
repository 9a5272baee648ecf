# What the programs of programs.Dockerfile need offline, one target for each base, and nothing else.
ARG NODE=toolchain

# apt: packages that are downloaded and not installed.
FROM debian AS apt
RUN rm -f /etc/apt/apt.conf.d/docker-clean; echo 'Binary::apt::APT::Keep-Downloaded-Packages "true";' > /etc/apt/apt.conf.d/keep-cache; \
    apt-get update && apt-get install -y --no-install-recommends --download-only cron curl less logrotate man-db openssh-server sudo

FROM debian AS tools
RUN apt-get update && apt-get install -y --no-install-recommends acl attr fio gcc git libc6-dev make perl python3 python3-venv rsync stress-ng && apt-get clean

# perl: the tests of perl itself, for the perl that is installed.
FROM tools AS perl
RUN sed -n 's/^deb /deb-src /p' /etc/apt/sources.list > /etc/apt/sources.list.d/src.list; apt-get update && apt-get install -y --no-install-recommends xz-utils && \
    mkdir /perl && cd /perl && apt-get source --download-only perl && tar --strip-components=1 --no-same-owner -xf perl_*.orig.tar.xz && rm perl_* && \
    find dist ext cpan -type d -name lib -prune -exec rm -r {} + && for d in /usr/share/perl/5.* /usr/lib/*/perl/5.*; do test -L $d || cp -r $d/. lib/; done; ln -s /usr/bin/perl t/perl && apt-get clean

# coreutils: what is installed is tested by the tests of its source, built.
FROM tools AS coreutils
RUN sed -n 's/^deb /deb-src /p' /etc/apt/sources.list > /etc/apt/sources.list.d/src.list; apt-get update && apt-get install -y --no-install-recommends xz-utils libacl1-dev libattr1-dev && \
    mkdir /coreutils && cd /coreutils && apt-get source --download-only coreutils && tar --strip-components=1 --no-same-owner -xf coreutils_*.orig.tar.xz && rm coreutils_* && \
    FORCE_UNSAFE_CONFIGURE=1 ./configure -q --disable-nls CFLAGS=-O1 && make -s -j2 && apt-get clean

FROM debian AS node-toolchain
COPY --from=toolchain bin/node /usr/local/bin/node
COPY --from=toolchain lib/node_modules/npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm

FROM debian AS node-debian
RUN apt-get update && apt-get install -y --no-install-recommends nodejs npm

FROM node-${NODE} AS npm
COPY --from=host ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
WORKDIR /node
COPY package.json package-lock.json ./
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc \
    NPM_CONFIG_CAFILE=/etc/ssl/certs/ca-certificates.crt npm ci --no-audit --no-fund --cache /npm && rm -r node_modules

FROM debian AS go
COPY --from=golang /usr/local/go /usr/local/go
ENV PATH=/usr/local/go/bin:$PATH

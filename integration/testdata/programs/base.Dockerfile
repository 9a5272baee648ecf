# The programs of programs.Dockerfile, what they need offline, and nothing else.
ARG NODE=toolchain

FROM debian AS node-toolchain
COPY --from=toolchain bin/node /usr/local/bin/node
COPY --from=toolchain lib/node_modules/npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm

FROM debian AS node-debian
RUN apt-get update && apt-get install -y --no-install-recommends nodejs npm

FROM node-${NODE}
RUN rm -f /etc/apt/apt.conf.d/docker-clean; echo 'Binary::apt::APT::Keep-Downloaded-Packages "true";' > /etc/apt/apt.conf.d/keep-cache; \
    apt-get update && apt-get install -y --no-install-recommends attr gcc git libc6-dev make perl python3 python3-venv rsync && \
    apt-get install -y --no-install-recommends --download-only cron curl less logrotate man-db openssh-server sudo
COPY --from=host ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=golang /usr/local/go /usr/local/go
WORKDIR /node
COPY package.json package-lock.json ./
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc \
    NPM_CONFIG_CAFILE=/etc/ssl/certs/ca-certificates.crt npm ci --no-audit --no-fund --cache /npm && rm -r node_modules
ENV PATH=/usr/local/go/bin:$PATH

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="tools" \
      org.opencontainers.image.licenses=MIT
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
ARG DEBIAN_FRONTEND=noninteractive
RUN <<EOT
apt-get update
apt-get install -y --no-install-recommends curl ca-certificates git python3
rm -rf /var/lib/apt/lists/*
EOT
RUN <<'PY'
#!/usr/bin/env python3
import sys
print(sys.version)
PY
COPY <<-"EOF" <<conf /etc/tool/
	keep $HOME as it is
	EOF
user=${USER_NAME:-app}
conf
ARG USER_NAME=app
RUN useradd --create-home --uid 1000 $USER_NAME
ADD rootfs.tar.xz /
VOLUME /data
VOLUME ["/cache", "/var/lib/tool data"]
WORKDIR data
WORKDIR sub/dir/
USER $USER_NAME
STOPSIGNAL SIGINT
CMD exec tool --config /etc/tool/conf
